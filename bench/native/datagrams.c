/* Small UDP packets a second: one end sends as fast as it can, the other counts what arrives.
 *
 *     datagrams send ADDRESS PORT SECONDS BYTES FLOWS
 *     datagrams count PORT
 *
 * The counter prints `ready`, then the number of packets so far, as a line, whenever it reads a
 * line from its standard input.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BATCH	   64
#define MOST_FLOWS 256
#define MOST_BYTES 1472

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static int send_all(const char *host, int port, double seconds, int bytes, int flows)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
	static char payload[MOST_BYTES];
	struct iovec part = {.iov_base = payload,
			     .iov_len = bytes < MOST_BYTES ? bytes : MOST_BYTES};
	struct mmsghdr messages[BATCH];
	int fds[MOST_FLOWS];
	double until = now() + seconds;
	long sent = 0;

	inet_pton(AF_INET, host, &to.sin_addr);
	flows = flows < MOST_FLOWS ? flows : MOST_FLOWS;
	for (int i = 0; i < flows; i++) {
		fds[i] = socket(AF_INET, SOCK_DGRAM, 0);
		if (connect(fds[i], (struct sockaddr *)&to, sizeof(to))) {
			perror("datagrams");
			return 1;
		}
	}
	memset(messages, 0, sizeof(messages));
	for (int i = 0; i < BATCH; i++) {
		messages[i].msg_hdr.msg_iov = &part;
		messages[i].msg_hdr.msg_iovlen = 1;
	}
	for (int flow = 0; now() < until; flow = (flow + 1) % flows) {
		int count = sendmmsg(fds[flow], messages, BATCH, 0);

		if (count > 0)
			sent += count;
	}
	printf("{\"sent\": %ld}\n", sent);
	return 0;
}

static int count_all(int port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
	static char buffers[BATCH][64];
	struct mmsghdr messages[BATCH];
	struct iovec parts[BATCH];
	struct pollfd polls[2];
	int room = 8 << 20, fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	char line[16];
	long received = 0;

	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
	if (bind(fd, (struct sockaddr *)&address, sizeof(address))) {
		perror("datagrams");
		return 1;
	}
	memset(messages, 0, sizeof(messages));
	for (int i = 0; i < BATCH; i++) {
		parts[i].iov_base = buffers[i];
		parts[i].iov_len = sizeof(buffers[i]);
		messages[i].msg_hdr.msg_iov = &parts[i];
		messages[i].msg_hdr.msg_iovlen = 1;
	}
	polls[0] = (struct pollfd){.fd = fd, .events = POLLIN};
	polls[1] = (struct pollfd){.fd = 0, .events = POLLIN};
	puts("ready");
	fflush(stdout);
	for (;;) {
		poll(polls, 2, -1);
		for (int count; (count = recvmmsg(fd, messages, BATCH, 0, NULL)) > 0;)
			received += count;
		if (polls[1].revents) {
			if (read(0, line, sizeof(line)) <= 0)
				return 0;
			printf("%ld\n", received);
			fflush(stdout);
		}
	}
}

int main(int argc, char **argv)
{
	if (argc == 7 && !strcmp(argv[1], "send"))
		return send_all(argv[2], atoi(argv[3]), atof(argv[4]), atoi(argv[5]),
				atoi(argv[6]));
	if (argc == 3 && !strcmp(argv[1], "count"))
		return count_all(atoi(argv[2]));
	fprintf(stderr, "usage: datagrams send ADDRESS PORT SECONDS BYTES FLOWS | count PORT\n");
	return 2;
}
