/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: messages between sandboxd (or sandbox-dnsd) and the root broker
 *
 * SOCK_SEQPACKET on <run dir>/broker.sock, one fixed struct a message, host byte order, no pointers.  The size of a
 * message must be exactly that of its op.  Who may send an op is decided by the peer's uid (SO_PEERCRED) and the table in
 * broker_ops.c.  Strings are NUL-terminated within their field and checked by one charset function each; every byte
 * behind the NUL must be 0.  Requests of one connection are answered in any order, matched by `tag`.
 */
#ifndef RUNTIME_BROKER_MSG_H
#define RUNTIME_BROKER_MSG_H

#include "base/ip6.h"

#include <stdint.h>

#define BROKER_MAGIC	     0x314b5242u /* "BRK1" */
/* Counts up with every operation, verdict or field that the other side of an older program would not know: both are restarted. */
#define BROKER_VERSION	     3u
#define BROKER_KEY_BYTES     32u
#define BROKER_MAX_LAYERS    127u
#define BROKER_MAX_VOLUMES   16u
#define BROKER_NAME_BYTES    64u
#define BROKER_CLAIM_BYTES   64u  /* volume name: [a-z0-9]([a-z0-9._-]*[a-z0-9])? */
#define BROKER_REL_BYTES     256u /* relative path beneath a volume's root; "" is the root */
#define BROKER_MOUNT_BYTES   1024u /* absolute path inside the sandbox; opened inside only, never by the broker */
#define BROKER_TEXT_BYTES    240u

enum broker_op {
	BROKER_OP_NONE = 0,
	BROKER_OP_HELLO,	  /* first message of each connection */
	BROKER_OP_SANDBOX_CREATE, /* reply carries the two ends of the control channel */
	BROKER_OP_CHANNEL_OPEN,	  /* reply carries {write end, read end}, EXEC also {bulk write end, bulk read end} */
	BROKER_OP_SANDBOX_KILL,	  /* answered when pid 1 is gone and the upper is in the trash */
	BROKER_OP_SANDBOX_FREEZE,
	BROKER_OP_SANDBOX_THAW,
	BROKER_OP_SANDBOX_STAT,
	BROKER_OP_SANDBOX_LIST, /* one reply per slot in use, then one with slot = BROKER_NO_SLOT */
	BROKER_OP_SOCKET_OPEN,	/* reply carries an unconnected socket of the sandbox's network namespace */
	BROKER_OP_LAYER_UNPACK, /* carries the blob: a regular file opened read-only */
	BROKER_OP_LAYER_STAT,
	BROKER_OP_LAYER_DROP,
	BROKER_OP_VOLUME_MAKE, /* status 0 with sys EEXIST: it was there */
	BROKER_OP_VOLUME_DROP,
	BROKER_OP_HOST_ROW, /* row N of the host's feature table; `doctor` asks until the reply says LAST */
	BROKER_OP_DNS_SOCKETS, /* dnsd only: reply carries {udp, tcp} listeners of the router namespace, with network.ipv6 {udp6, tcp6} behind them */
	BROKER_OP_POLICY,      /* sandboxd only: packet policy of one sandbox, in parts; in force when the last part is answered */
	BROKER_OP_PIN,	       /* dnsd only: open addresses for one sandbox; answered when the kernel has them */
	BROKER_OP_UNPIN,       /* dnsd only */
	BROKER_OP_LOG_SOCKET,  /* dnsd only: reply carries a bound netlink socket with the refused packets of the router */
	BROKER_OP_FLOWS,       /* dnsd only: addresses with live connections, so that their leases are renewed; many replies */
	BROKER_OP_FILES_DROP, /* what a life of an earlier boot left; LIST tells of it with state KEPT */
	BROKER_OP_LAYER_CAPTURE, /* a layer of the store as a packed tar; carries the file for it, opened write-only */
	BROKER_OP_ARCHIVE_INDEX, /* where the members of an image archive are; carries it, opened for reading and writing */
	BROKER_OP_LAYER_LIST,  /* what the store has, in parts: asked again with the cursor of the last answer */
	BROKER_OP_LAYER_SWEEP, /* move to the trash what no unpacking and no life owns; answered with how many in `sys` */
	BROKER_OP_SANDBOX_LAYERS,  /* what the root of a life is made of */
	BROKER_OP_SANDBOX_CAPTURE, /* the upper of a life as a packed tar; carries the file for it, opened write-only */
	BROKER_OP_GATE, /* dnsd only: reply carries the router's interface of the gate of TLS names; INVALID_REQUEST when egress.tls_gate is off */
	BROKER_OP_LAYER_VERIFY, /* whether the files of a layer are what was unpacked: its seal says it */
	BROKER_OP_COUNT
};

