#ifndef LLB_STUB_SOCKET_H
#define LLB_STUB_SOCKET_H

struct sockaddr {
	unsigned short sa_family;
	char sa_data[14];
};

#endif
