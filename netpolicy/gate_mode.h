/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: what the gate of TLS names does to whom
 *
 * `egress.tls_gate` as a number, and what it comes to for one policy.  sandbox-dnsd judges by it, and sandboxd explains by it.
 */
#ifndef NETPOLICY_GATE_MODE_H
#define NETPOLICY_GATE_MODE_H

#include "base/err.h"
#include "netpolicy/policy.h"

#include <stdbool.h>

#define GATE_PORT 443u

enum gate_mode { GATE_OFF = 0, GATE_AUDIT, GATE_ENFORCE, GATE_AUTO, GATE_MODE_COUNT };

/** gate_mode_read() - The mode that @text names, into @ret; Return: 0, or -1 with @err set */
int gate_mode_read(const char *text, enum gate_mode *ret, struct sbx_err *err) SBX_WUR;
/** gate_mode_name() - "off", "audit", "enforce" or "auto" */
const char *gate_mode_name(enum gate_mode mode);
/** gate_mode_enforced() - Whether what @policy (NULL: none) does not allow is reset under @mode, rather than told only */
bool gate_mode_enforced(enum gate_mode mode, const struct policy *policy);
/** gate_mode_of() - What @mode comes to for the sealed @policy: OFF where its connections do not come to the gate, AUDIT or ENFORCE */
enum gate_mode gate_mode_of(enum gate_mode mode, const struct policy *policy);

#endif
