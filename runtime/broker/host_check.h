/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: what this host can do
 *
 * One row per kernel feature or setting that matters: host_check.def names it, says what it is used for, what its absence
 * costs and how to mend it; a probe asks this very host.  `sandboxctl doctor` prints the rows, the broker refuses to start
 * when a needed one fails.  Probes change nothing; what must be tried (a user namespace, a veth) is tried in a child.
 */
#ifndef RUNTIME_HOST_CHECK_H
#define RUNTIME_HOST_CHECK_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct cgroup;
struct settings_texts;

/* The order is that of the reply's bits (broker_hello_reply.host_features) and of doctor's table. */
enum host_check_id {
#define HOST_CHECK(id, name, need, use, costs, mend) HOST_CHECK_##id,
#include "runtime/broker/host_check.def"
#undef HOST_CHECK
	HOST_CHECK_COUNT
};

/* Values equal enum broker_verdict. */
enum host_verdict { HOST_OK = 1, HOST_WARN, HOST_FAIL };

struct host_row {
	enum host_verdict verdict;
	const char *name;  /* static */
	const char *use;   /* static; what it is used for */
	const char *costs; /* static; what its absence costs; "" when OK */
	const char *mend;  /* static; "" when OK or when nothing can be done */
	bool needed;	   /* without it no sandbox can be made */
	char found[200];   /* what the probe saw */
};

struct host_check_context {
	const char *state_dir;	 /* borrowed; where layers and uppers lie */
	const struct cgroup *cg; /* borrowed; NULL: the cgroup rows say that it is not open */
	const struct settings_texts *host_paths; /* borrowed; storage.allowed_host_paths; NULL: none */
	bool ipv6;	 /* network.ipv6 */
	bool gate;	 /* egress.tls_gate is not off */
};

/**
 * host_check_row() - Probe one row now
 * @id:		Row, 0 to HOST_CHECK_COUNT - 1
 * @context:	Where to look
 * @ret:	Filled
 *
 * Return: 0, or -EINVAL for an unknown row
 */
int host_check_row(uint32_t id, const struct host_check_context *context, struct host_row *ret);
/** host_check_words() - The texts of row @id for @verdict, without probing, into @ret; Return: 0, or -EINVAL for an unknown row */
int host_check_words(uint32_t id, enum host_verdict verdict, struct host_row *ret);
/**
 * host_check_start() - Probe all rows once and refuse a host on which no sandbox can be made
 * @context:	Where to look
 * @ret:	Bit per row that is OK; may be NULL
 * @err:	Filled: HOST_LACKS naming the first needed row that fails, with its way to mend
 *
 * Return: 0, or -1 with @err set
 */
int host_check_start(const struct host_check_context *context, uint32_t *ret, struct sbx_err *err) SBX_WUR;

/**
 * host_check_ids() - Refuse an id range that belongs to somebody else
 * @first:	First host id (uid and gid) of our range
 * @count:	Length
 * @own_name:	User name or "#uid" whose subuid line is ours; lines that equal our range whole are ours too
 * @err:	Filled: INVALID_REQUEST naming file and line, or the live process
 *
 * Looks at /etc/passwd, /etc/group, /etc/subuid and /etc/subgid.
 *
 * Return: 0, or -1 with @err set
 */
int host_check_ids(uint32_t first, uint32_t count, const char *own_name, struct sbx_err *err) SBX_WUR;
/** host_check_ids_in() - host_check_ids() on the files of @etc_dir instead of /etc, for tests; same results */
int host_check_ids_in(const char *etc_dir, uint32_t first, uint32_t count, const char *own_name, struct sbx_err *err) SBX_WUR;

#endif