enum broker_event {
	BROKER_EVENT_NONE = 0x100,
	BROKER_EVENT_EXITED, /* pid 1 of a sandbox is gone */
	BROKER_EVENT_OOM,    /* the memory limit killed a process of the tenants */
	BROKER_EVENT_LIMIT,  /* the layer that had to give way: link lost, rules being restored (text says) */
};

#define BROKER_NO_SLOT UINT32_MAX

struct broker_head {
	uint32_t magic;
	uint32_t op;   /* enum broker_op, or enum broker_event with tag 0 */
	uint64_t tag;  /* chosen by the sender, echoed in the reply */
	uint32_t size; /* of the whole message */
	uint32_t zero;
};

/* Names one life of one slot; a stale one is refused, so nothing ever acts on the next tenant. */
struct broker_slot_ref {
	uint32_t slot;
	uint32_t generation; /* never reused; also the conntrack mark */
};

struct broker_hello {
	struct broker_head head;
	uint32_t version;
	uint32_t zero;
};

struct broker_hello_reply {
	struct broker_head head;
	int32_t status; /* 0, or an enum sbx_err_code */
	uint32_t version;
	uint8_t boot_id[16];
	uint32_t n_slots;
	uint32_t id_base;	/* host id of slot 0's root */
	uint32_t subnet_addr;	/* IPv4, host byte order */
	uint32_t subnet_prefix; /* bits */
	uint32_t gateway_addr;	/* what a sandbox sees as router and name server; host byte order */
	uint32_t cgroup_version; /* 1: hybrid, 2 */
	uint32_t host_features; /* bit per row of host_check.def that holds */
	uint32_t zero;
	uint8_t host_image_key[BROKER_KEY_BYTES]; /* skeleton layer of the `host` image; zero: images.host is off */
	char text[BROKER_TEXT_BYTES];
};

enum broker_volume_kind { BROKER_VOLUME_NONE = 0, BROKER_VOLUME_NAMED, BROKER_VOLUME_HOST };
enum broker_volume_flags { BROKER_VOLUME_READ_ONLY = 1u << 0, BROKER_VOLUME_MAKE = 1u << 1 /* create when missing */ };

struct broker_volume {
	uint32_t kind;
	uint32_t flags;
	uint32_t host_root; /* HOST: index into the broker's own storage.allowed_host_paths */
	uint32_t zero;
	char claim[BROKER_CLAIM_BYTES]; /* NAMED */
	char rel[BROKER_REL_BYTES];	/* beneath the volume or the allowed path */
	char sub[BROKER_REL_BYTES];	/* subPath beneath that; "" for none */
	char mount_path[BROKER_MOUNT_BYTES];
};

enum broker_create_flags {
	BROKER_CREATE_HOST_USR = 1u << 0,      /* bind the host's /usr (the `host` image) */
	BROKER_CREATE_NO_MEMORY_LIMIT = 1u << 1, /* the configuration allows that lack by name */
	BROKER_CREATE_NO_PIDS_LIMIT = 1u << 2,
	BROKER_CREATE_NO_CPU_LIMIT = 1u << 3,
	BROKER_CREATE_NO_SWAP_LIMIT = 1u << 4,
	BROKER_CREATE_EGRESS_OPEN = 1u << 5, /* no policy: default allow; without it the address is closed until POLICY came */
};

struct broker_create {
	struct broker_head head;
	uint8_t sandbox_id[16];
	uint32_t flags;
	uint32_t n_layers; /* lowest first */
	uint32_t n_volumes;
	uint32_t pids_max;	 /* 0: the broker's default */
	uint64_t memory_bytes;	 /* 0: none */
	uint32_t cpu_millicores; /* 0: none */
	uint32_t disk_mib;	 /* what it may write to disk; 0: no limit */
	uint8_t layer[BROKER_MAX_LAYERS][BROKER_KEY_BYTES];
	struct broker_volume volume[BROKER_MAX_VOLUMES];
};

