/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: messages between sandboxd and sandbox-dnsd
 *
 * SOCK_SEQPACKET on <run dir>/policy.sock; sandboxd listens and accepts only the uid of sandbox-dnsd.  One fixed struct a
 * message, host byte order, of exactly the size of its kind.  sandboxd owns the policies; dnsd owns the leases (which name
 * opened which address until when) and what it saw.
 *
 * After HELLO sandboxd sends a SET for each live sandbox and then SYNCED; dnsd drops what was not named in between.  While
 * nobody is connected dnsd goes on with the policies that it has and keeps the newest events; a sandbox for which it has none is answered SERVFAIL.
 *
 * Order of a policy change, so that nothing is open that neither the old nor the new policy allows:
 *   create:  CREATE at the broker (an address that has no policy is closed), then SET here and POLICY at the broker, both
 *            acknowledged, then START to the agent.
 *   change:  SET here (the ACK comes when the leases of names that are no longer allowed are out of the kernel), then POLICY
 *            at the broker, which takes a new generation so that live flows are judged again; only then the client is answered.
 *   failure: the old policy is SET again.
 */
#ifndef NETPOLICY_EGRESS_MSG_H
#define NETPOLICY_EGRESS_MSG_H

#include "base/ip6.h"

#include <stdint.h>

#define EGRESS_MAGIC	       0x31524745u /* "EGR1" */
#define EGRESS_VERSION	       1u
#define EGRESS_NAME_BYTES      256u	   /* a name without its last dot, with its NUL */
#define EGRESS_RULE_TEXT_BYTES 256u	   /* a rule's target as the client wrote it, cut, with its NUL */
#define EGRESS_RULE_PORTS      16u
#define EGRESS_RULES_MAX       16384u	   /* of one SET: user rules and the operator's together */
#define EGRESS_BODY_MAX	       (8u << 20) /* bytes of a SET's sealed file */
#define EGRESS_PINS_MAX	       64u

/*
 * What a lease counts, for sandbox-dnsd (which makes room before it asks) and for the broker (which refuses what is beyond):
 * each element that it is in the kernel.  An address opened whole is one, an address opened by ports one for each port;
 * several names that open the same are one for the broker and may be more for dnsd, never less.
 */
#define EGRESS_LEASES_SANDBOX 4096u
#define EGRESS_LEASES_ALL     262144u

/** egress_lease_count() - What one address counts that is opened by @n_ports ports (0: whole) */
static inline uint32_t egress_lease_count(uint32_t n_ports)
{
	return n_ports ? n_ports : 1;
}

enum egress_kind {
	EGRESS_NONE = 0,
	EGRESS_HELLO,	    /* dnsd -> sandboxd, first */
	EGRESS_HELLO_REPLY, /* configuration that dnsd has from its own settings is not repeated here */
	EGRESS_SET,	    /* sandboxd -> dnsd, with a sealed memfd of encoded rules when n_rules > 0 */
	EGRESS_DROP,	    /* the sandbox is gone; its leases are forgotten */
	EGRESS_SYNCED,	    /* all live sandboxes were named */
	EGRESS_ACK,	    /* to SET and DROP */
	EGRESS_EVENT,	    /* dnsd -> sandboxd, tag 0 */
	EGRESS_PINS,	    /* sandboxd -> dnsd: which addresses are open for this name (or, name "", which names for this address) */
	EGRESS_PINS_REPLY,
	EGRESS_COUNTS,	    /* sandboxd -> dnsd */
	EGRESS_COUNTS_REPLY,
	EGRESS_KIND_COUNT
};

struct egress_head {
	uint32_t magic;
	uint32_t kind; /* enum egress_kind */
	uint64_t tag;  /* echoed */
	uint32_t size; /* of the whole message */
	uint32_t zero;
};

/* The same pair as struct broker_slot_ref: one life of one slot. */
struct egress_ref {
	uint32_t slot;
	uint32_t generation;
};

struct egress_hello { /* and HELLO_REPLY */
	struct egress_head head;
	uint32_t version;
	uint32_t zero;
};

enum egress_set_flags {
	EGRESS_SET_DEFAULT_ALLOW = 1u << 0, /* names that no rule matches are answered */
	EGRESS_SET_ALLOW_ALL = 1u << 1,	    /* default allow, no rules: answers need no lease in the kernel */
};

struct egress_set {
	struct egress_head head;
	struct egress_ref ref;
	uint8_t sandbox_id[16];
	uint32_t addr; /* of the sandbox, IPv4, host byte order */
	uint32_t flags;
	uint32_t n_rules;    /* domain and IP rules in order, operator's first */
	uint32_t body_bytes; /* of the attached file */
	uint64_t policy_generation; /* counts up with each change of this sandbox's policy */
};

struct egress_drop {
	struct egress_head head;
	struct egress_ref ref;
};

struct egress_plain { /* SYNCED, COUNTS */
	struct egress_head head;
};

struct egress_ack {
	struct egress_head head;
	int32_t status; /* 0 or an enum sbx_err_code */
	int32_t sys;
	char text[240];
};

/*
 * One rule in the body of SET, packed without padding one behind the other:
 *   u8 kind (enum egress_rule_kind), u8 flags (enum egress_rule_flags), u8 n_ports, u8 prefix (IP rules: bits), then
 *   IP: 4 or 16 bytes address (network order); DOMAIN: u8 length and the name in lower case, A-labels, no "*." and no last dot;
 *   then n_ports times u16 first, u16 last (host order), then u8 length and the target as the client wrote it.
 * policy_wire.c writes and reads it; a body that does not come out exactly even is refused whole.
 */
