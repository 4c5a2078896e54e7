/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: what the files of the broker share
 *
 * One struct broker, one loop, a fixed table of slots.  A slot goes
 *
 *	FREE -> MAKING -> SHELL -> ARMING -> LIVE <-> FROZEN
 *	           \________\________\________\______\____-> DYING -> DRAINING -> FREE
 *
 * and only the functions named here move it.  MAKING and ARMING end by a message of the shell, DYING by the end of pid 1,
 * DRAINING when cgroup, link and connection entries are gone.  Each step writes the slot's record before its effect, so
 * that a broker which is killed anywhere finds what it has to undo.
 */
#ifndef RUNTIME_BROKER_INT_H
#define RUNTIME_BROKER_INT_H

#include "base/err.h"
#include "base/limits.h"
#include "base/loop.h"
#include "base/settings.h"
#include "runtime/broker/broker_msg.h"
#include "runtime/broker/cgroup.h"
#include "runtime/broker/fw_rules.h"
#include "runtime/broker/links.h"
#include "runtime/broker/netwatch.h"
#include "runtime/broker/profile.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define BROKER_IDS_PER_SLOT	65536u
#define BROKER_KILL_WAITERS	4
#define BROKER_MAX_CONNECTIONS	64
#define BROKER_MAX_UNPACKS	4
#define BROKER_MAX_CAPTURES 4
#define BROKER_KEY_HEX		(2 * BROKER_KEY_BYTES + 1)
#define BROKER_AGENT_INSIDE	65536u /* id of the agent in a slot's outer user namespace */
#define BROKER_HOST_ROOTS	64
/* A step of the launch that takes longer is given up: 500 times what it takes. */
#define BROKER_LAUNCH_MS	10000u

struct broker;

/* Who asked, for answers that come later; a connection number is never used twice. */
struct broker_asker {
	uint64_t connection; /* 0: nobody */
	uint64_t tag;
	uint32_t op;
};

/* Layers and named volumes that a life uses. */
struct slot_use {
	uint8_t layer[BROKER_MAX_LAYERS][BROKER_KEY_BYTES];
	char claim[BROKER_MAX_VOLUMES][BROKER_CLAIM_BYTES];
};

struct broker_image {
	uint32_t n_layers; /* 0: none */
	bool host_usr;
	uint32_t disk_mib; /* size of the disk image below its upper; 0: none */
	uint8_t layer[BROKER_MAX_LAYERS][BROKER_KEY_BYTES];
};

