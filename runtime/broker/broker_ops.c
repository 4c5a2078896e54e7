// SPDX-License-Identifier: Apache-2.0
/*
 * DOC: requests, one table
 *
 * The sender is taken for hostile: sandboxd reads what clients write, and this process is root.  So a request holds numbers
 * and bounded names only, every number is looked up in a table of the broker's own, every name is opened beneath a
 * directory of the broker's own, and the table below says in which state of a slot a request means anything at all.
 */
#include "base/cleanup.h"
#include "base/fdpass.h"
#include "base/log.h"
#include "runtime/broker/broker_decode.h"
#include "runtime/broker/broker_int.h"
#include "runtime/broker/capture.h"
#include "runtime/broker/disk.h"
#include "runtime/broker/egress.h"
#include "runtime/broker/egress_walk.h"
#include "runtime/broker/freezer.h"
#include "runtime/broker/host_check.h"
#include "runtime/broker/host_probe.h"
#include "runtime/broker/launch.h"
#include "runtime/broker/layers.h"
#include "runtime/broker/netlog.h"
#include "runtime/broker/slot.h"
#include "runtime/broker/volumes.h"

#include <linux/sockios.h>
#include <assert.h>
#include <sched.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define SEND_BUFFER_BYTES (4 << 20) /* LIST answers up to 2000 messages at once */
#define DESCRIPTORS_OWN	      256u
#define DESCRIPTORS_PER_SLOT  11u	    /* pidfd, disk, groups, record, two helper namespaces, launch socket, mounts while it is made */
#define REQUESTS_PER_TURN 16	    /* then the next connection has its turn */

enum who { WHO_SANDBOXD = 1u << 0, WHO_DNSD = 1u << 1 };

struct connection {
	struct broker *b;
	uint64_t number; /* never used twice */
	int fd;
	enum who who;
	bool greeted;
	struct loop_fd *source;
};

struct request {
	struct connection *c;
	const union broker_any *any;
	struct slot *slot; /* requests that name one: its generation matches and its state is allowed */
	int fd;		   /* UNPACK: the blob; closed by the caller */
};

/* ---- sending ---- */

static void connection_close(struct connection *c)
{
	struct broker *b = c->b;

	for (size_t i = 0; i < BROKER_MAX_CONNECTIONS; i++)
		if (b->connection[i] == c)
			b->connection[i] = NULL;
	capture_cancel(b, c->number);
	loop_fd_remove(c->source);
	ignore_result(shutdown(c->fd, SHUT_RDWR)); /* the peer sees the end also while a child of ours holds a copy */
	close(c->fd);
	free(c);
}

static struct connection *connection_by_number(struct broker *b, uint64_t number)
{
	for (size_t i = 0; number && i < BROKER_MAX_CONNECTIONS; i++)
		if (b->connection[i] && b->connection[i]->number == number)
			return b->connection[i];
	return NULL;
}

/* A peer that does not read what it asked for loses its connection; it can do no more than that to us. */
static void send_message(struct connection *c, void *message, size_t size, uint32_t op, uint64_t tag, const int *fd, size_t n_fds)
{
	struct broker_head *head = message;
	struct iovec iov = {.iov_base = message, .iov_len = size};

	*head = (struct broker_head){.magic = BROKER_MAGIC, .op = op, .tag = tag, .size = (uint32_t)size};
	int r = fdpass_send(c->fd, &iov, 1, fd, n_fds);
	if (r < 0) {
		log_warn("connection %llu: answer not taken: %s", (unsigned long long)c->number, strerror(-r));
		ignore_result(shutdown(c->fd, SHUT_RDWR)); /* the loop sees the end and closes it: callers still use it */
	}
}

static void put_text(char out[BROKER_TEXT_BYTES], const char *text)
{
	size_t n = strnlen(text, BROKER_TEXT_BYTES - 1);

	memcpy(out, text, n);
	out[n] = '\0';
}

static void fill_error(int32_t *status, int32_t *sys, char text[BROKER_TEXT_BYTES], const struct sbx_err *err)
{
	if (!err)
		return;
	*status = (int32_t)err->code;
	*sys = err->sys;
	put_text(text, err->msg);
}

/* Whatever answer it is: its three fields of an error, NULL changes none of them. */
#define FILL_ERROR(answer, err) fill_error(&(answer)->status, &(answer)->sys, (answer)->text, err)

static void reply(const struct request *r, const struct sbx_err *err, const int *fd, size_t n_fds)
{
	struct broker_reply answer = {0};

	FILL_ERROR(&answer, err);
	send_message(r->c, &answer, sizeof(answer), r->any->head.op, r->any->head.tag, fd, n_fds);
}

static int reply_result(const struct request *r, int result, const struct sbx_err *err)
{
	reply(r, result < 0 ? err : NULL, NULL, 0);
	return 0;
}

void broker_event(struct broker *b, const struct slot *s, uint32_t op, const char *text)
{
	for (size_t i = 0; i < BROKER_MAX_CONNECTIONS; i++) {
		struct connection *c = b->connection[i];
		struct broker_event_msg event = {.ref = {.slot = BROKER_NO_SLOT}};

		if (!c || c->who != WHO_SANDBOXD || !c->greeted)
			continue;
		if (s) {
			event.ref = (struct broker_slot_ref){.slot = s->number, .generation = s->generation};
			event.oom_kills = s->oom_kills;
			memcpy(event.sandbox_id, s->sandbox_id, sizeof(event.sandbox_id));
		}
		put_text(event.text, text);
		send_message(c, &event, sizeof(event), op, 0, NULL, 0);
	}
}

