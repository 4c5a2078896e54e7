/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fdpass.h"
#include "base/log.h"
#include "netpolicy/policy_link.h"
#include "netpolicy/policy_wire.h"

#define CALLS_MAX	  8192u /* two requests for each sandbox of a full host, and some */
#define MESSAGES_PER_TURN 64u
#define ANSWER_MS	  8000u /* closing what a policy takes away goes through the broker and takes some ms */
#define LATE_MS		  100u	/* for us to read what has come, before dnsd is blamed */

/* One request, from its making to its answer. */
struct call {
	struct call *next;
	policy_link_done *done; /* NULL: nobody waits */
	void *arg;
	uint64_t tag, sent_ms;
	uint32_t reply_kind, reply_size; /* 0: none comes */
	struct buf body; /* of a SET; becomes a sealed file only when it is sent, so that a long queue holds no descriptors */
	size_t size;
	uint8_t message[];
};

struct list {
	struct call *first, **last;
};

struct policy_link {
	struct loop *loop; /* borrowed */
	int listen_fd;	   /* borrowed */
	uid_t peer_uid;
	struct policy_link_hooks hooks;
	struct loop_fd *listen_source; /* owned */
	struct loop_timer *fail_timer; /* owned; callbacks of calls that ended with their connection */
	struct loop_timer *late_timer; /* owned; armed while answers are waited for */
	int fd;			       /* owned; -1: nobody is connected */
	struct loop_fd *source;	       /* owned */
	bool greeted;
	bool late; /* an answer was missed, and none has been taken since */
	uint64_t tag;
	unsigned n_calls;
	struct list queued; /* not yet sent */
	struct list sent;   /* waiting for the answer, in order */
	struct list failed; /* to be told from the timer */
};

static void list_init(struct list *l)
{
	l->first = NULL;
	l->last = &l->first;
}

static void list_add(struct list *l, struct call *c)
{
	c->next = NULL;
	*l->last = c;
	l->last = &c->next;
}

static struct call *list_take(struct list *l)
{
	struct call *c = l->first;

	if (c) {
		l->first = c->next;
		if (!l->first)
			l->last = &l->first;
	}
	return c;
}

/* Answers mostly come in order, so the first one is it. */
static struct call *list_take_tag(struct list *l, uint64_t tag)
{
	for (struct call **at = &l->first; *at; at = &(*at)->next) {
		struct call *c = *at;

		if (c->tag != tag)
			continue;
		*at = c->next;
		if (!c->next)
			l->last = at;
		return c;
	}
	return NULL;
}

static void call_free(struct policy_link *l, struct call *c)
{
	l->n_calls--;
	buf_free(&c->body);
	free(c);
}

/* ---- losing the peer ---- */

static void tell_failed(void *arg)
{
	static const struct sbx_err gone = {.code = SBX_E_PEER_GONE, .msg = "the name server of the sandboxes is being restarted; try again"};
	struct policy_link *l = arg;
	struct call *c;

	while ((c = list_take(&l->failed))) {
		policy_link_done *done = c->done;
		void *done_arg = c->arg;

		call_free(l, c);
		if (done)
			done(done_arg, NULL, &gone);
	}
}

static void lose(struct policy_link *l, const char *why)
{
	bool was_up = l->greeted;
	struct call *c;

	if (l->fd < 0)
		return;
	if (was_up)
		log_warn("dnsd: %s; sandboxes keep what is open for them", why);
	loop_fd_remove(l->source);
	l->source = NULL;
	close_keep_errno(take_fd(&l->fd));
	l->greeted = l->late = false;
	while ((c = list_take(&l->sent)) || (c = list_take(&l->queued)))
		list_add(&l->failed, c);
	if (l->failed.first)
		loop_timer_arm(l->fail_timer, 0);
	if (was_up && l->hooks.lost)
		l->hooks.lost(l->hooks.arg);
}

/*
 * A dnsd that hangs is as good as none: who waits is told, and when it goes on it connects again and gets everything.
 * After a stall of our own its answers may stand in the socket, with this timer served before them: they are read first.
 */
static void look_for_late(void *arg)
{
	struct policy_link *l = arg;
	uint64_t now = loop_now_ms(l->loop);

	if (!l->sent.first)
		return;
	if (now - l->sent.first->sent_ms < ANSWER_MS) {
		loop_timer_arm(l->late_timer, ANSWER_MS - (now - l->sent.first->sent_ms));
	} else if (l->late) {
		lose(l, "does not answer");
	} else {
		l->late = true;
		loop_timer_arm(l->late_timer, LATE_MS);
	}
}

