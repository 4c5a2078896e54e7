/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: what the texts of the rules share
 *
 * fw_rules.c has the tables and all of IPv4, fw_rules6.c what network.ipv6 adds.  The chains of both are alike and apart: a word of
 * an IPv4 packet means nothing in an IPv6 one, and without IPv6 the text is what it was.
 */
#ifndef RUNTIME_FW_RULES_INT_H
#define RUNTIME_FW_RULES_INT_H

#include "base/buf.h"
#include "runtime/broker/fw_rules.h"

#define DNS_DEFAULT_PER_SECOND 400u
#define ECHO_BYTES	       1400u
#define ECHO_PER_SECOND	       10u
#define LOGS_PER_SECOND	       20u
#define REFUSALS_PER_SECOND    200u /* by ICMP, a sandbox; the kernel sends 1,000 in all by default */
#define SOURCES_MAX	       8192u /* four times LIMIT_SANDBOXES: what is deleted counts until its transaction ends */

/** fw_rules6_router() - Append sets and chains of the router's table to @b; `raw6` and `forward6` are where packets come in */
void fw_rules6_router(struct buf *b, const struct fw_rules_config *c);
/** fw_rules6_host_sets() - Append the sets of the host's table to @b */
void fw_rules6_host_sets(struct buf *b, const struct fw_rules_config *c);
/** fw_rules6_host_prerouting() - Append to @b what the host refuses to believe about sources */
void fw_rules6_host_prerouting(struct buf *b, const struct fw_rules_config *c);

#endif
