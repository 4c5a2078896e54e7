// SPDX-License-Identifier: Apache-2.0
#include "runtime/broker/slot.h"

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/num.h"
#include "base/path.h"
#include "base/pidfd.h"
#include "runtime/broker/broker_int.h"
#include "runtime/broker/capture.h"
#include "runtime/broker/disk.h"
#include "runtime/broker/egress.h"
#include "runtime/broker/egress_plan.h"
#include "runtime/broker/flows.h"
#include "runtime/broker/launch.h"
#include "runtime/broker/root_ahead.h"
#include "runtime/broker/trash.h"

#include <assert.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define RECORD_MAGIC	 0x31545342u /* "BST1" */
#define GENERATION_BLOCK 1024u	     /* the counter on disk is written once for so many */
#define GENERATION_TEXT	 16
#define STAT_TEXT	 1024
#define OOM_AGAIN_MS	 5u
#define OOM_LOOKS	 200u
#define DRAIN_MS	 2u
#define SWEEP_MS	 1000u /* DRAINING slots are looked at again, should a notice have been lost */
#define REST		 32u   /* slots that lived before are taken again once so many of them are free */

/* <run dir>/slots/<n>/record; written whole, read whole, this very machine's byte order and boot. */
struct slot_record {
	uint32_t magic;
	uint32_t size;
	uint8_t boot_id[16];
	uint32_t slot;
	uint32_t generation;
	uint32_t state;
	int32_t pid;
	uint64_t start_time;
	uint32_t id_base;
	uint32_t addr;
	uint8_t sandbox_id[16];
	uint32_t n_layers;
	uint32_t n_claims;
	uint8_t layer[BROKER_MAX_LAYERS][BROKER_KEY_BYTES];
	char claim[BROKER_MAX_VOLUMES][BROKER_CLAIM_BYTES];
	/* Since 0.2; a record without them is that of a sandbox that is open, under its generation. */
	uint32_t mark;
	uint32_t mode;
};
#define RECORD_OLD_SIZE offsetof(struct slot_record, mark)

static const char *const state_names[] = {
	[BROKER_SLOT_FREE] = "free", [BROKER_SLOT_MAKING] = "making", [BROKER_SLOT_SHELL] = "shell",
	[BROKER_SLOT_ARMING] = "arming", [BROKER_SLOT_LIVE] = "live", [BROKER_SLOT_FROZEN] = "frozen",
	[BROKER_SLOT_DYING] = "dying", [BROKER_SLOT_DRAINING] = "draining",
	[BROKER_SLOT_KEPT] = "kept",
};
static_assert(ARRAY_SIZE(state_names) == BROKER_SLOT_STATE_COUNT, "a name for each state");

const char *slot_state_name(uint32_t state)
{
	return state < BROKER_SLOT_STATE_COUNT ? state_names[state] : "unknown";
}

/* ---- lists ---- */

void slot_list_push(struct slot_list *list, struct slot *s)
{
	s->next = NULL;
	if (list->last)
		list->last->next = s;
	else
		list->first = s;
	list->last = s;
	list->n++;
}

void slot_list_remove(struct slot_list *list, struct slot *s)
{
	struct slot *before = NULL;

	for (struct slot *at = list->first; at; before = at, at = at->next) {
		if (at != s)
			continue;
		if (before)
			before->next = s->next;
		else
			list->first = s->next;
		if (list->last == s)
			list->last = before;
		s->next = NULL;
		list->n--;
		return;
	}
}

/* ---- generations ---- */

