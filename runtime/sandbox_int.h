/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: what the files of the sandbox manager share
 *
 * sandbox_entry.c: memory, tables, rows.  sandbox.c: creation, deletion, pausing.  sandbox_query.c: look-ups, renewal,
 * metadata, descriptors, figures.  recover.c: what the broker has against what the rows say, at start and after a restart
 * of the broker.  sandbox_pull.c: an image that is pulled first.  sandbox_row.c: a sandbox as a row and back.  launch_plan.c: image and request into one broker message
 * and one start of the entrypoint.  sandbox_egress.c: policies, on their way to dnsd, broker and row.
 */
#ifndef RUNTIME_SANDBOX_INT_H
#define RUNTIME_SANDBOX_INT_H

#include "base/buf.h"
#include "runtime/admission.h"
#include "runtime/agent_control.h"
#include "runtime/broker_client.h"
#include "runtime/expiry.h"
#include "runtime/lifecycle.h"
#include "runtime/sandbox.h"
#include "runtime/sandbox_egress.h"
#include "runtime/state_store.h"

#define ENTRY_BUCKETS 1024u
#define REASON_SCHEDULED "SANDBOX_SCHEDULED" /* Pending, and nobody has been told about it yet */
#define REASON_STARTING	 "CONTAINER_STARTING" /* Pending, and a client was told so */
#define REASON_RUNNING	 "CONTAINER_RUNNING"
#define REASON_PAUSED	 "CONTAINER_PAUSED"
#define REASON_HELD	 "IMAGE_COMMIT" /* Paused by us, while its files are read; ends by itself, also after a restart */
#define REASON_EXITED	 "CONTAINER_EXITED"
#define REASON_ERROR	 "CONTAINER_EXITED_ERROR"
#define REASON_NOT_MADE	 "PROVISIONING_ERROR"
#define REASON_REBOOTED	 "HOST_REBOOTED"

struct waiter {
	struct waiter *next;
	sandbox_done *done;
	void *arg;
};

/* What the entrypoint is started with, owned. */
struct start_plan {
	char *cwd, *user;	  /* owned */
	char **args, **env;	  /* owned, NULL-terminated */
	uint32_t flags;
};

struct sandbox_entry {
	struct sandbox pub;
	struct sandbox_manager *manager; /* borrowed */
	struct expiry_node expiry;
	struct sandbox_entry *bucket_next, *newer, *older;
	struct agent_control *control; /* owned; NULL until armed or adopted */
	struct loop_timer *create_timer; /* owned; while a create waits */
	struct waiter *creator;	       /* owned; who waits for the create */
	struct waiter *changer;	       /* owned; who waits for the pause or resume */
	struct waiter *deleters;       /* owned */
	struct start_plan start;       /* until START was sent */
	struct image_pull_ticket *ticket; /* while its image is pulled */
	char boot_id[33];
	struct broker_slot_ref kept; /* files of a life that ended without us (a reboot); slot BROKER_NO_SLOT: none */
	unsigned n_drops; /* volumes of its own that are being removed */
	unsigned n_creates; /* times that the broker was asked to make it */
	unsigned n_calls; /* broker calls whose callback still comes */
	bool removed;	  /* out of the tables; released with the last call */
	bool dropped;	  /* its own volumes are gone */
	bool wants_pull;  /* its image is to be pulled before anything is asked of the broker */
	bool creating;	  /* SANDBOX_CREATE is under way */
	bool killing;	  /* SANDBOX_KILL is under way */
	bool opening;	  /* CHANNEL_OPEN of the control channel is under way */
	bool undo;	  /* the kill undoes a create: keep the row when it says Failed, else remove it silently */
	bool seen;	  /* by the current listing of the broker */
	bool held;	  /* sandbox_hold() of this process: sandbox_release() will come */
	bool asking_oom;  /* STAT is under way: was it the memory limit? */
	struct agent_status ended; /* what the agent said, while asking_oom */
	struct egress_entry egress;
	uint64_t oom_kills;
};

struct sandbox_manager {
	struct loop *loop;		/* borrowed */
	const struct settings *settings; /* borrowed */
	struct broker_client *broker;	/* borrowed */
	struct image_store *images;	/* borrowed; NULL: none */
	struct image_pulls *pulls;	/* borrowed; NULL: nothing is pulled */
	struct sandbox_hooks hooks;
	struct state_store *store;	/* owned */
	struct admission_host host;	/* what there is to share */
	struct expiry *expiry;		/* owned */
	struct loop_timer *retry;	/* owned; kills that failed */
	struct egress_manager egress;
	struct sandbox_entry *bucket[ENTRY_BUCKETS]; /* own the entries */
	struct sandbox_entry *newest, *oldest;
	size_t n_entries;
	char boot_id[33];  /* of the host, from the broker; "" before its first hello */
	bool ready;
	bool listing;	   /* SANDBOX_LIST is under way */
	bool list_again;   /* the broker was restarted meanwhile */
};

/* ---- sandbox_entry.c ---- */

/** waiter_new() - Somebody who waits for an answer: @done with @arg; Return: NULL when out of memory */
struct waiter *waiter_new(sandbox_done *done, void *arg) SBX_WUR;
/** waiters_tell() - Call and release everybody in @list: with @err when it is set, else with @sandbox, which may be NULL */
void waiters_tell(struct waiter **list, const struct sandbox *sandbox, const struct sbx_err *err);
/** entry_unlink() - Take @e out of the tables; it is released with its last call */
void entry_unlink(struct sandbox_entry *e);
/** entry_changed() - Tell the owner of the manager about @e; @gone: it is being removed */
void entry_changed(struct sandbox_entry *e, bool gone);
/** entry_insert() - Write the row of the new @e; Return: 0, or -1 with @err set */
int entry_insert(struct sandbox_entry *e, struct sbx_err *err) SBX_WUR;
/** entry_remove() - Remove row and entry @e, and tell whoever waited for that */
void entry_remove(struct sandbox_entry *e);

