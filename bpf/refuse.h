/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * refuse.h - telling the sender that its packet goes no further: the packet is made into the ICMP
 * error about itself and sent back, from the address that it was sent to. Only for what the
 * classifier has judged to be ours, whole or a first fragment; never about ICMP, and to nobody who
 * can't have sent it (RFC 1122, 3.2.2; RFC 4443, 2.4 (e)). No more than so many a second, in all and to
 * one address (RFC 1812, 4.3.2.8; RFC 4443, 2.4 (f)).
 */
#ifndef LLB_REFUSE_H
#define LLB_REFUSE_H

#if FAMILY == 4
/* No ICMP error is larger (RFC 1812, 4.3.2.3). */
#define REFUSE_LENGTH 576
#else
/* The least MTU of IPv6 (RFC 4443, 2.4 (c)). */
#define REFUSE_LENGTH 1280
#endif

struct refuse_header {
	struct ip_header ip;
	struct icmp_header icmp;
};

#define REFUSE_QUOTE (REFUSE_LENGTH - sizeof(struct refuse_header))

/* Most that bpf_csum_diff() takes at once, and what bounds a number of that many bytes. */
#define REFUSE_CHUNK	  512
#define REFUSE_CHUNK_MASK 0x3fc

/* Larger than a quote, so that the verifier is content with masks of what is read and summed. */
#define REFUSE_MASK 0x7fc

struct refuse_quote {
	__u8 bytes[REFUSE_MASK + 4 + REFUSE_CHUNK_MASK];
};
BPF_PERCPU_ARRAY(refuse_room, struct refuse_quote, 1);

/* A token bucket: rate tokens a second, as many at most. Two CPUs may take the same one. */
static __always_inline bool refuse_take(__u32 slot, __u32 rate, __u32 ticks_per_second, __u32 now)
{
	struct refusal_bucket *bucket = refusal_buckets.lookup(&slot);
	__u32 elapsed, credit;

	if (!bucket)
		return false;
	elapsed = now - bucket->filled;
	credit = bucket->credit;
	/* Another CPU may have read the clock after we did. */
	if ((__s32)elapsed < 0)
		elapsed = 0;
	/* A bucket that was never used is full. */
	if (!bucket->filled || elapsed > ticks_per_second)
		elapsed = ticks_per_second;
	credit += elapsed * rate;
	if (credit > rate * ticks_per_second)
		credit = rate * ticks_per_second;
	if (elapsed)
		bucket->filled = now;
	bucket->credit = credit;
	if (credit < ticks_per_second)
		return false;
	bucket->credit = credit - ticks_per_second;
	return true;
}

static __always_inline bool refuse_is_allowed(const struct addr *sender,
					      const struct config *config, __u32 now)
{
	__u32 hash = SELECT_SEED;

#pragma unroll
	for (int i = 0; i < ADDR_WORDS; i++)
		hash = select_mix(hash, bpf_ntohl(sender->w[i]));
	hash = 1 + select_finish(hash) % REFUSAL_BUCKETS;
	return refuse_take(hash, REFUSALS_PER_ADDRESS, config->ticks_per_second, now) &&
	       refuse_take(0, REFUSALS_PER_SECOND, config->ticks_per_second, now);
}

/*
 * The same number, of which the verifier knows nothing. One before Linux 6.8 also follows branches
 * that can't be taken, where a constant is compared with a number that it has bounds for; the bounds
 * then contradict each other, and an offset with such bounds is refused whatever masks it.
 */
static __always_inline __u32 refuse_unknown(__u32 number)
{
	asm volatile("%0 = be32 %0" : "+r"(number));
	asm volatile("%0 = be32 %0" : "+r"(number));
	return number;
}

/*
 * The sum of the quoted bytes from a multiple of four on; offset and end are below the room's. Before
 * Linux 6.13 bpf_csum_diff() gives all 32 bits: a number that looks negative is no error.
 */
static __always_inline __u32 refuse_sum(struct refuse_quote *quote, __u32 offset, __u32 end)
{
	__u32 sum = 0;

	for (int i = 0; i < 3; i++) {
		__u32 size;

		if (offset >= end)
			break;
		size = end - offset;
		if (size > REFUSE_CHUNK)
			size = REFUSE_CHUNK;
		/* The compiler knows that the masks do nothing; the verifier does not. */
		size = refuse_unknown(size) & REFUSE_CHUNK_MASK;
		offset = refuse_unknown(offset) & REFUSE_MASK;
		sum = bpf_csum_diff(0, 0, (__be32 *)(quote->bytes + offset), size, sum);
		offset += size;
	}
	return sum;
}

/*
 * A checksum that is left to the device (CHECKSUM_PARTIAL) is filled in behind our back, over what
 * is left of the packet, and would make the ICMP sum wrong. Nothing tells that it is left, but that
 * its field holds the sum of the pseudo-header. Where it does, it is set to what filling it in does
 * not change: with s the sum of all else, the x for which x = ~(s + x). That is -s / 2, and halving
 * in one's complement is a rotation.
 */
static __always_inline __sum16 refuse_fixed_point(__u32 others)
{
	__u16 doubled = ~csum_fold(others);

	return (__sum16)((doubled >> 1) | (doubled << 15));
}

