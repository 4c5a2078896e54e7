/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: sandboxes, from request to exit
 *
 * The manager holds every sandbox of this daemon in memory and in SQLite, and drives the broker and the agents' control
 * channels.  All calls run in sandboxd's loop and never block: what takes time ends in a callback.  A struct sandbox is
 * owned by the manager; callers read it during one call or callback and never keep it.
 *
 * States are exactly those published.  next_state in lifecycle.c says which event is allowed where; a refused one is
 * NOT_RUNNING, NOT_PAUSED or the like, and changes nothing.
 */
#ifndef RUNTIME_SANDBOX_H
#define RUNTIME_SANDBOX_H

#include "base/err.h"
#include "base/loop.h"
#include "base/num.h"

#include <stdbool.h>
#include <stdint.h>

struct broker_client;
struct egress_event;
struct image_pulls;
struct image_store;
struct policy;
struct policy_link;
struct settings;

enum sandbox_state {
	SANDBOX_NONE = 0,
	SANDBOX_PENDING,
	SANDBOX_RUNNING,
	SANDBOX_PAUSING,
	SANDBOX_PAUSED,
	SANDBOX_RESUMING,
	SANDBOX_STOPPING,
	SANDBOX_TERMINATED,
	SANDBOX_FAILED,
	SANDBOX_STATE_COUNT
};

struct sandbox_pair {
	char *key;   /* owned */
	char *value; /* owned */
};

enum sandbox_volume_kind { SANDBOX_VOLUME_NAMED = 1, SANDBOX_VOLUME_HOST };

struct sandbox_volume {
	enum sandbox_volume_kind kind;
	char *name;	  /* owned; of the request */
	char *source;	  /* owned; claim name, or absolute host path */
	char *sub_path;	  /* owned; relative, "" for none */
	char *mount_path; /* owned; absolute */
	bool read_only;
	bool create; /* make the volume or directory when it is missing */
	bool remove_at_end;
	uint32_t size_mib;   /* NAMED: what it may hold when it is made; 0: no bound */
	bool size_asked;     /* by the request and not by the configuration: one that is there must have it */
};

/* When the image is pulled; the first is what the configuration says. */
enum sandbox_pull { SANDBOX_PULL_DEFAULT = 0, SANDBOX_PULL_MISSING, SANDBOX_PULL_ALWAYS, SANDBOX_PULL_NEVER };

/* A request that passed validation.  sandbox_spec_free() releases what it owns. */
struct sandbox_spec {
	char *image_uri;   /* owned; as asked */
	char *image_user, *image_password; /* owned; for this pull only, in no row; both NULL: none were given */
	enum sandbox_pull pull;
	char **entrypoint; /* owned, NULL-terminated, effective argv (after the one-string split); never empty */
	struct sandbox_pair *env;
	size_t n_env;
	struct sandbox_pair *metadata;
	size_t n_metadata;
	struct sandbox_volume *volumes;
	size_t n_volumes;
	char *platform_os;   /* owned; NULL when not asked for */
	char *platform_arch; /* owned; NULL when not asked for */
	int64_t timeout_s;   /* -1: never expires */
	uint64_t memory_bytes;	 /* 0: no limit asked for */
	uint32_t cpu_millicores; /* 0: no limit asked for */
	uint32_t pids_max;	 /* 0: the configured default */
	uint32_t disk_mib;	 /* 0: no limit asked for */
	uint32_t renew_extend_s; /* extensions access.renew.extend.seconds; 0: none */
	struct policy *policy;	 /* owned, sealed; NULL: none was asked for, everything is allowed */
	bool image_entrypoint;	 /* take the image's ENTRYPOINT and CMD (sandboxctl without a command) */
};

struct sandbox {
	uint8_t id[16];
	char id_text[UUID_SIZE];
	enum sandbox_state state;
	char reason[48];
	char message[SBX_ERR_MSG_SIZE];
	int64_t created_wall_usec;
	int64_t transition_wall_usec;
	int64_t expires_wall_usec; /* 0: never */
	struct sandbox_spec spec;
	char execd_token[256]; /* URL-safe base64 of 32 random bytes, or the request's EXECD_ACCESS_TOKEN; empty: none is required */
	char egress_token[44];
	uint32_t slot; /* BROKER_NO_SLOT: none */
	uint32_t generation;
	uint32_t addr;	    /* IPv4, host byte order; 0: none */
	uint8_t image_key[32]; /* key of the uppermost layer it was made from, while it has a slot; zero: not known yet */
	const char *log_file; /* borrowed: EXECD_LOG_FILE of its environment, or "" */
};

/* Alone as entrypoint: nothing is run, the sandbox lives until it is deleted.  Works in an image without any program. */
#define SANDBOX_ENTRYPOINT_IDLE "@idle"