enum egress_rule_kind { EGRESS_RULE_DOMAIN = 1, EGRESS_RULE_WILDCARD, EGRESS_RULE_IPV4, EGRESS_RULE_IPV6 };
enum egress_rule_flags { EGRESS_RULE_ALLOW = 1u << 0, EGRESS_RULE_OPERATOR = 1u << 1 };

enum egress_event_kind {
	EGRESS_EVENT_NONE = 0,
	EGRESS_EVENT_DNS_ALLOWED,
	EGRESS_EVENT_DNS_DENIED,
	EGRESS_EVENT_DNS_FAILED,	/* upstreams did not answer, or what they said was not to be believed */
	EGRESS_EVENT_IP_DENIED,		/* a packet was refused (from the kernel's log, at most some a second and sandbox) */
	EGRESS_EVENT_REBIND_STRIPPED,
	EGRESS_EVENT_TUNNEL_SUSPECTED,
	EGRESS_EVENT_RATE_LIMITED,
	EGRESS_EVENT_SNI_DENIED,	/* a TLS connection was reset for the name it asked for, or for having none */
	EGRESS_EVENT_SNI_UNMATCHED,	/* as before, but it passed: the gate only watches */
	EGRESS_EVENT_KIND_COUNT
};

enum egress_reason {
	EGRESS_REASON_NONE = 0,
	EGRESS_REASON_RULE,	    /* rule_index decides */
	EGRESS_REASON_DEFAULT,	    /* no rule matched */
	EGRESS_REASON_METADATA,	    /* link-local and metadata addresses */
	EGRESS_REASON_HOST,	    /* an address of the host */
	EGRESS_REASON_SANDBOX,	    /* another sandbox */
	EGRESS_REASON_PRIVATE,	    /* a private range that no rule names */
	EGRESS_REASON_PORT,	    /* the rule that opens the address does not open this port */
	EGRESS_REASON_DOT,	    /* port 853 */
	EGRESS_REASON_DOH,	    /* a known encrypted resolver */
	EGRESS_REASON_QUIC,
	EGRESS_REASON_PROTOCOL,	    /* neither TCP nor UDP nor an echo */
	EGRESS_REASON_NO_LEASE,	    /* no name that was asked for leads to this address */
	EGRESS_REASON_QTYPE,
	EGRESS_REASON_LIMIT,	    /* text says which */
	EGRESS_REASON_UPSTREAM,
	EGRESS_REASON_NO_SNI,	    /* a TLS connection without a server name, or with an address for one */
	EGRESS_REASON_NOT_TLS,	    /* another protocol at a port where names are judged */
	EGRESS_REASON_BAD_HELLO,    /* text says what is wrong with it */
	EGRESS_REASON_COUNT
};

#define EGRESS_NO_RULE UINT32_MAX

struct egress_event {
	struct egress_head head;
	struct egress_ref ref;
	uint8_t sandbox_id[16];
	int64_t wall_usec;
	uint32_t kind;	 /* enum egress_event_kind */
	uint32_t reason; /* enum egress_reason */
	uint32_t rule_index; /* in the SET's list, or EGRESS_NO_RULE */
	uint32_t count;	 /* how many alike this one stands for; at least 1 */
	uint32_t addr;	 /* IPv4 of the far side, host byte order; 0: none, or IPv6: addrs6[0] with n_addrs 0 */
	uint16_t port;	 /* 0: none */
	uint8_t protocol; /* IPPROTO_*; 0: none */
	uint8_t zero;
	uint16_t qtype; /* 0: none */
	uint16_t rcode; /* what the sandbox was told */
	uint32_t n_addrs; /* answers in `addrs` */
	union {
		uint32_t addrs[8];     /* the first addresses answered */
		struct ip6 addrs6[2]; /* where qtype is AAAA */
	};
	uint64_t policy_generation;
	char name[EGRESS_NAME_BYTES]; /* lower case, only printable ASCII; for a packet the newest name that led to addr, or "" */
	char text[120];
};

struct egress_pins {
	struct egress_head head;
	struct egress_ref ref;
	uint32_t addr; /* asked when name is ""; 0: addr6 */
	uint32_t zero;
	char name[EGRESS_NAME_BYTES];
	struct ip6 addr6;
};

struct egress_pin {
	uint32_t addr; /* 0: addr6 */
	uint32_t lease_ms; /* left */
	char name[EGRESS_NAME_BYTES];
	struct ip6 addr6;
};

struct egress_pins_reply {
	struct egress_head head;
	int32_t status;
	uint32_t n_pins;
	struct egress_pin pin[EGRESS_PINS_MAX];
};

struct egress_counts_reply {
	struct egress_head head;
	uint64_t questions, answered, denied, failed, rate_limited, forged, pins, pin_failures, rebind_stripped, tunnel_suspected;
	uint64_t packets_denied, cached, leases, upstream_usec_sum, upstream_count, events_lost, events_held;
	uint64_t sni_allowed, sni_denied, sni_unmatched;
};

union egress_any {
	struct egress_head head;
	struct egress_hello hello;
	struct egress_set set;
	struct egress_drop drop;
	struct egress_plain plain;
	struct egress_ack ack;
	struct egress_event event;
	struct egress_pins pins;
	struct egress_pins_reply pins_reply;
	struct egress_counts_reply counts_reply;
};

#endif
