/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the rules of a policy as bytes, as EGRESS_SET carries them from sandboxd to sandbox-dnsd
 *
 * The layout stands in egress_msg.h.  The reader takes nothing that the writer could not have written.
 */
#ifndef NETPOLICY_POLICY_WIRE_H
#define NETPOLICY_POLICY_WIRE_H

#include "base/buf.h"
#include "netpolicy/policy.h"

#include <stddef.h>
#include <stdint.h>

/**
 * policy_wire_write() - Append all rules of @p to @out
 * @p:		Any policy; the text of a rule is cut to what the layout holds
 * @out:	Its `failed` tells of lack of memory
 */
void policy_wire_write(const struct policy *p, struct buf *out);

/**
 * policy_wire_read() - Build the sealed policy that the bytes say
 * @data:	The body of a SET
 * @len:	Its length
 * @n_rules:	How many rules it must have, exactly
 * @default_allow: Of the SET
 * @err:	Filled on failure: PROTOCOL, LIMIT, NO_MEMORY
 *
 * Return: policy_free() it; NULL with @err set
 */
struct policy *policy_wire_read(const void *data, size_t len, uint32_t n_rules, bool default_allow, struct sbx_err *err) SBX_WUR;

#endif
