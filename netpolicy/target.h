/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: what stands behind "target" in a rule
 *
 * A target is an address, a range of addresses, a name or "*." and a name.  What is none of them is refused with the reason,
 * because a rule that never matches is a hole when it says deny.  Two targets are the same rule when their keys are equal:
 * 10.0.0.1 and 10.0.0.1/32 are two rules, as clients expect.
 */
#ifndef NETPOLICY_TARGET_H
#define NETPOLICY_TARGET_H

#include "base/err.h"
#include "netpolicy/egress_msg.h"
#include "netpolicy/fqdn.h"

#include <stdint.h>

#define TARGET_TEXT_MAX	 1024u /* bytes that a client may write: a full name in UTF-8 stays below */
#define TARGET_KEY_BYTES (FQDN_BYTES + 4)

struct target {
	enum egress_rule_kind kind;
	char name[FQDN_BYTES]; /* DOMAIN, WILDCARD (without "*."): canonical */
	uint32_t addr;	       /* IPV4: host byte order, host bits 0 */
	uint8_t addr6[16];     /* IPV6: host bits 0 */
	uint8_t prefix;	       /* IPV4, IPV6: bits */
	char key[TARGET_KEY_BYTES];
};

/**
 * target_parse() - Read a target
 * @text:	As the client wrote it; blanks around it do not count
 * @ret:	Written on success
 * @err:	Filled on failure: INVALID_REQUEST with what is wrong with it
 *
 * An IPv6 form of an IPv4 address becomes IPv4.
 *
 * Return: 0, or -1 with @err set
 */
int target_parse(const char *text, struct target *ret, struct sbx_err *err) SBX_WUR;

#endif