/** manager_entry() - The entry with @id, or NULL */
struct sandbox_entry *manager_entry(const struct sandbox_manager *m, const uint8_t id[16]);
/** manager_adopt() - Put the filled @e into the tables of @m; it is owned by them from then on; Return: 0 or -1 with @err */
int manager_adopt(struct sandbox_manager *m, struct sandbox_entry *e, struct sbx_err *err) SBX_WUR;
/** entry_new() - An empty entry of @m, in no table; Return: NULL when out of memory */
struct sandbox_entry *entry_new(struct sandbox_manager *m) SBX_WUR;
/** entry_free() - Release @e, which is in no table and has no call under way; NULL is fine */
void entry_free(struct sandbox_entry *e);
/**
 * entry_call_ended() - Each broker callback begins or ends with this: the last one releases an entry that was removed
 * @e:	The entry, whose n_calls counts the call
 *
 * Return: whether @e is still there
 */
bool entry_call_ended(struct sandbox_entry *e);
/** entry_ref() - The slot's life of @e */
struct broker_slot_ref entry_ref(const struct sandbox_entry *e);
/**
 * entry_move() - Let @event happen to @e: state, reason, message, time, row and hook
 * @e:		The entry
 * @event:	As lifecycle.h
 * @reason:	Becomes pub.reason
 * @message:	Becomes pub.message
 *
 * A row that cannot be written is logged; the state in memory and the kernel's are what counts until the next change.
 *
 * Return: false when the event is refused in the present state; nothing has changed then
 */
bool entry_move(struct sandbox_entry *e, enum lifecycle_event event, const char *reason, const char *message);
/** entry_write() - Write the changeable part of the row of @e; Return: 0, or -1 with @err set */
int entry_write(struct sandbox_entry *e, bool deleting, struct sbx_err *err) SBX_WUR;
/* ---- sandbox.c ---- */

/** entry_kill() - Ask the broker to end the processes of @e; its answer goes on with the removal or the undo */
void entry_kill(struct sandbox_entry *e);
/** entry_gone() - Nothing of @e is left on the host: end the delete or undo that waited for it */
void entry_gone(struct sandbox_entry *e);
/** entry_ask_again() - The broker was restarted while it made @e, of which nothing is left: ask once more, or fail */
void entry_ask_again(struct sandbox_entry *e);
/** entry_fail() - End the create of @e, which is Pending, with @err: undo it, tell who waits */
void entry_fail(struct sandbox_entry *e, const struct sbx_err *err);
/** entry_open_control() - Ask the broker for the control channel of @e, then the agent for its status */
void entry_open_control(struct sandbox_entry *e);
/** entry_delete() - Begin the removal of @e for whoever waits in e->deleters; fine when it has begun */
void entry_delete(struct sandbox_entry *e);

/* ---- sandbox_pull.c ---- */

/** pull_wanted() - Whether the image of the spec of @e is to be pulled first, by its own policy or the configured one */
bool pull_wanted(const struct sandbox_entry *e);
/** pull_begin() - Pull the image of @e, which is Pending, and go on with its create; what fails ends the create */
void pull_begin(struct sandbox_entry *e);
/** pull_leave() - @e waits no longer for its image; fine when it does not */
void pull_leave(struct sandbox_entry *e);

/* ---- recover.c ---- */

/** recover_load() - Make entries of all rows of @m; Return: 0, or -1 with @err set */
int recover_load(struct sandbox_manager *m, struct sbx_err *err) SBX_WUR;
/** recover_begin() - The broker answered HELLO: compare what it has with what we know */
void recover_begin(struct sandbox_manager *m, const struct broker_hello_reply *hello);

/* ---- sandbox_row.c ---- */

/** row_write_spec() - The spec of @s as JSON into @out, which the caller checks for lack of memory */
void row_write_spec(const struct sandbox_spec *spec, struct buf *out);
/** row_write_metadata() - The metadata of @spec as a JSON object into @out */
void row_write_metadata(const struct sandbox_spec *spec, struct buf *out);
/** row_read_spec() - @spec_json and @metadata_json into @ret; Return: 0, or -1 with @err set */
int row_read_spec(const char *spec_json, const char *metadata_json, struct sandbox_spec *ret, struct sbx_err *err) SBX_WUR;

/* ---- launch_plan.c ---- */

/**
 * launch_plan() - Look the image up, check everything that can be checked without the kernel
 * @m:		The manager
 * @e:		The entry; pub.spec is read, e->start and the tokens are filled
 * @msg:	Filled: the broker's message
 * @err:	Filled on failure: IMAGE_NOT_FOUND, INVALID_REQUEST, VOLUME_*, NO_MEMORY
 *
 * While e->wants_pull is set the image is not looked at: everything else is checked.
 *
 * Return: 0, or -1 with @err set
 */
int launch_plan(struct sandbox_manager *m, struct sandbox_entry *e, struct broker_create *msg, struct sbx_err *err) SBX_WUR;
/** start_plan_clear() - Release what @plan owns and zero it */
void start_plan_clear(struct start_plan *plan);

#endif
