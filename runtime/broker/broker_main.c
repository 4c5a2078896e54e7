// SPDX-License-Identifier: Apache-2.0
/*
 * DOC: sandbox-broker, the only process that stays root
 *
 * Start, in this order: settings and directories; fewer capabilities; groups and links (in the host's mount namespace, where the
 * router has to stay); an own mount namespace with the staging tmpfs; programs and filters into memory; what an earlier
 * broker left; rules; the deny-list filter; requests.  Ending it at any time stops no sandbox.
 */
#include "config.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "base/num.h"
#include "base/options.h"
#include "base/path.h"
#include "base/sysfilter.h"
#include "runtime/admission.h"
#include "runtime/broker/broker_int.h"
#include "runtime/broker/capset.h"
#include "runtime/broker/disk.h"
#include "runtime/broker/egress.h"
#include "runtime/broker/egress_walk.h"
#include "runtime/broker/host_check.h"
#include "runtime/broker/host_purge.h"
#include "runtime/broker/flows.h"
#include "runtime/broker/launch.h"
#include "runtime/broker/launch_child.h"
#include "runtime/broker/layers.h"
#include "runtime/broker/lowers.h"
#include "runtime/broker/root_ahead.h"
#include "runtime/broker/rootfs_mount.h"
#include "runtime/broker/shells.h"
#include "runtime/broker/slot.h"
#include "runtime/broker/trash.h"
#include "runtime/resources.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/un.h>
#include <sys/vfs.h>

#define EXIT_CONFIG	  78 /* EX_CONFIG: starting again would not help */
#define QUIET_MS	  6 /* refilling at once doubles the latency of a burst; a create and its first command are over by then */
#define POOL_LOW_DIVISOR  4  /* below a quarter of the target the pool is refilled whatever goes on */
#define MAX_MAKING	  2  /* shells under way for the pool at once */
#define COPY_BYTES	  65536
#define SOCKET_MODE	  0666 /* the peer's uid decides, not the file's mode */
#define ID_AGENTS	  0x10000u
#define ID_LAYERS	  0x20000u
#define ID_VOLUMES	  0x30000u
#define ID_OWN		  0x40000u /* sandboxd and the others; the lowest id of ours */

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif

struct arguments {
	const char *config, *instance, *state_dir, *run_dir;
	uint32_t listen_fd, agent_fd, unpack_fd; /* UINT32_MAX: none */
	bool purge; /* end the instance's sandboxes, leave the host as it was, serve nothing */
};

static const char help[] = "usage: sandbox-broker [--config FILE] [--instance NAME] [--state-dir DIR]\n"
			   "                      [--run-dir DIR] [--listen-fd N] [--agent-fd N]\n"
			   "                      [--unpack-fd N] [--purge]\n"
			   "Started by sandboxd, as root. It serves fixed-size messages on\n"
			   "RUN_DIR/broker.sock to the user ids that its configuration names.\n";

static int parse(int argc, char **argv, struct arguments *a)
{
	const struct option_row rows[] = {
		{"config", OPTION_TEXT, &a->config},	 {"instance", OPTION_TEXT, &a->instance},   {"state-dir", OPTION_TEXT, &a->state_dir},
		{"run-dir", OPTION_TEXT, &a->run_dir},	 {"listen-fd", OPTION_FD, &a->listen_fd},   {"agent-fd", OPTION_FD, &a->agent_fd},
		{"unpack-fd", OPTION_FD, &a->unpack_fd}, {"purge", OPTION_SWITCH, &a->purge},
	};

	return options_read(argc, argv, rows, ARRAY_SIZE(rows), help);
}

/* ---- settings and directories ---- */

static int instance_ok(const char *name)
{
	size_t n = strlen(name);

	return n >= 1 && n <= 32 && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == n;
}