/* ---- handlers ---- */

/* Safe: reads nothing but the version, tells what every process on this host may know. */
static int on_hello(struct broker *b, const struct request *r, struct sbx_err *err)
{
	struct broker_hello_reply answer = {
		.version = BROKER_VERSION,
		.n_slots = b->n_slots,
		.id_base = b->id_base,
		.subnet_addr = b->links_config.subnet_addr,
		.subnet_prefix = b->links_config.subnet_prefix,
		.gateway_addr = b->settings.gateway_addr,
		.cgroup_version = cgroup_version(b->cg),
		.host_features = b->host_features,
	};

	(void)err;
	memcpy(answer.boot_id, b->boot_id, sizeof(answer.boot_id));
	if (b->has_host_image)
		memcpy(answer.host_image_key, b->host_key, sizeof(answer.host_image_key));
	if (r->any->hello.version != BROKER_VERSION) {
		answer.status = SBX_E_PROTOCOL;
		put_text(answer.text, "broker and client are of different versions: restart both");
	} else {
		r->c->greeted = true;
	}
	send_message(r->c, &answer, sizeof(answer), BROKER_OP_HELLO, r->any->head.tag, NULL, 0);
	return 0;
}

static void answer_create(struct broker *b, const struct broker_asker *asker, const struct slot *s, const struct sbx_err *err,
			  const int *fd)
{
	struct connection *c = connection_by_number(b, asker->connection);
	struct broker_create_reply answer = {.ref = {.slot = BROKER_NO_SLOT}};

	if (!c)
		return;
	FILL_ERROR(&answer, err);
	if (!err) {
		answer.ref = (struct broker_slot_ref){.slot = s->number, .generation = s->generation};
		answer.addr = s->addr;
		answer.pid = (uint32_t)s->pid;
	}
	send_message(c, &answer, sizeof(answer), BROKER_OP_SANDBOX_CREATE, asker->tag, fd, err ? 0 : 2);
}

void broker_create_done(struct broker *b, struct slot *s, const struct sbx_err *err)
{
	struct broker_asker asker = s->creator;
	struct sbx_err own = {0};
	int fd[LAUNCH_CHANNEL_FDS] = {-1, -1, -1, -1};

	free(s->create);
	s->create = NULL;
	s->creator = (struct broker_asker){0};
	int r = err ? 0 : launch_channel(s, BROKER_CHANNEL_CONTROL, fd);
	if (r < 0) {
		sbx_err_set(&own, SBX_E_START_FAILED, -r, "control channel of slot %u", s->number);
		err = &own;
	}
	answer_create(b, &asker, s, err, fd);
	close_keep_errno(fd[0]);
	close_keep_errno(fd[1]);
	if (r < 0 || (!err && !connection_by_number(b, asker.connection)))
		slot_kill(b, s); /* nobody knows of it: sandboxd is gone and will not find it in its rows */
}

static int check_create(const struct broker *b, const struct broker_create *c, struct sbx_err *err)
{
	bool host = b->has_host_image && c->n_layers == 1 && !memcmp(c->layer[0], b->host_key, BROKER_KEY_BYTES);

	if ((c->flags & BROKER_CREATE_HOST_USR) && !(host && b->has_usr))
		return sbx_err_set(err, SBX_E_IMAGE_NOT_FOUND, 0, "the host's /usr goes with the host image only");
	if (c->memory_bytes > INT64_MAX || c->cpu_millicores > 1000u * 4096 || c->pids_max > 1u << 22)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "limits beyond those of any host");
	if (disk_check(b, c->disk_mib, err) < 0)
		return -1;
	uint32_t in_use = b->n_slots - slots_free(b);
	struct rlimit fds = {0};
	if (getrlimit(RLIMIT_NOFILE, &fds) == 0 && fds.rlim_cur < DESCRIPTORS_OWN + (rlim_t)(in_use + 1) * DESCRIPTORS_PER_SLOT)
		return sbx_err_set(err, SBX_E_HOST_FULL, 0, "%u sandboxes and shells, and %llu descriptors for the broker: raise LimitNOFILE", in_use,
				   (unsigned long long)fds.rlim_cur);
	for (uint32_t i = 0; i < c->n_layers; i++)
		if (!layers_present(b, c->layer[i]))
			return sbx_err_set(err, SBX_E_IMAGE_NOT_FOUND, 0, "layer %u of the image is not in the store", i);
	for (uint32_t i = 0; i < c->n_volumes; i++)
		if (volumes_check(b, &c->volume[i], err) < 0)
			return -1;
	return 0;
}

/*
 * Safe: the slot, its ids, address, groups and generation are the broker's choice; layers are keys of its own store, volumes
 * are names beneath its own directories or indices into its own list; mount paths are opened inside the sandbox by a process
 * of the sandbox; limits are checked by the kernel.  The worst a sender gets is another sandbox of its own.
 */
