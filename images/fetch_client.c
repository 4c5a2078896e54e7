// SPDX-License-Identifier: Apache-2.0
#include "images/fetch_client.h"

#include "base/cleanup.h"
#include "base/fdpass.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define MESSAGES_PER_TURN 16u

struct waiting_get {
	struct fetch_get get;
	int fd;
};

struct fetch_client {
	struct fetch_client_config config;
	char host[FETCH_HOST_BYTES];
	char path[FETCH_PATH_BYTES];
	struct registry_credentials credentials;
	bool own_credentials;
	int sock;
	struct loop_fd *source;
	bool starting; /* the starter still has us */
	bool running;
	bool freed; /* released when the starter answers */
	struct waiting_get waiting[FETCH_JOBS_MAX];
	size_t n_waiting;
	struct fetch_post *post; /* owned; waits for the process */
};

static void release(struct fetch_client *c)
{
	explicit_bzero(&c->credentials, sizeof(c->credentials));
	free(c->post);
	free(c);
}

static void shut(struct fetch_client *c)
{
	loop_fd_remove(c->source);
	c->source = NULL;
	close_keep_errno(c->sock);
	c->sock = -1;
	for (size_t i = 0; i < c->n_waiting; i++)
		close_keep_errno(c->waiting[i].fd);
	c->n_waiting = 0;
}

void fetch_client_free(struct fetch_client *c)
{
	if (!c)
		return;
	shut(c);
	c->freed = true;
	if (!c->starting)
		release(c);
}

static void lost(struct fetch_client *c, const struct sbx_err *err)
{
	shut(c);
	c->config.lost(c->config.arg, err); /* may free c */
}

static void lost_text(struct fetch_client *c, const char *text)
{
	struct sbx_err err = {0};

	sbx_err_set(&err, SBX_E_IMAGE_PULL_FAILED, 0, "%s", text);
	lost(c, &err);
}

static void on_socket(void *arg, int fd, uint32_t events)
{
	struct fetch_client *c = arg;

	(void)events;
	for (unsigned i = 0; i < MESSAGES_PER_TURN; i++) {
		struct fetch_done done;
		ssize_t n = fdpass_recv(fd, &done, sizeof(done), NULL, 0, NULL);

		if (n == -EAGAIN)
			return;
		if (n <= 0) {
			lost_text(c, "sandbox-fetch ended unexpectedly; the server's log may say why");
			return;
		}
		if (n != (ssize_t)sizeof(done) || done.head.magic != FETCH_MAGIC || done.head.kind != FETCH_DONE) {
			lost_text(c, "sandbox-fetch said something that is not understood");
			return;
		}
		done.type[sizeof(done.type) - 1] = '\0';
		char text[FETCH_TEXT_BYTES];
		sbx_printable(done.text, sizeof(done.text), text, sizeof(text));
		memcpy(done.text, text, sizeof(text));
		if (done.status >= SBX_E_COUNT)
			done.status = SBX_E_PROTOCOL;
		c->config.done(c->config.arg, &done);
		/* c may be gone: whatever else waits comes with the next turn of the loop */
		return;
	}
}

static int send_get(struct fetch_client *c, const struct fetch_get *get, int fd, struct sbx_err *err)
{
	const struct iovec iov = {.iov_base = (void *)(uintptr_t)get, .iov_len = sizeof(*get)}; /* sendmsg() does not write there */
	int r = c->sock < 0 ? -EPIPE : fdpass_send(c->sock, &iov, 1, &fd, 1);

	return r < 0 ? sbx_err_set(err, SBX_E_PEER_GONE, -r, "ask sandbox-fetch") : 0;
}

int fetch_client_get(struct fetch_client *c, const struct fetch_get *get, int fd, struct sbx_err *err)
{
	struct fetch_get copy = *get;

	copy.head.magic = FETCH_MAGIC;
	if (c->running)
		return send_get(c, &copy, fd, err);
	if (c->n_waiting == FETCH_JOBS_MAX)
		return sbx_err_set(err, SBX_E_LIMIT, 0, "too many requests wait for sandbox-fetch");
	int mine = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (mine < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "ask sandbox-fetch");
	c->waiting[c->n_waiting++] = (struct waiting_get){copy, mine};
	return 0;
}

static int send_post(struct fetch_client *c, struct sbx_err *err)
{
	const struct iovec iov = {.iov_base = c->post, .iov_len = sizeof(*c->post)};
	int r = c->sock < 0 ? -EPIPE : fdpass_send(c->sock, &iov, 1, NULL, 0);

	free(c->post);
	c->post = NULL;
	return r < 0 ? sbx_err_set(err, SBX_E_PEER_GONE, -r, "ask sandbox-fetch") : 0;
}