static int load_settings(struct broker *b, const struct arguments *a, struct sbx_err *err)
{
	struct settings *s = &b->settings;

	if (settings_load(a->config, s, err) < 0)
		return -1;
	if ((a->state_dir && settings_set(s, "state_dir", a->state_dir, err) < 0) ||
	    (a->run_dir && settings_set(s, "run_dir", a->run_dir, err) < 0))
		return -1;
	if (a->instance)
		snprintf(b->instance, sizeof(b->instance), "%.32s", a->instance);
	else
		snprintf(b->instance, sizeof(b->instance), "%lld", (long long)s->instance);
	snprintf(b->state_dir, sizeof(b->state_dir), "%s", s->state_dir);
	snprintf(b->run_dir, sizeof(b->run_dir), "%s", s->run_dir);
	if (!instance_ok(b->instance) || (a->instance && strlen(a->instance) > 32))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "instance name: lower-case letters, digits and dashes, at most 32");
	if (b->state_dir[0] != '/' || b->run_dir[0] != '/' || strlen(s->run_dir) >= sizeof(b->run_dir))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "state_dir and run_dir have to be absolute");
	int level = log_level_from_name(s->log_level);
	log_init("sandbox-broker", level < 0 ? LOG_LEVEL_INFO : (enum log_level)level);
	b->id_base = (uint32_t)s->isolation_id_base;
	b->n_slots = (uint32_t)s->isolation_slots;
	b->agent_base = b->id_base - ID_AGENTS;
	b->layer_base = b->id_base - ID_LAYERS;
	b->volume_base = b->id_base - ID_VOLUMES;
	b->sandboxd_uid = (uid_t)s->isolation_sandboxd_uid;
	b->dnsd_uid = (uid_t)s->isolation_dnsd_uid;
	if (b->id_base % BROKER_IDS_PER_SLOT || b->id_base < 2 * ID_OWN || b->n_slots < 1 || b->n_slots > LIMIT_SANDBOXES)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "isolation.id_base %u or isolation.slots %u", b->id_base, b->n_slots);
	if (b->sandboxd_uid == 0 || b->dnsd_uid == 0 || b->sandboxd_uid == b->dnsd_uid)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "sandboxd and sandbox-dnsd need user ids of their own");
	return host_check_ids(b->id_base - ID_OWN, ID_OWN + LIMIT_SANDBOXES * BROKER_IDS_PER_SLOT, "sandboxd", err);
}

/* Where an upper cannot lie: the kernel refuses, or a crash of the other side takes sandboxes with it. */
static int check_state_fs(const struct broker *b, struct sbx_err *err)
{
	struct statfs fs;

	if (fstatfs(b->state_fd, &fs) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "%s", b->state_dir);
	const char *kind = fs.f_type == NFS_SUPER_MAGIC ? "NFS" : fs.f_type == OVERLAYFS_SUPER_MAGIC ? "overlay" :
			   fs.f_type == V9FS_MAGIC ? "9p" : fs.f_type == (__fsword_t)FUSE_SUPER_MAGIC ? "FUSE" : NULL;
	return kind ? sbx_err_set(err, SBX_E_HOST_LACKS, 0, "%s lies on %s, which cannot hold the writable part of a sandbox: set "
				  "state_dir to a directory on ext4, xfs, btrfs or tmpfs", b->state_dir, kind) : 0;
}

static int open_dir(int parent, const char *name, uint32_t owner, int *ret, struct sbx_err *err)
{
	*ret = path_make_dir(parent, name, owner, owner, 0700);
	return *ret < 0 ? sbx_err_set(err, SBX_E_SYSTEM, -*ret, "directory %s of the state or run directory (owner %u, mode 0700)", name, owner)
			: 0;
}

static int make_directories(struct broker *b, struct sbx_err *err)
{
	if ((mkdir(b->state_dir, 0700) < 0 && errno != EEXIST) || (mkdir(b->run_dir, 0755) < 0 && errno != EEXIST))
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "make %s and %s", b->state_dir, b->run_dir);
	umask(022); /* every mode below is given where something is made */
	return rootfs_records(b->run_dir, err);
}