static int on_create(struct broker *b, const struct request *r, struct sbx_err *err)
{
	const struct broker_create *create = &r->any->create;
	struct broker_asker asker = {.connection = r->c->number, .tag = create->head.tag, .op = create->head.op};

	if (check_create(b, create, err) < 0) {
		answer_create(b, &asker, NULL, err, NULL);
		return 0;
	}
	struct broker_create *copy = malloc(sizeof(*copy));
	struct slot *s = copy ? launch_from_pool(b, create) : NULL;
	enum { BARE, COMING, POOLED } what = s ? POOLED : BARE;
	if (copy && !s && (s = launch_coming(b)))
		what = COMING;
	if (copy && !s)
		s = slot_take(b, err);
	if (!s) {
		if (!copy)
			sbx_err_set(err, SBX_E_NO_MEMORY, 0, "create");
		free(copy);
		answer_create(b, &asker, NULL, err, NULL);
		return 0;
	}
	memcpy(copy, create, sizeof(*copy));
	s->create = copy;
	s->creator = asker;
	if (launch_open(b, s, err) < 0) {
		broker_create_done(b, s, err);
		slot_kill(b, s);
		return 0;
	}
	if (what == BARE)
		launch_make(b, s);
	else if (!s->with_shells) /* else once it is handed over */
		launch_arm(b, s);
	return 0;
}

/* Safe: the ends of a FIFO in a directory that the broker made for this life; whoever holds them can talk to this sandbox only. */
static int on_channel(struct broker *b, const struct request *r, struct sbx_err *err)
{
	int fd[LAUNCH_CHANNEL_FDS];
	uint32_t channel = r->any->slot_req.arg;

	(void)b;
	if (channel != BROKER_CHANNEL_CONTROL && channel != BROKER_CHANNEL_EXEC)
		return sbx_err_set(err, SBX_E_PROTOCOL, 0, "channel %u", channel);
	int n = launch_channel(r->slot, channel, fd);
	if (n < 0)
		return sbx_err_set(err, SBX_E_NOT_READY, -n, "channel of slot %u", r->slot->number);
	reply(r, NULL, fd, (size_t)n);
	for (int i = 0; i < n; i++)
		close(fd[i]);
	return 0;
}

void broker_kill_done(struct broker *b, struct slot *s)
{
	for (size_t i = 0; i < BROKER_KILL_WAITERS; i++) {
		struct connection *c = connection_by_number(b, s->killer[i].connection);
		struct broker_reply answer = {0};

		if (c)
			send_message(c, &answer, sizeof(answer), BROKER_OP_SANDBOX_KILL, s->killer[i].tag, NULL, 0);
		s->killer[i] = (struct broker_asker){0};
	}
}

/* Safe: ends a sandbox, which the sender may; the generation keeps it from the next tenant. */
static int on_kill(struct broker *b, const struct request *r, struct sbx_err *err)
{
	struct slot *s = r->slot;

	for (size_t i = 0; i < BROKER_KILL_WAITERS; i++) {
		if (s->killer[i].connection)
			continue;
		s->killer[i] = (struct broker_asker){.connection = r->c->number, .tag = r->any->head.tag, .op = r->any->head.op};
		slot_kill(b, s);
		return 0;
	}
	return sbx_err_set(err, SBX_E_LIMIT, 0, "slot %u is being killed", s->number);
}

void broker_freeze_done(struct broker *b, const struct broker_asker *asker, const struct sbx_err *err)
{
	struct connection *c = connection_by_number(b, asker->connection);
	struct broker_reply answer = {0};

	if (!c)
		return;
	FILL_ERROR(&answer, err);
	send_message(c, &answer, sizeof(answer), asker->op, asker->tag, NULL, 0);
}

static int set_frozen(struct broker *b, const struct request *r, bool freeze, struct sbx_err *err)
{
	struct broker_asker asker = {.connection = r->c->number, .tag = r->any->head.tag, .op = r->any->head.op};

	return freezer_set(b, r->slot, freeze, &asker, err);
}

/* Safe: stops a group that the broker made for this life; nobody waits but the one who asked. */
static int on_freeze(struct broker *b, const struct request *r, struct sbx_err *err)
{
	return set_frozen(b, r, true, err);
}

/* Safe: as freeze. */
static int on_thaw(struct broker *b, const struct request *r, struct sbx_err *err)
{
	return set_frozen(b, r, false, err);
}

/* Safe: figures of one sandbox. */
static int on_stat(struct broker *b, const struct request *r, struct sbx_err *err)
{
	struct cgroup_figures f = {0};
	struct disk_figures disk;

	disk_read(b, r->slot, &disk);
	if (cgroup_stat(b->cg, &r->slot->cg, &f, err) < 0)
		return -1;
	struct broker_stat_reply answer = {
		.memory_bytes = f.memory_bytes,
		.memory_limit_bytes = f.memory_limit_bytes,
		.memory_peak_bytes = f.memory_peak_bytes,
		.oom_kills = f.oom_kills,
		.cpu_usec = f.cpu_usec,
		.cpu_millicores = f.cpu_millicores,
		.pids = f.pids,
		.pids_max = f.pids_max,
		.n_cpus = b->n_cpus,
		.host_memory_bytes = b->host_memory_bytes,
		.disk_used_bytes = disk.used_bytes,
		.disk_limit_bytes = disk.limit_bytes,
		.disk_used_inodes = disk.used_inodes,
		.disk_limit_inodes = disk.limit_inodes,
	};
	send_message(r->c, &answer, sizeof(answer), BROKER_OP_SANDBOX_STAT, r->any->head.tag, NULL, 0);
	return 0;
}

