// SPDX-License-Identifier: Apache-2.0
/*
 * sandboxd: the monitor, the daemon and a few commands that only print.  This file wires; it decides nothing.
 */
#include "api/api_server.h"
#include "api/dispatch.h"
#include "api/deny_hook.h"
#include "api/egress_events.h"
#include "api/fetch_channel.h"
#include "api/images_pull.h"
#include "api/monitor.h"
#include "base/cleanup.h"
#include "base/isolate.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/settings.h"
#include "config.h"
#include "images/blob_store.h"
#include "images/export_stream.h"
#include "images/image_store.h"
#include "images/pull.h"
#include "runtime/broker_client.h"
#include "runtime/sandbox.h"
#include "runtime/state_store.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define CHECKPOINT_PAGES    1000u
#define CHECKPOINT_CHECK_MS 2000u

enum mode {
	MODE_NONE = 0,
	MODE_STANDALONE,
	MODE_DAEMON,
	MODE_CHECKPOINT,
	MODE_PURGE,
	MODE_CHECK_CONFIG,
	MODE_PRINT_CONFIG,
	MODE_PRINT_REFERENCE,
	MODE_PRINT_ERRORS,
	MODE_INIT_CONFIG,
	MODE_PRINT_ROUTES,
	MODE_VERSION,
	MODE_HELP,
};

struct options {
	enum mode mode;
	const char *config; /* NULL: not given */
	const char *state_dir, *run_dir, *instance, *port, *path;
	bool force;
};

static const struct word {
	const char *name;
	enum mode mode;
	const char *help;
} words[] = {
	{"standalone", MODE_STANDALONE, "run everything in the foreground; needs root"},
	{"daemon", MODE_DAEMON, "the unprivileged part; started by the monitor"},
	{"checkpoint", MODE_CHECKPOINT, NULL},
	{"purge", MODE_PURGE, "end all sandboxes, undo what was changed on the host"},
	{"check-config", MODE_CHECK_CONFIG, "read the configuration, say what is wrong with it"},
	{"print-config", MODE_PRINT_CONFIG, "the effective configuration, without the key"},
	{"print-config-reference", MODE_PRINT_REFERENCE, "every key with default, bounds and meaning"},
	{"print-errors", MODE_PRINT_ERRORS, "every error code with HTTP status and meaning"},
	{"print-routes", MODE_PRINT_ROUTES, "every route that sandboxd answers"},
	{"version", MODE_VERSION, "print the version"},
	{"help", MODE_HELP, "print this"},
};

static void print_help(FILE *out)
{
	fputs("usage: sandboxd --standalone [--config FILE] [--state-dir DIR] [--run-dir DIR]\n"
	      "                [--instance N] [--port N]\n"
	      "       sandboxd init-config [PATH] [--force]\n"
	      "       sandboxd --MODE [--config FILE]\n\n",
	      out);
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (words[i].help)
			fprintf(out, "  --%-22s  %s\n", words[i].name, words[i].help);
	fputs("\n"
	      "  --config FILE             default: $SANDBOX_CONFIG_PATH, then ~/.sandbox.toml,\n"
	      "                            then what is built in\n"
	      "  --state-dir DIR           where images and sandboxes lie (/var/lib/sandboxd)\n"
	      "  --run-dir DIR             sockets and key (/run/sandboxd/INSTANCE)\n"
	      "  --instance N              0 to 12 (0): which of several daemons of this host\n"
	      "  --port N                  TCP port of the API (8080); 0: the kernel chooses\n"
	      "  --force                   init-config: also over a file that is there\n"
	      "\nIn brackets: the default.  The command line goes before the file.\n",
	      out);
}

static int take_word(struct options *o, const char *word)
{
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (!strcmp(word, words[i].name)) {
			o->mode = words[i].mode;
			return 0;
		}
	if (strcmp(word, "init-config") != 0)
		return -1;
	o->mode = MODE_INIT_CONFIG;
	return 0;
}

