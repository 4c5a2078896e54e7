// SPDX-License-Identifier: Apache-2.0
#include "api/gw_server.h"

#include "base/cleanup.h"
#include "base/fdpass.h"
#include "base/limits.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>

#define CONNECTIONS_MAX	  16u	 /* one gateway a core, and what is left of those before a restart */
#define MESSAGES_PER_TURN 32u	 /* then the other sources of the loop have their turn */
#define QUEUE_MAX	  4096u	 /* messages that a gateway may leave unread; it reads all the time or is broken */
#define REPLY_FDS_MAX	  4u
#define SEALS		  (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

struct queued {
	struct queued *next;
	size_t len;
	int fds[REPLY_FDS_MAX]; /* owned */
	size_t n_fds;
	uint8_t data[];
};

struct gw_conn {
	struct gw_server *server; /* NULL: closed */
	struct gw_conn *next;
	struct loop_fd *source;
	int fd;
	unsigned refs;
	bool greeted;
	size_t n_queued;
	struct queued *first, **last;
};

struct gw_server {
	struct loop *loop;
	struct loop_fd *source;
	int listen_fd;
	uid_t peer_uid;
	struct gw_server_hooks hooks;
	struct gw_conn *conns;
	uint8_t *in; /* GW_MESSAGE_MAX; one for all, a message is handled before the next is read */
};

/* What may come, and how it must look. */
static const struct {
	uint32_t kind;
	size_t size;
	uint32_t n_strings;
	bool body_fd;
} kinds[] = {
	{GW_HELLO, sizeof(struct gw_hello), 0, false},
	{GW_HTTP, sizeof(struct gw_http), GW_HTTP_STRINGS, true},
	{GW_OPEN, sizeof(struct gw_open), GW_OPEN_STRINGS, false},
	{GW_STAT, sizeof(struct gw_stat), 0, false},
	{GW_ACCESS, sizeof(struct gw_stat), 0, false},
	{GW_IMPORT, sizeof(struct gw_import), GW_IMPORT_STRINGS, false},
	{GW_PULL, sizeof(struct gw_pull), GW_PULL_STRINGS, false},
};

struct gw_conn *gw_conn_ref(struct gw_conn *conn)
{
	conn->refs++;
	return conn;
}

void gw_conn_unref(struct gw_conn *conn)
{
	if (conn && !--conn->refs)
		free(conn);
}

bool gw_conn_is_open(const struct gw_conn *conn)
{
	return conn->server != NULL;
}

static void queued_free(struct queued *q)
{
	for (size_t i = 0; i < q->n_fds; i++)
		close(q->fds[i]);
	free(q);
}

static void conn_close(struct gw_conn *conn)
{
	if (!conn->server)
		return;
	for (struct gw_conn **at = &conn->server->conns; *at; at = &(*at)->next) {
		if (*at != conn)
			continue;
		*at = conn->next;
		break;
	}
	const struct gw_server_hooks *hooks = &conn->server->hooks;

	conn->server = NULL;
	loop_fd_remove(conn->source);
	conn->source = NULL;
	close(conn->fd);
	conn->fd = -1;
	while (conn->first) {
		struct queued *q = conn->first;

		conn->first = q->next;
		queued_free(q);
	}
	if (hooks->closed)
		hooks->closed(hooks->arg, conn);
	gw_conn_unref(conn);
}

/* ---- sending ---- */

static int flush_queue(struct gw_conn *conn)
{
	while (conn->first) {
		struct queued *q = conn->first;
		const struct iovec iov = {.iov_base = q->data, .iov_len = q->len};
		int r = fdpass_send(conn->fd, &iov, 1, q->fds, q->n_fds);

		if (r == -EAGAIN) {
			loop_fd_events(conn->source, EPOLLIN | EPOLLOUT);
			return 0;
		}
		if (r < 0)
			return r;
		conn->first = q->next;
		if (!conn->first)
			conn->last = &conn->first;
		conn->n_queued--;
		queued_free(q);
	}
	loop_fd_events(conn->source, EPOLLIN);
	return 0;
}