static int open_directories(struct broker *b, struct sbx_err *err)
{
	struct stat st;
	auto_fd run = -1;

	b->state_fd = open(b->state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	run = open(b->run_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	b->null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	b->netns_fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	b->utsns_fd = open("/proc/self/ns/uts", O_RDONLY | O_CLOEXEC);
	if (b->state_fd < 0 || run < 0 || b->null_fd < 0 || b->netns_fd < 0 || b->utsns_fd < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "open %s and %s", b->state_dir, b->run_dir);
	if (fstat(b->state_fd, &st) < 0 || st.st_uid != 0 || (st.st_mode & 022))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "%s has to belong to root and nobody else may write it", b->state_dir);
	if (check_state_fs(b, err) < 0 || open_dir(b->state_fd, "layers", 0, &b->layers_fd, err) < 0 ||
	    open_dir(b->state_fd, "seals", 0, &b->seals_fd, err) < 0 ||
	    open_dir(b->state_fd, "sandboxes", 0, &b->sandboxes_fd, err) < 0 || open_dir(b->state_fd, "volumes", 0, &b->volumes_fd, err) < 0)
		return -1;
	rootfs_spread(b->sandboxes_fd);
	return open_dir(b->state_fd, "trash", b->id_base, &b->trash_fd, err) < 0 ? -1 : open_dir(run, "slots", 0, &b->slots_fd, err);
}

static void open_host_roots(struct broker *b)
{
	const struct settings_texts *paths = &b->settings.storage_allowed_host_paths;

	for (size_t i = 0; i < paths->n && b->n_host_roots < BROKER_HOST_ROOTS; i++)
		b->host_root[b->n_host_roots++].path = paths->item[i];
}

static int read_host(struct broker *b, struct sbx_err *err)
{
	char text[64] = "";
	char hex[33];
	size_t n = 0;

	if (path_read_file(AT_FDCWD, "/proc/sys/kernel/random/boot_id", text, sizeof(text)) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "boot id");
	for (const char *at = text; *at && *at != '\n' && n < sizeof(hex) - 1; at++)
		if (*at != '-')
			hex[n++] = *at;
	hex[n] = '\0';
	if (hex_decode(hex, b->boot_id, sizeof(b->boot_id)) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, 0, "boot id %s", text);
	struct sysinfo info;
	if (sysinfo(&info) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "sysinfo");
	b->host_memory_bytes = (uint64_t)info.totalram * info.mem_unit;
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	b->n_cpus = cpus > 0 ? (uint32_t)cpus : 1;
	return 0;
}

/* ---- programs ---- */

/* A program beside our own, opened by descriptor: no path of it is ever executed. */
static int open_program(uint32_t given, const char *name, struct sbx_err *err)
{
	char path[4096];

	if (given != UINT32_MAX)
		return fcntl((int)given, F_DUPFD_CLOEXEC, 3);
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
	if (n < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "own program");
	path[n] = '\0';
	char *slash = strrchr(path, '/');
	size_t dir = slash ? (size_t)(slash + 1 - path) : 0;
	int len = snprintf(path + dir, sizeof(path) - dir, "%s", name);
	if (len < 0 || (size_t)len >= sizeof(path) - dir)
		return sbx_err_set(err, SBX_E_SYSTEM, ENAMETOOLONG, "%s", name);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? sbx_err_set(err, SBX_E_SYSTEM, errno, "%s", path) : fd;
}

/* A sealed copy: what is executed inside can be changed by nobody, and no sandbox holds a file of the host (CVE-2019-5736). */
static int seal_program(int from, const char *name, struct sbx_err *err)
{
	static char piece[COPY_BYTES];
	auto_fd fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);
	ssize_t n;

	if (fd < 0 && errno == EINVAL) /* before Linux 6.3 */
		fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "memory file for %s", name);
	while ((n = read(from, piece, sizeof(piece))) > 0)
		if (write(fd, piece, (size_t)n) != n)
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "copy %s", name);
	if (n < 0 || fchmod(fd, 0555) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "seal %s", name);
	return take_fd(&fd);
}