enum { OPT_MODE = 256, OPT_CONFIG, OPT_STATE_DIR, OPT_RUN_DIR, OPT_INSTANCE, OPT_PORT, OPT_FORCE };

static int parse_options(int argc, char **argv, struct options *o)
{
	struct option longs[ARRAY_SIZE(words) + 8] = {
		{"config", required_argument, NULL, OPT_CONFIG},     {"state-dir", required_argument, NULL, OPT_STATE_DIR},
		{"run-dir", required_argument, NULL, OPT_RUN_DIR},   {"instance", required_argument, NULL, OPT_INSTANCE},
		{"port", required_argument, NULL, OPT_PORT},	     {"force", no_argument, NULL, OPT_FORCE},
	};
	int c, which = 0;

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		longs[6 + i] = (struct option){words[i].name, no_argument, NULL, OPT_MODE};
	while ((c = getopt_long(argc, argv, "hV", longs, &which)) != -1) {
		if (c == OPT_MODE)
			o->mode = words[which - 6].mode;
		else if (c == OPT_CONFIG)
			o->config = optarg;
		else if (c == OPT_STATE_DIR)
			o->state_dir = optarg;
		else if (c == OPT_RUN_DIR)
			o->run_dir = optarg;
		else if (c == OPT_INSTANCE)
			o->instance = optarg;
		else if (c == OPT_PORT)
			o->port = optarg;
		else if (c == OPT_FORCE)
			o->force = true;
		else if (c == 'h')
			o->mode = MODE_HELP;
		else if (c == 'V')
			o->mode = MODE_VERSION;
		else
			return -1;
	}
	if (optind < argc && !o->mode && take_word(o, argv[optind++]) < 0) {
		fprintf(stderr, "sandboxd: unknown command \"%s\"; try sandboxd --help\n", argv[optind - 1]);
		return -1;
	}
	if (optind < argc && o->mode == MODE_INIT_CONFIG)
		o->path = argv[optind++];
	if (optind < argc) {
		fprintf(stderr, "sandboxd: \"%s\" is one argument too many; try sandboxd --help\n", argv[optind]);
		return -1;
	}
	return 0;
}

/* The command line over the file. */
static int load(const struct options *o, struct settings *s, struct sbx_err *err)
{
	if (settings_load(o->config, s, err) < 0)
		return -1;
	if (o->instance && settings_set(s, "instance", o->instance, err) < 0)
		return sbx_err_wrap(err, "--instance");
	if (o->port && settings_set(s, "server.port", o->port, err) < 0)
		return sbx_err_wrap(err, "--port");
	const struct {
		const char *key, *value;
	} dirs[] = {{"state_dir", o->state_dir}, {"run_dir", o->run_dir}};
	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
		auto_free char *whole = NULL;
		auto_free char *cwd = NULL;

		if (!dirs[i].value)
			continue;
		cwd = getcwd(NULL, 0);
		bool absolute = dirs[i].value[0] == '/';
		if ((!absolute && !cwd) || asprintf(&whole, "%s%s%s", absolute ? "" : cwd, absolute ? "" : "/", dirs[i].value) < 0) {
			whole = NULL;
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "%s", dirs[i].value);
		}
		if (settings_set(s, dirs[i].key, whole, err) < 0)
			return -1;
	}
	return 0;
}

/* ---- the daemon ---- */

struct daemon {
	struct settings settings;
	struct loop *loop;
	struct broker_client *broker;
	struct sandbox_manager *manager;
	struct image_store *images;
	struct blob_store *blobs;
	struct fetch_channel *fetch;
	struct image_pulls *pulls;
	struct api_server *api;
	struct egress_events *events;
	struct deny_hook_secret hook_secret;
	struct loop_timer *upkeep;
	char state_path[1100];
	pid_t checkpoint;
	bool ready;
};

static void on_changed(void *arg, const struct sandbox *sandbox, bool gone)
{
	struct daemon *d = arg;

	api_server_changed(d->api, sandbox, gone);
	if (gone)
		egress_events_gone(d->events, sandbox);
}

