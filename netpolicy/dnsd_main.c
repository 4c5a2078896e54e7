/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sandbox-dnsd: name server of the sandboxes.  Gets its listeners (sockets of the router network namespace) from the broker,
 * forwards what sandboxes ask, and asks the broker again whenever the broker was restarted; meanwhile it serves on.
 */
#include "config.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/cleanup.h"
#include "base/fdpass.h"
#include "base/isolate.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/num.h"
#include "base/settings.h"

#include "netpolicy/dns_proxy.h"
#include "runtime/broker/broker_msg.h"

#define RETRY_FIRST_MS 20u
#define RETRY_MAX_MS   2000u

struct dnsd {
	struct loop *loop;
	struct settings settings;
	const char *run_dir; /* borrowed */
	struct dns_upstreams upstreams;
	struct dns_proxy *proxy;
	int broker_fd; /* owned */
	struct loop_fd *broker_source;
	int inotify_fd; /* owned; the broker's socket appears */
	struct loop_timer *retry;
	uint64_t retry_ms;
	uint64_t tag;
};

static void connect_broker(struct dnsd *d);

/* ---- broker ---- */

static void lose_broker(struct dnsd *d, const char *why)
{
	if (d->broker_fd >= 0)
		log_warn("broker: %s; serving on, connecting again", why);
	loop_fd_remove(d->broker_source);
	d->broker_source = NULL;
	replace_fd(&d->broker_fd, -1);
	loop_timer_arm(d->retry, d->retry_ms);
	d->retry_ms = d->retry_ms * 2 > RETRY_MAX_MS ? RETRY_MAX_MS : d->retry_ms * 2;
}

static int send_request(struct dnsd *d, enum broker_op op, void *msg, size_t size)
{
	struct broker_head head = {.magic = BROKER_MAGIC, .op = (uint32_t)op, .tag = ++d->tag, .size = (uint32_t)size};
	struct iovec iov = {.iov_base = msg, .iov_len = size};

	memcpy(msg, &head, sizeof(head));
	return fdpass_send(d->broker_fd, &iov, 1, NULL, 0);
}

static const char *got_hello(struct dnsd *d, const union broker_any *m, size_t n)
{
	struct broker_plain_req req = {0};

	if (n != sizeof(m->hello_reply) || m->hello_reply.status)
		return "refused our hello";
	return send_request(d, BROKER_OP_DNS_SOCKETS, &req, sizeof(req)) < 0 ? "cannot be written to" : NULL;
}

static const char *got_sockets(struct dnsd *d, const union broker_any *m, size_t n, int *fds, size_t n_fds)
{
	struct sbx_err err;

	if (n != sizeof(m->reply) || m->reply.status || n_fds != 2)
		return "gave no sockets";
	if (dns_proxy_listen(d->proxy, take_fd(&fds[0]), take_fd(&fds[1]), &err) < 0) {
		log_error("%s", err.msg);
		return "gave sockets that cannot be served";
	}
	d->retry_ms = RETRY_FIRST_MS;
	log_info("serving %zu name server(s) to the sandboxes", d->upstreams.n);
	return NULL;
}

static void broker_ready(void *arg, int fd, uint32_t events)
{
	struct dnsd *d = arg;
	union broker_any m;
	int fds[2] = {-1, -1};
	size_t n_fds = 0;
	const char *wrong = NULL;
	ssize_t n = fdpass_recv(fd, &m, sizeof(m), fds, 2, &n_fds);

	(void)events;
	if (n == -EAGAIN || n == -EINTR)
		return;
	if (n <= 0)
		wrong = n < 0 ? strerror((int)-n) : "closed the connection";
	else if ((size_t)n < sizeof(m.head) || m.head.magic != BROKER_MAGIC || m.head.size != (uint32_t)n)
		wrong = "sent a malformed message";
	else if (m.head.op == BROKER_OP_HELLO)
		wrong = got_hello(d, &m, (size_t)n);
	else if (m.head.op == BROKER_OP_DNS_SOCKETS)
		wrong = got_sockets(d, &m, (size_t)n, fds, n_fds);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		close_keep_errno(fds[i]);
	if (wrong)
		lose_broker(d, wrong);
}

static int open_broker(struct dnsd *d)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	struct broker_hello hello = {.version = BROKER_VERSION};
	auto_fd fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int n = snprintf(to.sun_path, sizeof(to.sun_path), "%s/broker.sock", d->run_dir);

	if (fd < 0 || n < 0 || (size_t)n >= sizeof(to.sun_path))
		return fd < 0 ? -errno : -ENAMETOOLONG;
	if (connect(fd, (const struct sockaddr *)&to, sizeof(to)) < 0)
		return -errno;
	d->broker_source = loop_fd_add(d->loop, fd, EPOLLIN, broker_ready, d);
	if (!d->broker_source)
		return -errno;
	d->broker_fd = take_fd(&fd);
	return send_request(d, BROKER_OP_HELLO, &hello, sizeof(hello));
}

static void connect_broker(struct dnsd *d)
{
	int r = d->broker_fd >= 0 ? 0 : open_broker(d);

	if (r < 0) {
		log_debug("broker: %s", strerror(-r));
		lose_broker(d, strerror(-r));
	}
}

static void retry(void *arg)
{
	connect_broker(arg);
}