static int generation_store(struct broker *b, uint32_t value)
{
	char text[GENERATION_TEXT];
	int len = snprintf(text, sizeof(text), "%u\n", value);
	auto_fd fd = openat(b->state_fd, "generation.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return -errno;
	if (write(fd, text, (size_t)len) != len || fdatasync(fd) < 0)
		return -errno;
	return renameat(b->state_fd, "generation.new", b->state_fd, "generation") < 0 ? -errno : 0;
}

static int generation_load(struct broker *b, struct sbx_err *err)
{
	char text[GENERATION_TEXT];
	ssize_t n = path_read_file(b->state_fd, "generation", text, sizeof(text));

	b->next_generation = b->generation_end = 1;
	if (n == -ENOENT)
		return 0;
	if (n > 0 && text[n - 1] == '\n')
		n--;
	uint32_t value = 0;
	if (n <= 0 || num_u32(text, (size_t)n, UINT32_MAX, &value) < 0 || value == 0)
		return sbx_err_set(err, SBX_E_SYSTEM, n < 0 ? (int)-n : 0,
				   "%s/generation does not hold a number: it must never go back, so it is not guessed", b->state_dir);
	b->next_generation = b->generation_end = value;
	return 0;
}

int slot_generation(struct broker *b, uint32_t *ret, struct sbx_err *err)
{
	if (b->next_generation >= UINT32_MAX - GENERATION_BLOCK)
		return sbx_err_set(err, SBX_E_LIMIT, 0, "all 2^32 generations of this state directory are used up");
	if (b->next_generation == b->generation_end) {
		int r = generation_store(b, b->generation_end + GENERATION_BLOCK);

		if (r < 0)
			return sbx_err_set(err, SBX_E_SYSTEM, -r, "write %s/generation", b->state_dir);
		b->generation_end += GENERATION_BLOCK;
	}
	*ret = b->next_generation++;
	return 0;
}

/* ---- records ---- */

static int record_write(const struct broker *b, const struct slot *s)
{
	struct slot_record record = {
		.magic = RECORD_MAGIC,
		.size = sizeof(record),
		.slot = s->number,
		.generation = s->generation,
		.state = s->state,
		.pid = s->pid,
		.start_time = s->start_time,
		.id_base = b->id_base,
		.addr = s->addr,
		.n_layers = s->n_layers,
		.n_claims = s->n_claims,
		.mark = s->mark,
		.mode = egress_record_mode(s),
	};
	auto_fd fd = openat(s->dir_fd, "record", O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return -errno;
	memcpy(record.boot_id, b->boot_id, sizeof(record.boot_id));
	memcpy(record.sandbox_id, s->sandbox_id, sizeof(record.sandbox_id));
	memcpy(record.layer, s->use->layer, sizeof(record.layer[0]) * s->n_layers);
	memcpy(record.claim, s->use->claim, sizeof(record.claim[0]) * s->n_claims);
	/* One write to a tmpfs: a process that is killed has done it whole or not at all. */
	ssize_t n = pwrite(fd, &record, sizeof(record), 0);
	return n == (ssize_t)sizeof(record) ? 0 : n < 0 ? -errno : -ENOSPC;
}

static int record_read(const struct broker *b, int dir_fd, uint32_t number, struct slot_record *ret)
{
	auto_fd fd = openat(dir_fd, "record", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0)
		return -errno;
	memset(ret, 0, sizeof(*ret));
	ssize_t n = read(fd, ret, sizeof(*ret));
	if (n < (ssize_t)RECORD_OLD_SIZE || ret->magic != RECORD_MAGIC || ret->size != (uint32_t)n ||
	    (n != (ssize_t)sizeof(*ret) && n != (ssize_t)RECORD_OLD_SIZE))
		return -EBADMSG;
	if (n == (ssize_t)RECORD_OLD_SIZE) {
		ret->mark = ret->generation;
		ret->mode = EGRESS_MODE_OPEN;
	}
	if (memcmp(ret->boot_id, b->boot_id, sizeof(ret->boot_id)) != 0)
		return -ESTALE;
	if (ret->slot != number || ret->state >= BROKER_SLOT_STATE_COUNT || ret->n_layers > BROKER_MAX_LAYERS ||
	    ret->n_claims > BROKER_MAX_VOLUMES)
		return -EBADMSG;
	return 0;
}

int slot_set_state(struct broker *b, struct slot *s, enum broker_slot_state state)
{
	s->state = state;
	int r = record_write(b, s);
	if (r < 0)
		log_error("record of slot %u (%s): %s", s->number, slot_state_name(state), strerror(-r));
	return r;
}

/* ---- taking and giving back ---- */

static void slot_reset(struct slot *s)
{
	uint32_t number = s->number;
	struct broker *broker = s->broker;
	struct slot_use *use = s->use;
	int layer_ns_fd = s->layer_ns_fd, volume_ns_fd = s->volume_ns_fd;
	struct lowers_set *lowers = s->lowers;

	free(s->create);
	disk_forget(s);
	egress_forget(s);
	*s = (struct slot){.number = number,
			   .broker = broker,
			   .use = use,
			   .pidfd = -1,
			   .dir_fd = -1,
			   .launch_fd = -1,
			   .mounts_fd = -1,
			   .disk_fd = -1,
			   .layer_ns_fd = layer_ns_fd,
			   .volume_ns_fd = volume_ns_fd,
			   .lowers = lowers};
	cgroup_slot_init(&s->cg);
}

static int open_dir(struct broker *b, struct slot *s)
{
	char name[16];

	snprintf(name, sizeof(name), "%u", s->number);
	s->dir_fd = path_make_dir(b->slots_fd, name, 0, 0, 0700);
	return s->dir_fd < 0 ? s->dir_fd : 0;
}

struct slot_list *slot_next(struct broker *b)
{
	return b->used_slots.n >= REST || !b->free_slots.first ? &b->used_slots : &b->free_slots;
}

struct slot *slot_take(struct broker *b, struct sbx_err *err)
{
	uint32_t generation = 0;
	struct slot_list *from = slot_next(b);
	struct slot *s = from->first;

	if (!s) {
		sbx_err_set(err, SBX_E_LIMIT, 0, "all %u slots are in use", b->n_slots);
		return NULL;
	}
	if (slot_generation(b, &generation, err) < 0)
		return NULL;
	slot_list_remove(from, s);
	slot_reset(s);
	s->generation = generation;
	s->addr = links_addr(&b->links_config, s->number);
	s->made_ms = loop_now_ms(b->loop);
	int r = open_dir(b, s);
	if (r == 0)
		r = slot_set_state(b, s, BROKER_SLOT_MAKING);
	if (r < 0 || !s->addr) {
		if (s->dir_fd >= 0)
			close(s->dir_fd);
		slot_reset(s);
		slot_list_push(from, s);
		sbx_err_set(err, SBX_E_SYSTEM, -r, "slot %u cannot be taken", s->number);
		return NULL;
	}
	return s;
}

static void slot_give_back(struct broker *b, struct slot *s)
{
	uint32_t number = s->number;

	if (unlinkat(s->dir_fd, "record", 0) < 0 && errno != ENOENT)
		log_error("record of slot %u: %s", number, strerror(errno));
	close(s->dir_fd);
	slot_list_remove(&b->draining, s);
	slot_reset(s);
	/* What is kept of its last life (helper namespace, layers) is of use in the next one. */
	if (number < b->n_slots && b->recovered)
		slot_list_push(&b->used_slots, s);
}

uint32_t slots_free(const struct broker *b)
{
	return b->free_slots.n + b->used_slots.n;
}

struct slot *slot_by_ref(struct broker *b, const struct broker_slot_ref *ref)
{
	if (ref->slot >= LIMIT_SANDBOXES || ref->generation == 0)
		return NULL;
	struct slot *s = &b->slot[ref->slot];
	return s->state != BROKER_SLOT_FREE && s->generation == ref->generation ? s : NULL;
}

static bool has_layer(uint8_t (*layer)[BROKER_KEY_BYTES], uint32_t n, const uint8_t key[BROKER_KEY_BYTES])
{
	for (uint32_t k = 0; k < n; k++)
		if (!memcmp(layer[k], key, BROKER_KEY_BYTES))
			return true;
	return false;
}

void slot_layer_forget(struct broker *b, const uint8_t key[BROKER_KEY_BYTES])
{
	if (has_layer(b->likely.layer, b->likely.n_layers, key))
		b->likely.n_layers = 0;
	root_ahead_forget(b, key);
	for (uint32_t i = 0; i < LIMIT_SANDBOXES; i++) {
		struct slot *s = &b->slot[i];

		if (s->create || (s->state != BROKER_SLOT_MAKING && s->state != BROKER_SLOT_SHELL) || !has_layer(s->use->layer, s->n_layers, key))
			continue;
		slot_kill(b, s);
		s->n_layers = 0; /* nobody has used or will use its root */
	}
}

bool slot_layer_used(const struct broker *b, const uint8_t key[BROKER_KEY_BYTES])
{
	for (uint32_t i = 0; i < LIMIT_SANDBOXES; i++)
		if (has_layer(b->slot[i].use->layer, b->slot[i].n_layers, key))
			return true;
	return false;
}

bool slot_layer_lives(const struct broker *b, const uint8_t key[BROKER_KEY_BYTES])
{
	for (uint32_t i = 0; i < LIMIT_SANDBOXES; i++) {
		const struct slot *s = &b->slot[i];
		bool waits = !s->create && (s->state == BROKER_SLOT_MAKING || s->state == BROKER_SLOT_SHELL);

		if (!waits && has_layer(s->use->layer, s->n_layers, key))
			return true;
	}
	return false;
}

/* A create that waits for a disk or a volume has not noted its use yet. */
static bool create_names(const struct broker_create *c, const char *claim)
{
	for (uint32_t k = 0; c && k < c->n_volumes; k++)
		if (c->volume[k].kind == BROKER_VOLUME_NAMED && !strcmp(c->volume[k].claim, claim))
			return true;
	return false;
}

bool slot_claim_used(const struct broker *b, const char *claim)
{
	for (uint32_t i = 0; i < LIMIT_SANDBOXES; i++) {
		if (create_names(b->slot[i].create, claim))
			return true;
		for (uint32_t k = 0; k < b->slot[i].n_claims; k++)
			if (!strcmp(b->slot[i].use->claim[k], claim))
				return true;
	}
	return false;
}

/* ---- dying ---- */

/* The upper is renamed away before anybody hears that the sandbox is gone; a worker empties it later. */
static void put_away_files(struct broker *b, struct slot *s)
{
	char name[32];

	if (!s->has_files)
		return;
	launch_dir_name(s, name);
	int r = FAULT_POINT("kill-trash") ? -EIO : trash_put(b, b->sandboxes_fd, name, slot_base(b, s));
	if (r < 0 && r != -ENOENT) {
		log_error("files of slot %u stay for the next sweep: %s", s->number, strerror(-r));
		return;
	}
	s->has_files = false;
}

static void unwatch_cgroup(struct slot *s)
{
	loop_fd_remove(s->events_source);
	loop_fd_remove(s->oom_source);
	s->events_source = s->oom_source = NULL;
}

static void enter_draining(struct broker *b, struct slot *s)
{
	loop_fd_remove(s->pid_source);
	s->pid_source = NULL;
	replace_fd(&s->pidfd, -1);
	launch_end(s);
	capture_end_life(b, &(struct broker_slot_ref){.slot = s->number, .generation = s->generation});
	disk_end(b, s);
	put_away_files(b, s);
	s->n_layers = s->n_claims = 0; /* nobody is in its mounts any more; what mounts_fd holds of them is nobody's way to a layer */
	(void)slot_set_state(b, s, BROKER_SLOT_DRAINING);
	s->draining_ms = loop_now_ms(b->loop);
	slot_list_push(&b->draining, s);
	broker_kill_done(b, s);
	trash_mounts(b, take_fd(&s->mounts_fd));
	/*
	 * Not now: whom the answer wakes mostly waits for this very processor, and removing groups takes as long as the kill did.
	 * But at the start, where a slot that is free again is what tells a group without an owner.
	 */
	if (b->recovered)
		loop_timer_arm(b->sweep, DRAIN_MS);
	else
		slot_drain(b, s);
}

static void leave_pool(struct broker *b, struct slot *s)
{
	if (s->state == BROKER_SLOT_SHELL)
		slot_list_remove(&b->pool, s);
	launch_not_for_pool(b, s);
}

static void pid_ended(void *arg, int fd, uint32_t events)
{
	struct slot *s = arg;
	struct broker *b = s->broker;
	struct sbx_err err = {0};
	siginfo_t info;

	(void)events;
	ignore_result(waitid(P_PIDFD, (id_t)fd, &info, WEXITED)); /* ECHILD: an earlier broker was the parent, init reaps it */
	leave_pool(b, s);
	if (s->state != BROKER_SLOT_DYING && s->has_cgroup && cgroup_kill(b->cg, &s->cg, &err) < 0)
		log_error("slot %u: %s", s->number, err.msg);
	if (s->state == BROKER_SLOT_LIVE || s->state == BROKER_SLOT_FROZEN)
		broker_event(b, s, BROKER_EVENT_EXITED, "pid 1 of the sandbox ended");
	if (s->create) {
		sbx_err_set(&err, SBX_E_START_FAILED, 0, "the shell of slot %u ended while it was %s", s->number, slot_state_name(s->state));
		broker_create_done(b, s, &err);
	}
	enter_draining(b, s);
}

int slot_adopt_pid(struct broker *b, struct slot *s, struct sbx_err *err)
{
	s->pid_source = loop_fd_add(b->loop, s->pidfd, EPOLLIN, pid_ended, s);
	return s->pid_source ? 0 : sbx_err_set(err, SBX_E_SYSTEM, errno, "watch pid 1 of slot %u", s->number);
}

/*
 * The last process of a mount namespace takes its mounts down, which waits for two RCU grace periods, and for seconds where the
 * kernel has much of its files in its caches.  So that pid 1 has not to do it, somebody else is the last who has them.  What
 * others may ask for at once (volumes, loop devices) is not kept over the answer.
 */
static void hold_mounts(struct slot *s)
{
	char path[48];

	if (!s->bare || s->pidfd < 0 || s->mounts_fd >= 0)
		return;
	snprintf(path, sizeof(path), "/proc/%d/ns/mnt", (int)s->pid);
	s->mounts_fd = open(path, O_RDONLY | O_CLOEXEC);
	/* it may have been reaped before, and its number be somebody's */
	if (s->mounts_fd >= 0 && pidfd_signal(s->pidfd, 0) < 0)
		replace_fd(&s->mounts_fd, -1);
}

void slot_kill(struct broker *b, struct slot *s)
{
	struct sbx_err err = {0};

	/* what broker-shells has comes back by its answer or by its end */
	if (s->with_shells || s->state == BROKER_SLOT_FREE || s->state == BROKER_SLOT_DYING || s->state == BROKER_SLOT_DRAINING)
		return;
	leave_pool(b, s);
	(void)slot_set_state(b, s, BROKER_SLOT_DYING);
	launch_end(s);
	hold_mounts(s);
	if (FAULT_POINT("kill-cgroup"))
		return;
	if (s->has_cgroup && cgroup_kill(b->cg, &s->cg, &err) < 0)
		log_error("slot %u: %s", s->number, err.msg);
	/* Also by name: a shell that failed may not have reached its cgroup. */
	int r = s->pidfd < 0 ? 0 : pidfd_signal(s->pidfd, SIGKILL);
	if (r < 0 && r != -ESRCH)
		log_error("slot %u: kill pid 1: %s", s->number, strerror(-r));
	if (!s->pid_source)
		enter_draining(b, s);
}

/* ---- draining ---- */

static void cgroup_changed(void *arg, int fd, uint32_t events)
{
	struct slot *s = arg;

	(void)fd;
	(void)events;
	slot_drain(s->broker, s);
}

static void oom_happened(void *arg, int fd, uint32_t events)
{
	struct slot *s = arg;
	uint64_t kills = 0;

	(void)fd;
	if (events)
		s->oom_looks = 0;
	int r = cgroup_oom_kills(s->broker->cg, &s->cg, &kills);
	if (r < 0) {
		log_error("slot %u: read OOM kills: %s", s->number, strerror(-r));
		loop_fd_remove(s->oom_source); /* it would be ready for ever */
		s->oom_source = NULL;
		return;
	}
	if (kills == s->oom_kills) {
		/* v1 tells when it begins to look for a victim: the count follows a moment later, without another notice. */
		if (s->oom_looks++ < OOM_LOOKS)
			loop_timer_arm(s->broker->oom_again, OOM_AGAIN_MS);
		return;
	}
	s->oom_looks = 0;
	s->oom_kills = kills;
	broker_event(s->broker, s, BROKER_EVENT_OOM, "the memory limit ended a process");
}

static void oom_again(void *arg)
{
	struct broker *b = arg;

	for (uint32_t i = 0; i < LIMIT_SANDBOXES; i++)
		if (b->slot[i].oom_looks && b->slot[i].oom_source)
			oom_happened(&b->slot[i], b->slot[i].cg.oom_fd, 0);
}

int slot_watch_cgroup(struct broker *b, struct slot *s, struct sbx_err *err)
{
	if (s->cg.oom_fd < 0 || s->oom_source)
		return 0;
	s->oom_source = loop_fd_add(b->loop, s->cg.oom_fd, cgroup_oom_epoll(b->cg), oom_happened, s);
	return s->oom_source ? 0 : sbx_err_set(err, SBX_E_SYSTEM, errno, "watch the memory of slot %u", s->number);
}

/* Return: whether the cgroup is gone. */
static bool drain_cgroup(struct broker *b, struct slot *s)
{
	struct sbx_err err = {0};

	if (!s->has_cgroup)
		return true;
	if (cgroup_populated(&s->cg) <= 0) {
		unwatch_cgroup(s); /* before its descriptors are closed */
		if (cgroup_remove(b->cg, &s->cg, &err) == 0) {
			s->has_cgroup = false;
			return true;
		}
		if (err.sys != EBUSY)
			log_error("slot %u: %s", s->number, err.msg);
	}
	if (!s->events_source && s->cg.events_fd >= 0)
		s->events_source = loop_fd_add(b->loop, s->cg.events_fd, EPOLLPRI, cgroup_changed, s);
	return false;
}

/*
 * The kernel tells when a link is gone.  A question has to wait for the lock that the removal of namespaces holds, and so has the loop:
 * only where the notice may have been lost.
 */
static bool may_ask(const struct broker *b, const struct slot *s)
{
	return !b->recovered || loop_now_ms(b->loop) - s->draining_ms >= SWEEP_MS;
}

/*
 * The next tenant of the slot may start only when nothing of this one can reach it: no process (cgroup), no packet under way
 * (link and with it the namespace), no connection entry that would let an answer of the old peer through.
 */
static bool drain_network(struct broker *b, struct slot *s)
{
	if (s->has_link && s->link.ifindex && !s->link_gone && (!may_ask(b, s) || links_present(b->links, s->link.ifindex) != 0))
		return false;
	if (!egress_end(b, s))
		return false;
	if (!s->has_link)
		return true;
	if (!flows_drop(b, s))
		return false;
	s->has_link = false;
	return true;
}

void slot_drain(struct broker *b, struct slot *s)
{
	if (s->state != BROKER_SLOT_DRAINING)
		return;
	bool done = drain_cgroup(b, s);
	done = drain_network(b, s) && done;
	/* a reader of its files runs with its ids; the end of that drains again */
	done = !capture_uses_life(b, &(struct broker_slot_ref){.slot = s->number, .generation = s->generation}) && done;
	put_away_files(b, s);
	if (done && !s->has_files)
		slot_give_back(b, s);
	else if (!loop_timer_armed(b->sweep))
		loop_timer_arm(b->sweep, SWEEP_MS);
}

static void drain_all(struct broker *b)
{
	for (struct slot *next, *s = b->draining.first; s; s = next) {
		next = s->next;
		slot_drain(b, s);
	}
}

static void drain_all_now(struct broker *b)
{
	for (struct slot *s = b->draining.first; s; s = s->next)
		s->draining_ms = 0; /* may_ask() at once */
	drain_all(b);
}

void slot_drain_link(struct broker *b, uint32_t ifindex)
{
	if (!ifindex) {
		drain_all_now(b);
		return;
	}
	for (uint32_t i = 0; i < LIMIT_SANDBOXES; i++) {
		struct slot *s = &b->slot[i];

		if (!s->has_link || s->link.ifindex != ifindex)
			continue;
		s->link_gone = true; /* perhaps before the end of its processes is seen */
		slot_drain(b, s);
		return;
	}
}

static void sweep(void *arg)
{
	drain_all(arg);
}

/* ---- start ---- */

int slots_init(struct broker *b, struct sbx_err *err)
{
	b->slot = calloc(LIMIT_SANDBOXES, sizeof(*b->slot));
	/* apart from the slots: what is not in use is never touched, and every clone copies the tables of what was */
	b->use = calloc(LIMIT_SANDBOXES, sizeof(*b->use));
	b->sweep = b->slot && b->use ? loop_timer_new(b->loop, sweep, b) : NULL;
	b->oom_again = b->sweep ? loop_timer_new(b->loop, oom_again, b) : NULL;
	if (!b->oom_again)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "slots");
	for (uint32_t i = 0; i < LIMIT_SANDBOXES; i++) {
		b->slot[i] = (struct slot){.number = i, .broker = b, .use = &b->use[i], .layer_ns_fd = -1, .volume_ns_fd = -1};
		slot_reset(&b->slot[i]);
	}
	return generation_load(b, err);
}

uint64_t slot_start_time(pid_t pid)
{
	char path[48];
	char text[STAT_TEXT];
	uint64_t value = 0;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	ssize_t n = path_read_file(AT_FDCWD, path, text, sizeof(text));
	const char *at = n > 0 ? strrchr(text, ')') : NULL; /* the name before may hold anything */
	for (int field = 2; at && field < 22; field++) {
		at = strchr(at, ' ');
		at = at ? at + 1 : NULL;
	}
	return at && num_u64(at, strcspn(at, " "), UINT64_MAX, &value) == 0 ? value : 0;
}

/* Finds the process of a record again; Return: 0 when it is the same one and lives. */
static int recover_pid(struct slot *s, const struct slot_record *record)
{
	if (record->pid <= 0)
		return -ESRCH;
	auto_fd pidfd = pidfd_of(record->pid);
	if (pidfd < 0)
		return pidfd;
	/* The descriptor is held: from here on the number cannot be given to another process. */
	if (slot_start_time(record->pid) != record->start_time || !record->start_time)
		return -ESRCH;
	s->pid = record->pid;
	s->start_time = record->start_time;
	s->pidfd = take_fd(&pidfd);
	return 0;
}

static void recover_link(struct broker *b, struct slot *s)
{
	int index = links_find(b->links, s->generation);

	/* Conntrack entries outlive the link: has_link also when it is gone, so that they are deleted. */
	s->has_link = true;
	s->link.ifindex = index > 0 ? (uint32_t)index : 0;
	links_name(s->generation, s->link.ifname);
}

static int recover_slot(struct broker *b, struct slot *s, const struct slot_record *record, struct sbx_err *err)
{
	bool wanted = record->state == BROKER_SLOT_LIVE || record->state == BROKER_SLOT_FROZEN;

	s->generation = record->generation;
	s->addr = record->addr;
	s->has_files = true;
	memcpy(s->sandbox_id, record->sandbox_id, sizeof(s->sandbox_id));
	/* a shell that waited with its root used it for nobody */
	s->n_layers = record->state == BROKER_SLOT_MAKING || record->state == BROKER_SLOT_SHELL ? 0 : record->n_layers;
	s->n_claims = record->n_claims;
	memcpy(s->use->layer, record->layer, sizeof(s->use->layer[0]) * s->n_layers);
	memcpy(s->use->claim, record->claim, sizeof(s->use->claim[0]) * s->n_claims);
	for (uint32_t i = 0; i < s->n_claims; i++)
		s->use->claim[i][BROKER_CLAIM_BYTES - 1] = '\0';
	s->state = record->state;
	s->mark = record->mark;
	s->mode = record->mode;
	int rules = egress_recover(b, s);
	if (rules < 0)
		log_error("slot %u: its policy cannot be read (%s): it is closed until sandboxd sends it again", s->number, strerror(-rules));
	recover_link(b, s);
	struct sbx_err none = {0};
	s->has_cgroup = cgroup_adopt(b->cg, s->number, s->generation, &s->cg, &none) == 0;
	int r = recover_pid(s, record);
	if (r == 0 && slot_adopt_pid(b, s, err) < 0)
		return -1;
	if (r == 0 && wanted && s->has_cgroup && record->id_base == b->id_base) {
		int frozen = cgroup_frozen(b->cg, &s->cg, &none);
		s->state = frozen > 0 ? BROKER_SLOT_FROZEN : BROKER_SLOT_LIVE;
		if (slot_watch_cgroup(b, s, err) < 0)
			return -1;
		(void)slot_set_state(b, s, s->state);
		return 1;
	}
	/* Half made, half gone, or of another configuration: nobody can use it. */
	if (record->state == BROKER_SLOT_FREE || record->state >= BROKER_SLOT_DYING)
		s->state = BROKER_SLOT_MAKING; /* so that slot_kill() acts */
	slot_kill(b, s);
	return 0;
}

void slot_find_rest(struct broker *b, struct slot *s)
{
	struct sbx_err err = {0};

	s->has_files = true;
	s->has_cgroup = cgroup_adopt(b->cg, s->number, s->generation, &s->cg, &err) == 0;
	/* Killed between two of its directories, the group has no watch to open. */
	if (!s->has_cgroup && cgroup_discard(b->cg, s->number, s->generation, &err) < 0)
		log_error("group s%u.%u: %s", s->number, s->generation, err.msg);
	recover_link(b, s);
}

struct found {
	struct broker *b;
	struct sbx_err *err;
};

/* A group without a record: the broker was killed between the two, or the record was lost. */
static void found_group(void *arg, uint32_t number, uint32_t generation)
{
	struct broker *b = ((struct found *)arg)->b;

	if (number >= LIMIT_SANDBOXES || b->slot[number].generation == generation)
		return;
	struct slot *s = &b->slot[number];
	struct cgroup_slot cg;
	struct sbx_err err = {0};
	if (s->state == BROKER_SLOT_FREE && open_dir(b, s) == 0) {
		s->generation = generation;
		s->addr = links_addr(&b->links_config, number);
		s->state = BROKER_SLOT_MAKING;
		slot_find_rest(b, s);
		slot_kill(b, s);
		return;
	}
	cgroup_slot_init(&cg);
	bool whole = cgroup_adopt(b->cg, number, generation, &cg, &err) == 0;
	int r = whole ? cgroup_kill(b->cg, &cg, &err) : cgroup_discard(b->cg, number, generation, &err);
	if (whole && r == 0)
		r = cgroup_remove(b->cg, &cg, &err);
	if (r < 0)
		log_error("group s%u.%u: %s", number, generation, err.msg);
}

/* ---- what lies below sandboxes/ and belongs to no life ---- */

static bool kept_name(const struct broker *b, const char *name, uint32_t *number, uint32_t *generation)
{
	size_t n = strcspn(name, ".");

	if (!n || !name[n] || num_u32(name, n, LIMIT_SANDBOXES - 1, number) < 0 ||
	    num_u32(name + n + 1, strlen(name + n + 1), UINT32_MAX, generation) < 0)
		return false;
	return b->slot[*number].state == BROKER_SLOT_FREE || b->slot[*number].generation != *generation;
}

void slot_kept_each(struct broker *b, slot_kept_found *found, void *arg)
{
	auto_dir dir = path_dir(b->sandboxes_fd);
	uint32_t number, generation, n = 0;

	if (!dir)
		return;
	for (struct dirent *e; n < LIMIT_SANDBOXES && (e = readdir(dir));)
		if (kept_name(b, e->d_name, &number, &generation)) {
			found(arg, number, generation);
			n++;
		}
}

int slot_kept_drop(struct broker *b, const struct broker_slot_ref *ref)
{
	char name[32];
	uint32_t number, generation;

	snprintf(name, sizeof(name), "%u.%u", ref->slot, ref->generation);
	if (ref->slot >= LIMIT_SANDBOXES || !kept_name(b, name, &number, &generation))
		return -EBUSY;
	int r = trash_put(b, b->sandboxes_fd, name, slot_base(b, &b->slot[number]));
	return r == -ENOENT ? 0 : r;
}

int slots_recover(struct broker *b, struct sbx_err *err)
{
	struct found found = {.b = b, .err = err};
	auto_free struct slot_record *record = malloc(sizeof(*record));
	int live = 0;

	if (!record)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "records");
	for (uint32_t i = 0; i < LIMIT_SANDBOXES; i++) {
		struct slot *s = &b->slot[i];
		char name[16];

		snprintf(name, sizeof(name), "%u", i);
		auto_fd dir = path_open_beneath(b->slots_fd, name, O_RDONLY | O_DIRECTORY);
		int r = dir < 0 ? dir : record_read(b, dir, i, record);
		if (r == -ENOENT)
			continue;
		if (r < 0) {
			log_warn("record of slot %u is not of this boot or not whole: its group tells what is left", i);
			continue;
		}
		s->dir_fd = take_fd(&dir);
		r = recover_slot(b, s, record, err);
		if (r < 0)
			return -1;
		live += r;
	}
	if (cgroup_each(b->cg, found_group, &found, err) < 0)
		return -1;
	b->recovered = true; /* from here on a slot that gets free goes into the list by itself */
	for (uint32_t i = 0; i < b->n_slots; i++)
		if (b->slot[i].state == BROKER_SLOT_FREE)
			slot_list_push(&b->free_slots, &b->slot[i]);
	return live;
}