static void on_egress(void *arg, const struct sandbox *sandbox, const struct policy *policy, const struct egress_event *event)
{
	struct daemon *d = arg;

	egress_events_add(d->events, sandbox, policy, event);
}

static void start_checkpoint(struct daemon *d)
{
	char name[] = "sandboxd", flag[] = "--checkpoint", dir_flag[] = "--state-dir", config_flag[] = "--config",
	     no_config[] = "/dev/null";
	char *argv[] = {name, flag, config_flag, no_config, dir_flag, d->state_path, NULL};
	char *envp[] = {NULL};
	sigset_t none;

	pid_t pid = fork();
	if (pid == 0) {
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		execve("/proc/self/exe", argv, envp);
		_exit(127);
	}
	if (pid < 0)
		log_warn("checkpoint: %s", strerrordesc_np(errno));
	else
		d->checkpoint = pid;
}

static void on_upkeep(void *arg)
{
	struct daemon *d = arg;

	if (!d->ready && sandbox_manager_ready(d->manager)) {
		d->ready = true;
		ignore_result(write(MONITOR_FD_READY, "r", 1) < 0); /* nobody listens when a developer starts us by hand */
	}
	if (!d->checkpoint && sandbox_manager_log_pages(d->manager) > CHECKPOINT_PAGES)
		start_checkpoint(d);
	/* Until the broker has answered there is nothing else to wake us up at the right moment. */
	loop_timer_arm(d->upkeep, d->ready ? CHECKPOINT_CHECK_MS : 2);
}

static void on_child(void *arg, const struct signalfd_siginfo *info)
{
	struct daemon *d = arg;
	int status;

	(void)info;
	if (d->checkpoint && waitpid(d->checkpoint, &status, WNOHANG) == d->checkpoint) {
		d->checkpoint = 0;
		if (status)
			log_warn("checkpoint of the state database failed, status %d", status);
	}
}

static void on_stop(void *arg, const struct signalfd_siginfo *info)
{
	struct daemon *d = arg;

	(void)info;
	loop_quit(d->loop, 0);
}

static void on_ignored(void *arg, const struct signalfd_siginfo *info)
{
	(void)arg, (void)info;
}

static int daemon_signals(struct daemon *d, struct sbx_err *err)
{
	if (loop_signal(d->loop, SIGTERM, on_stop, d, err) < 0 || loop_signal(d->loop, SIGINT, on_stop, d, err) < 0 ||
	    loop_signal(d->loop, SIGCHLD, on_child, d, err) < 0 || loop_signal(d->loop, SIGPIPE, on_ignored, d, err) < 0)
		return -1;
	return 0;
}

static void on_pull_ended(void *arg)
{
	struct daemon *d = arg;

	api_server_pull_ended(d->api);
}

static int wire_pulls(struct daemon *d, int state_fd, struct sbx_err *err)
{
	d->blobs = blob_store_open(state_fd, err);
	d->fetch = d->blobs ? fetch_channel_new(d->loop, MONITOR_FD_FETCH, err) : NULL;
	if (!d->fetch)
		return -1;
	const struct fetch_starter starter = fetch_channel_starter(d->fetch);
	egress_events_set_starter(d->events, &starter);
	const struct image_pulls_config config = {
		.loop = d->loop,
		.settings = &d->settings,
		.images = d->images,
		.blobs = d->blobs,
		.starter = starter,
		.hooks = images_pull_hooks(d->broker, &d->settings),
		.ended = on_pull_ended,
		.ended_arg = d,
	};
	d->pulls = image_pulls_new(&config, err);
	return d->pulls ? 0 : -1;
}

