/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * tags.h - tags of VLAN 0, which name a priority and no VLAN (IEEE 802.1Q). The stack takes them
 * off, however many there are, and would answer what is behind them itself. The first is beside the
 * frame, where the kernel keeps it (vlan_tci); skb->protocol is a tag's where others are in it.
 */
#ifndef LLB_TAGS_H
#define LLB_TAGS_H

#define TAG_VLAN_MASK 0x0fff

struct tag {
	__be16 vlan;	 /* and priority */
	__be16 protocol; /* of what is behind it */
};

enum tags {
	TAGS_OFF,	/* a packet of this family: no more of them are in the frame */
	TAGS_OF_OTHERS, /* another protocol's, or a VLAN's: nothing is written */
	TAGS_TOO_MANY,
	TAGS_STUCK, /* no memory */
};

static __always_inline bool tags_begin(__u32 protocol)
{
	return protocol == bpf_htons(ETH_P_8021Q) || protocol == bpf_htons(ETH_P_8021AD);
}

static __always_inline bool tags_are_of_vlan(const struct __sk_buff *skb)
{
	return skb->vlan_tci & TAG_VLAN_MASK;
}

/* What is behind those in the frame: a tag again where there are too many, 0 where it is not ours. */
static __always_inline __u32 tags_look_behind(struct __sk_buff *skb)
{
	__u32 protocol = skb->protocol;
	struct tag tag;

	for (int i = 0; i <= MAX_TAGS && tags_begin(protocol); i++) {
		if (bpf_skb_load_bytes(skb, ETH_LEN + i * sizeof(tag), &tag, sizeof(tag)))
			return 0;
		if (tag.vlan & bpf_htons(TAG_VLAN_MASK))
			return 0;
		if (i < MAX_TAGS)
			protocol = tag.protocol;
	}
	return protocol;
}

static __always_inline enum tags tags_take_off(struct __sk_buff *skb)
{
	__u32 protocol = skb->protocol;

	if (protocol == bpf_htons(PARSE_ETHERTYPE))
		return TAGS_OFF;
	if (!tags_begin(protocol) || tags_are_of_vlan(skb) || !parse_is_for_host(skb))
		return TAGS_OF_OTHERS;
	protocol = tags_look_behind(skb);
	if (tags_begin(protocol))
		return TAGS_TOO_MANY;
	if (protocol != bpf_htons(PARSE_ETHERTYPE))
		return TAGS_OF_OTHERS;
	for (int i = 0; i < MAX_TAGS && tags_begin(skb->protocol); i++) {
		if (bpf_skb_vlan_pop(skb))
			return TAGS_STUCK;
	}
	return TAGS_OFF;
}

/* The one beside the frame, once there are none in it. */
static __always_inline bool tags_last_is_off(struct __sk_buff *skb)
{
	return !tags_are_of_vlan(skb) && !bpf_skb_vlan_pop(skb);
}

#endif
