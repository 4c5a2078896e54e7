/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sandbox-dnsd: name server of the sandboxes.  Gets its listeners (sockets of the router network namespace) and the opening of
 * addresses from the broker, the policies from sandboxd, and serves on when one of them is away.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>

#include "base/cleanup.h"
#include "base/isolate.h"
#include "base/log.h"
#include "base/num.h"
#include "base/options.h"
#include "base/wallclock.h"

#include "netpolicy/dnsd_int.h"

void dnsd_turn(struct dnsd *d)
{
	/* The broker first: losing it answers questions. */
	dnsd_broker_flush(d->broker);
	dns_exchange_flush(d->exchange);
	dns_proxy_flush(d->proxy);
}

static void exchange_turn(void *arg)
{
	dnsd_turn(arg);
}

/* ---- watched directories ---- */

struct watch {
	struct dnsd *d;
	int fd; /* owned */
	int run_dir;
};

/* Something was made in the run directory, perhaps a socket; or beside resolv.conf, perhaps that. */
static void watch_ready(void *arg, int fd, uint32_t events)
{
	_Alignas(struct inotify_event) char buf[4096];
	struct watch *w = arg;
	bool sockets = false, servers = false;
	ssize_t n;

	(void)events;
	while ((n = read(fd, buf, sizeof(buf))) > 0)
		for (ssize_t at = 0; at < n;) {
			const struct inotify_event *e = (const struct inotify_event *)(const void *)(buf + at);

			if (e->wd == w->run_dir)
				sockets = true;
			else
				servers = true;
			at += (ssize_t)(sizeof(*e) + e->len);
		}
	if (sockets) {
		dnsd_broker_retry(w->d->broker);
		dnsd_policy_retry(w->d->policy);
	}
	if (servers)
		dns_reload_upstreams(w->d);
	dnsd_turn(w->d);
}

static void watch_dir_of(const struct watch *w, const char *path)
{
	char dir[PATH_MAX];
	char *slash;

	snprintf(dir, sizeof(dir), "%s", path);
	slash = strrchr(dir, '/');
	if (!slash)
		return;
	*slash = '\0';
	if (inotify_add_watch(w->fd, *dir ? dir : "/", IN_CREATE | IN_MOVED_TO | IN_CLOSE_WRITE) < 0)
		log_warn("watch %s: %s; name servers are read at the start only", dir, strerror(errno));
}

static int watch_directories(struct dnsd *d, struct watch *w, struct sbx_err *err)
{
	auto_free char *real = NULL;

	w->d = d;
	w->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	w->run_dir = w->fd < 0 ? -1 : inotify_add_watch(w->fd, d->settings.run_dir, IN_CREATE | IN_MOVED_TO);
	if (w->run_dir < 0) {
		/* The per-user number of watches may be used up; the timers alone are slower, not wrong. */
		log_warn("watch %s: %s; asking by timer", d->settings.run_dir, strerror(errno));
		return 0;
	}
	if (!d->upstreams.configured) {
		/* The file may be a link into the directory of a resolver of the host. */
		real = realpath(d->upstreams.resolv_conf, NULL);
		watch_dir_of(w, d->upstreams.resolv_conf);
		if (real && strcmp(real, d->upstreams.resolv_conf) != 0)
			watch_dir_of(w, real);
	}
	if (!loop_fd_add(d->loop, w->fd, EPOLLIN, watch_ready, w))
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "watch %s", d->settings.run_dir);
	return 0;
}

/* ---- start ---- */

static int take_upstreams(struct dnsd *d, struct sbx_err *err)
{
	const struct settings_texts *list = &d->settings.dns_upstreams;

	d->upstreams.resolv_conf = "/etc/resolv.conf";
	d->upstreams.own_addr = d->settings.gateway_addr;
	d->upstreams.configured = list->n > 0;
	for (size_t i = 0; i < list->n; i++) {
		if (d->upstreams.n == DNS_UPSTREAMS_MAX || dns_upstream_parse(list->item[i], &d->upstreams.addr[d->upstreams.n]) < 0)
			return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "dns.upstreams: \"%.60s\" is not an address or address:port",
					   list->item[i]);
		d->upstreams.n++;
	}
	if (dns_upstreams_refresh(&d->upstreams) < 0 || !d->upstreams.n)
		log_warn("no name server to ask: sandboxes get SERVFAIL until %s has one or dns.upstreams is set", d->upstreams.resolv_conf);
	return 0;
}

/* As long as we may still make files. */
static int open_lease_file(const struct dnsd *d)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/dnsd.leases", d->settings.run_dir);
	fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		log_warn("%s: %s; names that were resolved are forgotten when sandbox-dnsd ends", path, strerror(errno));
	return fd;
}

static int read_boot_id(uint8_t out[16])
{
	auto_fd fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	char text[UUID_SIZE] = "";

	if (fd < 0 || read(fd, text, UUID_SIZE - 1) != UUID_SIZE - 1)
		return -EIO;
	return uuid_parse(text, out);
}

static void stop(void *arg, const struct signalfd_siginfo *info)
{
	struct dnsd *d = arg;

	(void)info;
	loop_quit(d->loop, 0);
}

static void report(void *arg, const struct signalfd_siginfo *info)
{
	const struct dnsd *d = arg;
	const struct dnsd_counts *c = &d->counts;

	(void)info;
	log_info("questions %llu, answered %llu (%llu cached), denied %llu, failed %llu, over a limit %llu, forged %llu, pins %llu, "
		 "pin failures %llu, stripped %llu, tunnels %llu, packets refused %llu, events lost %llu, leases %u",
		 (unsigned long long)c->questions, (unsigned long long)c->answered, (unsigned long long)c->cached,
		 (unsigned long long)c->denied, (unsigned long long)c->failed, (unsigned long long)c->rate_limited,
		 (unsigned long long)dns_exchange_forged(d->exchange), (unsigned long long)c->pins, (unsigned long long)c->pin_failures,
		 (unsigned long long)c->rebind_stripped, (unsigned long long)c->tunnel_suspected, (unsigned long long)c->packets_denied,
		 (unsigned long long)c->events_lost, dns_leases_count(d->leases));
}

