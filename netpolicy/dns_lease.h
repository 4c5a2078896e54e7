/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: who owns which opened address
 *
 * One record per sandbox, address, ports and name that led there.  The kernel's lease of an address lasts as long as that of
 * its longest owner; when the policy takes one owner away the address stays open while another one has it.
 *
 * The table lies in a file of the run directory (tmpfs) that is mapped shared, so that it outlives a kill -9: the next
 * sandbox-dnsd finds what the kernel still has open, and can close it when a policy says so.  A record becomes valid with its
 * last store.  What is read at the start is checked like anything from outside.  A file of another boot is emptied.
 */
#ifndef NETPOLICY_DNS_LEASE_H
#define NETPOLICY_DNS_LEASE_H

#include "base/err.h"
#include "base/ip6.h"
#include "netpolicy/dns_sandbox.h"

#include <stdbool.h>
#include <stdint.h>

/* By what they count: the broker has the same limits, so that what fits here fits there. */
#define DNS_LEASES_SANDBOX EGRESS_LEASES_SANDBOX
#define DNS_LEASES_ALL	   EGRESS_LEASES_ALL
#define DNS_LEASE_PORTS	   16u
#define DNS_LEASE_VIA	   170u
/* A record is kept this long after the kernel's lease has ended, whose clock began a little later. */
#define DNS_LEASE_GRACE_MS 5000u

enum dns_lease_flags {
	DNS_LEASE_PINNED = 1u << 0,  /* the kernel was asked to open it */
	DNS_LEASE_VIA_CUT = 1u << 1, /* the chain had more names than fit */
	DNS_LEASE_UNSURE = 1u << 2,  /* whether the kernel did is not known: ask again, and close it like one that is open */
	DNS_LEASE_CLOSING = 1u << 3, /* no longer allowed, or given way; kept until the kernel is known to have closed it */
};

/* Lies in the file. */
struct dns_lease {
	uint32_t valid; /* DNS_LEASE_VALID when it is; stored last */
	uint32_t slot, generation;
	uint32_t addr; /* host byte order; 0: addr6 */
	uint64_t until_ms; /* CLOCK_MONOTONIC */
	uint64_t touched_ms;
	struct ip6 addr6;
	uint16_t flags;
	uint8_t n_ports;
	uint8_t name_len;
	uint8_t via_len;
	uint8_t zero[3];
	uint16_t port[DNS_LEASE_PORTS]; /* in the order of the rule; 0 of them: all */
	char name[254];			/* canonical, as it was asked */
	char via[DNS_LEASE_VIA];	/* names of the chain, each with its NUL */
};

struct dns_leases;

/**
 * dns_leases_open() - Map the table
 * @fd:		A regular file for it, borrowed; -1: the table ends with the process
 * @boot_id:	16 bytes that change with each boot
 * @now_ms:	CLOCK_MONOTONIC
 * @err:	Filled on failure: SYSTEM, NO_MEMORY
 *
 * Return: the table or NULL with @err set
 */
struct dns_leases *dns_leases_open(int fd, const uint8_t boot_id[16], uint64_t now_ms, struct sbx_err *err) SBX_WUR;
/** dns_leases_close() - Unmap @t; its file stays; NULL is fine */
void dns_leases_close(struct dns_leases *t);

/* What dns_leases_take() notes. */
struct dns_lease_want {
	uint32_t addr; /* 0: addr6 */
	struct ip6 addr6;
	const uint16_t *port;
	uint32_t n_ports;
	const char *name;
	size_t name_len;
	const char *via;
	size_t via_len;
	uint32_t flags; /* enum dns_lease_flags */
	uint64_t until_ms;
	uint64_t now_ms;
};

/**
 * dns_leases_make_room() - Let the record give way that was used longest ago, when there is no room for @want
 * @t:		The table
 * @s:		Of the sandbox
 * @want:	What dns_leases_take() will be given
 * @ret_close:	The record when the kernel must be told (dns_leases_shut_asked()), 0 when it is gone
 *
 * Called until it returns false.  What must be told counts no more, and stays as by dns_leases_shut(); a sandbox with
 * DNS_LEASES_SANDBOX of those has to wait, and dns_leases_take() finds no room.
 *
 * Return: whether one has given way
 */