static void list_kept(void *arg, uint32_t number, uint32_t generation)
{
	const struct request *r = arg;
	struct broker_list_reply answer = {.state = BROKER_SLOT_KEPT, .ref = {.slot = number, .generation = generation}};

	send_message(r->c, &answer, sizeof(answer), BROKER_OP_SANDBOX_LIST, r->any->head.tag, NULL, 0);
}

/* Safe: tells what the sender made itself; shells of the pool belong to nobody and are not shown. */
static int on_list(struct broker *b, const struct request *r, struct sbx_err *err)
{
	(void)err;
	for (uint32_t i = 0; i < LIMIT_SANDBOXES; i++) {
		const struct slot *s = &b->slot[i];
		struct broker_list_reply answer = {
			.state = s->state,
			.ref = {.slot = s->number, .generation = s->generation},
			.addr = s->addr,
			.pid = (uint32_t)s->pid,
			.oom_kills = s->oom_kills,
		};

		if (s->state != BROKER_SLOT_LIVE && s->state != BROKER_SLOT_FROZEN && s->state != BROKER_SLOT_DYING)
			continue;
		memcpy(answer.sandbox_id, s->sandbox_id, sizeof(answer.sandbox_id));
		if (s->n_layers)
			memcpy(answer.top_layer, s->use->layer[s->n_layers - 1], sizeof(answer.top_layer));
		send_message(r->c, &answer, sizeof(answer), BROKER_OP_SANDBOX_LIST, r->any->head.tag, NULL, 0);
	}
	struct request copy = *r;
	slot_kept_each(b, list_kept, &copy);
	struct broker_list_reply last = {.ref = {.slot = BROKER_NO_SLOT}};
	send_message(r->c, &last, sizeof(last), BROKER_OP_SANDBOX_LIST, r->any->head.tag, NULL, 0);
	return 0;
}

/* Safe: two numbers make a name below sandboxes/; what belongs to a life is refused; the removal is the trash worker's. */
static int on_files_drop(struct broker *b, const struct request *r, struct sbx_err *err)
{
	const struct broker_slot_ref *ref = &r->any->slot_req.ref;
	int result = slot_kept_drop(b, ref);

	if (result == -EBUSY)
		return sbx_err_set(err, SBX_E_NOT_READY, 0, "slot %u, life %u is no left-over", ref->slot, ref->generation);
	return result < 0 ? sbx_err_set(err, SBX_E_SYSTEM, -result, "files of slot %u, life %u", ref->slot, ref->generation)
			  : reply_result(r, 0, NULL);
}

/*
 * Safe: a fresh socket of the sandbox's own network namespace, never seen by a process of the sandbox.  The broker enters the
 * namespace by the pidfd of this life's pid 1 and does nothing there but socket(2).
 */
