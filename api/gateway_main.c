// SPDX-License-Identifier: Apache-2.0
/*
 * sandbox-gateway: the public listeners.  Started by the monitor with the listening sockets as descriptors; gives up all
 * privilege before it reads a byte from anybody.  This file wires; it decides nothing.
 */
#include "api/execd/execd.h"
#include "api/gateway.h"
#include "api/links.h"
#include "api/services.h"
#include "api/monitor.h"
#include "base/cleanup.h"
#include "base/isolate.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/num.h"
#include "base/settings.h"
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* Descriptors besides connections: the channel, the listeners, the loop, two for each sandbox in use. */
#define SPARE_FDS 256u
/* Connections that only who has the Unix socket can use. */
#define UNIX_RESERVE 64u

enum { OPT_CONFIG = 256, OPT_RUN_DIR, OPT_API_FD, OPT_ENDPOINT_FD, OPT_UNIX_FD, OPT_ROUTES, OPT_VERSION, OPT_HELP };

struct options {
	const char *config, *run_dir;
	int fd[3]; /* by enum gw_listener; -1: none */
};

static const char usage[] =
	"usage: sandbox-gateway --config FILE [--run-dir DIR]\n"
	"                       [--api-fd N] [--endpoint-fd N] [--unix-fd N]\n"
	"       sandbox-gateway --print-routes | --version | --help\n\n"
	"The public listeners of sandboxd; started by sandboxd --standalone, which\n"
	"passes the listening sockets (descriptors 4, 5 and 6; -1: none).\n";

/* Returns -1 to go on, or the exit status. */
static int parse_options(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {
		{"config", required_argument, NULL, OPT_CONFIG},
		{"run-dir", required_argument, NULL, OPT_RUN_DIR},
		{"api-fd", required_argument, NULL, OPT_API_FD},
		{"endpoint-fd", required_argument, NULL, OPT_ENDPOINT_FD},
		{"unix-fd", required_argument, NULL, OPT_UNIX_FD},
		{"print-routes", no_argument, NULL, OPT_ROUTES},
		{"version", no_argument, NULL, OPT_VERSION},
		{"help", no_argument, NULL, OPT_HELP},
		{0},
	};
	int64_t fd;

	for (int c; (c = getopt_long(argc, argv, "hV", longs, NULL)) != -1;)
		switch (c) {
		case OPT_CONFIG:
			o->config = optarg;
			break;
		case OPT_RUN_DIR:
			o->run_dir = optarg;
			break;
		case OPT_API_FD:
		case OPT_ENDPOINT_FD:
		case OPT_UNIX_FD:
			if (num_i64(optarg, strlen(optarg), &fd) < 0 || fd < -1 || fd > 1 << 20) {
				fprintf(stderr, "sandbox-gateway: \"%s\" is no descriptor\n", optarg);
				return 2;
			}
			o->fd[c - OPT_API_FD] = (int)fd;
			break;
		case OPT_ROUTES:
			routes_print(stdout);
			return 0;
		case 'V':
		case OPT_VERSION:
			puts("sandbox-gateway " PACKAGE_VERSION);
			return 0;
		case 'h':
		case OPT_HELP:
			fputs(usage, stdout);
			return 0;
		default:
			fputs(usage, stderr);
			return 2;
		}
	if (optind < argc) {
		fputs(usage, stderr);
		return 2;
	}
	return -1;
}

static void on_up(void *arg, uint32_t flags)
{
	struct gateway *gw = arg;

	(void)flags;
	/* what changed while the channel was down is not known: everybody is asked for again */
	links_forget_credentials(gw->links);
}

static void on_state(void *arg, const struct gw_state *state)
{
	struct gateway *gw = arg;

	links_changed(gw->links, state);
}

/* ---- GW_STAT for execd's metrics ---- */

struct stat_call {
	execd_stat_done *done;
	void *arg;
};

