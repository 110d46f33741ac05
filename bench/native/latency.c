/* How long a small request takes, one after the other, until time is up.
 *
 *     latency ADDRESS PORT SECONDS kept|new
 *
 * `kept`: over one connection; `new`: with one for each, its opening counted, which the server
 * closes. Prints one line of JSON, times in microseconds: half of the answers came within p50, 99 of
 * 100 within p99.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define MOST (1 << 20)

static struct sockaddr_in server;
static double samples[MOST];

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

static int open_connection(void)
{
	struct timeval limit = {.tv_sec = 5};
	int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (!connect(fd, (struct sockaddr *)&server, sizeof(server)))
		return fd;
	close(fd);
	return -1;
}

/* The answer is taken to come in one segment, as that of http_server does. */
static int ask(int fd, const char *request)
{
	char answer[4096];

	return send(fd, request, strlen(request), MSG_NOSIGNAL) > 0 &&
	       recv(fd, answer, sizeof(answer), 0) > 0;
}

static void wait_for_end(int fd)
{
	char rest[4096];

	while (recv(fd, rest, sizeof(rest), 0) > 0)
		;
}

static int compare(const void *one, const void *other)
{
	double difference = *(const double *)one - *(const double *)other;

	return (difference > 0) - (difference < 0);
}

int main(int argc, char **argv)
{
	long done = 0, failed = 0;
	double begun, until;
	const char *request;
	int fd = -1, kept;

	if (argc != 5) {
		fprintf(stderr, "usage: latency ADDRESS PORT SECONDS kept|new\n");
		return 2;
	}
	server.sin_family = AF_INET;
	inet_pton(AF_INET, argv[1], &server.sin_addr);
	server.sin_port = htons(atoi(argv[2]));
	until = now() + atof(argv[3]) * 1e6;
	kept = !strcmp(argv[4], "kept");
	request = kept ? "GET / HTTP/1.1\r\nHost: bench\r\n\r\n"
		       : "GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";
	if (kept)
		fd = open_connection();
	while ((begun = now()) < until && done < MOST && !failed) {
		if (!kept)
			fd = open_connection();
		if (fd < 0 || !ask(fd, request)) {
			failed++;
			break;
		}
		samples[done++] = now() - begun;
		if (!kept) {
			wait_for_end(fd);
			close(fd);
		}
	}
	if (!done) {
		fprintf(stderr, "latency: no answer\n");
		return 1;
	}
	qsort(samples, done, sizeof(samples[0]), compare);
	printf("{\"requests\": %ld, \"failed\": %ld, \"p50\": %.2f, \"p99\": %.2f}\n", done, failed,
	       samples[done / 2], samples[done * 99 / 100]);
	return 0;
}