static int on_socket(struct broker *b, const struct request *r, struct sbx_err *err)
{
	uint32_t family = r->any->slot_req.arg;

	if (family != AF_INET && family != AF_INET6)
		return sbx_err_set(err, SBX_E_PROTOCOL, 0, "family %u", family);
	if (setns(r->slot->pidfd, CLONE_NEWNET) < 0)
		return sbx_err_set(err, SBX_E_NOT_READY, errno, "network of slot %u", r->slot->number);
	int fd = socket((int)family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int sys = errno;
	if (setns(b->netns_fd, CLONE_NEWNET) < 0)
		abort(); /* nothing may go on in the wrong namespace */
	if (fd < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, sys, "socket in slot %u", r->slot->number);
	reply(r, NULL, &fd, 1);
	close(fd);
	return 0;
}

static void answer_layer(struct connection *c, uint32_t op, uint64_t tag, const struct sbx_err *err, uint64_t bytes, uint64_t entries,
			 bool present)
{
	struct broker_layer_reply answer = {.bytes = bytes, .entries = entries, .present = present};

	FILL_ERROR(&answer, err);
	send_message(c, &answer, sizeof(answer), op, tag, NULL, 0);
}

void broker_unpack_done(struct broker *b, const struct broker_asker *asker, const struct sbx_err *err, uint64_t bytes, uint64_t entries)
{
	struct connection *c = connection_by_number(b, asker->connection);

	if (c)
		answer_layer(c, asker->op, asker->tag, err, err ? 0 : bytes, err ? 0 : entries, !err);
}

/*
 * Safe: the blob is read by sandbox-unpack alone, as nobody of the host; the target is a fresh directory of the broker's; a key
 * that exists is never written again.  The sender verified the blob's digest; a wrong key harms only who trusts the sender.
 */
static int on_unpack(struct broker *b, const struct request *r, struct sbx_err *err)
{
	const struct broker_layer_req *req = &r->any->layer_req;
	struct broker_asker asker = {.connection = r->c->number, .tag = req->head.tag, .op = req->head.op};

	if (layers_present(b, req->key)) {
		answer_layer(r->c, asker.op, asker.tag, NULL, 0, 0, true);
		return 0;
	}
	if (req->max_bytes > (uint64_t)b->settings.images_max_unpacked_bytes || req->max_entries > (uint64_t)b->settings.images_max_entries)
		sbx_err_set(err, SBX_E_LIMIT, 0, "bounds above images.max_unpacked_bytes or images.max_entries");
	else if (layers_unpack(b, req, r->fd, &asker, err) == 0)
		return 0;
	answer_layer(r->c, asker.op, asker.tag, err, 0, 0, false);
	return 0;
}

void broker_capture_done(struct broker *b, const struct broker_asker *asker, const struct sbx_err *err,
			 struct broker_capture_reply *answer)
{
	struct connection *c = connection_by_number(b, asker->connection);

	FILL_ERROR(answer, err);
	if (c)
		send_message(c, answer, sizeof(*answer), asker->op, asker->tag, NULL, 0);
}

/*
 * Safe: a layer of the store, read-only, is read by sandbox-unpack as nobody of the host; what it writes goes into the sender's own
 * file.  The sender learns what is in a layer that it had unpacked.
 */
static int on_layer_capture(struct broker *b, const struct request *r, struct sbx_err *err)
{
	struct broker_asker asker = {.connection = r->c->number, .tag = r->any->head.tag, .op = r->any->head.op};

	return capture_layer(b, &r->any->capture_req, r->fd, &asker, err);
}

/*
 * Safe: a layer of the store and its seal, both read-only, are read by sandbox-unpack as nobody of the host.  The sender learns
 * whether they agree.  One at a time, so that it takes one process and what the disk gives to one.
 */
static int on_layer_verify(struct broker *b, const struct request *r, struct sbx_err *err)
{
	struct broker_asker asker = {.connection = r->c->number, .tag = r->any->head.tag, .op = r->any->head.op};

	return capture_verify(b, &r->any->layer_req, &asker, err);
}

/* Safe: keys that the sender named itself when it asked for this life. */
static int on_sandbox_layers(struct broker *b, const struct request *r, struct sbx_err *err)
{
	const struct slot *s = r->slot;
	struct broker_sandbox_layers_reply answer = {.n_layers = s->n_layers, .host_usr = s->host_usr};

	(void)err;
	/* a sandbox of the host image that was adopted: the record has no word for its /usr, its only layer says it */
	if (s->n_layers && layers_is_host_key(s->use->layer[0]))
		answer.host_usr = 1;
	(void)b;
	memcpy(answer.layer, s->use->layer, s->n_layers * sizeof(answer.layer[0]));
	send_message(r->c, &answer, sizeof(answer), r->any->head.op, r->any->head.tag, NULL, 0);
	return 0;
}

/*
 * Safe: files of one life, read-only, are read by sandbox-unpack with that life's ids and no others; what it writes goes into the
 * sender's own file.  The sender may read all of it by commands inside anyway.
 */
static int on_sandbox_capture(struct broker *b, const struct request *r, struct sbx_err *err)
{
	struct broker_asker asker = {.connection = r->c->number, .tag = r->any->head.tag, .op = r->any->head.op};

	return capture_sandbox(b, r->slot, &r->any->capture_req, r->fd, &asker, err);
}

/* Safe: the sender's own file is read and written by sandbox-unpack as nobody of the host, which is given nothing else. */
static int on_archive_index(struct broker *b, const struct request *r, struct sbx_err *err)
{
	struct broker_asker asker = {.connection = r->c->number, .tag = r->any->head.tag, .op = r->any->head.op};

	return capture_index(b, &r->any->capture_req, r->fd, &asker, err);
}

/* Safe: asks whether a directory of the broker's exists; the name is made from the 32 bytes of the key. */
static int on_layer_stat(struct broker *b, const struct request *r, struct sbx_err *err)
{
	(void)err;
	answer_layer(r->c, r->any->head.op, r->any->head.tag, NULL, 0, 0, layers_present(b, r->any->layer_req.key));
	return 0;
}

/* Safe: renames a directory of the broker's own store into the trash; refused while a sandbox uses it. */
static int on_layer_drop(struct broker *b, const struct request *r, struct sbx_err *err)
{
	int result = layers_drop(b, r->any->layer_req.key, err);

	answer_layer(r->c, r->any->head.op, r->any->head.tag, result < 0 ? err : NULL, 0, 0, false);
	return 0;
}

/* Safe: names of the broker's own directory; a cursor is a place to read from, whatever it says; each answer is bounded. */
static int on_layer_list(struct broker *b, const struct request *r, struct sbx_err *err)
{
	struct broker_layers_reply answer = {0};

	if (layers_list(b, r->any->layers_req.cursor, &answer, err) < 0)
		return -1;
	send_message(r->c, &answer, sizeof(answer), BROKER_OP_LAYER_LIST, r->any->head.tag, NULL, 0);
	return 0;
}

/* Safe: moves to the trash what the start of a broker would, and nothing that is being filled or used. */
static int on_layer_sweep(struct broker *b, const struct request *r, struct sbx_err *err)
{
	const struct sbx_err count = {.sys = layers_sweep(b)};

	(void)err;
	reply(r, &count, NULL, 0);
	return 0;
}

void broker_volume_done(struct broker *b, const struct broker_asker *asker, bool existed, const struct sbx_err *err)
{
	struct connection *c = connection_by_number(b, asker->connection);
	struct broker_reply answer = {.sys = existed ? EEXIST : 0};

	if (!c)
		return;
	FILL_ERROR(&answer, err);
	send_message(c, &answer, sizeof(answer), asker->op, asker->tag, NULL, 0);
}

/* Safe: a name of one component and of a small alphabet, made beneath volumes/ with the volumes' owner. */
static int on_volume_make(struct broker *b, const struct request *r, struct sbx_err *err)
{
	if (!volumes_claim_ok(r->any->volume_req.claim))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "name of a volume");
	const struct broker_volume_req *req = &r->any->volume_req;
	struct broker_asker asker = {.connection = r->c->number, .tag = req->head.tag, .op = req->head.op};
	int existed = req->size_mib ? disk_volume(b, req->claim, req->size_mib, req->at_least, &asker, err) : volumes_make(b, req->claim, err);
	if (existed < 0)
		return -1;
	if (existed > 1)
		return 0;
	/* The asker removes only what it made: no error, but the errno tells. */
	const struct sbx_err there = {.sys = existed ? EEXIST : 0};
	reply(r, &there, NULL, 0);
	return 0;
}

