/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: packet policies and leases of the sandboxes, as the broker knows them
 *
 * A slot's mark is the generation that its flows are judged under (0: no policy, closed).  The kernel's table is what decides;
 * what is kept here is needed to change it: the rules (also in <run dir>/slots/<n>/policy.<mark>, so that the table can be made
 * again after a restart), the leases with their ends (the caps, and so that a shorter lease never replaces a longer one).
 * The order of a change is file, kernel, record: a broker that is killed in between finds the old policy in the record and
 * puts it in force again.
 */
#ifndef RUNTIME_EGRESS_H
#define RUNTIME_EGRESS_H

#include "base/err.h"
#include "runtime/broker/broker_msg.h"
#include "runtime/broker/netwatch.h"

#include <stdbool.h>
#include <stdint.h>

struct broker;

/* The far end of a flow. */
struct egress_far {
	uint32_t addr; /* host byte order; 0: six */
	struct ip6 six;
};
struct fwset;
struct slot;
struct slot_egress;

/** egress_open() - Default allow without rules for @s of @b, whose generation is the mark; Return: 0 or -1 with @err set */
int egress_open(struct broker *b, struct slot *s, struct sbx_err *err) SBX_WUR;
/**
 * egress_policy() - Take one part of a policy; with the last one put it in force
 * @b:		The broker
 * @s:		The sandbox
 * @msg:	Checked by broker_decode()
 * @ret_mark:	The new mark; 0 when parts are still to come
 * @err:	Filled: PROTOCOL (a part is missing), LIMIT, SYSTEM
 *
 * Return: 0, or -1 with @err set, the old policy in force and all parts thrown away
 */
int egress_policy(struct broker *b, struct slot *s, const struct broker_policy *msg, uint32_t *ret_mark, struct sbx_err *err) SBX_WUR;
/**
 * egress_pin() - Open addresses for a while, as PIN says
 * @b:		The broker
 * @s:		The sandbox
 * @msg:	Checked by broker_decode()
 * @err:	Filled: INVALID_REQUEST (an address that may not be opened), LIMIT (too many leases), SYSTEM
 *
 * Return: 0 when the kernel has them all, or -1 with @err set and none added
 */
int egress_pin(struct broker *b, struct slot *s, const struct broker_pin *msg, struct sbx_err *err) SBX_WUR;
/** egress_unpin() - Close the addresses of @msg for @s of @b; flows that were judged go on until the next policy; Return: 0 or -1, @err set */
int egress_unpin(struct broker *b, struct slot *s, const struct broker_pin *msg, struct sbx_err *err) SBX_WUR;
/** egress_slot_of() - The slot in use of @b whose address is @addr, or NULL */
struct slot *egress_slot_of(struct broker *b, uint32_t addr);
/** egress_asks_us() - Whether port 53 of every address is the name server for the sandbox of @s: it has a policy */
bool egress_asks_us(const struct slot *s);

/**
 * egress_refuses() - What the router says of a new connection, without asking it
 * @b:		The broker
 * @s:		The sandbox
 * @far:	Far end
 * @protocol:	IPPROTO_*
 * @port:	Far port
 *
 * The same verdicts in the same order as the chains of fw_rules.c; a test compares them.
 *
 * Return: BROKER_REFUSED_NONE when it is let through, or why not
 */
enum broker_refusal egress_refuses(struct broker *b, struct slot *s, const struct egress_far *far, unsigned protocol, uint16_t port);
/** egress_end() - Take everything of @s of @b, whose link is gone, out of the kernel; Return: whether nothing is left */
bool egress_end(struct broker *b, struct slot *s);
/** egress_record_mode() - What the record of @s keeps for egress_recover(): its mode, and whether a file holds rules */
uint32_t egress_record_mode(const struct slot *s);
/** egress_forget() - Free what @s holds here, for slot_reset() */
void egress_forget(struct slot *s);
/** egress_fill() - netwatch's hook for the slots of the broker @arg: see enum netwatch_fill; Return: 0, 1 (it differs), -1, @err set */
int egress_fill(void *arg, struct fwset *fw, enum netwatch_fill what, struct sbx_err *err) SBX_WUR;
/** egress_recover() - Read the rules of @s of @b that its record tells of; Return: 0 or -errno (then it has no policy) */
int egress_recover(struct broker *b, struct slot *s);

#endif