/* Something was made in the run directory: perhaps the broker's socket. */
static void run_dir_ready(void *arg, int fd, uint32_t events)
{
	_Alignas(struct inotify_event) char buf[4096];
	struct dnsd *d = arg;

	(void)events;
	while (read(fd, buf, sizeof(buf)) > 0)
		;
	if (d->broker_fd < 0)
		loop_timer_arm(d->retry, 0);
}

static int watch_run_dir(struct dnsd *d, struct sbx_err *err)
{
	d->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (d->inotify_fd < 0 || inotify_add_watch(d->inotify_fd, d->run_dir, IN_CREATE | IN_MOVED_TO) < 0) {
		/* The per-user number of watches may be used up; the timer alone is slower, not wrong. */
		log_warn("watch %s: %s; asking by timer", d->run_dir, strerror(errno));
		return 0;
	}
	if (!loop_fd_add(d->loop, d->inotify_fd, EPOLLIN, run_dir_ready, d))
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "watch %s", d->run_dir);
	return 0;
}

/* ---- start ---- */

static int take_upstreams(struct dnsd *d, struct sbx_err *err)
{
	const struct settings_texts *list = &d->settings.dns_upstreams;

	d->upstreams.resolv_conf = "/etc/resolv.conf";
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

static void stop(void *arg, const struct signalfd_siginfo *info)
{
	struct dnsd *d = arg;

	(void)info;
	loop_quit(d->loop, 0);
}

static void report(void *arg, const struct signalfd_siginfo *info)
{
	const struct dnsd *d = arg;
	const struct dns_proxy_counts *c = dns_proxy_counts(d->proxy);

	(void)info;
	log_info("questions %llu, answers %llu, failures %llu, refused %llu, over rate %llu, forged answers %llu",
		 (unsigned long long)c->questions, (unsigned long long)c->answers, (unsigned long long)c->failures,
		 (unsigned long long)c->refused, (unsigned long long)c->over_rate, (unsigned long long)c->forged);
}

static int start(struct dnsd *d, struct sbx_err *err)
{
	d->loop = loop_new(err);
	if (!d->loop || take_upstreams(d, err) < 0)
		return -1;
	d->proxy = dns_proxy_new(d->loop, &d->upstreams, err);
	d->retry = d->proxy ? loop_timer_new(d->loop, retry, d) : NULL;
	if (!d->proxy || !d->retry)
		return d->proxy ? sbx_err_set(err, SBX_E_NO_MEMORY, 0, "timer") : -1;
	if (loop_signal(d->loop, SIGTERM, stop, d, err) < 0 || loop_signal(d->loop, SIGINT, stop, d, err) < 0 ||
	    loop_signal(d->loop, SIGUSR1, report, d, err) < 0 || watch_run_dir(d, err) < 0)
		return -1;
	connect_broker(d);
	return 0;
}

static const struct option options[] = {
	{"config", required_argument, NULL, 'c'},
	{"instance", required_argument, NULL, 'i'},
	{"run-dir", required_argument, NULL, 'r'},
	{"version", no_argument, NULL, 'V'},
	{"help", no_argument, NULL, 'h'},
	{0},
};

static const char help[] = "usage: sandbox-dnsd [--config FILE] [--instance N] [--run-dir DIR]\n"
			   "Name server of the sandboxes; started by sandboxd or systemd.\n";

struct arguments {
	const char *config, *instance, *run_dir;
};

/* Return: 0 to go on, 1 to end well, 2 to end badly */
static int read_arguments(int argc, char **argv, struct arguments *a)
{
	int c;

	while ((c = getopt_long(argc, argv, "c:hV", options, NULL)) >= 0) {
		switch (c) {
		case 'c':
			a->config = optarg;
			break;
		case 'i':
			a->instance = optarg;
			break;
		case 'r':
			a->run_dir = optarg;
			break;
		case 'V':
			puts("sandbox-dnsd " PACKAGE_VERSION);
			return 1;
		case 'h':
			fputs(help, stdout);
			return 1;
		default:
			fputs(help, stderr);
			return 2;
		}
	}
	return optind < argc ? 2 : 0;
}

int main(int argc, char **argv)
{
	static struct dnsd d = {.broker_fd = -1, .inotify_fd = -1, .retry_ms = RETRY_FIRST_MS};
	struct arguments a = {0};
	struct sbx_err err = {0};
	int r = read_arguments(argc, argv, &a);

	if (r)
		return r - 1;
	log_init("sandbox-dnsd", LOG_LEVEL_INFO);
	if (settings_load(a.config, &d.settings, &err) < 0 ||
	    (a.instance && settings_set(&d.settings, "instance", a.instance, &err) < 0) ||
	    (a.run_dir && settings_set(&d.settings, "run_dir", a.run_dir, &err) < 0)) {
		log_error("%s", err.msg);
		return 1;
	}
	d.run_dir = d.settings.run_dir;
	if (isolate_self(ISOLATE_DNSD, (uid_t)d.settings.isolation_dnsd_uid, getppid(), &err) < 0 || start(&d, &err) < 0) {
		log_error("%s", err.msg);
		return 1;
	}
	r = loop_run(d.loop);
	dns_proxy_free(d.proxy);
	loop_free(d.loop);
	settings_free(&d.settings);
	return r;
}
