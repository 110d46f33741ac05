#ifndef _UAPI__LINUX_BPF_H__
#include_next <linux/bpf.h>
#define _UAPI__LINUX_BPF_H__
#endif