/* ---- sending ---- */

static int sealed_file(const struct buf *body)
{
	auto_fd fd = memfd_create("policy", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	const char *data = buf_peek(body);
	size_t n = buf_used(body);

	if (fd < 0)
		return -errno;
	while (n) {
		ssize_t w = write(fd, data, n);

		if (w < 0)
			return -errno;
		data += w;
		n -= (size_t)w;
	}
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
		return -errno;
	return take_fd(&fd);
}

static int send_one(struct policy_link *l, struct call *c)
{
	const struct iovec iov = {.iov_base = c->message, .iov_len = c->size};
	auto_fd fd = -1;

	if (buf_used(&c->body)) {
		int r = sealed_file(&c->body);

		if (r < 0)
			return r;
		fd = r;
	}
	return fdpass_send(l->fd, &iov, 1, &fd, fd >= 0 ? 1 : 0);
}

static void flush(struct policy_link *l)
{
	while (l->queued.first) {
		struct call *c = l->queued.first;
		int r = send_one(l, c);

		/* Descriptors under way are bounded by the kernel too: both end when dnsd has read. */
		if (r == -EAGAIN || r == -ETOOMANYREFS || r == -EMFILE) {
			loop_fd_events(l->source, EPOLLIN | EPOLLOUT);
			return;
		}
		if (r < 0) {
			lose(l, strerrordesc_np(-r));
			return;
		}
		list_take(&l->queued);
		buf_free(&c->body);
		if (!c->reply_kind) {
			call_free(l, c);
			continue;
		}
		c->sent_ms = loop_now_ms(l->loop);
		list_add(&l->sent, c);
		if (!loop_timer_armed(l->late_timer))
			loop_timer_arm(l->late_timer, ANSWER_MS);
	}
	loop_fd_events(l->source, EPOLLIN);
}

static struct call *call_new(struct policy_link *l, const void *message, size_t size, struct sbx_err *err)
{
	struct egress_head head = {.magic = EGRESS_MAGIC};
	struct call *c;

	if (l->n_calls >= CALLS_MAX) {
		sbx_err_set(err, SBX_E_LIMIT, 0, "too many requests to dnsd wait");
		return NULL;
	}
	c = calloc(1, sizeof(*c) + size);
	if (!c) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "request to dnsd");
		return NULL;
	}
	l->n_calls++;
	memcpy(c->message, message, size);
	memcpy(&head.kind, c->message + offsetof(struct egress_head, kind), sizeof(head.kind));
	head.tag = c->tag = ++l->tag;
	head.size = (uint32_t)size;
	memcpy(c->message, &head, sizeof(head));
	c->size = size;
	return c;
}

static void submit(struct policy_link *l, struct call *c)
{
	list_add(&l->queued, c);
	if (l->queued.first == c)
		flush(l);
}

static int not_up(struct sbx_err *err)
{
	return sbx_err_set(err, SBX_E_PEER_GONE, 0, "the name server of the sandboxes is being restarted; try again");
}

/* A question that is nothing but its message. */
static int ask(struct policy_link *l, const void *message, size_t size, enum egress_kind reply_kind, uint32_t reply_size,
	       policy_link_done *done, void *arg, struct sbx_err *err)
{
	struct call *c;

	if (!policy_link_up(l))
		return not_up(err);
	c = call_new(l, message, size, err);
	if (!c)
		return -1;
	c->done = done;
	c->arg = arg;
	c->reply_kind = reply_kind;
	c->reply_size = reply_size;
	submit(l, c);
	return 0;
}

int policy_link_set(struct policy_link *l, const struct policy_link_target *target, const struct policy *policy, policy_link_done *done,
		    void *arg, struct sbx_err *err)
{
	struct egress_set msg = {
		.head = {.kind = EGRESS_SET},
		.ref = target->ref,
		.addr = target->addr,
		.n_rules = policy_count(policy),
		.policy_generation = target->policy_generation,
	};
	auto_buf body = {.max = EGRESS_BODY_MAX};
	struct call *c;

	if (!policy_link_up(l))
		return not_up(err);
	memcpy(msg.sandbox_id, target->sandbox_id, sizeof(msg.sandbox_id));
	if (policy_default_allow(policy))
		msg.flags = EGRESS_SET_DEFAULT_ALLOW | (msg.n_rules ? 0 : EGRESS_SET_ALLOW_ALL);
	policy_wire_write(policy, &body);
	if (body.failed)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "policy");
	msg.body_bytes = (uint32_t)buf_used(&body);
	c = call_new(l, &msg, sizeof(msg), err);
	if (!c)
		return -1;
	c->body = body;
	body = (struct buf){0};
	c->done = done;
	c->arg = arg;
	c->reply_kind = EGRESS_ACK;
	c->reply_size = sizeof(struct egress_ack);
	submit(l, c);
	return 0;
}

