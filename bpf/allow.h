/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * allow.h - whether a service lets a client in: by the longest of its prefixes that the address
 * matches. Asked of what opens a connection, and of nothing else.
 */
#ifndef LLB_ALLOW_H
#define LLB_ALLOW_H

#define ALLOW_SERVICE_BITS 32

static __always_inline bool allow_source(__u32 slot, const struct addr *source)
{
	struct service *service = services.lookup(&slot);
	struct rule_key key;
	__u32 *rule;

	if (!service || service->access == ACCESS_OPEN)
		return true;
	key.length = ALLOW_SERVICE_BITS + 32 * ADDR_WORDS;
	key.service = slot;
	key.address = *source;
	rule = access_rules.lookup(&key);
	if (!rule)
		return service->access == ACCESS_ALLOW;
	return *rule == RULE_ALLOW;
}

#endif
