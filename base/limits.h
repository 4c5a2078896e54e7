/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: every bound that a client can reach, with its reason
 */
#ifndef BASE_LIMITS_H
#define BASE_LIMITS_H

/* HTTP.  Heads beyond 64 KiB or 200 lines are attacks: the largest real ones (cookies, tracing) stay below 16 KiB. */
#define LIMIT_HTTP_HEAD_BYTES	 (64u * 1024)
#define LIMIT_HTTP_HEADERS	 200u
#define LIMIT_HTTP_TARGET_BYTES	 (16u * 1024)
/* A lifecycle body holds one create request: 1 MiB is 8 times the largest argument list that we start. */
#define LIMIT_API_BODY_BYTES	 (1024u * 1024)
/* A slow sender may hold one connection, never memory: its head must be complete in this time. */
#define LIMIT_HTTP_HEAD_MS	 10000u
/* Go and undici keep idle sockets for 30 s; closing earlier races with their next POST. */
#define LIMIT_HTTP_IDLE_MS	 75000u
/* JSON nesting: the published requests use 6 levels. */
#define LIMIT_JSON_DEPTH	 32u

/* Start of a process inside: the kernel takes 128 KiB a string (MAX_ARG_STRLEN) and refuses the rest with E2BIG. */
#define LIMIT_SPAWN_BYTES	 (512u * 1024)
#define LIMIT_SPAWN_STRINGS	 8192u
#define LIMIT_SPAWN_STRING_BYTES (128u * 1024)

/* Per sandbox. */
#define LIMIT_VOLUMES		 16u
#define LIMIT_LAYERS		 127u /* the registry's own bound */
#define LIMIT_METADATA		 64u
#define LIMIT_PATH_BYTES	 4096u /* PATH_MAX with the NUL */
#define LIMIT_COMMANDS_KEPT	 1024u /* finished commands whose status can still be asked for */
#define LIMIT_SPOOL_BYTES	 (64ull * 1024 * 1024)
#define LIMIT_LOG_FILE_BYTES	 (64ull * 1024 * 1024) /* EXECD_LOG_FILE, in the sandbox; then nothing more is written to it */
/* Half-open and idle flows: the host tracks 262,144 by default, for all sandboxes and its own services. */
#define LIMIT_FLOWS		 4096u
/* Buffers of sockets: cgroup v1 counts them apart, and the host has 9 % of its memory for all TCP together. */
#define LIMIT_SOCKET_BYTES	 (64ull * 1024 * 1024)
/* Least disk limit: below, a file system's own tables leave nothing. */
#define LIMIT_DISK_MIN_MIB	 16u
#define LIMIT_STREAMS		 64u /* requests served at once in one sandbox */
/* Connections to services inside: browsers with open sockets need some dozens; an eighth of all connections is never one sandbox's. */
#define LIMIT_SERVICES		 512u
#define LIMIT_SERVICES_SHARE	 8u

/* The gate of TLS names.  Hellos with post-quantum shares have 2 KiB; servers read 16 KiB of one record. */
#define LIMIT_TLS_HELLO		 (16u * 1024)
#define LIMIT_GATE_STREAM	 (32u * 1024) /* kept of a flow until its server has answered: the hello and early data (16 KiB by default) */
#define LIMIT_GATE_FLOWS	 256u	      /* of a sandbox that are not judged yet: browsers open some tens at once */
#define LIMIT_GATE_FLOWS_ALL	 16384u
#define LIMIT_GATE_BYTES	 (1024u * 1024) /* kept of all flows of a sandbox: 64 hellos of the largest size at once */
#define LIMIT_GATE_BYTES_ALL	 (32u * 1024 * 1024)
#define LIMIT_GATE_HELLO_MS	 10000u /* from the first byte of a hello to its last */
#define LIMIT_GATE_IDLE_MS	 300000u /* before its first byte: clients connect ahead of need */
#define LIMIT_GATE_ANSWER_MS	 60000u /* from the hello to the server's answer; servers give up at the same time or before */
#define LIMIT_GATE_PACKETS	 2000u	/* a second and sandbox, of flows that are not judged yet */

/* A client's line buffer ends at 4 MiB (Go SDK); escaping makes a byte at most six. */
#define LIMIT_EVENT_LINE_BYTES	 (640u * 1024)

/* Per host: below the kernel's pid_max of 32768 with 16 tasks for each idle sandbox, and below 2046 id ranges. */
#define LIMIT_SANDBOXES		 2000u

#endif