struct sandbox_manager;

/* Called when something ended; @sandbox is NULL when @err->code is set or when the sandbox is gone. */
typedef void sandbox_done(void *arg, const struct sandbox *sandbox, const struct sbx_err *err);

struct sandbox_hooks {
	void *arg;
	/* After every change of state, generation or existence (@gone); before the done callback of what caused it. */
	void (*changed)(void *arg, const struct sandbox *sandbox, bool gone);
	/* Something was judged; @policy is what it was judged by, NULL when that has changed meanwhile.  May be NULL. */
	void (*egress)(void *arg, const struct sandbox *sandbox, const struct policy *policy, const struct egress_event *event);
};

/** sandbox_pairs_free() - Release @n pairs and the array @pairs; NULL with 0 is fine */
void sandbox_pairs_free(struct sandbox_pair *pairs, size_t n);
/** sandbox_spec_free() - Release what @spec owns and zero it; NULL is fine */
void sandbox_spec_free(struct sandbox_spec *spec);

/**
 * sandbox_manager_new() - Open the state and adopt or end what the last run left
 * @loop:	sandboxd's loop
 * @settings:	Configuration; borrowed for the manager's life
 * @broker:	Connected client; borrowed
 * @state_dir_fd: sandboxd's own folder; the database and the image index are below it
 * @hooks:	Copied
 * @err:	Filled on failure: SYSTEM, or INVALID_REQUEST when the state was written by a newer version
 *
 * Return: the manager, or NULL with @err set
 */
struct sandbox_manager *sandbox_manager_new(struct loop *loop, const struct settings *settings, struct broker_client *broker,
					    int state_dir_fd, const struct sandbox_hooks *hooks, struct sbx_err *err) SBX_WUR;
/**
 * sandbox_manager_set_images() - Where creates look images up, but "host"
 * @m:		The manager
 * @images:	Borrowed; NULL: only "host" is there
 * @pulls:	Borrowed; what is not there is pulled through it, as images.pull_policy and the request say; NULL: it is refused
 */
void sandbox_manager_set_images(struct sandbox_manager *m, struct image_store *images, struct image_pulls *pulls);
/**
 * sandbox_manager_set_egress() - Serve sandbox-dnsd, which judges names
 * @m:		The manager
 * @listen_fd:	Listening SOCK_SEQPACKET of policy.sock; stays the caller's
 * @err:	Filled on failure: INVALID_REQUEST (egress settings, the operator's files), SYSTEM, NO_MEMORY
 *
 * Return: 0, or -1 with @err set
 */
int sandbox_manager_set_egress(struct sandbox_manager *m, int listen_fd, struct sbx_err *err) SBX_WUR;
/** sandbox_manager_link() - The channel to sandbox-dnsd, for questions; NULL: none */
struct policy_link *sandbox_manager_link(struct sandbox_manager *m);
/** sandbox_manager_ready() - Whether what the last run left has been adopted or ended; requests before it are refused */
bool sandbox_manager_ready(const struct sandbox_manager *m);
/** sandbox_manager_image_used() - Whether a sandbox that has processes was made from the image that @uri names exactly so */
bool sandbox_manager_image_used(const struct sandbox_manager *m, const char *uri);
/** sandbox_manager_log_pages() - Pages of the state's log that wait for a checkpoint in a child (state_store_checkpoint()) */
unsigned sandbox_manager_log_pages(const struct sandbox_manager *m);
/** sandbox_manager_free() - Close the state; sandboxes go on */
void sandbox_manager_free(struct sandbox_manager *m);

/**
 * sandbox_create() - Make a sandbox
 * @m:		The manager
 * @spec:	Taken over (zeroed) whatever happens
 * @done:	Called once, perhaps before this returns: the sandbox Running (or Pending when it takes longer than the wait
 *		of the configuration), or the error; a failed one stays listed as Failed when the failure is the host's
 * @arg:	Handed to @done
 */
void sandbox_create(struct sandbox_manager *m, struct sandbox_spec *spec, sandbox_done *done, void *arg);
/** sandbox_delete() - End and remove @id; @done gets NULL and no error when it is gone */
void sandbox_delete(struct sandbox_manager *m, const uint8_t id[16], sandbox_done *done, void *arg);
/** sandbox_pause() - Freeze @id; @done comes when it says Paused */
void sandbox_pause(struct sandbox_manager *m, const uint8_t id[16], sandbox_done *done, void *arg);
/** sandbox_resume() - Thaw @id; @done comes when it says Running */
void sandbox_resume(struct sandbox_manager *m, const uint8_t id[16], sandbox_done *done, void *arg);
/**
 * sandbox_hold() - Freeze @id while its files are read; @done comes when it stands still
 *
 * As sandbox_pause(), but for its reason, and it does not last: a sandboxd that finds a sandbox held lets it go on.  What is Paused
 * or has ended stands still already: it is not held.  The end is sandbox_release().
 */
