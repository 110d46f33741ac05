/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * program_time.c - what bench/program_time.py measures: appended to the classifier's own text.
 * BPF_PROG_TEST_RUN hands each repetition the packet as the one before left it, so each of these
 * restores it first; restore_only does nothing else, and is the yardstick.
 */

#if FAMILY == 4
#define FRAME_WORDS 16
#else
#define FRAME_WORDS 20
#endif

struct frame {
	__u32 words[FRAME_WORDS];
};

struct walk {
	__u32 turn;
	__u32 clients; /* how many tuples to go round; a power of two */
};

BPF_TABLE_PINNED("array", __u32, struct frame, bench_frame, 1, PIN "_bench/bench_frame");
BPF_TABLE_PINNED("array", __u32, struct walk, bench_walk, 1, PIN "_bench/bench_walk");

static __always_inline int restore(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data;
	void *data_end = (void *)(long)skb->data_end;
	__u32 zero = 0;
	struct frame *frame = bench_frame.lookup(&zero), *packet = data;

	if (!frame || (void *)(packet + 1) > data_end)
		return -1;
#pragma unroll
	for (int i = 0; i < FRAME_WORDS; i++)
		packet->words[i] = frame->words[i];
	return 0;
}

/*
 * Another tuple each time: the client's port and the low bits of its address; where spread is set,
 * higher bits as well, so that no two turns have the same client.
 */
static __always_inline int next_client(struct __sk_buff *skb, bool spread)
{
	void *data = (void *)(long)skb->data;
	void *data_end = (void *)(long)skb->data_end;
#if FAMILY == 4
	struct iphdr *ip = data + ETH_LEN;
	__be32 *low = &ip->saddr;
#else
	struct ipv6hdr *ip = data + ETH_LEN;
	__be32 *low = &ip->saddr.in6_u.u6_addr32[3];
#endif
	struct tcphdr *tcp = (void *)(ip + 1);
	__u32 zero = 0, turn;
	struct walk *walk = bench_walk.lookup(&zero);

	if (!walk || (void *)(tcp + 1) > data_end)
		return -1;
	turn = walk->turn++ & (walk->clients - 1);
	*low ^= bpf_htonl(((turn >> 12) & 0xff) | (spread ? (turn & 0xfff) << 16 : 0));
	tcp->source = bpf_htons(33000 + (turn & 0xfff));
	return 0;
}

int restore_only(struct __sk_buff *skb)
{
	return restore(skb);
}

int restore_and_walk(struct __sk_buff *skb)
{
	return restore(skb) || next_client(skb, false);
}

int one_client(struct __sk_buff *skb)
{
	if (restore(skb))
		return -100;
	return classify_packet(skb);
}

int many_clients(struct __sk_buff *skb)
{
	if (restore(skb) || next_client(skb, false))
		return -100;
	return classify_packet(skb);
}

int other_clients(struct __sk_buff *skb)
{
	if (restore(skb) || next_client(skb, true))
		return -100;
	return classify_packet(skb);
}