struct broker_create_reply { /* with {control write, control read} */
	struct broker_head head;
	int32_t status;
	int32_t sys;
	struct broker_slot_ref ref;
	uint32_t addr; /* IPv4, host byte order */
	uint32_t pid;  /* pid 1's host pid, for the log */
	char text[BROKER_TEXT_BYTES];
};

enum broker_channel { BROKER_CHANNEL_CONTROL = 1, BROKER_CHANNEL_EXEC };

struct broker_slot_req { /* CHANNEL_OPEN (arg: channel), KILL, FREEZE, THAW, STAT, SANDBOX_LAYERS, SOCKET_OPEN (arg: AF_INET or AF_INET6) */
	struct broker_head head;
	struct broker_slot_ref ref;
	uint32_t arg;
	uint32_t zero;
};

struct broker_plain_req { /* LIST, LAYER_SWEEP, HOST_ROW (arg: row), DNS_SOCKETS, LOG_SOCKET, FLOWS, GATE */
	struct broker_head head;
	uint32_t arg;
	uint32_t zero;
};

struct broker_reply { /* every op without a reply struct of its own */
	struct broker_head head;
	int32_t status;
	int32_t sys;
	char text[BROKER_TEXT_BYTES];
};

struct broker_stat_reply {
	struct broker_head head;
	int32_t status;
	int32_t sys;
	uint64_t memory_bytes;	     /* in use, page cache that can be dropped not counted */
	uint64_t memory_limit_bytes; /* UINT64_MAX: none */
	uint64_t memory_peak_bytes;
	uint64_t oom_kills;
	uint64_t cpu_usec; /* used since the start, agent included */
	uint32_t cpu_millicores; /* limit; 0: none */
	uint32_t pids;
	uint32_t pids_max;
	uint32_t n_cpus; /* of the host */
	uint64_t host_memory_bytes;
	uint64_t disk_used_bytes;  /* 0 with limit 0: nobody counts */
	uint64_t disk_limit_bytes; /* 0: none */
	uint64_t disk_used_inodes;
	uint64_t disk_limit_inodes;
	char text[BROKER_TEXT_BYTES];
};

enum broker_slot_state {
	BROKER_SLOT_FREE = 0,
	BROKER_SLOT_MAKING,  /* namespaces, links, cgroups are being made */
	BROKER_SLOT_SHELL,   /* waits in the pool, belongs to nobody */
	BROKER_SLOT_ARMING,  /* root, limits, volumes */
	BROKER_SLOT_LIVE,
	BROKER_SLOT_FROZEN,
	BROKER_SLOT_DYING,   /* killed; pid 1 not yet reaped */
	BROKER_SLOT_DRAINING, /* dead; namespace, conntrack or cgroup not yet gone */
	BROKER_SLOT_KEPT, /* in a listing only: files of a life that ended with an earlier boot; its slot may be in use again */
	BROKER_SLOT_STATE_COUNT
};

struct broker_list_reply {
	struct broker_head head;
	int32_t status;
	uint32_t state; /* enum broker_slot_state */
	struct broker_slot_ref ref; /* slot = BROKER_NO_SLOT ends the list */
	uint8_t sandbox_id[16];
	uint32_t addr;
	uint32_t pid;
	uint64_t oom_kills;
	uint8_t top_layer[BROKER_KEY_BYTES]; /* key of the uppermost layer of its root: names all layers; zero: no root yet */
};

enum broker_unpack_form { BROKER_FORM_TAR = 1, BROKER_FORM_TAR_GZIP, BROKER_FORM_TAR_ZSTD };

struct broker_layer_req { /* LAYER_UNPACK (with the blob's descriptor), LAYER_STAT, LAYER_DROP, LAYER_VERIFY */
	struct broker_head head;
	uint8_t key[BROKER_KEY_BYTES];
	uint32_t form; /* UNPACK: enum broker_unpack_form */
	uint32_t n_lower;
	uint64_t max_bytes;   /* UNPACK: unpacked size at most */
	uint64_t max_entries; /* UNPACK */
	uint8_t diff_id[BROKER_KEY_BYTES]; /* UNPACK: digest that the unpacked tar must have; zero: not checked */
	uint8_t lower[BROKER_MAX_LAYERS - 1][BROKER_KEY_BYTES]; /* UNPACK: what it will lie upon, lowest first */
};