void policy_link_drop(struct policy_link *l, struct egress_ref ref)
{
	struct egress_drop msg = {.head = {.kind = EGRESS_DROP}, .ref = ref};
	struct sbx_err ignored; /* what dnsd keeps too long goes with its next HELLO */

	ignore_result(ask(l, &msg, sizeof(msg), EGRESS_ACK, sizeof(struct egress_ack), NULL, NULL, &ignored));
}

void policy_link_synced(struct policy_link *l)
{
	struct egress_plain msg = {.head = {.kind = EGRESS_SYNCED}};
	struct sbx_err err;
	struct call *c = policy_link_up(l) ? call_new(l, &msg, sizeof(msg), &err) : NULL;

	if (c)
		submit(l, c);
}

int policy_link_pins(struct policy_link *l, struct egress_ref ref, const char *name, uint32_t addr, struct ip6 addr6, policy_link_done *done, void *arg,
		     struct sbx_err *err)
{
	struct egress_pins msg = {.head = {.kind = EGRESS_PINS}, .ref = ref, .addr = addr, .addr6 = addr6};

	snprintf(msg.name, sizeof(msg.name), "%s", name);
	return ask(l, &msg, sizeof(msg), EGRESS_PINS_REPLY, sizeof(struct egress_pins_reply), done, arg, err);
}

int policy_link_counts(struct policy_link *l, policy_link_done *done, void *arg, struct sbx_err *err)
{
	struct egress_plain msg = {.head = {.kind = EGRESS_COUNTS}};

	return ask(l, &msg, sizeof(msg), EGRESS_COUNTS_REPLY, sizeof(struct egress_counts_reply), done, arg, err);
}

/* ---- receiving: dnsd reads what sandboxes and strangers send it, so it is believed nothing that is not checked ---- */

static bool printable(const char *text, size_t size)
{
	const char *end = memchr(text, 0, size);

	for (; end && text < end; text++) {
		if (*text < ' ' || *text > '~')
			return false;
	}
	return end != NULL;
}

static bool event_ok(const struct egress_event *e)
{
	return e->kind > EGRESS_EVENT_NONE && e->kind < EGRESS_EVENT_KIND_COUNT && e->reason < EGRESS_REASON_COUNT && e->count &&
	       e->n_addrs <= ARRAY_SIZE(e->addrs) && printable(e->name, sizeof(e->name)) && printable(e->text, sizeof(e->text));
}

static const char *got_hello(struct policy_link *l, const union egress_any *m)
{
	struct egress_hello reply = {.head = {.kind = EGRESS_HELLO_REPLY}, .version = EGRESS_VERSION};
	struct sbx_err err;
	struct call *c;

	if (l->greeted || m->hello.version != EGRESS_VERSION)
		return "speaks another version, or greets twice";
	c = call_new(l, &reply, sizeof(reply), &err);
	if (!c)
		return err.msg[0] ? "cannot be answered" : "";
	l->greeted = true;
	submit(l, c);
	if (l->greeted && l->hooks.hello)
		l->hooks.hello(l->hooks.arg);
	return NULL;
}

static const char *got_reply(struct policy_link *l, const union egress_any *m)
{
	struct call *c = list_take_tag(&l->sent, m->head.tag);
	struct sbx_err err = {0};

	if (!c)
		return "answers what was not asked";
	if (c->reply_kind != m->head.kind || c->reply_size != m->head.size) {
		c->next = l->sent.first; /* ends with the connection */
		l->sent.first = c;
		if (!c->next)
			l->sent.last = &c->next;
		return "answers something else";
	}
	if (m->head.kind == EGRESS_ACK && m->ack.status) {
		bool known = m->ack.status > 0 && m->ack.status < SBX_E_COUNT;

		sbx_err_set(&err, known ? (enum sbx_err_code)m->ack.status : SBX_E_PROTOCOL, m->ack.sys, "dnsd: %.*s",
			    printable(m->ack.text, sizeof(m->ack.text)) ? (int)sizeof(m->ack.text) : 0, m->ack.text);
	}
	if (m->head.kind == EGRESS_PINS_REPLY) {
		bool good = m->pins_reply.n_pins <= EGRESS_PINS_MAX;

		for (uint32_t i = 0; good && i < m->pins_reply.n_pins; i++)
			good = printable(m->pins_reply.pin[i].name, sizeof(m->pins_reply.pin[i].name));
		if (!good)
			sbx_err_set(&err, SBX_E_PROTOCOL, 0, "dnsd: addresses of a name");
	}
	policy_link_done *done = c->done;
	void *arg = c->arg;

	l->late = false;
	call_free(l, c);
	if (done)
		done(arg, err.code ? NULL : m, &err);
	return NULL;
}