struct slot {
	struct broker *broker;
	uint32_t number;
	uint32_t generation;
	enum broker_slot_state state;
	pid_t pid; /* 0: none */
	uint64_t start_time; /* of pid, clock ticks after boot: pid and this name one process */
	int pidfd;
	struct loop_fd *pid_source;
	struct cgroup_slot cg;
	bool has_cgroup;
	struct loop_fd *events_source, *oom_source;
	struct links_end link;
	bool has_link;
	bool link_gone;	 /* the kernel has said so */
	bool flows_gone; /* its connection entries were deleted and the kernel said so */
	int dir_fd; /* <run dir>/slots/<n> */
	int launch_fd; /* our end of the launch socket */
	int mounts_fd; /* its mount namespace, while it is DYING and bare; -1: none */
	struct loop_fd *launch_source;
	struct loop_timer *deadline;
	int layer_ns_fd;  /* helper user namespace S -> B; made once, kept over the lives of the slot */
	int volume_ns_fd; /* helper V -> B */
	struct lowers_set *lowers; /* owned, kept as long: the layers of its last life (lowers.h) */
	bool for_pool;	  /* counted in n_making */
	bool with_shells; /* broker-shells makes it: nobody else does anything with it */
	bool second_try;  /* broker-shells could not make the first one for its create */
	bool is_shell;	  /* has said so */
	bool rooted;	  /* has its root, that of its layers */
	bool host_usr;	  /* rooted: and the host's /usr */
	bool bare;	  /* was given to a sandbox without volumes and without a disk image: its mounts are nobody else's */
	uint32_t addr;
	uint32_t mark; /* its flows are judged under; 0: it has no policy and is closed */
	uint32_t mode; /* enum egress_mode of that policy */
	struct slot_egress *egress; /* owned; rules and leases; NULL: none */
	uint8_t sandbox_id[16];
	uint64_t oom_kills;
	uint32_t oom_looks; /* times looked for the victim of an OOM that was announced */
	uint64_t made_ms, draining_ms;
	bool has_files; /* sandboxes/<slot>.<generation> exists */
	int disk_fd;	   /* mount of its own disk image (disk.h); -1: none */
	dev_t disk_dev;	   /* what that is on; outlives the descriptor; 0: not known */
	uint32_t disk_mib; /* size of that, or of the one it waits for; 0: its upper lies on the state directory's file system */
	bool disk_waits;   /* for a disk that is being made */
	bool volume_waits; /* for an image of a volume that is being mounted */
	struct disk_mounts *mounts; /* owned; volumes with images, until the sandbox has them; NULL: none */
	struct broker_create *create; /* owned; waits for the shell, or is being armed */
	struct broker_asker creator;
	struct broker_asker killer[BROKER_KILL_WAITERS];
	uint32_t n_layers;
	uint32_t n_claims;
	struct slot_use *use; /* the broker's; the first n of each are valid */
	struct slot *next; /* in the list of its state: free, the pool, draining */
};

struct slot_list {
	struct slot *first, *last;
	uint32_t n;
};

struct host_root {
	const char *path; /* borrowed from the settings */
	int fd;		  /* O_PATH; -1: not there */
};

struct connection;
struct disk;
struct disk_mounts;
struct lowers_set;
struct egress_walk;
struct fwset;
struct slot_egress;
struct capture;
struct root_ahead;
struct shells;
struct unpack;
struct trash;
struct flows;

struct lowers_store { /* lowers.c */
	struct lowers_set *stale; /* owned; to be ended */
	uint32_t n_stale;
	uint32_t n_open, most; /* descriptors of all slots and of stale sets; most 0: not known yet */
	uint32_t turn;	       /* slot that loses its set when there is no room */
	bool refused;	       /* by the kernel */
};

struct broker {
	struct loop *loop;
	struct settings settings;
	char instance[33];
	char run_dir[128];
	char state_dir[1025];
	uint32_t id_base, agent_base, layer_base, volume_base;
	uint32_t n_slots;
	uid_t sandboxd_uid, dnsd_uid;
	uint8_t boot_id[16];
	uint64_t host_memory_bytes;
	uint32_t n_cpus;
	int listen_fd;
	int state_fd, layers_fd, seals_fd, sandboxes_fd, volumes_fd, trash_fd, slots_fd, null_fd, netns_fd, utsns_fd;
	int agent_fd, unpack_fd;
	int filter_fd[PROFILE_COUNT];
	uint32_t filter_len[PROFILE_COUNT];
	int stage_fd, upper_fd; /* rootfs_mount.c */
	struct lowers_store lowers;
	struct root_ahead *ahead; /* owned; NULL: none are mounted ahead */
	bool has_usr;
	struct cgroup *cg;
	struct links_config links_config;
	int gate_fd; /* owned; -1: egress.tls_gate is off */
	struct links *links;
	struct fw_rules_config rules;
	struct netwatch *watch;
	struct fwset *fw; /* borrowed from watch; NULL before the router's table was looked at */
	uint32_t n_rules, n_leases; /* of all sandboxes */
	bool table_known;	    /* the router's table was filled or adopted by this broker */
	uint32_t host_features;
	struct host_root host_root[BROKER_HOST_ROOTS];
	uint32_t n_host_roots;
	uint8_t host_key[BROKER_KEY_BYTES];
	bool has_host_image;
	struct slot *slot; /* LIMIT_SANDBOXES, indexed by number */
	struct slot_use *use;
	struct broker_image likely; /* of the last create: what waiting shells get */
	uint32_t n_likely_creates;  /* so many in a row */
	struct slot_list free_slots, used_slots; /* free; the latter had a life already */
	struct slot_list pool, draining;
	bool recovered, refill_due, running;
	uint32_t n_making; /* shells on their way into the pool */
	struct loop_timer *refill, *sweep, *oom_again;
	uint64_t last_request_ms;
	uint32_t next_generation, generation_end;
	struct connection *connection[BROKER_MAX_CONNECTIONS];
	uint64_t next_connection;
	struct unpack *unpack[BROKER_MAX_UNPACKS];
	struct capture *capture[BROKER_MAX_CAPTURES + 1]; /* the last place is for LAYER_VERIFY, which may take long */
	struct trash *trash;
	struct shells *shells;
	bool is_shells; /* this is broker-shells, which has no loop and no table of slots */
	struct disk *disk;
	struct flows *flows;
	struct egress_walk *walk;
};