static void stat_answered(void *arg, struct gw_reply *reply, const struct sbx_err *err)
{
	struct stat_call call = *(struct stat_call *)arg;
	struct gw_stat_reply stat;
	struct sbx_err own = {0};

	free(arg);
	if (!err && reply->head->kind != GW_STAT_REPLY) {
		sbx_err_set(&own, SBX_E_PROTOCOL, 0, "answer of another kind");
		err = &own;
	}
	if (err) {
		call.done(call.arg, NULL, err);
		return;
	}
	memcpy(&stat, reply->head, sizeof(stat));
	if (stat.status != 200) {
		sbx_err_set(&own, stat.status == 404 ? SBX_E_SANDBOX_NOT_FOUND : SBX_E_NOT_READY, 0, "no figures of the sandbox");
		call.done(call.arg, NULL, &own);
		return;
	}
	call.done(call.arg, &stat, NULL);
}

static void ask_stat(void *arg, const uint8_t sandbox_id[16], execd_stat_done *done, void *done_arg)
{
	struct gateway *gw = arg;
	struct gw_stat message = {.head = {.kind = GW_STAT}};
	struct stat_call *call = malloc(sizeof(*call));
	struct sbx_err err = {0};

	memcpy(message.sandbox_id, sandbox_id, sizeof(message.sandbox_id));
	if (!call) {
		sbx_err_set(&err, SBX_E_NO_MEMORY, 0, "metrics");
		done(done_arg, NULL, &err);
		return;
	}
	*call = (struct stat_call){done, done_arg};
	if (!gw_client_send(gw->control, &message.head, sizeof(message), NULL, 0, stat_answered, call, &err)) {
		free(call);
		done(done_arg, NULL, &err);
	}
}

/* ---- wiring ---- */

static void on_stop(void *arg, const struct signalfd_siginfo *info)
{
	(void)info;
	loop_quit(arg, 0);
}

/* As many connections as asked for and as descriptors allow. */
static unsigned connection_limit(const struct settings *s)
{
	struct rlimit limit = {.rlim_cur = 1024};
	uint64_t max;

	ignore_result(getrlimit(RLIMIT_NOFILE, &limit)); /* the fallback is what POSIX promises */
	max = limit.rlim_cur > 4 * SPARE_FDS ? limit.rlim_cur / 2 : limit.rlim_cur / 4;
	if (s->server_limit_concurrency > 0 && (uint64_t)s->server_limit_concurrency < max)
		max = (uint64_t)s->server_limit_concurrency;
	return (unsigned)max;
}

static unsigned service_limit(unsigned connections)
{
	unsigned share = connections / LIMIT_SERVICES_SHARE;

	return share < 1 ? 1 : share > LIMIT_SERVICES ? LIMIT_SERVICES : share;
}

static int socket_owner(struct gateway *gw, const struct settings *s)
{
	auto_free char *path = NULL;
	struct stat st;

	if (asprintf(&path, "%s/api.sock", s->run_dir) < 0) {
		path = NULL;
		return -ENOMEM;
	}
	if (stat(path, &st) == 0 && S_ISSOCK(st.st_mode)) {
		gw->socket_owner = st.st_uid;
		gw->has_owner = true;
	}
	return 0;
}

static enum execd_code_backend code_backend(const struct settings *s)
{
	if (!strcasecmp(s->code_backend, "native"))
		return EXECD_CODE_NATIVE;
	return strcasecmp(s->code_backend, "jupyter") ? EXECD_CODE_AUTO : EXECD_CODE_JUPYTER;
}

