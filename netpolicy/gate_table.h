/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the flows that the gate of TLS names reads
 *
 * Found by who speaks to whom; and for each sandbox in the order in which they began, so that one at its bound loses its own
 * oldest silent flow and never another sandbox's, whatever others do.  What a sandbox may have, flows and bytes of them, is
 * bounded by itself and in all.  No I/O and no clock.
 */
#ifndef NETPOLICY_GATE_TABLE_H
#define NETPOLICY_GATE_TABLE_H

#include "netpolicy/egress_msg.h"
#include "netpolicy/gate_flow.h"

#define GATE_EVICT_MS 5000u /* a silent flow may give way to a new one of its sandbox after this */

struct gate_key {
	uint32_t sandbox_addr, target; /* IPv4, host byte order; target 0: the other */
	struct ip6 target6;
	uint16_t source_port, port;
};

struct gate_entry {
	struct gate_entry *next_in_bucket, *next, *prev; /* the table's */
	struct egress_ref ref;				 /* the caller's */
	struct gate_key key;
	struct gate_flow flow;
};

struct gate_table;

/** gate_table_new() - Make an empty table; Return: it, or NULL without memory */
struct gate_table *gate_table_new(void);
/** gate_table_free() - Release @t and all that is in it; NULL is fine */
void gate_table_free(struct gate_table *t);
/** gate_table_find() - The entry of @key; Return: it, valid until it is removed, or NULL */
struct gate_entry *gate_table_find(const struct gate_table *t, const struct gate_key *key);
/**
 * gate_table_add() - Put in a flow that has not begun yet: gate_table_begin() follows
 * @t:		The table
 * @key:	Which; there is none of it
 * @now_ms:	Monotonic
 *
 * A sandbox at its bound loses its oldest flow that has said nothing for %GATE_EVICT_MS.
 *
 * Return: the entry, or NULL: there is no room, or no memory
 */
struct gate_entry *gate_table_add(struct gate_table *t, const struct gate_key *key, uint64_t now_ms);
/** gate_table_begin() - Begin @e, anew or for the first time, with the SYN of @seq: it is its sandbox's youngest now */
void gate_table_begin(struct gate_table *t, struct gate_entry *e, uint32_t seq, uint64_t now_ms);
/** gate_table_may_keep() - How many bytes @e may keep in all: its own, and the rest of what its sandbox and all may have */
size_t gate_table_may_keep(const struct gate_table *t, const struct gate_entry *e);
/** gate_table_kept() - Count that @e, which had room for @before bytes, has e->flow.room now */
void gate_table_kept(struct gate_table *t, const struct gate_entry *e, size_t before);
/** gate_table_remove() - Take out @e and release it */
void gate_table_remove(struct gate_table *t, struct gate_entry *e);
/** gate_table_sweep() - Remove what has been in its state for too long at @now_ms; Return: how many are left */
uint32_t gate_table_sweep(struct gate_table *t, uint64_t now_ms);
/** gate_table_count() - How many there are */
uint32_t gate_table_count(const struct gate_table *t);

#endif