static inline uint32_t slot_base(const struct broker *b, const struct slot *s)
{
	return b->id_base + s->number * BROKER_IDS_PER_SLOT;
}

static inline uint32_t slot_agent_id(const struct broker *b, const struct slot *s)
{
	return b->agent_base + s->number;
}

/* ---- broker_ops.c: answers and events ---- */

/** broker_create_done() - Answer the create that waits for slot @s of @b; @err NULL: it lives */
void broker_create_done(struct broker *b, struct slot *s, const struct sbx_err *err);
/** broker_kill_done() - Answer every kill that waits for slot @s of @b */
void broker_kill_done(struct broker *b, struct slot *s);
/** broker_event() - Tell sandboxd's connections of @b about slot @s: @op is an enum broker_event, @text may be "" */
void broker_event(struct broker *b, const struct slot *s, uint32_t op, const char *text);
/** broker_accept() - Loop handler of the listening socket */
void broker_accept(void *arg, int fd, uint32_t events);
/** broker_freeze_done() - Answer @asker of @b, who asked for a freeze or thaw: done, or @err */
void broker_freeze_done(struct broker *b, const struct broker_asker *asker, const struct sbx_err *err);
/** broker_host_row_done() - Answer @asker of @b about row @number of the host: @verdict and @found, or @err */
void broker_host_row_done(struct broker *b, const struct broker_asker *asker, uint32_t number, uint32_t verdict, const char *found,
			  const struct sbx_err *err);
/** broker_capture_done() - Answer the capture or index that @asker of @b asked for with @answer, or with @err unless that is NULL */
void broker_capture_done(struct broker *b, const struct broker_asker *asker, const struct sbx_err *err,
			 struct broker_capture_reply *answer);
/** broker_unpack_done() - Answer the unpack that @asker of @b asked for; @err NULL: published */
void broker_unpack_done(struct broker *b, const struct broker_asker *asker, const struct sbx_err *err, uint64_t bytes,
			uint64_t entries);

/** broker_volume_done() - Answer @asker of @b, who asked for a volume: made, it @existed, or @err */
void broker_volume_done(struct broker *b, const struct broker_asker *asker, bool existed, const struct sbx_err *err);

/**
 * broker_flows_part() - One message of the answer to FLOWS
 * @b:		The broker
 * @asker:	Who asked
 * @flow:	What it tells; NULL with @n 1: they could not be listed
 * @n:		At most BROKER_FLOW_PAIRS
 * @last:	No other message follows
 *
 * Return: 1 (sent), 0 (too much is waiting to be read: later) or -EPIPE (the asker is gone)
 */
int broker_flows_part(struct broker *b, const struct broker_asker *asker, const struct broker_flow *flow, size_t n, bool last);

#endif