static int wire(struct gateway *gw, const struct settings *s, const struct options *o, struct sbx_err *err)
{
	const struct gw_client_hooks hooks = {.arg = gw, .up = on_up, .state = on_state};
	const struct execd_hooks execd_hooks = {.arg = gw, .stat = ask_stat, .port = proxy_inside, .code_backend = code_backend(s)};
	const struct http_server_config config = {.max_connections = connection_limit(s),
						  .max_per_address = s->server_limit_per_address ? (unsigned)s->server_limit_per_address
											 : (connection_limit(s) + 1) / 2,
						  .unix_reserve = UNIX_RESERVE,
						  .idle_ms = (uint32_t)s->server_timeout_keep_alive * 1000,
						  .handler = gateway_handle,
						  .arg = gw};
	char path[128];

	gw->loop = loop_new(err);
	if (!gw->loop || loop_signal(gw->loop, SIGTERM, on_stop, gw->loop, err) < 0 ||
	    loop_signal(gw->loop, SIGINT, on_stop, gw->loop, err) < 0)
		return -1;
	if (signal(SIGPIPE, SIG_IGN) == SIG_ERR)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "ignore SIGPIPE");
	if (access_names_of(s, &gw->names, err) < 0)
		return -1;
	if (socket_owner(gw, s) < 0)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "api.sock");
	gw->execd = execd_new(gw->loop, &execd_hooks, err);
	gw->links = gw->execd ? links_new(gw->execd, err) : NULL;
	gw->services = gw->links ? services_new(service_limit(connection_limit(s)), err) : NULL;
	if (!gw->services)
		return -1;
	snprintf(path, sizeof(path), "%s/control.sock", s->run_dir);
	gw->control = gw_client_new(gw->loop, path, &hooks, err);
	gw->http = gw->control ? http_server_new(gw->loop, &config, err) : NULL;
	if (!gw->http)
		return -1;
	for (unsigned i = 0; i < ARRAY_SIZE(o->fd); i++)
		if (o->fd[i] >= 0 && http_server_listen(gw->http, o->fd[i], i, err) < 0)
			return sbx_err_wrap(err, "listener %d", o->fd[i]);
	return 0;
}

static void clear(struct gateway *gw)
{
	http_server_free(gw->http);
	services_free(gw->services);
	links_free(gw->links);
	gw_client_free(gw->control);
	execd_free(gw->execd);
	access_names_clear(&gw->names);
	loop_free(gw->loop);
}

/* Inherited descriptors are ours alone, and a listener that is not there is no listener. */
static void take_descriptors(struct options *o)
{
	ignore_result(fcntl(MONITOR_FD_CONFIG, F_SETFD, FD_CLOEXEC) < 0); /* not there when a person starts us */
	for (unsigned i = 0; i < ARRAY_SIZE(o->fd); i++) {
		int flags = o->fd[i] >= 0 ? fcntl(o->fd[i], F_GETFL) : -1;

		if (flags < 0 || fcntl(o->fd[i], F_SETFD, FD_CLOEXEC) < 0 || fcntl(o->fd[i], F_SETFL, flags | O_NONBLOCK) < 0)
			o->fd[i] = -1;
	}
}

static int run(struct options *o, struct sbx_err *err)
{
	auto_settings s = {0};
	struct gateway gw = {0};
	pid_t parent = getppid();

	if (settings_load(o->config, &s, err) < 0)
		return -1;
	if (o->run_dir && settings_set(&s, "run_dir", o->run_dir, err) < 0)
		return -1;
	int level = log_level_from_name(s.log_level);
	log_init("gateway", level < 0 ? LOG_LEVEL_INFO : (enum log_level)level);
	if (isolate_self(ISOLATE_GATEWAY, (uid_t)s.isolation_gateway_uid, parent, err) < 0)
		return -1;
	take_descriptors(o);
	int r = wire(&gw, &s, o, err);
	if (r == 0) {
		r = loop_run(gw.loop);
		if (r < 0)
			sbx_err_set(err, SBX_E_SYSTEM, -r, "event loop");
	}
	clear(&gw);
	return r < 0 ? -1 : 0;
}

int main(int argc, char **argv)
{
	struct options o = {.fd = {MONITOR_FD_API, MONITOR_FD_ENDPOINT, MONITOR_FD_UNIX}};
	struct sbx_err err = {0};
	int status;

	log_init("gateway", LOG_LEVEL_INFO);
	status = parse_options(argc, argv, &o);
	if (status >= 0)
		return status;
	if (!o.config) {
		fputs(usage, stderr);
		return 2;
	}
	if (run(&o, &err) < 0) {
		log_error("%s", err.msg);
		return err.code == SBX_E_INVALID_REQUEST ? MONITOR_EXIT_CONFIG : 1;
	}
	return 0;
}