struct broker_layer_reply {
	struct broker_head head;
	int32_t status;
	int32_t sys;
	uint64_t bytes;	  /* unpacked; 0 when not known */
	uint64_t entries;
	uint32_t present; /* STAT */
	uint32_t zero;
	char text[BROKER_TEXT_BYTES];
};

enum broker_archive_kind { BROKER_ARCHIVE_OCI = 2, BROKER_ARCHIVE_DOCKER }; /* of enum archive_kind */

struct broker_capture_req { /* LAYER_CAPTURE, ARCHIVE_INDEX, SANDBOX_CAPTURE */
	struct broker_head head;
	struct broker_slot_ref ref;    /* SANDBOX_CAPTURE: whose; else zero */
	uint8_t key[BROKER_KEY_BYTES]; /* CAPTURE: the layer; INDEX: zero */
	uint32_t form; /* enum broker_unpack_form; CAPTURE: how to pack, INDEX: how it is packed */
	uint32_t kind; /* INDEX: enum archive_kind, 0: find out; SANDBOX_CAPTURE: 1: all layers and the upper as one; else 0 */
	uint64_t max_bytes;   /* unpacked */
	uint64_t max_entries;
};

struct broker_capture_reply {
	struct broker_head head;
	int32_t status;
	int32_t sys;
	uint64_t entries;      /* CAPTURE: of the tree; INDEX: members in the table */
	uint64_t bytes;	       /* CAPTURE: content of the tree; INDEX: where the table begins in the file */
	uint64_t packed_bytes; /* CAPTURE: written */
	uint32_t kind;	       /* INDEX: enum archive_kind; LAYER_VERIFY: enum broker_layer_verdict */
	uint32_t zero;
	uint8_t digest[BROKER_KEY_BYTES];  /* CAPTURE: of what was written, as the worker says: hash it before you believe it */
	uint8_t diff_id[BROKER_KEY_BYTES]; /* CAPTURE: of the tar in it */
	char text[BROKER_TEXT_BYTES]; /* LAYER_VERIFY: also the first difference */
};

enum broker_layer_verdict { BROKER_LAYER_SAME = 1, BROKER_LAYER_ALTERED }; /* of enum seal_verdict */

struct broker_layers_req { /* LAYER_LIST */
	struct broker_head head;
	uint64_t cursor; /* 0: from the start */
};

#define BROKER_LAYER_ROWS 32u
enum broker_layer_flags {
	BROKER_LAYER_USED = 1u << 0, /* by a life, or by an unpacking that lies upon it */
	BROKER_LAYER_HOST = 1u << 1, /* skeleton of the `host` image, of whatever start */
	BROKER_LAYER_ODD = 1u << 2,  /* not as the broker publishes them: no directory, or owner or mode are others */
	BROKER_LAYER_UNSEALED = 1u << 3, /* an earlier version unpacked it: LAYER_VERIFY has nothing to compare it with */
	BROKER_LAYER_SEAL_LOST = 1u << 4, /* nor here: the seal that it was published with is gone */
};

struct broker_layer_row {
	uint8_t key[BROKER_KEY_BYTES];
	uint32_t flags; /* enum broker_layer_flags */
	uint32_t zero;
	int64_t made_wall_s;
};

struct broker_layers_reply {
	struct broker_head head;
	int32_t status;
	int32_t sys;
	uint64_t cursor; /* for the next part */
	uint32_t last;	 /* 1: no further part */
	uint32_t n;
	uint32_t n_strays; /* names of this part that are no layer and no unpacking under way */
	uint32_t zero;
	struct broker_layer_row row[BROKER_LAYER_ROWS];
};

struct broker_sandbox_layers_reply { /* SANDBOX_LAYERS */
	struct broker_head head;
	int32_t status;
	int32_t sys;
	uint32_t n_layers; /* lowest first */
	uint32_t host_usr; /* 1: and the host's /usr, which no image can have */
	uint8_t layer[BROKER_MAX_LAYERS][BROKER_KEY_BYTES];
	char text[BROKER_TEXT_BYTES];
};