static int enqueue(struct gw_conn *conn, const struct iovec *iov, size_t n_iov, const int *fds, size_t n_fds)
{
	size_t len = 0, at = 0;

	if (conn->n_queued >= QUEUE_MAX)
		return -ENOBUFS;
	for (size_t i = 0; i < n_iov; i++)
		len += iov[i].iov_len;
	struct queued *q = malloc(sizeof(*q) + len);
	if (!q)
		return -ENOMEM;
	q->next = NULL;
	q->len = len;
	q->n_fds = 0;
	for (size_t i = 0; i < n_iov; i++) {
		if (iov[i].iov_len)
			memcpy(q->data + at, iov[i].iov_base, iov[i].iov_len);
		at += iov[i].iov_len;
	}
	for (size_t i = 0; i < n_fds; i++) {
		int copy = fcntl(fds[i], F_DUPFD_CLOEXEC, 3);

		if (copy < 0) {
			int r = -errno;

			queued_free(q);
			return r;
		}
		q->fds[q->n_fds++] = copy;
	}
	*conn->last = q;
	conn->last = &q->next;
	conn->n_queued++;
	loop_fd_events(conn->source, EPOLLIN | EPOLLOUT);
	return 0;
}

static int write_all(int fd, const char *data, size_t n)
{
	while (n) {
		ssize_t r = write(fd, data, n);

		if (r < 0)
			return -errno;
		data += r;
		n -= (size_t)r;
	}
	return 0;
}

