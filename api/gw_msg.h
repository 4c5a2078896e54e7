/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: messages between sandbox-gateway and sandboxd
 *
 * SOCK_SEQPACKET on <run dir>/control.sock; sandboxd accepts only the gateway's uid.  A message is a fixed head of its
 * kind and then `n` strings of given lengths, in the order of the enum beside the head.  A body longer than
 * GW_INLINE_BODY travels as a sealed memfd.  sandboxd holds the keys and decides; the gateway parses what is hostile.
 * Answers carry the tag of their request and may come in any order; STATE messages come unasked and in order with the
 * answers, so a gateway that has read the answer to a pause already knows that the sandbox is paused.
 */
#ifndef API_GW_MSG_H
#define API_GW_MSG_H

#include <stdint.h>

#define GW_MAGIC	0x31574758u
#define GW_VERSION	1u
#define GW_MESSAGE_MAX	(96u * 1024)
#define GW_INLINE_BODY	(48u * 1024)
#define GW_MAX_STRINGS	16u

enum gw_kind {
	GW_NONE = 0,
	GW_HELLO,	/* gateway -> sandboxd: version */
	GW_HELLO_REPLY, /* what the gateway has to know of the configuration */
	GW_HTTP,	/* a lifecycle request, whole */
	GW_HTTP_REPLY,
	GW_OPEN,       /* may this credential reach this port of this sandbox?  with what? */
	GW_OPEN_REPLY, /* EXEC: {write end, read end[, bulk write, bulk read]}; PORT: one unconnected socket per address family asked for */
	GW_STATE,      /* sandboxd -> gateway: a sandbox changed */
	GW_STAT,       /* cgroup figures of a sandbox */
	GW_STAT_REPLY,
	GW_IMPORT,	 /* begin: sandboxd answers with a write-only file for the bytes */
	GW_IMPORT_REPLY, /* fd for begin */
	GW_ACCESS,	 /* a request to a sandbox for which nothing had to be asked: struct gw_stat */
	GW_ACCESS_REPLY, /* struct gw_access_reply; says nothing */
	GW_PULL,	 /* pull an image: struct gw_pull */
	GW_PULL_REPLY,	 /* struct gw_http_reply: status 200 and the reading end of the events, or the error as in GW_HTTP_REPLY */
	GW_KIND_COUNT
};

struct gw_head {
	uint32_t magic;
	uint32_t kind; /* enum gw_kind */
	uint64_t tag;
	uint32_t n_strings;
	uint32_t body_fd; /* 1: the last string's bytes are in the attached memfd, its length says how many */
	uint32_t length[GW_MAX_STRINGS]; /* bytes of each string, no NUL */
};

struct gw_hello {
	struct gw_head head;
	uint32_t version;
	uint32_t zero;
};

enum gw_hello_flags {
	GW_HELLO_KEY_REQUIRED = 1u << 0, /* lifecycle calls need the API key */
	GW_HELLO_INSECURE = 1u << 1,	 /* the operator wrote down that loopback needs none */
	GW_HELLO_ACCESS = 1u << 2,	 /* renew on access is on: send GW_ACCESS, at most one a second and sandbox */
};

struct gw_hello_reply {
	struct gw_head head;
	uint32_t version;
	uint32_t flags;
};

enum gw_listener { GW_LISTENER_API = 0, GW_LISTENER_ENDPOINT, GW_LISTENER_UNIX };

/* Strings of GW_HTTP.  The last is the body. */
enum gw_http_string {
	GW_HTTP_METHOD = 0,
	GW_HTTP_TARGET, /* raw path and query as sent */
	GW_HTTP_HOST,
	GW_HTTP_ORIGIN, /* with a leading '!' when Sec-Fetch-Site says cross-site */
	GW_HTTP_API_KEY,
	GW_HTTP_REQUEST_ID, /* trimmed; never empty */
	GW_HTTP_CONTENT_TYPE,
	GW_HTTP_CLIENT, /* "192.0.2.7:5123" or "unix:uid=0" */
	GW_HTTP_SANDBOX, /* EGRESS: the id as it stands in the path; the target is then the rest behind the port */
	GW_HTTP_EGRESS_TOKEN,
	GW_HTTP_ACCEPT,
	GW_HTTP_LAST_EVENT_ID,
	GW_HTTP_BODY,
	GW_HTTP_STRINGS
};

