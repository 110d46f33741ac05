/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * jumps.h - the slow paths: programs of their own, each with a stack of its own, that the classifier
 * jumps to and that count the packet in its place. A jump that succeeds does not return. The array
 * is new with every load and pinned by user space, see llb_core/datapath/jumps.py.
 */
#ifndef LLB_JUMPS_H
#define LLB_JUMPS_H

/* In the order of JUMPS in llb_core/datapath/jumps.py. */
enum jump {
	JUMP_ICMP_ERROR,
	JUMP_LATER_FRAGMENT,
	JUMP_REFUSE,
	JUMP_OPEN,
	JUMP_MAKE_ROOM,
	JUMPS,
};

BPF_PROG_ARRAY(jumps, JUMPS);

/* What travels with the packet, unless it is parsed anew: places in its control block. */
enum jump_cb {
	CB_VERDICT,
	CB_MTU,
	CB_SERVICE,
	CB_BACKEND,
	CB_FROM_CLIENT,
};

/* Said by whoever judges a packet that is another program's to judge. */
static __always_inline enum verdict jump_to(enum jump jump)
{
	return VERDICTS + jump;
}

#endif
