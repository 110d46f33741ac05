/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * syn_flood.c - send SYNs from made-up sources, as fast as it goes, and no more than so many. For
 * tests, inside namespaces of their own: the sources are of the networks for benchmarks and for
 * documentation (198.18.0.0/15, 2001:db8:bad::/64), which no host here has.
 *
 *     syn_flood ADDRESS PORT NUMBER
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define AT_ONCE 64

struct packet4 {
	struct iphdr ip;
	struct tcphdr tcp;
};

struct packet6 {
	struct ip6_hdr ip;
	struct tcphdr tcp;
};

static unsigned long long chance = 0x9e3779b97f4a7c15ull;

static unsigned int draw(void)
{
	chance ^= chance << 13;
	chance ^= chance >> 7;
	chance ^= chance << 17;
	return chance >> 16;
}

static unsigned int add(unsigned int sum, const void *data, size_t length)
{
	const unsigned short *words = data;

	for (size_t i = 0; i < length / 2; i++)
		sum += words[i];
	return sum;
}

static unsigned short finish(unsigned int sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static void fill_tcp(struct tcphdr *tcp, unsigned short port, unsigned int addresses)
{
	memset(tcp, 0, sizeof(*tcp));
	tcp->source = htons(1024 + draw() % 64000);
	tcp->dest = htons(port);
	tcp->seq = draw();
	tcp->doff = sizeof(*tcp) / 4;
	tcp->syn = 1;
	tcp->window = htons(64240);
	tcp->check = finish(
		add(addresses + htons(IPPROTO_TCP) + htons(sizeof(*tcp)), tcp, sizeof(*tcp)));
}

static void fill4(struct packet4 *packet, const struct in_addr *target, unsigned short port)
{
	memset(packet, 0, sizeof(*packet));
	packet->ip.version = 4;
	packet->ip.ihl = 5;
	packet->ip.ttl = 64;
	packet->ip.protocol = IPPROTO_TCP;
	packet->ip.saddr = htonl(0xc6120000 | (draw() & 0x1ffff));
	packet->ip.daddr = target->s_addr;
	fill_tcp(&packet->tcp, port, add(0, &packet->ip.saddr, 8));
}

static void fill6(struct packet6 *packet, const struct in6_addr *target, unsigned short port)
{
	static const unsigned char network[8] = {0x20, 0x01, 0x0d, 0xb8, 0x0b, 0xad};
	unsigned int host = draw();

	memset(packet, 0, sizeof(*packet));
	packet->ip.ip6_flow = htonl(6u << 28);
	packet->ip.ip6_plen = htons(sizeof(packet->tcp));
	packet->ip.ip6_nxt = IPPROTO_TCP;
	packet->ip.ip6_hlim = 64;
	memcpy(&packet->ip.ip6_src, network, sizeof(network));
	memcpy((char *)&packet->ip.ip6_src + 12, &host, sizeof(host));
	packet->ip.ip6_dst = *target;
	fill_tcp(&packet->tcp, port, add(0, &packet->ip.ip6_src, 32));
}

int main(int argc, char **argv)
{
	static union {
		struct packet4 four;
		struct packet6 six;
	} packets[AT_ONCE];
	struct sockaddr_in target4 = {.sin_family = AF_INET};
	struct sockaddr_in6 target6 = {.sin6_family = AF_INET6};
	struct mmsghdr messages[AT_ONCE] = {};
	struct iovec rooms[AT_ONCE];
	unsigned short port;
	long left, sent = 0;
	int family, raw;

	if (argc != 4)
		return 2;
	port = atoi(argv[2]);
	left = atol(argv[3]);
	family = inet_pton(AF_INET, argv[1], &target4.sin_addr) == 1 ? AF_INET : AF_INET6;
	if (family == AF_INET6 && inet_pton(AF_INET6, argv[1], &target6.sin6_addr) != 1)
		return 2;
	raw = socket(family, SOCK_RAW, IPPROTO_RAW);
	if (raw < 0) {
		perror("socket");
		return 1;
	}
	for (int i = 0; i < AT_ONCE; i++) {
		rooms[i].iov_base = &packets[i];
		rooms[i].iov_len =
			family == AF_INET ? sizeof(struct packet4) : sizeof(struct packet6);
		messages[i].msg_hdr.msg_iov = &rooms[i];
		messages[i].msg_hdr.msg_iovlen = 1;
		messages[i].msg_hdr.msg_name =
			family == AF_INET ? (void *)&target4 : (void *)&target6;
		messages[i].msg_hdr.msg_namelen =
			family == AF_INET ? sizeof(target4) : sizeof(target6);
	}
	while (left > 0) {
		int wanted = left < AT_ONCE ? left : AT_ONCE, done;

		for (int i = 0; i < wanted; i++) {
			if (family == AF_INET)
				fill4(&packets[i].four, &target4.sin_addr, port);
			else
				fill6(&packets[i].six, &target6.sin6_addr, port);
		}
		done = sendmmsg(raw, messages, wanted, 0);
		left -= wanted;
		if (done < 0 && errno != ENOBUFS && errno != EAGAIN) {
			perror("sendmmsg");
			return 1;
		}
		sent += done > 0 ? done : 0;
	}
	printf("%ld\n", sent);
	return 0;
}