bool dns_leases_make_room(struct dns_leases *t, struct dns_sandbox *s, const struct dns_lease_want *want, uint32_t *ret_close);
/**
 * dns_leases_take() - Note that a name opens an address
 * @t:		The table
 * @s:		Of the sandbox
 * @want:	What; the name is not longer than a canonical one
 * @ret_grows:	Whether the kernel's lease of this address and ports ends earlier than @want says: it must be pinned
 *
 * Return: 0, or -ENOSPC: a limit is reached
 */
int dns_leases_take(struct dns_leases *t, struct dns_sandbox *s, const struct dns_lease_want *want, bool *ret_grows) SBX_WUR;

/** dns_leases_next() - The record behind @index (0: the first) of @s, NULL at the end; @index becomes its own */
struct dns_lease *dns_leases_next(const struct dns_leases *t, const struct dns_sandbox *s, uint32_t *index);
/** dns_leases_at() - The record @index, which dns_leases_make_room() gave */
const struct dns_lease *dns_leases_at(const struct dns_leases *t, uint32_t index);
/** dns_leases_find() - The record behind @index (0: the first) of @s for @addr, NULL at the end; @index becomes its own */
struct dns_lease *dns_leases_find(const struct dns_leases *t, const struct dns_sandbox *s, uint32_t addr, uint32_t *index);
/** dns_leases_find6() - dns_leases_find() for an IPv6 address */
struct dns_lease *dns_leases_find6(const struct dns_leases *t, const struct dns_sandbox *s, struct ip6 addr, uint32_t *index);
/**
 * dns_leases_shut() - Take a record away: the policy no longer allows it, or it gives way
 * @t:		The table
 * @s:		Whose
 * @index:	From dns_leases_next() or dns_leases_find()
 *
 * One that must be told to the kernel becomes DNS_LEASE_CLOSING and stays until dns_leases_shut_done(): a broker that dies before
 * it has closed the address, or this process, must not make it forgotten.  Any other is removed; other owners of the same
 * address and ports inherit its lease.  What is to be closed does not count, and stands in front of dns_leases_next().
 *
 * Return: whether the kernel must be told; then the record stays valid
 */
bool dns_leases_shut(struct dns_leases *t, struct dns_sandbox *s, uint32_t index);
/** dns_leases_keep() - The record @index of @s shall not be closed after all; Return: false: there is no room for it, it is closed on */
bool dns_leases_keep(struct dns_leases *t, struct dns_sandbox *s, uint32_t index) SBX_WUR;
/** dns_leases_shut_asked() - The broker is asked to close the record @index; @serial (not 0) is the question's */
void dns_leases_shut_asked(struct dns_leases *t, uint32_t index, uint64_t serial);
/** dns_leases_shut_done() - The kernel has closed what @serial asked for: those records of @s that still are to be closed go */
void dns_leases_shut_done(struct dns_leases *t, struct dns_sandbox *s, uint64_t serial);
/** dns_leases_drop() - Forget all of @s, without a word to the kernel */
void dns_leases_drop(struct dns_leases *t, struct dns_sandbox *s);
/**
 * dns_leases_adopt() - Take over what a former process noted for a sandbox
 * @t:		The table
 * @s:		Just added
 *
 * Return: how many
 */
uint32_t dns_leases_adopt(struct dns_leases *t, struct dns_sandbox *s);
/** dns_leases_orphans() - Forget what was found at the start and belongs to none of the sandboxes that were named */
void dns_leases_orphans(struct dns_leases *t);
/** dns_leases_expire() - Forget the records of @s whose time is over */
void dns_leases_expire(struct dns_leases *t, struct dns_sandbox *s, uint64_t now_ms);
/** dns_leases_count() - Records of @t */
uint32_t dns_leases_count(const struct dns_leases *t);

#endif
