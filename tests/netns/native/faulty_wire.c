/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * faulty_wire.c - carry frames between two interfaces, and lose, repeat and overtake some of them.
 * For tests, inside namespaces of their own, on kernels that have no netem.
 *
 *     faulty_wire ONE OTHER SEED LOST REPEATED OVERTAKEN RATE
 *
 * LOST, REPEATED and OVERTAKEN are in 10,000 frames; RATE is the most frames a second each way, and
 * what waits for its turn waits in the socket's buffer until that is full. Which frames are hit
 * follows from SEED and their number in their direction alone. It prints `ready`, carries frames
 * until its standard input ends, and then prints as JSON how many it carried, lost and so on, both
 * directions together; "late" are those that the buffer had no room for, or the next link.
 *
 * Frames keep their virtio header on the way: so merged segments stay merged, and a checksum that
 * is left to the device stays left to it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ROOM	    (sizeof(struct virtio_net_hdr) + 65536 + 64)
#define HELD	    16
#define HOLD_FRAMES 8
#define HOLD_NS	    (5 * 1000 * 1000LL)
#define BURST	    64
#define AT_ONCE	    32
#define BUFFER	    (4 * 1024 * 1024)
#define SECOND	    1000000000LL

struct held {
	char *frame;
	ssize_t size;
	unsigned int after; /* so many frames more have gone, */
	long long until;    /* or this moment has come */
};

struct direction {
	int in, out;
	unsigned long long chance;
	struct held held[HELD];
	long long due; /* when the next frame may go */
};

static unsigned int lost_of, repeated_of, overtaken_of;
static long long pause_ns;
static unsigned long long carried, lost, repeated, overtaken, late;

static void fail(const char *what)
{
	fprintf(stderr, "faulty_wire: %s: %s\n", what, strerror(errno));
	exit(1);
}

static long long now(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec * SECOND + at.tv_nsec;
}

/* xorshift64: the same for the same seed, and each direction has its own. */
static unsigned int draw(struct direction *way, unsigned int below)
{
	way->chance ^= way->chance << 13;
	way->chance ^= way->chance >> 7;
	way->chance ^= way->chance << 17;
	return (way->chance >> 32) % below;
}

static int open_at(const char *name)
{
	struct sockaddr_ll at = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
	int one = 1, size = BUFFER;
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, 0);

	if (fd < 0)
		fail("socket");
	at.sll_ifindex = if_nametoindex(name);
	if (!at.sll_ifindex)
		fail(name);
	if (setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof(one)) ||
	    setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one)) ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)))
		fail("setsockopt");
	if (bind(fd, (struct sockaddr *)&at, sizeof(at)))
		fail(name);
	return fd;
}

static void put(struct direction *way, const char *frame, ssize_t size)
{
	if (send(way->out, frame, size, 0) == size)
		carried++;
	else if (errno == EAGAIN || errno == ENOBUFS)
		late++;
	else
		fail("send");
}

static void hold(struct direction *way, const char *frame, ssize_t size)
{
	for (struct held *each = way->held; each < way->held + HELD; each++) {
		if (each->frame)
			continue;
		each->frame = malloc(size);
		if (!each->frame)
			fail("malloc");
		memcpy(each->frame, frame, size);
		each->size = size;
		each->after = 1 + draw(way, HOLD_FRAMES);
		each->until = now() + HOLD_NS;
		overtaken++;
		return;
	}
	put(way, frame, size);
}

/* Send the held frames whose time has come; return when the next one's comes. */
static long long release(struct direction *way, int another_has_gone)
{
	long long at = now(), next = at + SECOND;

	for (struct held *each = way->held; each < way->held + HELD; each++) {
		if (!each->frame)
			continue;
		if (another_has_gone && each->after)
			each->after--;
		if (each->after && each->until > at) {
			next = each->until < next ? each->until : next;
			continue;
		}
		put(way, each->frame, each->size);
		free(each->frame);
		each->frame = NULL;
	}
	return next;
}

static void carry(struct direction *way)
{
	static char frame[ROOM];
	ssize_t size;

	for (int n = 0; n < AT_ONCE && way->due <= now(); n++) {
		size = recv(way->in, frame, sizeof(frame), MSG_TRUNC);
		if (size < 0) {
			if (errno != EAGAIN && errno != ENETDOWN)
				fail("recv");
			return;
		}
		if (size > (ssize_t)sizeof(frame)) {
			errno = EMSGSIZE;
			fail("recv");
		}
		way->due = (way->due < now() - BURST * pause_ns ? now() - BURST * pause_ns
								: way->due) +
			   pause_ns;
		unsigned int fate = draw(way, 10000);

		if (fate < lost_of) {
			lost++;
			continue;
		}
		if (fate < lost_of + overtaken_of) {
			hold(way, frame, size);
			continue;
		}
		put(way, frame, size);
		if (fate < lost_of + overtaken_of + repeated_of) {
			put(way, frame, size);
			repeated++;
		}
		release(way, 1);
	}
}

static void count_late(int fd)
{
	struct tpacket_stats stats;
	socklen_t size = sizeof(stats);

	if (getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &stats, &size))
		fail("getsockopt");
	late += stats.tp_drops;
}

int main(int argc, char **argv)
{
	struct direction ways[2] = {0};
	struct pollfd polled[3] = {{.fd = 0, .events = POLLIN}};

	if (argc != 8) {
		fprintf(stderr, "usage: faulty_wire ONE OTHER SEED LOST REPEATED OVERTAKEN RATE\n");
		return 2;
	}
	lost_of = atoi(argv[4]);
	repeated_of = atoi(argv[5]);
	overtaken_of = atoi(argv[6]);
	pause_ns = SECOND / atoi(argv[7]);
	ways[0].in = ways[1].out = open_at(argv[1]);
	ways[1].in = ways[0].out = open_at(argv[2]);
	for (int n = 0; n < 2; n++) {
		ways[n].chance = 0x9e3779b97f4a7c15ull * (2 * strtoull(argv[3], NULL, 10) + n + 1);
		polled[n + 1].fd = ways[n].in;
	}
	puts("ready");
	fflush(stdout);
	for (;;) {
		long long at = now(), next = at + SECOND;

		for (int n = 0; n < 2; n++) {
			long long held_until = release(&ways[n], 0);
			int must_wait = ways[n].due > at;

			polled[n + 1].events = must_wait ? 0 : POLLIN;
			next = held_until < next ? held_until : next;
			next = must_wait && ways[n].due < next ? ways[n].due : next;
		}
		long long wait = next > at ? next - at : 0;
		struct timespec limit = {wait / SECOND, wait % SECOND};

		if (ppoll(polled, 3, &limit, NULL) < 0 && errno != EINTR)
			fail("poll");
		if (polled[0].revents && read(0, (char[1]){0}, 1) <= 0)
			break;
		for (int n = 0; n < 2; n++)
			if (polled[n + 1].revents)
				carry(&ways[n]);
	}
	count_late(ways[0].in);
	count_late(ways[1].in);
	printf("{\"carried\": %llu, \"lost\": %llu, \"repeated\": %llu, \"overtaken\": %llu, "
	       "\"late\": %llu}\n",
	       carried, lost, repeated, overtaken, late);
	return 0;
}