static __always_inline __u32 refuse_pseudo_sum(const struct packet *packet)
{
	__u32 sum = bpf_htonl(packet->length - (packet->l4_offset - ETH_LEN));

#pragma unroll
	for (int i = 0; i < ADDR_WORDS; i++) {
		sum = csum_add(sum, packet->key.src.w[i]);
		sum = csum_add(sum, packet->key.dst.w[i]);
	}
	return csum_add(sum, bpf_htonl(packet->key.proto));
}

/*
 * Take as much of the packet as the error may quote, whole words of it. Returns how many bytes that
 * is, or -1; their sum goes to sum.
 */
static __always_inline int refuse_read(struct __sk_buff *skb, const struct packet *packet,
				       struct refuse_quote *quote, __u32 *sum)
{
	__u32 length = packet->length, l4 = packet->l4_offset - ETH_LEN, field;
	__u32 headers, rest;
	__u16 *check;

	if (length > REFUSE_QUOTE)
		length = REFUSE_QUOTE;
	asm volatile("" : "+r"(length));
	length &= REFUSE_MASK;
	if (length < sizeof(struct ip_header) + 8)
		return -1;
	if (bpf_skb_load_bytes(skb, ETH_LEN, quote->bytes, length))
		return -1;
	field = l4 + (packet->key.proto == IPPROTO_TCP ? 16 : 6);
	headers = refuse_sum(quote, 0, l4);
	rest = refuse_sum(quote, l4, length);
	*sum = csum_add(headers, rest);
	if (field + 2 > length)
		return length;
	check = (void *)quote->bytes + (field & 0x7fe);
	if (!*check || *check != csum_fold(refuse_pseudo_sum(packet)))
		return length;
	*sum = csum_add(*sum, (__u16) ~*check);
	*check = refuse_fixed_point(csum_add(rest, (__u16) ~*check));
	*sum = csum_add(*sum, *check);
	if (bpf_skb_store_bytes(skb, ETH_LEN + field, check, sizeof(*check), BPF_F_RECOMPUTE_CSUM))
		return -1;
	return length;
}

/* Write the headers of the error about a packet; length and sum are those of what it quotes. */
static __always_inline void refuse_write(struct refuse_header *header, const struct packet *packet,
					 enum verdict verdict, __u32 mtu, __u32 length, __u32 sum)
{
	struct icmp_header *icmp = &header->icmp;

	if (verdict == DROP_TOO_BIG) {
		icmp->type = ICMP_TYPE_TOO_BIG;
		icmp->code = ICMP_CODE_TOO_BIG;
		icmp->rest = bpf_htonl(mtu);
	} else {
		icmp->type = ICMP_TYPE_TIME;
		icmp->code = 0;
		icmp->rest = 0;
	}
	icmp->check = 0;
	length += sizeof(*icmp);
	sum = csum_add(sum, bpf_htons(icmp->type << 8 | icmp->code));
	sum = csum_add(sum, icmp->rest);
	ip_write(&header->ip, &packet->key.dst, &packet->key.src, length);
	icmp->check = ~csum_fold(csum_add(sum, ip_pseudo_sum(&header->ip)));
}

/* What becomes of a packet that was to be dropped: one that tells why, or dropped all the same. */
static __always_inline enum verdict refuse_packet(struct __sk_buff *skb, enum verdict verdict)
{
	__u32 zero = 0, now = ct_now(), mtu = skb->cb[CB_MTU], sum = 0;
	struct refuse_quote *quote = refuse_room.lookup(&zero);
	struct scratch *scratch = scratch_room.lookup(&zero);
	const struct config *config = config_in_force();
	struct packet *packet = packet_room.lookup(&zero);
	struct refuse_header header;
	struct hop hop;
	int length;

	if (!quote || !scratch || !config || !packet)
		return verdict;
	scratch->snat.src = packet->key.dst;
	scratch->snat.dst = packet->key.src;
	scratch->snat.sport = 0;
	scratch->snat.dport = 0;
	if (forward_find_client(skb, &scratch->snat, PARSE_ICMP, now))
		return verdict;
	if (!refuse_is_allowed(&packet->key.src, config, now))
		return verdict;
	length = refuse_read(skb, packet, quote, &sum);
	if (length < 0)
		return verdict;
	refuse_write(&header, packet, verdict, mtu, length, sum);
	/* From here on it is no longer the packet that came: sent, or dropped. */
	if (bpf_skb_change_tail(skb, ETH_LEN + length, 0) ||
	    bpf_skb_adjust_room(skb, sizeof(header), BPF_ADJ_ROOM_MAC, 0) ||
	    bpf_skb_store_bytes(skb, ETH_LEN, &header, sizeof(header), BPF_F_RECOMPUTE_CSUM))
		return verdict;
	hop.next_hop = scratch->snat.next_hop;
	hop.ifindex = scratch->snat.ifindex;
	if (forward_redirect(&hop) != TC_ACT_REDIRECT)
		return verdict;
	return verdict == DROP_TOO_BIG ? REFUSE_TOO_BIG : REFUSE_TTL;
}

#endif