static int daemon_wire(struct daemon *d, int state_fd, struct sbx_err *err)
{
	const struct settings *s = &d->settings;
	const struct sandbox_hooks hooks = {.arg = d, .changed = on_changed, .egress = on_egress};
	char path[128];

	d->loop = loop_new(err);
	if (!d->loop || daemon_signals(d, err) < 0)
		return -1;
	d->events = egress_events_new(d->loop, s, &d->hook_secret, err);
	explicit_bzero(&d->hook_secret, sizeof(d->hook_secret));
	if (!d->events)
		return -1;
	snprintf(path, sizeof(path), "%s/broker.sock", s->run_dir);
	d->broker = broker_client_new(d->loop, path, err);
	d->images = d->broker ? image_store_open(state_fd, err) : NULL;
	d->manager = d->images ? sandbox_manager_new(d->loop, s, d->broker, state_fd, &hooks, err) : NULL;
	if (!d->manager)
		return -1;
	if (wire_pulls(d, state_fd, err) < 0)
		return -1;
	sandbox_manager_set_images(d->manager, d->images, d->pulls);
	egress_events_set_manager(d->events, d->manager);
	if (sandbox_manager_set_egress(d->manager, MONITOR_FD_POLICY, err) < 0)
		return -1;
	const struct api_server_config config = {
		.loop = d->loop,
		.settings = s,
		.manager = d->manager,
		.images = d->images,
		.pulls = d->pulls,
		.blobs = d->blobs,
		.broker = d->broker,
		.events = d->events,
		.control_fd = MONITOR_FD_CONTROL,
		.state_dir_fd = state_fd,
		.gateway_uid = (unsigned)s->isolation_gateway_uid,
		.api_key = s->server_api_key,
		.insecure = s->server_insecure,
	};
	d->api = api_server_new(&config, err);
	d->upkeep = loop_timer_new(d->loop, on_upkeep, d);
	if (!d->api || !d->upkeep)
		return -1;
	loop_timer_arm(d->upkeep, 0);
	return 0;
}

static void daemon_clear(struct daemon *d)
{
	loop_timer_free(d->upkeep);
	api_server_free(d->api);
	egress_events_set_manager(d->events, NULL);
	sandbox_manager_free(d->manager);
	egress_events_free(d->events);
	image_pulls_free(d->pulls);
	fetch_channel_free(d->fetch);
	broker_client_free(d->broker);
	blob_store_close(d->blobs);
	image_store_close(d->images);
	loop_free(d->loop);
	settings_free(&d->settings);
}

static int run_daemon(struct daemon *d, struct sbx_err *err)
{
	const struct settings *s = &d->settings;

	snprintf(d->state_path, sizeof(d->state_path), "%s/state", s->run_dir);
	/* Root's file: the last that is read as root. */
	if (deny_hook_read_secret(s, &d->hook_secret, err) < 0 ||
	    isolate_self(ISOLATE_SANDBOXD, (uid_t)s->isolation_sandboxd_uid, getppid(), err) < 0)
		return -1;
	umask(0077);
	auto_fd state_fd = open(d->state_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (state_fd < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "%s", d->state_path);
	if (fcntl(MONITOR_FD_CONTROL, F_SETFD, FD_CLOEXEC) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "control socket: start sandboxd with --standalone");
	if (fcntl(MONITOR_FD_POLICY, F_SETFD, FD_CLOEXEC) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "socket for dnsd: start sandboxd with --standalone");
	ignore_result(fcntl(MONITOR_FD_READY, F_SETFD, FD_CLOEXEC) < 0); /* may not be there */
	ignore_result(fcntl(MONITOR_FD_FETCH, F_SETFD, FD_CLOEXEC) < 0);
	ignore_result(fcntl(MONITOR_FD_CONFIG, F_SETFD, FD_CLOEXEC) < 0);
	if (daemon_wire(d, state_fd, err) < 0)
		return -1;
	int r = loop_run(d->loop);
	return r < 0 ? sbx_err_set(err, SBX_E_SYSTEM, -r, "event loop") : 0;
}

/* ---- commands that print ---- */

static int init_config(const struct options *o, struct sbx_err *err)
{
	auto_free char *path = NULL;
	const char *home = getenv("HOME");

	if (o->path ? !(path = strdup(o->path)) : asprintf(&path, "%s/.sandbox.toml", home && *home ? home : ".") < 0)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "init-config");
	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdir(path, 0755) < 0 && errno != EEXIST)
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "make the directory %s", path);
		*slash = '/';
	}
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | (o->force ? O_TRUNC : O_EXCL), 0600);
	if (fd < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "%s%s", path, errno == EEXIST ? " (--force writes over it)" : "");
	FILE *out = fdopen(fd, "w");
	if (!out) {
		close_keep_errno(fd);
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "%s", path);
	}
	settings_print_example(out);
	if (fclose(out) != 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "%s", path);
	printf("%s written; all keys in it are commented out\n", path);
	return 0;
}

