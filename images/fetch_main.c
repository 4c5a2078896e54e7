// SPDX-License-Identifier: Apache-2.0
/*
 * DOC: sandbox-fetch, see fetch_msg.h for what is said to it
 *
 * Started by the monitor with the configuration in descriptor 3 and its socket to sandboxd in descriptor 4; becomes a uid of
 * its own with no capability before it reads anything.  It opens no file for writing.
 */
#include "config.h"

#include "base/cleanup.h"
#include "base/fdpass.h"
#include "base/isolate.h"
#include "base/log.h"
#include "base/settings.h"
#include "images/fetch_post.h"
#include "images/registry.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define SOCKET_FD 4

struct fetcher {
	struct settings settings;
	struct registry *registry; /* of a pull */
	struct fetch_poster *poster; /* of the webhook; never both */
	bool over;
};

static void on_done(void *arg, const struct fetch_done *done)
{
	struct fetcher *f = arg;
	const struct iovec iov = {.iov_base = (void *)(uintptr_t)done, .iov_len = sizeof(*done)}; /* sendmsg() does not write there */

	/* sandboxd reads all the time; one that is behind by a whole socket is gone or broken */
	if (fdpass_send(SOCKET_FD, &iov, 1, NULL, 0) < 0)
		f->over = true;
}

static bool is_listed(const struct settings_texts *list, const char *host)
{
	for (size_t i = 0; i < list->n; i++)
		if (!strcasecmp(list->item[i], host))
			return true;
	return false;
}

static int set_up(struct fetcher *f, struct fetch_setup *setup, struct sbx_err *err)
{
	static struct registry_credentials credentials;

	setup->host[sizeof(setup->host) - 1] = setup->user[sizeof(setup->user) - 1] =
		setup->password[sizeof(setup->password) - 1] = '\0';
	memcpy(credentials.user, setup->user, sizeof(credentials.user));
	memcpy(credentials.password, setup->password, sizeof(credentials.password));
	const struct registry_config config = {
		.host = setup->host,
		.credentials = &credentials,
		.ca_dir = f->settings.images_ca_dir,
		.plain = registry_is_loopback(setup->host) || is_listed(&f->settings.images_insecure_registries, setup->host),
		.stall_s = (unsigned)f->settings.images_stall_seconds,
		.retries = (unsigned)f->settings.images_retries,
		.arg = f,
		.done = on_done,
	};
	f->registry = registry_new(&config, err);
	explicit_bzero(&credentials, sizeof(credentials));
	return f->registry ? 0 : -1;
}

static int take_post(struct fetcher *f, const struct fetch_post *post)
{
	struct sbx_err err = {0};

	if (f->registry || post->n > sizeof(post->body) || memchr(post->signature, 0, sizeof(post->signature)) == NULL)
		return -1;
	if (!f->poster) {
		const struct fetch_poster_config config = {
			.url = f->settings.egress_deny_webhook, .ca_file = f->settings.egress_deny_webhook_ca, .arg = f, .done = on_done};

		f->poster = fetch_poster_new(&config, &err);
	}
	if (!f->poster) {
		log_error("%s", err.msg);
		return -1;
	}
	fetch_poster_post(f->poster, post);
	return 0;
}

/* Return: 0, or -1: the peer is gone or speaks another language */
static int read_one(struct fetcher *f)
{
	static union fetch_any message;
	struct sbx_err err = {0};
	int fds[1];
	size_t n_fds = 0;
	ssize_t n = fdpass_recv(SOCKET_FD, &message, sizeof(message), fds, 1, &n_fds);
	auto_fd fd = n_fds ? fds[0] : -1;

	if (n == -EAGAIN)
		return 0;
	if (n < (ssize_t)sizeof(message.head) || message.head.magic != FETCH_MAGIC)
		return -1;
	if (message.head.kind == FETCH_POST && n == (ssize_t)sizeof(message.post))
		return take_post(f, &message.post);
	if (message.head.kind == FETCH_SETUP && n == (ssize_t)sizeof(message.setup) && !f->registry && !f->poster) {
		int r = set_up(f, &message.setup, &err);

		explicit_bzero(&message, sizeof(message));
		if (r < 0)
			log_error("%s", err.msg);
		return r;
	}
	bool get = message.head.kind == FETCH_MANIFEST || message.head.kind == FETCH_BLOB;
	if (!get || n != (ssize_t)sizeof(message.get) || !f->registry || fd < 0)
		return -1;
	registry_get(f->registry, &message.get, take_fd(&fd));
	return 0;
}

static int work(struct fetcher *f, struct sbx_err *err)
{
	if (isolate_self(ISOLATE_FETCH, (uid_t)f->settings.isolation_fetch_uid, getppid(), err) < 0)
		return -1;
	if (fcntl(SOCKET_FD, F_SETFD, FD_CLOEXEC) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "socket: sandbox-fetch is started by sandboxd");
	umask(0077);
	signal(SIGPIPE, SIG_IGN);
	while (!f->over) {
		if (!f->registry && !f->poster) {
			/* nothing but the socket to wait for */
			struct pollfd p = {.fd = SOCKET_FD, .events = POLLIN};

			if (poll(&p, 1, -1) < 0 && errno != EINTR)
				return sbx_err_set(err, SBX_E_SYSTEM, errno, "poll");
			if (read_one(f) < 0)
				return 0;
			continue;
		}
		bool readable = f->registry ? registry_wait(f->registry, SOCKET_FD) : fetch_poster_wait(f->poster, SOCKET_FD);

		if (readable && read_one(f) < 0)
			return 0;
	}
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"config", required_argument, NULL, 'c'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{NULL, 0, NULL, 0},
	};
	struct fetcher f = {0};
	struct sbx_err err = {0};
	const char *config = NULL;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'c':
			config = optarg;
			break;
		case 'h':
			puts("usage: sandbox-fetch --config FILE\nStarted by sandboxd --standalone, one for each pull and registry host and one\n"
			     "for the deny webhook: fd 4 is the socket to sandboxd.");
			return 0;
		case 'V':
			puts("sandbox-fetch " PACKAGE_VERSION);
			return 0;
		default:
			return 2;
		}
	}
	log_init("fetch", LOG_LEVEL_INFO);
	int rc = settings_load(config, &f.settings, &err);
	if (rc == 0)
		rc = work(&f, &err);
	registry_free(f.registry);
	fetch_poster_free(f.poster);
	settings_free(&f.settings);
	if (rc < 0)
		log_error("%s", err.msg);
	return rc < 0 ? 1 : 0;
}