static int load_programs(struct broker *b, const struct arguments *a, struct sbx_err *err)
{
	auto_fd agent = open_program(a->agent_fd, "sandbox-agent", err);

	b->unpack_fd = agent < 0 ? -1 : open_program(a->unpack_fd, "sandbox-unpack", err);
	b->agent_fd = b->unpack_fd < 0 ? -1 : seal_program(agent, "sandbox-agent", err);
	if (b->agent_fd < 0)
		return -1;
	for (int i = 0; i < PROFILE_COUNT; i++) {
		b->filter_fd[i] = profile_compile((enum profile_program)i, &b->filter_len[i], err);
		if (b->filter_fd[i] < 0)
			return -1;
	}
	return 0;
}

/* ---- network ---- */

static void on_link_gone(void *arg, uint32_t ifindex)
{
	slot_drain_link(arg, ifindex);
}

static void on_rules_lost(void *arg, const char *text)
{
	log_warn("%s", text);
	broker_event(arg, NULL, BROKER_EVENT_LIMIT, text);
}

struct prefixes {
	struct fw_rules_prefix *four;
	struct ip6_prefix *six;
	size_t *n4, *n6;
	size_t max;
};

static int fill_prefixes(const struct settings_texts *texts, const char *key, const struct prefixes *out, struct sbx_err *err)
{
	if (texts->n > out->max)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "%s has more than %zu entries", key, out->max);
	for (size_t i = 0; i < texts->n; i++) {
		if (fw_rules_parse_prefix(texts->item[i], &out->four[*out->n4]) == 0)
			(*out->n4)++;
		else if (ip6_parse(texts->item[i], &out->six[*out->n6]) == 0)
			(*out->n6)++;
		else
			return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "%s: %s is no address or range", key, texts->item[i]);
	}
	return 0;
}

/* Whether TLS connections are judged by their name. */
static bool has_gate(const struct broker *b)
{
	return strcmp(b->settings.egress_tls_gate, "off") != 0;
}

static int fill_rules(struct broker *b, struct sbx_err *err)
{
	b->rules.instance = b->instance;
	b->rules.uplink_host = links_uplink_host(b->links);
	b->rules.uplink_router = links_uplink_router(b->links);
	b->rules.subnet_addr = b->links_config.subnet_addr;
	b->rules.subnet_prefix = b->links_config.subnet_prefix;
	b->rules.quic = b->settings.egress_quic;
	b->rules.gate = has_gate(b);
	b->rules.ipv6 = b->links_config.ipv6;
	b->rules.subnet6 = b->links_config.subnet6;
	const struct prefixes allow = {b->rules.allow, b->rules.allow6, &b->rules.n_allow, &b->rules.n_allow6, FW_RULES_ALLOW_MAX};
	const struct prefixes doh = {b->rules.doh, b->rules.doh6, &b->rules.n_doh, &b->rules.n_doh6, FW_RULES_DOH_MAX};
	if (fill_prefixes(&b->settings.network_allow_private, "network.allow_private", &allow, err) < 0)
		return -1;
	if (!strcmp(b->settings.egress_doh, "off"))
		return 0;
	return fill_prefixes(&b->settings.egress_doh_addresses, "egress.doh_addresses", &doh, err);
}

static int open_network(struct broker *b, struct sbx_err *err)
{
	b->links_config = (struct links_config){.instance = b->instance,
						.run_dir = b->run_dir,
						.subnet_addr = b->settings.subnet_addr,
						.subnet_prefix = b->settings.subnet_prefix,
						.ipv6 = b->settings.network_ipv6,
						.subnet6 = b->settings.subnet6};
	if (!links_addr(&b->links_config, b->n_slots - 1))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "network.subnet has no room for %u sandboxes", b->n_slots);
	b->links = links_open(&b->links_config, err);
	if (!b->links || fill_rules(b, err) < 0)
		return -1;
	return links_gate(b->links, b->rules.gate, &b->gate_fd, err);
}

static int open_disks(struct broker *b, struct sbx_err *err)
{
	const char *text = b->settings.limits_default_disk;
	uint32_t mib = 0;

	if (*text && resources_disk(text, &mib) < 0)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "limits.default_disk \"%.32s\" is not a size such as 2Gi, of %uMi at least", text,
				   LIMIT_DISK_MIN_MIB);
	return disk_init(b, mib, err);
}