struct broker_volume_req { /* VOLUME_MAKE, VOLUME_DROP */
	struct broker_head head;
	char claim[BROKER_CLAIM_BYTES];
	uint32_t size_mib; /* MAKE: what it may hold; 0: no bound */
	uint32_t at_least; /* MAKE: 1: one that is there already and smaller is grown, or refused with VOLUME_SIZE; 0: it is taken as it is */
};

enum broker_verdict { BROKER_HOST_OK = 1, BROKER_HOST_WARN, BROKER_HOST_FAIL };

struct broker_host_reply {
	struct broker_head head;
	int32_t status;
	uint32_t row;
	uint32_t last; /* 1: no row behind this one */
	uint32_t verdict;
	char name[BROKER_NAME_BYTES]; /* "cgroup.memory" */
	char found[BROKER_TEXT_BYTES];
	char costs[BROKER_TEXT_BYTES]; /* what its absence costs; "" when OK */
	char mend[BROKER_TEXT_BYTES];  /* what to do; "" when nothing can be done */
};

struct broker_event_msg {
	struct broker_head head;
	struct broker_slot_ref ref;
	uint8_t sandbox_id[16];
	uint64_t oom_kills;
	char text[BROKER_TEXT_BYTES];
};

/* ---- egress ---- */

#define BROKER_POLICY_PART  256u /* rules in one message */
#define BROKER_POLICY_RULES 4096u
#define BROKER_RULE_PORTS   16u /* single ports; a range is at most that many */
#define BROKER_PIN_ADDRS    64u
#define BROKER_PIN_ADDRS6   16u
#define BROKER_PINS_SANDBOX 4096u   /* leases of one sandbox at once, counted by egress_lease_count() (netpolicy/egress_msg.h) */
#define BROKER_PINS_ALL	    262144u /* of all; 128 bytes of kernel memory each */
#define BROKER_PIN_MS	    86400000u /* longest lease */
#define BROKER_FLOW_PAIRS   64u

enum broker_policy_flags {
	BROKER_POLICY_DEFAULT_ALLOW = 1u << 0,
	BROKER_POLICY_LAST = 1u << 1, /* of its parts: apply all of them in one transaction */
	BROKER_POLICY_NAMES = 1u << 2, /* it has rules by name: what would get round them (DoT, DoH, QUIC) is refused */
};
enum broker_rule_flags { BROKER_RULE_ALLOW = 1u << 0, BROKER_RULE_OPERATOR = 1u << 1, BROKER_RULE_IPV6 = 1u << 2 /* addr6 counts */ };

/* Between rules the tiers decide, not their order: operator deny, operator allow, user deny, user allow, then the default. */
struct broker_ip_rule {
	uint32_t addr;	 /* IPv4, host byte order; host bits 0 */
	uint32_t prefix; /* bits */
	uint32_t flags;	 /* enum broker_rule_flags */
	uint32_t n_ports; /* 0: all but 853 */
	uint16_t port[BROKER_RULE_PORTS]; /* TCP and UDP */
	struct ip6 addr6; /* host bits 0; with BROKER_RULE_IPV6, else zero */
};

struct broker_policy {
	struct broker_head head;
	struct broker_slot_ref ref;
	uint32_t flags; /* enum broker_policy_flags */
	uint32_t first; /* index of rule[0] in the whole policy; 0 throws away parts sent before */
	uint32_t n_rules; /* in this message */
	uint32_t zero;
	struct broker_ip_rule rule[BROKER_POLICY_PART];
};

struct broker_policy_reply {
	struct broker_head head;
	int32_t status;
	int32_t sys;
	uint32_t mark; /* conntrack mark of flows judged by this policy; from the counter that is never reused */
	uint32_t zero;
	char text[BROKER_TEXT_BYTES];
};

