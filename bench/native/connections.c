/* New connections a second: connect, ask, read the answer, close; some at a time, until time is up.
 *
 *     connections ADDRESS PORT SECONDS AT_ONCE client|server
 *
 * The last word says who closes first, and so where TIME_WAIT stays. Prints one line of JSON.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MOST 1024

static struct sockaddr_in server;
static const char *request;
static int epoll, client_closes;
static long done, failed;

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static void begin(void)
{
	struct epoll_event event = {.events = EPOLLOUT};

	for (;;) {
		event.data.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		if (!connect(event.data.fd, (struct sockaddr *)&server, sizeof(server)) ||
		    errno == EINPROGRESS)
			break;
		failed++; /* no port is free, say */
		close(event.data.fd);
		usleep(1000);
	}
	epoll_ctl(epoll, EPOLL_CTL_ADD, event.data.fd, &event);
}

static void finish(int fd, int success)
{
	if (success)
		done++;
	else
		failed++;
	close(fd);
	begin();
}

static void go_on(struct epoll_event *event)
{
	struct epoll_event reading = {.events = EPOLLIN, .data.fd = event->data.fd};
	char answer[4096];
	ssize_t length;

	if (event->events & EPOLLOUT) {
		if (send(event->data.fd, request, strlen(request), MSG_NOSIGNAL) < 0)
			return finish(event->data.fd, 0);
		epoll_ctl(epoll, EPOLL_CTL_MOD, event->data.fd, &reading);
		return;
	}
	length = recv(event->data.fd, answer, sizeof(answer), 0);
	if (length < 0 && errno == EAGAIN)
		return;
	if (length < 0)
		finish(event->data.fd, 0);
	else if (length == 0 || client_closes)
		finish(event->data.fd, !client_closes || length > 0);
}

int main(int argc, char **argv)
{
	struct epoll_event events[MOST];
	double begun, until;
	int at_once;

	if (argc != 6) {
		fprintf(stderr, "usage: connections ADDRESS PORT SECONDS AT_ONCE client|server\n");
		return 2;
	}
	server.sin_family = AF_INET;
	inet_pton(AF_INET, argv[1], &server.sin_addr);
	server.sin_port = htons(atoi(argv[2]));
	at_once = atoi(argv[4]) < MOST ? atoi(argv[4]) : MOST;
	client_closes = !strcmp(argv[5], "client");
	request = client_closes ? "GET / HTTP/1.1\r\nHost: bench\r\n\r\n"
				: "GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";
	epoll = epoll_create1(0);
	begun = now();
	until = begun + atof(argv[3]);
	for (int i = 0; i < at_once; i++)
		begin();
	while (now() < until) {
		int ready = epoll_wait(epoll, events, MOST, 100);

		for (int i = 0; i < ready; i++)
			go_on(&events[i]);
	}
	printf("{\"done\": %ld, \"failed\": %ld, \"seconds\": %.6f}\n", done, failed,
	       now() - begun);
	return 0;
}