/* ---- the pool ---- */

static void refill(void *arg)
{
	struct broker *b = arg;
	struct sbx_err err = {0};
	uint32_t target = (uint32_t)b->settings.pool_target;
	bool low = b->pool.n < (target + POOL_LOW_DIVISOR - 1) / POOL_LOW_DIVISOR;
	uint64_t quiet = loop_now_ms(b->loop) - b->last_request_ms;

	/* one shell a turn, so that a request never waits for more than one */
	if (b->pool.n + b->n_making < target && b->n_making < MAX_MAKING && (low || quiet >= QUIET_MS)) {
		struct slot *s = slot_take(b, &err);

		if (s)
			launch_make(b, s);
		else
			log_debug("pool: %s", err.msg);
	}
	struct slot *stale = b->pool.n >= target && quiet >= QUIET_MS ? launch_stale(b) : NULL;
	if (stale)
		slot_kill(b, stale);
	if (quiet >= QUIET_MS && disk_pool_lacks(b))
		disk_pool_step(b);
	if (quiet >= QUIET_MS)
		root_ahead_step(b);
	if (quiet >= QUIET_MS)
		lowers_tidy(b);
	b->refill_due = false;
}

/* After each batch of events: is there something to do for the pool, and when? */
static void plan_refill(struct broker *b)
{
	uint64_t quiet = loop_now_ms(b->loop) - b->last_request_ms;

	bool shells = slots_free(b) && b->n_making < MAX_MAKING &&
		      (b->pool.n + b->n_making < (uint32_t)b->settings.pool_target || launch_stale(b));
	bool disks = disk_pool_lacks(b), layers = lowers_stale(b) || root_ahead_due(b);
	if (b->refill_due || (!shells && !disks && !layers))
		return;
	b->refill_due = true;
	loop_timer_arm(b->refill, (b->pool.n || !shells) && quiet < QUIET_MS ? (uint32_t)(QUIET_MS - quiet) : 1);
}

/* ---- serving ---- */

static int own_listener(const struct broker *b, struct sbx_err *err)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	char final[sizeof(b->run_dir) + 16];

	snprintf(final, sizeof(final), "%s/broker.sock", b->run_dir);
	int len = snprintf(at.sun_path, sizeof(at.sun_path), "%s/.broker", b->run_dir);
	if (len < 0 || (size_t)len >= sizeof(at.sun_path))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "run_dir is too long for a socket");
	auto_fd fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || (unlink(at.sun_path) < 0 && errno != ENOENT))
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "socket");
	/* Under another name first: who finds the name finds a socket that listens. */
	if (bind(fd, (const struct sockaddr *)&at, sizeof(at)) < 0 || chmod(at.sun_path, SOCKET_MODE) < 0 || listen(fd, 64) < 0 ||
	    rename(at.sun_path, final) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "listen on %s", final);
	return take_fd(&fd);
}

static void on_signal(void *arg, const struct signalfd_siginfo *info)
{
	struct broker *b = arg;

	log_info("signal %u: the broker ends, sandboxes go on", info->ssi_signo);
	b->running = false;
}

/* Whatever sandboxd promises: the host keeps its reserves.  Where that cannot be set, each sandbox still has its own limits. */
static void bound_all(struct broker *b)
{
	struct admission_host host;
	struct sbx_err err = {0};

	admission_host_read(&host);
	if (cgroup_limit_all(b->cg, admission_pids(&b->settings, &host), admission_memory(&b->settings, &host), &err) < 0)
		log_warn("nothing bounds all sandboxes together: %s", err.msg);
}