/* Safe: as make; refused while a sandbox uses it; the removal is the trash worker's, not root's. */
static int on_volume_drop(struct broker *b, const struct request *r, struct sbx_err *err)
{
	if (!volumes_claim_ok(r->any->volume_req.claim))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "name of a volume");
	return volumes_drop(b, r->any->volume_req.claim, err) < 0 ? -1 : reply_result(r, 0, NULL);
}

void broker_host_row_done(struct broker *b, const struct broker_asker *asker, uint32_t number, uint32_t verdict, const char *found,
			  const struct sbx_err *err)
{
	struct connection *c = connection_by_number(b, asker->connection);
	struct broker_host_reply answer = {.row = number, .last = number + 1 == HOST_CHECK_COUNT, .verdict = verdict};
	struct host_row row;

	if (!c)
		return;
	if (err) {
		struct broker_reply refusal = {0};

		FILL_ERROR(&refusal, err);
		send_message(c, &refusal, sizeof(refusal), BROKER_OP_HOST_ROW, asker->tag, NULL, 0);
		return;
	}
	if (host_check_words(number, (enum host_verdict)verdict, &row) == 0) {
		memcpy(answer.name, row.name, strnlen(row.name, sizeof(answer.name) - 1));
		put_text(answer.found, found);
		put_text(answer.costs, row.costs);
		put_text(answer.mend, row.mend);
	}
	send_message(c, &answer, sizeof(answer), BROKER_OP_HOST_ROW, asker->tag, NULL, 0);
}

/* Safe: probes change nothing, run in a child, and the row is a number below the table's end. */
static int on_host_row(struct broker *b, const struct request *r, struct sbx_err *err)
{
	struct broker_asker asker = {.connection = r->c->number, .tag = r->any->head.tag, .op = r->any->head.op};

	return host_probe_ask(b, r->any->plain_req.arg, &asker, err);
}

/* Safe: two fresh listeners of the router namespace on one fixed address and port. */
static int on_dns_sockets(struct broker *b, const struct request *r, struct sbx_err *err)
{
	int fd[4] = {-1, -1, -1, -1};
	bool six = links_subnet6(b->links) != NULL;
	int result = links_dns_sockets(b->links, &fd[0], &fd[1], err);

	if (result == 0 && six)
		result = links_dns_sockets6(b->links, &fd[2], &fd[3], err);
	if (result == 0)
		reply(r, NULL, fd, six ? 4 : 2);
	for (size_t i = 0; i < ARRAY_SIZE(fd); i++)
		close_keep_errno(fd[i]);
	return result;
}

static void answer_policy(const struct request *r, uint32_t mark, const struct sbx_err *err)
{
	struct broker_policy_reply answer = {.mark = mark};

	FILL_ERROR(&answer, err);
	send_message(r->c, &answer, sizeof(answer), BROKER_OP_POLICY, r->any->head.tag, NULL, 0);
}

/*
 * Safe: addresses and ports become elements of the sandbox's own in shared sets; the chains in front of them refuse metadata, the
 * host and other sandboxes whatever a rule says.  The worst a sender gets is a sandbox that reaches what any sandbox may.
 */
static int on_policy(struct broker *b, const struct request *r, struct sbx_err *err)
{
	uint32_t mark = 0;
	int result = egress_policy(b, r->slot, &r->any->policy, &mark, err);

	answer_policy(r, mark, result < 0 ? err : NULL);
	return 0;
}

/* Safe: opens no address that the broker itself takes for private, the host's or a sandbox's, and no more than the caps. */
static int on_pin(struct broker *b, const struct request *r, struct sbx_err *err)
{
	return egress_pin(b, r->slot, &r->any->pin, err) < 0 ? -1 : reply_result(r, 0, NULL);
}

/* Safe: closes only. */
static int on_unpin(struct broker *b, const struct request *r, struct sbx_err *err)
{
	return egress_unpin(b, r->slot, &r->any->pin, err) < 0 ? -1 : reply_result(r, 0, NULL);
}

/* Safe: a socket that only tells what the router refused; whoever holds it cannot configure it without the capability. */
static int on_log_socket(struct broker *b, const struct request *r, struct sbx_err *err)
{
	int fd = netlog_open(links_router_fd(b->links), err);

	if (fd < 0)
		return -1;
	reply(r, NULL, &fd, 1);
	close(fd);
	return 0;
}

/*
 * Safe: one interface, made at our start.  Who holds its other end sees the beginnings of connections to port 443 and may write packets
 * of sandboxes' addresses: they meet all rules again that the first packet of any sandbox meets.
 */