static const char *got_message(struct policy_link *l, const union egress_any *m, size_t n)
{
	if (n < sizeof(m->head) || m->head.magic != EGRESS_MAGIC || m->head.size != n)
		return "sent a malformed message";
	if (m->head.kind == EGRESS_HELLO)
		return n == sizeof(m->hello) ? got_hello(l, m) : "sent a malformed greeting";
	if (!l->greeted)
		return "did not greet";
	if (m->head.kind == EGRESS_EVENT) {
		if (n != sizeof(m->event) || !event_ok(&m->event))
			return "sent a malformed event";
		if (l->hooks.event)
			l->hooks.event(l->hooks.arg, &m->event);
		return NULL;
	}
	return got_reply(l, m);
}

static void on_peer(void *arg, int fd, uint32_t events)
{
	static union egress_any m; /* 20 KiB; handled before the next is read */
	struct policy_link *l = arg;
	const char *wrong = NULL;

	if (events & EPOLLOUT)
		flush(l);
	for (unsigned i = 0; l->fd == fd && !wrong && i < MESSAGES_PER_TURN; i++) {
		ssize_t n = fdpass_recv(fd, &m, sizeof(m), NULL, 0, NULL);

		if (n == -EAGAIN || n == -EINTR)
			return;
		wrong = n == 0 ? "closed the connection" : n < 0 ? strerrordesc_np((int)-n) : got_message(l, &m, (size_t)n);
	}
	if (wrong && l->fd == fd)
		lose(l, wrong);
}

static void on_connect(void *arg, int listen_fd, uint32_t events)
{
	struct policy_link *l = arg;
	struct ucred who = {0};
	socklen_t n = sizeof(who);
	auto_fd fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	(void)events;
	if (fd < 0)
		return; /* it went away again */
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n) < 0 || (who.uid != l->peer_uid && who.uid != geteuid())) {
		log_warn("policy.sock: uid %u is not sandbox-dnsd; not heard", who.uid);
		return;
	}
	lose(l, "another one took its place");
	l->source = loop_fd_add(l->loop, fd, EPOLLIN, on_peer, l);
	if (!l->source) {
		log_error("dnsd: %s", strerrordesc_np(errno));
		return;
	}
	l->fd = take_fd(&fd);
}

struct policy_link *policy_link_new(struct loop *loop, int listen_fd, uid_t peer_uid, const struct policy_link_hooks *hooks, struct sbx_err *err)
{
	struct policy_link *l = calloc(1, sizeof(*l));

	if (!l) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "channel to dnsd");
		return NULL;
	}
	*l = (struct policy_link){.loop = loop, .listen_fd = listen_fd, .peer_uid = peer_uid, .hooks = *hooks, .fd = -1};
	list_init(&l->queued);
	list_init(&l->sent);
	list_init(&l->failed);
	l->listen_source = loop_fd_add(loop, listen_fd, EPOLLIN, on_connect, l);
	l->fail_timer = loop_timer_new(loop, tell_failed, l);
	l->late_timer = loop_timer_new(loop, look_for_late, l);
	if (!l->listen_source || !l->fail_timer || !l->late_timer) {
		sbx_err_set(err, SBX_E_SYSTEM, errno, "listen for dnsd");
		policy_link_free(l);
		return NULL;
	}
	return l;
}

void policy_link_free(struct policy_link *l)
{
	struct call *c;

	if (!l)
		return;
	loop_fd_remove(l->listen_source);
	loop_fd_remove(l->source);
	close_keep_errno(l->fd);
	loop_timer_free(l->fail_timer);
	loop_timer_free(l->late_timer);
	while ((c = list_take(&l->sent)) || (c = list_take(&l->queued)) || (c = list_take(&l->failed)))
		call_free(l, c);
	free(l);
}

bool policy_link_up(const struct policy_link *l)
{
	return l && l->greeted;
}