static int make_parts(struct dnsd *d, int lease_fd, struct sbx_err *err)
{
	uint8_t boot_id[16] = {0};

	if (read_boot_id(boot_id) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, EIO, "boot id");
	d->loop = loop_new(err);
	if (!d->loop || take_upstreams(d, err) < 0)
		return -1;
	d->sandboxes = dns_sandboxes_new();
	d->cache = dns_cache_new();
	if (!d->sandboxes || !d->cache)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "tables");
	d->leases = dns_leases_open(lease_fd, boot_id, mono_ms(), err);
	d->guard = d->leases ? dns_guard_new(d->loop, &d->settings, err) : NULL;
	d->doh = d->guard ? dns_doh_new(&d->settings, err) : NULL;
	d->hosts = d->doh ? dns_hosts_new(&d->settings, err) : NULL;
	d->exchange = d->hosts ? dns_exchange_new(d->loop, &d->upstreams, dns_exchange_outcome, exchange_turn, d, err) : NULL;
	d->lookups = d->exchange ? dns_lookups_new(d, err) : NULL;
	d->proxy = d->lookups ? dns_proxy_new(d, err) : NULL;
	d->tcp = d->proxy ? dns_tcp_new(d, err) : NULL;
	d->events = d->tcp ? dnsd_events_new(d, err) : NULL;
	d->log = d->events ? dnsd_log_new(d, err) : NULL;
	d->gate = d->log ? dnsd_gate_new(d, err) : NULL;
	d->broker = d->gate ? dnsd_broker_new(d, err) : NULL;
	d->policy = d->broker ? dnsd_policy_new(d, err) : NULL;
	return d->policy ? 0 : -1;
}

static int start(struct dnsd *d, struct watch *w, int lease_fd, struct sbx_err *err)
{
	if (make_parts(d, lease_fd, err) < 0)
		return -1;
	d->unlimited = !d->settings.dns_limits;
	if (d->unlimited)
		log_warn("dns.limits is off: a sandbox may ask as much as it likes");
	if (loop_signal(d->loop, SIGTERM, stop, d, err) < 0 || loop_signal(d->loop, SIGINT, stop, d, err) < 0 ||
	    loop_signal(d->loop, SIGUSR1, report, d, err) < 0)
		return -1;
	return watch_directories(d, w, err);
}

/* The table of leases stays in its file: the kernel has the addresses still open. */
static void end(struct dnsd *d)
{
	dns_tcp_free(d->tcp);
	for (struct dns_sandbox *s; d->sandboxes && (s = dns_sandboxes_first(d->sandboxes));) {
		dns_lookup_drop(d, s);
		dns_cache_drop(d->cache, s);
		s->n_leases = s->lease_elements = s->closing_elements = 0;
		dns_sandboxes_remove(d->sandboxes, s);
	}
	dns_lookups_free(d->lookups);
	dns_exchange_free(d->exchange);
	dns_proxy_free(d->proxy);
	dnsd_broker_free(d->broker);
	dnsd_policy_free(d->policy);
	dnsd_events_free(d->events);
	dnsd_log_free(d->log);
	dnsd_gate_free(d->gate);
	dns_hosts_free(d->hosts);
	dns_doh_free(d->doh);
	dns_guard_free(d->guard);
	dns_leases_close(d->leases);
	dns_cache_free(d->cache);
	dns_sandboxes_free(d->sandboxes);
	loop_free(d->loop);
	settings_free(&d->settings);
}

static const char help[] = "usage: sandbox-dnsd [--config FILE] [--instance N] [--run-dir DIR]\n"
			   "Name server of the sandboxes; started by sandboxd or systemd.\n";

struct arguments {
	const char *config, *instance, *run_dir;
};

static int read_arguments(int argc, char **argv, struct arguments *a)
{
	const struct option_row rows[] = {
		{"config", OPTION_TEXT, &a->config}, {"instance", OPTION_TEXT, &a->instance}, {"run-dir", OPTION_TEXT, &a->run_dir}};

	return options_read(argc, argv, rows, ARRAY_SIZE(rows), help);
}

int main(int argc, char **argv)
{
	static struct dnsd d;
	static struct watch watch;
	struct arguments a = {0};
	struct sbx_err err = {0};
	auto_fd lease_fd = -1;
	int r = read_arguments(argc, argv, &a);

	if (r != OPTIONS_GO_ON)
		return r;
	log_init("sandbox-dnsd", LOG_LEVEL_INFO);
	if (settings_load(a.config, &d.settings, &err) < 0 ||
	    (a.instance && settings_set(&d.settings, "instance", a.instance, &err) < 0) ||
	    (a.run_dir && settings_set(&d.settings, "run_dir", a.run_dir, &err) < 0)) {
		log_error("%s", err.msg);
		return 1;
	}
	lease_fd = open_lease_file(&d);
	if (isolate_self(ISOLATE_DNSD, (uid_t)d.settings.isolation_dnsd_uid, getppid(), &err) < 0 ||
	    start(&d, &watch, lease_fd, &err) < 0) {
		log_error("%s", err.msg);
		return 1;
	}
	r = loop_run(d.loop);
	end(&d);
	return r;
}
