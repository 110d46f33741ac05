#ifndef LLB_STUB_PAGE_H
#define LLB_STUB_PAGE_H

#define PAGE_SIZE 4096

#endif