enum gw_http_flags {
	GW_HTTP_HAS_API_KEY = 1u << 0, /* the header was there, perhaps empty */
	GW_HTTP_UNIX_PEER = 1u << 1,   /* came over the Unix socket from an allowed uid: no key needed */
	GW_HTTP_EGRESS = 1u << 2,      /* for port 18080 of a sandbox */
};

struct gw_http {
	struct gw_head head;
	uint32_t flags;
	uint32_t listener; /* enum gw_listener */
};

enum gw_reply_string { GW_REPLY_CONTENT_TYPE = 0, GW_REPLY_HEADERS /* "Name: value\r\n"... */, GW_REPLY_BODY, GW_REPLY_STRINGS };

struct gw_http_reply {
	struct gw_head head;
	uint32_t status;
	uint32_t zero;
	uint64_t stream_bytes; /* with a pipe: what must come through it; 0: until it is closed */
};

enum gw_open_what {
	GW_OPEN_EXEC = 1,
	GW_OPEN_PORT,
	GW_OPEN_INSIDE = 5, /* like PORT, for who may use EXEC: the gateway itself has something to say to a service inside */
	GW_OPEN_LOGS = 4, /* like EXEC, for who may use the lifecycle API, and also when the entrypoint has ended */
};

enum gw_open_string {
	GW_OPEN_ID = 0,
	GW_OPEN_API_KEY,
	GW_OPEN_EXECD_TOKEN,
	GW_OPEN_SECURE_TOKEN,
	GW_OPEN_STRINGS
};

struct gw_open {
	struct gw_head head;
	uint32_t what; /* enum gw_open_what */
	uint32_t port;
	uint32_t flags; /* enum gw_http_flags */
	uint32_t zero;
};

enum gw_sandbox_state { GW_SANDBOX_PENDING = 1, GW_SANDBOX_RUNNING, GW_SANDBOX_PAUSED, GW_SANDBOX_ENDED, GW_SANDBOX_GONE };

enum gw_open_reply_string { GW_OPENED_CODE = 0, GW_OPENED_MESSAGE, GW_OPENED_LOG_FILE /* EXECD_LOG_FILE or "" */, GW_OPENED_STRINGS };

struct gw_open_reply {
	struct gw_head head;
	uint32_t status;     /* 200, or the HTTP status of the refusal */
	uint32_t generation; /* of the slot: another one is another life */
	uint32_t state;	     /* enum gw_sandbox_state */
	uint32_t addr;	     /* PORT: the sandbox's IPv4 address, host byte order */
	uint8_t sandbox_id[16];
};

struct gw_state {
	struct gw_head head;
	uint8_t sandbox_id[16];
	uint32_t generation;
	uint32_t state; /* enum gw_sandbox_state */
};

struct gw_stat {
	struct gw_head head;
	uint8_t sandbox_id[16];
};

struct gw_stat_reply {
	struct gw_head head;
	uint32_t status;
	uint32_t pids;
	uint64_t memory_bytes;
	uint64_t memory_limit_bytes; /* the host's total when there is no limit */
	uint64_t cpu_usec;
	uint32_t cpu_millicores; /* limit, or 1000 * the host's processors */
	uint32_t zero;
	int64_t mono_usec; /* when read */
	uint64_t disk_used_bytes;
	uint64_t disk_limit_bytes; /* 0: none */
};

struct gw_access_reply {
	struct gw_head head;
	uint64_t zero;
};

enum gw_pull_string { GW_PULL_API_KEY = 0, GW_PULL_BODY, GW_PULL_STRINGS };

struct gw_pull {
	struct gw_head head;
	uint32_t flags; /* enum gw_http_flags */
	uint32_t zero;
};

enum gw_import_string { GW_IMPORT_TARGET = 0, GW_IMPORT_API_KEY, GW_IMPORT_STRINGS };

/* begin: state 0; the gateway writes the body into the file, then sends state 1 (done) or 2 (broken off) with the handle */
struct gw_import {
	struct gw_head head;
	uint32_t state;
	uint32_t flags; /* enum gw_http_flags */
	uint64_t handle;
	uint64_t bytes;
};

struct gw_import_reply {
	struct gw_head head;
	uint32_t status; /* begin: 200 and the file; done: final HTTP status, strings as in GW_HTTP_REPLY */
	uint32_t zero;
	uint64_t handle;
	uint64_t max_bytes;
};

#endif