static int start(struct broker *b, const struct arguments *a, struct sbx_err *err)
{
	struct host_check_context context = {.state_dir = b->state_dir, .host_paths = &b->settings.storage_allowed_host_paths,
					     .ipv6 = b->settings.network_ipv6,
					     .gate = has_gate(b)};
	struct netwatch_hooks hooks = {.arg = b, .link_gone = on_link_gone, .rules_lost = on_rules_lost, .fill = egress_fill};

	launch_child_normalise();
	if (capset_keep_broker(err) < 0 || read_host(b, err) < 0 || make_directories(b, err) < 0)
		return -1;
	open_host_roots(b);
	b->cg = cgroup_open(b->instance, err);
	if (!b->cg)
		return -1;
	context.cg = b->cg;
	bound_all(b);
	if (host_check_start(&context, &b->host_features, err) < 0 || open_network(b, err) < 0 || rootfs_enter(err) < 0 || open_directories(b, err) < 0 ||
	    load_programs(b, a, err) < 0 || rootfs_init(b, err) < 0)
		return -1;
	if (open_disks(b, err) < 0 || shells_init(b, err) < 0 || slots_init(b, err) < 0 || flows_init(b, err) < 0 || egress_walk_init(b, err) < 0 || trash_init(b) < 0 || (b->settings.images_host && layers_host_image(b, err) < 0))
		return err->code ? -1 : sbx_err_set(err, SBX_E_NO_MEMORY, 0, "start");
	int live = slots_recover(b, err);
	if (live < 0)
		return -1;
	layers_sweep(b);
	trash_start(b);
	if (root_ahead_init(b, err) < 0)
		return -1;
	b->watch = netwatch_new(b->loop, b->links, &b->rules, b->run_dir, &hooks, err);
	if (!b->watch)
		return -1;
	b->refill = loop_timer_new(b->loop, refill, b);
	b->listen_fd = a->listen_fd != UINT32_MAX ? (int)a->listen_fd : own_listener(b, err);
	if (!b->refill || b->listen_fd < 0 || !loop_fd_add(b->loop, b->listen_fd, EPOLLIN, broker_accept, b))
		return err->code ? -1 : sbx_err_set(err, SBX_E_SYSTEM, errno, "listen");
	int r = sysfilter_load(b->filter_fd[PROFILE_BROKER], b->filter_len[PROFILE_BROKER]);
	if (r < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -r, "load the broker's own filter");
	log_info("instance %s serves %u slots from id %u, %d sandboxes live, cgroup version %u", b->instance, b->n_slots, b->id_base, live,
		 cgroup_version(b->cg));
	return 0;
}

int main(int argc, char **argv)
{
	static struct broker broker = {.state_fd = -1, .listen_fd = -1, .gate_fd = -1};
	struct broker *b = &broker;
	struct arguments a = {.listen_fd = UINT32_MAX, .agent_fd = UINT32_MAX, .unpack_fd = UINT32_MAX};
	struct sbx_err err = {0};

	log_init("sandbox-broker", LOG_LEVEL_INFO);
	int parsed = parse(argc, argv, &a);
	if (parsed != OPTIONS_GO_ON)
		return parsed;
	if (load_settings(b, &a, &err) < 0) {
		log_error("%s", err.msg);
		return EXIT_CONFIG;
	}
	if (a.purge) {
		const struct links_config network = {.instance = b->instance,
						     .run_dir = b->run_dir,
						     .subnet_addr = b->settings.subnet_addr,
						     .subnet_prefix = b->settings.subnet_prefix};

		if (host_purge(&network, &err) < 0) {
			log_error("%s", err.msg);
			return 1;
		}
		return 0;
	}
	b->loop = loop_new(&err);
	if (!b->loop || loop_signal(b->loop, SIGTERM, on_signal, b, &err) < 0 || loop_signal(b->loop, SIGINT, on_signal, b, &err) < 0 ||
	    start(b, &a, &err) < 0) {
		log_error("%s", err.msg);
		return err.code == SBX_E_INVALID_REQUEST || err.code == SBX_E_HOST_LACKS ? EXIT_CONFIG : 1;
	}
	b->running = true;
	loop_timer_arm(b->refill, 0);
	b->refill_due = true;
	while (b->running) {
		int r = loop_once(b->loop, -1);

		if (r < 0 && r != -EINTR)
			return 1;
		plan_refill(b);
	}
	return 0;
}