static int on_gate(struct broker *b, const struct request *r, struct sbx_err *err)
{
	if (b->gate_fd < 0)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "egress.tls_gate is off");
	reply(r, NULL, &b->gate_fd, 1);
	return 0;
}

int broker_flows_part(struct broker *b, const struct broker_asker *asker, const struct broker_flow *flow, size_t n, bool last)
{
	struct connection *c = connection_by_number(b, asker->connection);
	struct broker_flows_reply answer = {.n_flows = (uint32_t)n, .last = last};
	int queued = 0;

	if (!c)
		return -EPIPE;
	/* Pins are answered over the same connection: there is to be room for them, and a full buffer would end it. */
	if (ioctl(c->fd, SIOCOUTQ, &queued) == 0 && queued > SEND_BUFFER_BYTES / 4)
		return 0;
	answer.status = flow || !n ? 0 : SBX_E_SYSTEM;
	if (!flow)
		answer.n_flows = 0;
	else
		memcpy(answer.flow, flow, n * sizeof(*flow));
	send_message(c, &answer, sizeof(answer), BROKER_OP_FLOWS, asker->tag, NULL, 0);
	return 1;
}

/* Safe: tells whom sandboxes speak with, which the sender's own leases made possible; one walk at a time, in a child. */
static int on_flows(struct broker *b, const struct request *r, struct sbx_err *err)
{
	struct broker_asker asker = {.connection = r->c->number, .tag = r->any->head.tag, .op = r->any->head.op};

	return egress_walk_list(b, &asker, err);
}

/* ---- the table ---- */

#define IN(state) (1u << BROKER_SLOT_##state)
#define NO_SLOT	  0u

/* clang-format off */
static const struct {
	unsigned who;	 /* mask of enum who */
	unsigned states; /* states of the named slot in which it is allowed; NO_SLOT: it names none */
	int (*handler)(struct broker *b, const struct request *r, struct sbx_err *err); /* -1: answered with err by the caller */
} ops[BROKER_OP_COUNT] = {
	[BROKER_OP_HELLO]	   = {WHO_SANDBOXD | WHO_DNSD, NO_SLOT,				     on_hello},
	[BROKER_OP_SANDBOX_CREATE] = {WHO_SANDBOXD,	       NO_SLOT,				     on_create},
	[BROKER_OP_CHANNEL_OPEN]   = {WHO_SANDBOXD,	       IN(LIVE) | IN(FROZEN),		     on_channel},
	[BROKER_OP_SANDBOX_KILL]   = {WHO_SANDBOXD,	       IN(LIVE) | IN(FROZEN) | IN(DYING),    on_kill},
	[BROKER_OP_SANDBOX_FREEZE] = {WHO_SANDBOXD,	       IN(LIVE) | IN(FROZEN),		     on_freeze},
	[BROKER_OP_SANDBOX_THAW]   = {WHO_SANDBOXD,	       IN(LIVE) | IN(FROZEN),		     on_thaw},
	[BROKER_OP_SANDBOX_STAT]   = {WHO_SANDBOXD,	       IN(LIVE) | IN(FROZEN),		     on_stat},
	[BROKER_OP_SANDBOX_LIST]   = {WHO_SANDBOXD,	       NO_SLOT,				     on_list},
	[BROKER_OP_SOCKET_OPEN]	   = {WHO_SANDBOXD,	       IN(LIVE) | IN(FROZEN),		     on_socket},
	[BROKER_OP_LAYER_UNPACK]   = {WHO_SANDBOXD,	       NO_SLOT,				     on_unpack},
	[BROKER_OP_LAYER_STAT]	   = {WHO_SANDBOXD,	       NO_SLOT,				     on_layer_stat},
	[BROKER_OP_LAYER_DROP]	   = {WHO_SANDBOXD,	       NO_SLOT,				     on_layer_drop},
	[BROKER_OP_LAYER_LIST]	   = {WHO_SANDBOXD,	       NO_SLOT,				     on_layer_list},
	[BROKER_OP_LAYER_SWEEP]	   = {WHO_SANDBOXD,	       NO_SLOT,				     on_layer_sweep},
	[BROKER_OP_LAYER_CAPTURE]  = {WHO_SANDBOXD,	       NO_SLOT,				     on_layer_capture},
	[BROKER_OP_LAYER_VERIFY]   = {WHO_SANDBOXD,	       NO_SLOT,				     on_layer_verify},
	[BROKER_OP_ARCHIVE_INDEX]  = {WHO_SANDBOXD,	       NO_SLOT,				     on_archive_index},
	[BROKER_OP_SANDBOX_LAYERS] = {WHO_SANDBOXD,	       IN(LIVE) | IN(FROZEN),		     on_sandbox_layers},
	[BROKER_OP_SANDBOX_CAPTURE] = {WHO_SANDBOXD,	       IN(LIVE) | IN(FROZEN),		     on_sandbox_capture},
	[BROKER_OP_VOLUME_MAKE]	   = {WHO_SANDBOXD,	       NO_SLOT,				     on_volume_make},
	[BROKER_OP_VOLUME_DROP]	   = {WHO_SANDBOXD,	       NO_SLOT,				     on_volume_drop},
	[BROKER_OP_HOST_ROW]	   = {WHO_SANDBOXD,	       NO_SLOT,				     on_host_row},
	[BROKER_OP_FILES_DROP]	   = {WHO_SANDBOXD,	       NO_SLOT,				     on_files_drop},
	[BROKER_OP_DNS_SOCKETS]	   = {WHO_DNSD,		       NO_SLOT,				     on_dns_sockets},
	[BROKER_OP_POLICY]	   = {WHO_SANDBOXD,	       IN(LIVE) | IN(FROZEN),		     on_policy},
	[BROKER_OP_PIN]		   = {WHO_DNSD,		       IN(LIVE) | IN(FROZEN),		     on_pin},
	[BROKER_OP_UNPIN]	   = {WHO_DNSD,		       IN(LIVE) | IN(FROZEN),		     on_unpin},
	[BROKER_OP_LOG_SOCKET]	   = {WHO_DNSD,		       NO_SLOT,				     on_log_socket},
	[BROKER_OP_GATE]	   = {WHO_DNSD,		       NO_SLOT,				     on_gate},
	[BROKER_OP_FLOWS]	   = {WHO_DNSD,		       NO_SLOT,				     on_flows},
};
static_assert(offsetof(struct broker_policy, ref) == offsetof(struct broker_slot_req, ref) &&
	      offsetof(struct broker_pin, ref) == offsetof(struct broker_slot_req, ref) &&
	      offsetof(struct broker_capture_req, ref) == offsetof(struct broker_slot_req, ref), "a slot is named at one place");