void sandbox_hold(struct sandbox_manager *m, const uint8_t id[16], sandbox_done *done, void *arg);
/** sandbox_release() - Let @id go on when sandbox_hold() froze it; fine when it is gone, or somebody resumed it */
void sandbox_release(struct sandbox_manager *m, const uint8_t id[16]);
/** sandbox_renew() - Set the expiry of @id to @expires_wall_usec; Return: the sandbox, or NULL with @err set */
const struct sandbox *sandbox_renew(struct sandbox_manager *m, const uint8_t id[16], int64_t expires_wall_usec,
				    struct sbx_err *err) SBX_WUR;
/**
 * sandbox_patch_metadata() - Merge @n pairs into the metadata of @id; a NULL value removes the key
 *
 * Return: the sandbox, or NULL with @err set
 */
const struct sandbox *sandbox_patch_metadata(struct sandbox_manager *m, const uint8_t id[16],
					     const struct sandbox_pair *pairs, size_t n, struct sbx_err *err) SBX_WUR;
/*
 * Makes the policy that is to be in force, when the turn of the change has come: it sees what is in force then (NULL: everything
 * is allowed).  Return: sealed, taken over; NULL with @err set: refused; NULL without: nothing is to change
 */
typedef struct policy *sandbox_policy_make(void *arg, const struct policy *now, struct sbx_err *err);
/**
 * sandbox_change_policy() - Change the egress policy of a sandbox
 * @m:		The manager
 * @id:		The sandbox; changes of one sandbox are made one after the other, in the order of the calls
 * @make:	Called once, or not at all when the sandbox is gone before
 * @done:	Called once, perhaps before this returns: the new policy is in force and kept, or nothing has changed
 * @arg:	Handed to both
 */
void sandbox_change_policy(struct sandbox_manager *m, const uint8_t id[16], sandbox_policy_make *make, sandbox_done *done, void *arg);
/** sandbox_denied() - Write @line (@n bytes, its newline at the end) into the log that the sandbox @id itself reads; within a rate */
void sandbox_denied(struct sandbox_manager *m, const uint8_t id[16], const char *line, size_t n);
/** sandbox_effective_policy() - What is enforced for @sandbox: the operator's rules and its own; never NULL */
const struct policy *sandbox_effective_policy(const struct sandbox *sandbox);

/** sandbox_find() - The sandbox with @id; Return: NULL with @err set (SANDBOX_NOT_FOUND) when there is none */
const struct sandbox *sandbox_find(struct sandbox_manager *m, const uint8_t id[16], struct sbx_err *err) SBX_WUR;
/** sandbox_next() - Walk all, newest first: @after NULL gives the first; Return: NULL at the end */
const struct sandbox *sandbox_next(struct sandbox_manager *m, const struct sandbox *after);
/** sandbox_count() - How many there are, in any state */
size_t sandbox_count(const struct sandbox_manager *m);

/* Descriptors towards one sandbox, for the gateway: @fds are the callee's to close; n is 0 when @err is set. */
typedef void sandbox_fds_done(void *arg, const int *fds, size_t n, const struct sbx_err *err);
/** sandbox_open_exec() - {write, read[, bulk write, bulk read]} ends of the exec channel of @id, which must be Running or ended and not removed */
void sandbox_open_exec(struct sandbox_manager *m, const uint8_t id[16], sandbox_fds_done *done, void *arg);
/** sandbox_open_socket() - An unconnected TCP socket of @family in the network namespace of @id */
void sandbox_open_socket(struct sandbox_manager *m, const uint8_t id[16], int family, sandbox_fds_done *done, void *arg);

struct sandbox_figures {
	uint64_t memory_bytes, memory_limit_bytes, memory_peak_bytes, cpu_usec, oom_kills;
	uint64_t disk_used_bytes, disk_limit_bytes, disk_used_inodes, disk_limit_inodes; /* all 0: nobody counts */
	uint32_t cpu_millicores, pids;
	int64_t mono_usec;
};
typedef void sandbox_figures_done(void *arg, const struct sandbox_figures *figures, const struct sbx_err *err);
/** sandbox_stat() - Figures of the cgroup of @id */
void sandbox_stat(struct sandbox_manager *m, const uint8_t id[16], sandbox_figures_done *done, void *arg);

/** sandbox_state_name() - "Pending" ... "Failed" */
const char *sandbox_state_name(enum sandbox_state state);

#endif