struct broker_pin { /* PIN, UNPIN */
	struct broker_head head;
	struct broker_slot_ref ref;
	uint32_t n_addrs;
	uint32_t n_ports;  /* 0: all but 853 */
	uint32_t lease_ms; /* PIN: from now; an earlier longer lease of the same address stays */
	uint32_t ipv6; /* 1: addr6 counts */
	union {
		uint32_t addr[BROKER_PIN_ADDRS]; /* IPv4, host byte order */
		struct ip6 addr6[BROKER_PIN_ADDRS6];
	};
	uint16_t port[BROKER_RULE_PORTS];
};

struct broker_flow {
	struct broker_slot_ref ref;
	uint32_t addr; /* far end, IPv4, host byte order; 0: addr6 */
	uint32_t zero;
	struct ip6 addr6;
};

/* FLOWS (a struct broker_plain_req) is answered by some of these; an address may be named more than once. */
struct broker_flows_reply {
	struct broker_head head;
	int32_t status;
	int32_t sys;
	uint32_t n_flows;
	uint32_t last; /* 1: no other answer follows */
	struct broker_flow flow[BROKER_FLOW_PAIRS];
};

/*
 * Why the router refused a packet.  LOG_SOCKET's packets carry "sbx" and two decimal digits of it as prefix (NFULA_PREFIX); the
 * packet itself is the payload, cut after BROKER_LOG_BYTES, as the sandbox sent it: its source names the sandbox.
 */
enum broker_refusal {
	BROKER_REFUSED_NONE = 0,
	BROKER_REFUSED_CLOSED,	      /* the sandbox has no policy yet, or its flow belongs to nobody */
	BROKER_REFUSED_METADATA,      /* 169.254.0.0/16 */
	BROKER_REFUSED_HOST,	      /* an address of the host */
	BROKER_REFUSED_SANDBOX,	      /* the sandboxes' subnet, or no way out */
	BROKER_REFUSED_PRIVATE,	      /* a private range that no rule names */
	BROKER_REFUSED_RULE_OPERATOR, /* a deny rule of the operator's */
	BROKER_REFUSED_RULE_USER,     /* a deny rule of the user's */
	BROKER_REFUSED_PORT,	      /* a rule opens the address, but not this port */
	BROKER_REFUSED_DOT,	      /* port 853 */
	BROKER_REFUSED_DOH,	      /* port 443 of a known encrypted resolver */
	BROKER_REFUSED_QUIC,	      /* UDP to 443 or 80 */
	BROKER_REFUSED_PROTOCOL,      /* neither TCP nor UDP nor an echo request */
	BROKER_REFUSED_NO_LEASE,      /* default deny: no rule and no lease */
	BROKER_REFUSED_LIMIT,	      /* too many connections at once */
	BROKER_REFUSED_COUNT
};
/*
 * GATE's descriptor reads what sandboxes with rules for names send to port 443 before their connection was judged, one IP packet at a
 * time.  A packet that is written to it goes on, with one of these as its hop count (which is what it was before for nobody).
 */
enum broker_gate {
	BROKER_GATE_PASS = 65,
	BROKER_GATE_RELEASE, /* and the connection's next packets do not come here any more */
	BROKER_GATE_DENY,    /* it is reset */
	BROKER_GATE_BEGIN,   /* a SYN: it passes, but for a connection that has its ports already, which is over */
};
#define BROKER_LOG_GROUP 1u
#define BROKER_LOG_BYTES 64u

/* The largest message, for receive buffers. */
union broker_any {
	struct broker_head head;
	struct broker_hello hello;
	struct broker_hello_reply hello_reply;
	struct broker_create create;
	struct broker_create_reply create_reply;
	struct broker_slot_req slot_req;
	struct broker_plain_req plain_req;
	struct broker_reply reply;
	struct broker_stat_reply stat_reply;
	struct broker_list_reply list_reply;
	struct broker_layer_req layer_req;
	struct broker_layer_reply layer_reply;
	struct broker_capture_req capture_req;
	struct broker_capture_reply capture_reply;
	struct broker_layers_req layers_req;
	struct broker_layers_reply layers_reply;
	struct broker_sandbox_layers_reply sandbox_layers_reply;
	struct broker_volume_req volume_req;
	struct broker_host_reply host_reply;
	struct broker_event_msg event;
	struct broker_policy policy;
	struct broker_policy_reply policy_reply;
	struct broker_pin pin;
	struct broker_flows_reply flows_reply;
};

#endif