/* clang-format on */

static int find_slot(struct broker *b, struct request *r, struct sbx_err *err)
{
	const struct broker_slot_ref *ref = &r->any->slot_req.ref;

	r->slot = slot_by_ref(b, ref);
	if (!r->slot)
		return sbx_err_set(err, SBX_E_SANDBOX_NOT_FOUND, 0, "slot %u has no life %u", ref->slot, ref->generation);
	if (!(ops[r->any->head.op].states & 1u << r->slot->state))
		return sbx_err_set(err, SBX_E_NOT_RUNNING, 0, "slot %u is %s", ref->slot, slot_state_name(r->slot->state));
	return 0;
}

/* Return: 0, or -1 when the connection does not deserve another word. */
static int dispatch(struct connection *c, const union broker_any *any, size_t len, const int *fd, size_t n_fds)
{
	struct sbx_err err = {0};
	struct request r = {.c = c, .any = any, .fd = n_fds ? fd[0] : -1};

	if (broker_decode(any, len, n_fds, &err) < 0) {
		log_warn("connection %llu: %s", (unsigned long long)c->number, err.msg);
		return -1;
	}
	if (!(ops[any->head.op].who & c->who) || (!c->greeted && any->head.op != BROKER_OP_HELLO)) {
		log_warn("connection %llu: request %u is not for this peer", (unsigned long long)c->number, any->head.op);
		return -1;
	}
	if ((ops[any->head.op].states && find_slot(c->b, &r, &err) < 0) || ops[any->head.op].handler(c->b, &r, &err) < 0)
		reply(&r, &err, NULL, 0);
	return 0;
}

static void on_message(void *arg, int sock, uint32_t events)
{
	static union broker_any any; /* 30 KiB: not on the stack; one request at a time */
	struct connection *c = arg;

	(void)events;
	c->b->last_request_ms = loop_now_ms(c->b->loop);
	for (int i = 0; i < REQUESTS_PER_TURN; i++) {
		int fd[1] = {-1};
		size_t n_fds = 0;

		memset(&any, 0, sizeof(struct broker_head));
		ssize_t n = fdpass_recv(sock, &any, sizeof(any), fd, 1, &n_fds);
		if (n == -EAGAIN)
			return;
		int r = n <= 0 ? -1 : dispatch(c, &any, (size_t)n, fd, n_fds);
		if (n_fds)
			close(fd[0]);
		if (r < 0) {
			connection_close(c);
			return;
		}
	}
}

/* ---- connections ---- */

static int peer_role(const struct broker *b, int fd, enum who *ret)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
		return -errno;
	if (peer.uid == b->sandboxd_uid)
		*ret = WHO_SANDBOXD;
	else if (peer.uid == b->dnsd_uid)
		*ret = WHO_DNSD;
	else
		return -EPERM;
	return 0;
}

static int connection_new(struct broker *b, int fd, enum who who)
{
	int bytes = SEND_BUFFER_BYTES;

	for (size_t i = 0; i < BROKER_MAX_CONNECTIONS; i++) {
		if (b->connection[i])
			continue;
		struct connection *c = calloc(1, sizeof(*c));
		if (!c)
			return -ENOMEM;
		*c = (struct connection){.b = b, .number = ++b->next_connection, .fd = fd, .who = who};
		c->source = loop_fd_add(b->loop, fd, EPOLLIN, on_message, c);
		if (!c->source || setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0) {
			int r = -errno;

			loop_fd_remove(c->source);
			free(c);
			return r;
		}
		b->connection[i] = c;
		return 0;
	}
	return -EMFILE;
}

void broker_accept(void *arg, int listen_fd, uint32_t events)
{
	struct broker *b = arg;
	enum who who = WHO_DNSD;

	(void)events;
	int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0)
		return; /* the peer gave up, or no descriptor is free: level-triggered, asked again */
	int r = peer_role(b, fd, &who);
	if (r == 0)
		r = connection_new(b, fd, who);
	if (r < 0) {
		log_warn("connection refused: %s", strerror(-r));
		close(fd);
	}
}