static int body_memfd(struct http_text body)
{
	auto_fd fd = memfd_create("body", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int r;

	if (fd < 0)
		return -errno;
	r = write_all(fd, body.data, body.len);
	if (r < 0)
		return r;
	if (fcntl(fd, F_ADD_SEALS, SEALS | F_SEAL_SEAL) < 0)
		return -errno;
	return take_fd(&fd);
}

static int conn_send(struct gw_conn *conn, struct gw_head *head, size_t size, const struct http_text *strings, size_t n_strings,
		     const int *fds, size_t n_fds)
{
	struct iovec iov[GW_MAX_STRINGS + 1] = {{.iov_base = head, .iov_len = size}};
	auto_fd memfd = -1;
	size_t n_iov = 1;
	int body_fds[1];

	head->magic = GW_MAGIC;
	head->n_strings = (uint32_t)n_strings;
	head->body_fd = 0;
	memset(head->length, 0, sizeof(head->length));
	for (size_t i = 0; i < n_strings; i++) {
		if (strings[i].len > UINT32_MAX)
			return -EMSGSIZE;
		head->length[i] = (uint32_t)strings[i].len;
		if (i + 1 == n_strings && strings[i].len > GW_INLINE_BODY && !n_fds) {
			memfd = body_memfd(strings[i]);
			if (memfd < 0)
				return memfd;
			head->body_fd = 1;
			body_fds[0] = memfd;
			fds = body_fds;
			n_fds = 1;
			continue;
		}
		/* sendmsg() does not write through it */
		iov[n_iov].iov_base = (void *)(uintptr_t)strings[i].data;
		iov[n_iov++].iov_len = strings[i].len;
	}
	/* behind what waits, so that answers and STATE keep their order */
	if (conn->first)
		return enqueue(conn, iov, n_iov, fds, n_fds);
	int r = fdpass_send(conn->fd, iov, n_iov, fds, n_fds);
	return r == -EAGAIN ? enqueue(conn, iov, n_iov, fds, n_fds) : r;
}

int gw_conn_send(struct gw_conn *conn, struct gw_head *head, size_t size, const struct http_text *strings, size_t n_strings,
		 const int *fds, size_t n_fds)
{
	if (!conn->server)
		return -EPIPE;
	int r = conn_send(conn, head, size, strings, n_strings, fds, n_fds);
	if (r < 0) {
		if (r != -EPIPE && r != -ECONNRESET)
			log_warn("gateway channel: send: %s", strerror(-r));
		conn_close(conn);
	}
	return r;
}

void gw_server_broadcast(struct gw_server *server, const struct gw_head *head, size_t size)
{
	union {
		struct gw_head head;
		struct gw_state state;
	} copy;

	if (size > sizeof(copy))
		return;
	for (struct gw_conn *conn = server->conns, *next; conn; conn = next) {
		next = conn->next;
		if (!conn->greeted)
			continue;
		memcpy(&copy, head, size);
		/* a broken connection has been closed by it, and the gateway asks anew after its restart */
		gw_conn_send(conn, &copy.head, size, NULL, 0, NULL, 0);
	}
}

/* ---- receiving ---- */

static void answer_hello(struct gw_conn *conn, const struct gw_hello *hello)
{
	struct gw_hello_reply reply = {.head = {.kind = GW_HELLO_REPLY, .tag = hello->head.tag},
				       .version = GW_VERSION,
				       .flags = conn->server->hooks.hello_flags};

	conn->greeted = hello->version == GW_VERSION;
	if (!conn->greeted)
		log_warn("gateway channel: version %u, not %u", hello->version, GW_VERSION);
	gw_conn_send(conn, &reply.head, sizeof(reply), NULL, 0, NULL, 0);
}

/* The body in a memfd.  Its seals are what keeps a shrinking file from ending us with SIGBUS. */
static int map_body(int fd, size_t len, const char **ret)
{
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);

	if (seals < 0 || (seals & SEALS) != SEALS || fstat(fd, &st) < 0 || st.st_size < (off_t)len || len > LIMIT_API_BODY_BYTES)
		return -EPROTO;
	void *p = mmap(NULL, len, PROT_READ, MAP_PRIVATE, fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	*ret = p;
	return 0;
}

/* Return: 0, or -EPROTO: the message is not as gw_msg.h says */
static int handle(struct gw_conn *conn, const uint8_t *data, size_t len, const int *fds, size_t n_fds)
{
	const struct gw_head *head = (const struct gw_head *)(const void *)data;
	struct http_text strings[GW_MAX_STRINGS];
	const char *mapped = NULL;
	size_t row = 0, at, mapped_len = 0;

	if (len < sizeof(*head) || head->magic != GW_MAGIC)
		return -EPROTO;
	while (row < ARRAY_SIZE(kinds) && kinds[row].kind != head->kind)
		row++;
	if (row == ARRAY_SIZE(kinds) || len < kinds[row].size || head->n_strings != kinds[row].n_strings)
		return -EPROTO;
	if (n_fds != head->body_fd || head->body_fd > (kinds[row].body_fd ? 1u : 0u))
		return -EPROTO;
	at = kinds[row].size;
	for (uint32_t i = 0; i < head->n_strings; i++) {
		if (head->body_fd && i + 1 == head->n_strings) {
			mapped_len = head->length[i];
			if (!mapped_len || map_body(fds[0], mapped_len, &mapped) < 0)
				return -EPROTO;
			strings[i] = (struct http_text){mapped, mapped_len};
			continue;
		}
		if (head->length[i] > len - at) {
			at = len + 1;
			break;
		}
		strings[i] = (struct http_text){(const char *)data + at, head->length[i]};
		at += head->length[i];
	}
	int r = at == len && (conn->greeted || head->kind == GW_HELLO) ? 0 : -EPROTO;
	if (!r && head->kind == GW_HELLO)
		answer_hello(conn, (const struct gw_hello *)(const void *)data);
	else if (!r)
		conn->server->hooks.message(conn->server->hooks.arg, conn, head, strings);
	if (mapped)
		munmap((void *)(uintptr_t)mapped, mapped_len);
	return r;
}

static int read_one(struct gw_conn *conn)
{
	struct gw_server *server = conn->server;
	int fds[REPLY_FDS_MAX];
	size_t n_fds = 0;
	ssize_t n = fdpass_recv(conn->fd, server->in, GW_MESSAGE_MAX, fds, ARRAY_SIZE(fds), &n_fds);

	if (n <= 0)
		return n ? (int)n : -ECONNRESET;
	int r = handle(conn, server->in, (size_t)n, fds, n_fds);
	for (size_t i = 0; i < n_fds; i++)
		close(fds[i]);
	return r;
}

static void on_conn(void *arg, int fd, uint32_t events)
{
	struct gw_conn *conn = arg;
	int r = 0;

	(void)fd;
	gw_conn_ref(conn); /* a handler may close it */
	if (events & EPOLLOUT)
		r = flush_queue(conn);
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		for (unsigned i = 0; i < MESSAGES_PER_TURN && !r && conn->server; i++)
			r = read_one(conn);
	if (r && r != -EAGAIN && conn->server) {
		if (r != -ECONNRESET)
			log_warn("gateway channel: %s; closed", strerror(-r));
		conn_close(conn);
	}
	gw_conn_unref(conn);
}

int gw_server_adopt(struct gw_server *server, int fd)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);
	auto_fd owned = fd;
	unsigned n = 0;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
		return -errno;
	if (peer.uid != server->peer_uid && peer.uid != geteuid() && peer.uid != 0) {
		log_warn("gateway channel: uid %u is not the gateway's", (unsigned)peer.uid);
		return -EACCES;
	}
	for (const struct gw_conn *c = server->conns; c; c = c->next)
		n++;
	if (n >= CONNECTIONS_MAX)
		return -EMFILE;
	if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
		return -errno;
	struct gw_conn *conn = calloc(1, sizeof(*conn));
	if (!conn)
		return -ENOMEM;
	conn->source = loop_fd_add(server->loop, fd, EPOLLIN, on_conn, conn);
	if (!conn->source) {
		free(conn);
		return -ENOMEM;
	}
	conn->fd = take_fd(&owned);
	conn->server = server;
	conn->refs = 1;
	conn->last = &conn->first;
	conn->next = server->conns;
	server->conns = conn;
	return 0;
}

