/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: slots
 *
 * A slot is an id range, an address, a cgroup name and a generation.  It is free again only when pid 1 was reaped, the
 * cgroup removed, the link gone, its connection entries deleted and its upper in the trash.  Free slots are taken oldest
 * first.  Generations come from one counter on disk that is advanced in blocks and never goes back.
 */
#ifndef RUNTIME_SLOT_H
#define RUNTIME_SLOT_H

#include "base/err.h"
#include "runtime/broker/broker_msg.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct broker;
struct slot_list;
struct slot;

/** slot_state_name() - Word for @state, for messages */
const char *slot_state_name(uint32_t state);

/**
 * slots_init() - Make the table, read the generation counter
 * @b:		The broker, its directories are open
 * @err:	Filled on failure: SYSTEM, NO_MEMORY
 *
 * Return: 0, or -1 with @err set
 */
int slots_init(struct broker *b, struct sbx_err *err) SBX_WUR;
/**
 * slots_recover() - Adopt what lives and start to undo what an earlier broker left half made or half gone
 * @b:		The broker, cgroups and links are open
 * @err:	Filled on failure
 *
 * Return: number of live sandboxes, or -1 with @err set
 */
int slots_recover(struct broker *b, struct sbx_err *err) SBX_WUR;

/** slot_generation() - Take the next value of the counter of @b that never goes back, into @ret; Return: 0, or -1 with @err set */
int slot_generation(struct broker *b, uint32_t *ret, struct sbx_err *err) SBX_WUR;
/** slot_next() - The list whose first slot slot_take() takes next, or none when it is empty */
struct slot_list *slot_next(struct broker *b);
/**
 * slot_take() - Take a free slot with a fresh generation: MAKING
 * @b:		The broker
 * @err:	Filled on failure: LIMIT (none is free), SYSTEM
 *
 * The one that has been free for longest among those that had a life, since they have a helper namespace and layers; as long as few
 * of these are free, a new one.
 *
 * Return: the slot, or NULL with @err set
 */
struct slot *slot_take(struct broker *b, struct sbx_err *err) SBX_WUR;
/** slots_free() - How many slots of @b are free */
uint32_t slots_free(const struct broker *b);
/** slot_by_ref() - The slot of @b that @ref names, or NULL when it is out of range or the generation is another */
struct slot *slot_by_ref(struct broker *b, const struct broker_slot_ref *ref);
/** slot_set_state() - Move @s of @b to @state and write its record; Return: 0 or -errno (the record could not be written) */
int slot_set_state(struct broker *b, struct slot *s, enum broker_slot_state state);
/** slot_adopt_pid() - Watch the end of @s's pid 1 by s->pidfd; Return: 0, or -1 with @err set */
int slot_adopt_pid(struct broker *b, struct slot *s, struct sbx_err *err) SBX_WUR;
/** slot_watch_cgroup() - Watch s->cg of @s for OOM kills and for getting empty; Return: 0, or -1 with @err set */
int slot_watch_cgroup(struct broker *b, struct slot *s, struct sbx_err *err) SBX_WUR;
/** slot_find_rest() - Note in @s of @b, whose maker ended, the group and the link that there may be of it, so that slot_kill() undoes them */
void slot_find_rest(struct broker *b, struct slot *s);
/** slot_kill() - End @s of @b, whatever its state: DYING, then by itself DRAINING and FREE */
void slot_kill(struct broker *b, struct slot *s);
/** slot_drain() - Try to finish @s of @b when it is DRAINING */
void slot_drain(struct broker *b, struct slot *s);
/** slot_drain_link() - The link @ifindex of the router is gone; 0: look at every slot of @b that is DRAINING */
void slot_drain_link(struct broker *b, uint32_t ifindex);
/** slot_layer_forget() - End the waiting shells of @b whose root uses the layer @key */
void slot_layer_forget(struct broker *b, const uint8_t key[BROKER_KEY_BYTES]);
typedef void slot_kept_found(void *arg, uint32_t number, uint32_t generation);
/**
 * slot_kept_each() - Name the directories below sandboxes/ that belong to no life
 * @b:		The broker
 * @found:	Called with @arg for each, at most LIMIT_SANDBOXES times
 * @arg:	Handed to @found
 *
 * A reboot leaves them, and a purge.  The broker does not know which of them somebody still wants: sandboxd has the rows.
 */
void slot_kept_each(struct broker *b, slot_kept_found *found, void *arg);
/** slot_kept_drop() - Move what the ended life @ref of @b left into the trash; Return: 0, or -errno (EBUSY: it lives) */
int slot_kept_drop(struct broker *b, const struct broker_slot_ref *ref) SBX_WUR;
/** slot_layer_used() - Whether a life of any slot of @b uses the layer @key */
bool slot_layer_used(const struct broker *b, const uint8_t key[BROKER_KEY_BYTES]);
/** slot_layer_lives() - Likewise, shells that only wait not counted */
bool slot_layer_lives(const struct broker *b, const uint8_t key[BROKER_KEY_BYTES]);
/** slot_claim_used() - Whether a life of any slot of @b uses the named volume @claim */
bool slot_claim_used(const struct broker *b, const char *claim);

/** slot_start_time() - Start of process @pid in clock ticks after boot; 0 when it is gone */
uint64_t slot_start_time(pid_t pid);

/** slot_list_push() - Append @s to @list */
void slot_list_push(struct slot_list *list, struct slot *s);
/** slot_list_remove() - Take @s out of @list when it is in it */
void slot_list_remove(struct slot_list *list, struct slot *s);

#endif