int fetch_client_post(struct fetch_client *c, uint64_t tag, const char *signature, const char *body, size_t n, struct sbx_err *err)
{
	if (c->post || n > sizeof(c->post->body) || strlen(signature) >= sizeof(c->post->signature))
		return sbx_err_set(err, SBX_E_LIMIT, 0, "too much for one POST");
	c->post = calloc(1, sizeof(*c->post));
	if (!c->post)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "ask sandbox-fetch");
	c->post->head = (struct fetch_head){.magic = FETCH_MAGIC, .kind = FETCH_POST, .tag = tag};
	c->post->n = (uint32_t)n;
	memcpy(c->post->signature, signature, strlen(signature));
	memcpy(c->post->body, body, n);
	return c->running ? send_post(c, err) : 0;
}

static int read_auth_file(struct fetch_client *c, int fd, struct sbx_err *err)
{
	struct stat st;
	size_t done = 0;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > (off_t)REGISTRY_AUTH_FILE_BYTES)
		return sbx_err_set(err, SBX_E_IMAGE_PULL_FAILED, 0, "images.auth_file is no regular file of at most 1 MiB");
	if (!st.st_size)
		return 0;
	auto_free char *text = malloc((size_t)st.st_size);
	if (!text)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "credentials");
	while (done < (size_t)st.st_size) {
		ssize_t n = pread(fd, text + done, (size_t)st.st_size - done, (off_t)done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return sbx_err_set(err, SBX_E_IMAGE_PULL_FAILED, 0, "images.auth_file cannot be read");
		done += (size_t)n;
	}
	int rc = registry_auth_file(text, done, c->host, c->path, &c->credentials, err);
	explicit_bzero(text, done);
	return rc;
}

static int set_up(struct fetch_client *c, struct sbx_err *err)
{
	if (c->config.posts) {
		c->running = true;
		return c->post ? send_post(c, err) : 0;
	}

	struct fetch_setup setup = {.head = {.magic = FETCH_MAGIC, .kind = FETCH_SETUP}};
	const struct iovec iov = {.iov_base = &setup, .iov_len = sizeof(setup)};

	_Static_assert(sizeof(setup.user) == sizeof(c->credentials.user), "a user fits");
	_Static_assert(sizeof(setup.password) == sizeof(c->credentials.password), "a password fits");
	memcpy(setup.host, c->host, sizeof(setup.host));
	memcpy(setup.user, c->credentials.user, sizeof(setup.user));
	memcpy(setup.password, c->credentials.password, sizeof(setup.password));
	int r = fdpass_send(c->sock, &iov, 1, NULL, 0);
	explicit_bzero(&setup, sizeof(setup));
	explicit_bzero(&c->credentials, sizeof(c->credentials));
	if (r < 0)
		return sbx_err_set(err, SBX_E_PEER_GONE, -r, "ask sandbox-fetch");
	c->running = true;
	for (size_t i = 0; i < c->n_waiting; i++)
		if (send_get(c, &c->waiting[i].get, c->waiting[i].fd, err) < 0)
			return -1;
	for (size_t i = 0; i < c->n_waiting; i++)
		close_keep_errno(c->waiting[i].fd);
	c->n_waiting = 0;
	return 0;
}

static void started(void *to, int auth_file_fd, const struct sbx_err *err)
{
	struct fetch_client *c = to;
	auto_fd file = auth_file_fd;
	struct sbx_err mine = {0};

	c->starting = false;
	if (c->freed) {
		release(c);
		return;
	}
	if (err && err->code) {
		mine = *err;
		lost(c, &mine);
		return;
	}
	if ((!c->own_credentials && !c->config.posts && file >= 0 && read_auth_file(c, file, &mine) < 0) || set_up(c, &mine) < 0)
		lost(c, &mine);
}

struct fetch_client *fetch_client_new(const struct fetch_client_config *config, struct sbx_err *err)
{
	struct fetch_client *c = calloc(1, sizeof(*c));
	int pair[2];

	if (!c || (config->host && strlen(config->host) >= sizeof(c->host))) {
		free(c);
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "sandbox-fetch");
		return NULL;
	}
	c->config = *config;
	c->sock = -1;
	if (config->host)
		memcpy(c->host, config->host, strlen(config->host) + 1);
	if (config->path)
		snprintf(c->path, sizeof(c->path), "%s", config->path);
	if (config->credentials) {
		c->credentials = *config->credentials;
		c->own_credentials = true;
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
		sbx_err_set(err, SBX_E_SYSTEM, errno, "sandbox-fetch: socket");
		release(c);
		return NULL;
	}
	auto_fd theirs = pair[1];
	c->sock = pair[0];
	c->source = loop_fd_add(config->loop, c->sock, EPOLLIN, on_socket, c);
	if (!c->source)
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "sandbox-fetch");
	if (!c->source || config->starter->start(config->starter->arg, theirs, started, c, err) < 0) {
		shut(c);
		release(c);
		return NULL;
	}
	c->starting = true;
	return c;
}