static void on_accept(void *arg, int fd, uint32_t events)
{
	struct gw_server *server = arg;

	(void)events;
	for (;;) {
		int peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (peer < 0)
			return;
		int r = gw_server_adopt(server, peer);
		if (r < 0)
			log_warn("gateway channel: connection refused: %s", strerror(-r));
	}
}

struct gw_server *gw_server_new(struct loop *loop, int listen_fd, uid_t peer_uid, const struct gw_server_hooks *hooks,
				struct sbx_err *err)
{
	struct gw_server *server = calloc(1, sizeof(*server));

	if (server)
		server->in = malloc(GW_MESSAGE_MAX);
	if (!server || !server->in) {
		free(server);
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "gateway channel");
		return NULL;
	}
	server->loop = loop;
	server->listen_fd = listen_fd;
	server->peer_uid = peer_uid;
	server->hooks = *hooks;
	if (listen_fd >= 0) {
		int flags = fcntl(listen_fd, F_GETFL);

		/* accept() must not block when a client is gone again; the flag is shared, which does the monitor no harm */
		if (flags < 0 || fcntl(listen_fd, F_SETFL, flags | O_NONBLOCK) < 0 ||
		    !(server->source = loop_fd_add(loop, listen_fd, EPOLLIN, on_accept, server))) {
			sbx_err_set(err, SBX_E_SYSTEM, errno, "gateway channel: listen");
			gw_server_free(server);
			return NULL;
		}
	}
	return server;
}

void gw_server_free(struct gw_server *server)
{
	if (!server)
		return;
	while (server->conns)
		conn_close(server->conns);
	loop_fd_remove(server->source);
	free(server->in);
	free(server);
}