static void print_errors(void)
{
	for (unsigned i = 1; i < SBX_E_COUNT; i++)
		printf("%d  %-40s %s\n", sbx_err_status((enum sbx_err_code)i), sbx_err_api_code((enum sbx_err_code)i),
		       sbx_err_meaning((enum sbx_err_code)i));
}

static int run_configured(const struct options *o, struct sbx_err *err)
{
	auto_settings s = {0};

	if (load(o, &s, err) < 0)
		return -1;
	int level = log_level_from_name(s.log_level);
	log_init(o->mode == MODE_DAEMON ? "sandboxd" : o->mode == MODE_STANDALONE ? "monitor" : "sandboxd",
		 level < 0 ? LOG_LEVEL_ERROR : (enum log_level)level);
	switch (o->mode) {
	case MODE_STANDALONE:
		return monitor_run(&s, err);
	case MODE_PURGE:
		return monitor_purge(&s, err);
	case MODE_CHECKPOINT:
		return state_store_checkpoint(s.state_dir, err);
	case MODE_CHECK_CONFIG:
		printf("%s: valid, %u warning%s\n", *s.path ? s.path : "defaults", s.n_warnings, s.n_warnings == 1 ? "" : "s");
		return 0;
	case MODE_PRINT_CONFIG:
		settings_write(&s, stdout, SETTINGS_WITHOUT_KEY);
		return 0;
	case MODE_DAEMON: {
		struct daemon d = {.settings = s};

		s = (struct settings){0};
		int r = run_daemon(&d, err);
		daemon_clear(&d);
		return r;
	}
	case MODE_NONE:
	case MODE_PRINT_REFERENCE:
	case MODE_PRINT_ERRORS:
	case MODE_PRINT_ROUTES:
	case MODE_INIT_CONFIG:
	case MODE_VERSION:
	case MODE_HELP:
		break;
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct options o = {0};
	struct sbx_err err = {0};
	int r = 0;

	log_init("sandboxd", LOG_LEVEL_INFO);
	if (argc > 2 && !strcmp(argv[1], BLOB_RECEIVE_ARGUMENT))
		return blob_receive_main(argc - 2, argv + 2);
	if (argc == 3 && !strcmp(argv[1], EXPORT_STREAM_ARGUMENT))
		return export_stream_main(argv[2]);
	if (argc == 2 && !strcmp(argv[1], BLOB_VERIFY_ARGUMENT))
		return blob_verify_main();
	if (parse_options(argc, argv, &o) < 0)
		return 2;
	switch (o.mode) {
	case MODE_NONE:
		print_help(stderr);
		return 2;
	case MODE_HELP:
		print_help(stdout);
		break;
	case MODE_VERSION:
		puts("sandboxd " PACKAGE_VERSION);
		break;
	case MODE_PRINT_REFERENCE:
		settings_print_reference(stdout);
		break;
	case MODE_PRINT_ERRORS:
		print_errors();
		break;
	case MODE_PRINT_ROUTES:
		dispatch_print_routes(stdout);
		break;
	case MODE_INIT_CONFIG:
		r = init_config(&o, &err);
		break;
	case MODE_STANDALONE:
	case MODE_DAEMON:
	case MODE_CHECKPOINT:
	case MODE_PURGE:
	case MODE_CHECK_CONFIG:
	case MODE_PRINT_CONFIG:
		r = run_configured(&o, &err);
		break;
	}
	if (r < 0) {
		log_error("%s", err.msg);
		return err.code == SBX_E_INVALID_REQUEST ? MONITOR_EXIT_CONFIG : 1;
	}
	return 0;
}
