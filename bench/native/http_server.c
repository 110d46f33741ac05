/* A quick HTTP server for measuring: one thread, one fixed answer, keep-alive or not as asked.
 *
 *     http_server PORT
 *
 * It reads no more of a request than its end and its "Connection: close", and prints `ready`.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define BODY "Hello from the backend.\n"
#define HEAD "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 24\r\nConnection: "
static const char keeps[] = HEAD "keep-alive\r\n\r\n" BODY;
static const char closes[] = HEAD "close\r\n\r\n" BODY;

static int listen_on(int port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 65535)) {
		perror("http_server");
		exit(1);
	}
	return fd;
}

static void accept_all(int listener, int epoll)
{
	struct epoll_event event = {.events = EPOLLIN};

	while ((event.data.fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0)
		epoll_ctl(epoll, EPOLL_CTL_ADD, event.data.fd, &event);
}

/* A request is taken to come in one segment, as those of the load generators do. */
static void answer(int fd)
{
	char request[4096];
	ssize_t length = recv(fd, request, sizeof(request) - 1, 0);

	if (length < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (length <= 0) {
		close(fd);
		return;
	}
	request[length] = '\0';
	if (strcasestr(request, "\r\nconnection: close")) {
		send(fd, closes, sizeof(closes) - 1, MSG_NOSIGNAL);
		close(fd);
	} else {
		send(fd, keeps, sizeof(keeps) - 1, MSG_NOSIGNAL);
	}
}

int main(int argc, char **argv)
{
	struct epoll_event events[256], event = {.events = EPOLLIN};
	int listener = listen_on(argc > 1 ? atoi(argv[1]) : 8080);
	int epoll = epoll_create1(0);

	event.data.fd = listener;
	epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
	puts("ready");
	fflush(stdout);
	for (;;) {
		int ready = epoll_wait(epoll, events, 256, -1);

		for (int i = 0; i < ready; i++) {
			if (events[i].data.fd == listener)
				accept_all(listener, epoll);
			else
				answer(events[i].data.fd);
		}
	}
}
