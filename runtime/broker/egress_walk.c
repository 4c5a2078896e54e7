// SPDX-License-Identifier: Apache-2.0
#include "runtime/broker/egress_walk.h"

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/log.h"
#include "runtime/broker/broker_int.h"
#include "runtime/broker/egress.h"
#include "runtime/broker/sockcut.h"

#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define FLOWS_MAX 524288u /* pairs told at most: twice the leases there may be, and the connections of most hosts */
#define TELL_PARTS 16u	  /* messages in one turn of the loop */
#define TELL_MS	   10u	  /* until the asker is looked at again that has not read yet */

/* Changes that come while a walk goes on wait for the next one: many at once are a few walks. */
#define AGAIN_MS 10u

struct job {
	int pidfd; /* of the child; -1: none */
	int sock;  /* links_conntrack_open(), used by the child; kept; -1: none */
	struct loop_fd *source;
};

struct egress_walk {
	struct job cut, list;
	struct loop_timer *start_cut;
	bool wanted[LIMIT_SANDBOXES], n_wanted;
	struct broker_asker asker; /* of the list */
	int flows_fd;		   /* memory file with what the child found; -1: none */
	uint32_t room;		   /* of the child's table; a power of two */
	struct broker_flow *flow;  /* owned; the file, mapped while it is told */
	size_t n_flows, n_told;
	struct loop_timer *tell;
};

/* Return: 0 in the child, 1 in the broker, -errno */
static int job_start(struct broker *b, struct job *job, loop_fd_handler *ended)
{
	struct sbx_err err;

	if (job->sock < 0)
		job->sock = links_conntrack_open(b->links, &err);
	if (job->sock < 0)
		return err.sys > 0 ? -err.sys : -EIO;
	long pid = syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, NULL, &job->pidfd, NULL, 0);

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
		return 0;
	}
	job->source = pid < 0 ? NULL : loop_fd_add(b->loop, job->pidfd, EPOLLIN, ended, b);
	if (job->source)
		return 1;
	int r = -errno;
	replace_fd(&job->pidfd, -1);
	return r;
}

/* Return: whether the child ended well */
static bool job_end(struct job *job)
{
	siginfo_t info = {0};
	bool good = waitid(P_PIDFD, (id_t)job->pidfd, &info, WEXITED) == 0 && info.si_code == CLD_EXITED && info.si_status == 0;

	loop_fd_remove(job->source);
	job->source = NULL;
	replace_fd(&job->pidfd, -1);
	if (!good)
		replace_fd(&job->sock, -1); /* there may be answers in it that nobody took */
	return good;
}

/* ---- ending sockets ---- */

struct cutting {
	struct slot *s;
	int router_fd; /* for links_conntrack_mark() */
};

static bool revoked(void *arg, const struct sockcut_ends *ends)
{
	const struct cutting *c = arg;
	const struct links_flow flow = {.src = c->s->addr, .dst = ends->addr, .dst6 = ends->addr6, .sport = ends->near_port, .dport = ends->port,
					.protocol = ends->protocol};
	const struct egress_far far = {ends->addr, ends->addr6};
	uint32_t mark;

	/* Questions go to the name server from now on: a datagram's socket does not notice, a stream to another server has lost it. */
	bool lives = ends->port == 53 && egress_asks_us(c->s) ? ends->protocol == IPPROTO_UDP
		: egress_refuses(c->s->broker, c->s, &far, ends->protocol, ends->port) == BROKER_REFUSED_NONE;
	if (lives)
		return false;
	/* Judged since this process was forked, or not known to the router yet: a lease may have come that is not in our copy. */
	return links_conntrack_mark(c->s->broker->links, c->router_fd, &flow, &mark) == 0 && mark != c->s->mark;
}

struct stale {
	struct broker *b;
	const bool *wanted;
	bool has[LIMIT_SANDBOXES];
};

static void stale_flow(void *arg, uint32_t src, uint32_t dst, struct ip6 dst6, uint32_t mark)
{
	struct stale *st = arg;
	const struct slot *s = egress_slot_of(st->b, src);

	(void)dst;
	(void)dst6;
	if (s && mark && mark != s->mark)
		st->has[s->number] = st->wanted[s->number];
}

/*
 * Listing the sockets of a namespace walks tables of the whole machine (milliseconds): it is done only where the router has a
 * flow that an older policy let through, which one walk of its connections tells for all.  It comes behind the new policy, so
 * that none is missed.
 */
_Noreturn static void cut(struct broker *b, const bool *wanted)
{
	static struct stale stale;
	struct sbx_err err = {0};
	struct cutting c = {.router_fd = b->walk->cut.sock};
	int failed = 0;

	stale = (struct stale){.b = b, .wanted = wanted};
	if (links_conntrack_each(b->links, c.router_fd, stale_flow, &stale, &err) < 0) {
		log_warn("sockets of revoked flows stay until their next packet: %s", err.msg);
		_exit(1);
	}
	for (uint32_t i = 0; i < LIMIT_SANDBOXES; i++) {
		c.s = &b->slot[i];
		if (!stale.has[i] || c.s->pidfd < 0)
			continue;
		/* A sandbox that ends meanwhile has no namespace to enter and no sockets either. */
		int r = setns(c.s->pidfd, CLONE_NEWNET) < 0 ? -errno : sockcut_here(revoked, &c);
		if (r < 0 && r != -ESRCH) {
			log_warn("slot %u: sockets of revoked flows stay until their next packet: %s", i, strerror(-r));
			failed = 1;
		}
	}
	_exit(failed);
}

static void cut_ended(void *arg, int fd, uint32_t events)
{
	struct broker *b = arg;

	(void)fd;
	(void)events;
	ignore_result(job_end(&b->walk->cut)); /* it logged; the router refuses the flows all the same */
	if (b->walk->n_wanted)
		loop_timer_arm(b->walk->start_cut, AGAIN_MS);
}

static void start_cut(void *arg)
{
	struct broker *b = arg;
	struct egress_walk *w = b->walk;

	if (w->cut.pidfd >= 0 || !w->n_wanted || FAULT_POINT("egress-cut"))
		return;
	int r = job_start(b, &w->cut, cut_ended);
	if (r == 0)
		cut(b, w->wanted);
	if (r < 0)
		log_error("no child to end revoked sockets: %s", strerror(-r));
	memset(w->wanted, 0, sizeof(w->wanted));
	w->n_wanted = false;
}

void egress_walk_cut(struct broker *b, struct slot *s)
{
	b->walk->wanted[s->number] = true;
	b->walk->n_wanted = true;
	loop_timer_arm(b->walk->start_cut, 0);
}

/* ---- listing flows ---- */

struct listing {
	struct broker *b;
	struct broker_flow *flow; /* owned; hashed by slot and address while it is filled */
	uint32_t n, room;
};

static void list_flow(void *arg, uint32_t src, uint32_t dst, struct ip6 dst6, uint32_t mark)
{
	struct listing *l = arg;
	struct slot *s = egress_slot_of(l->b, src);
	uint32_t mask = l->room - 1;

	/* Flows of an older policy live on only when their next packet is allowed: they count too. */
	if (!s || !mark || l->n == l->room / 2)
		return;
	for (uint32_t i = (src * 2654435761u ^ (dst + (uint32_t)(dst6.lo ^ dst6.hi ^ dst6.lo >> 32)) * 40503u);; i++) {
		struct broker_flow *f = &l->flow[i & mask];

		if (f->addr == dst && ip6_same(f->addr6, dst6) && f->ref.slot == s->number)
			return;
		if (f->addr || !ip6_none(f->addr6))
			continue;
		*f = (struct broker_flow){.ref = {.slot = s->number, .generation = s->generation}, .addr = dst, .addr6 = dst6};
		l->n++;
		return;
	}
}

_Noreturn static void list(struct broker *b, int fd)
{
	struct listing l = {.b = b, .room = b->walk->room, .flow = calloc(b->walk->room, sizeof(*l.flow))};
	struct sbx_err err = {0};
	uint32_t n = 0;

	if (!l.flow || links_conntrack_each(b->links, b->walk->list.sock, list_flow, &l, &err) < 0) {
		log_error("%s", l.flow ? err.msg : "no memory for flows");
		_exit(1);
	}
	for (uint32_t i = 0; i < l.room; i++)
		if (l.flow[i].addr || !ip6_none(l.flow[i].addr6))
			l.flow[n++] = l.flow[i];
	const size_t bytes = n * sizeof(*l.flow);
	_exit(write(fd, l.flow, bytes) == (ssize_t)bytes ? 0 : 1);
}

static void told(struct egress_walk *w)
{
	if (w->flow)
		munmap(w->flow, w->n_flows * sizeof(*w->flow));
	w->flow = NULL;
	replace_fd(&w->flows_fd, -1);
}

/* A few messages, then everything else has its turn: pins of names come over the same connection. */
static void tell(void *arg)
{
	struct broker *b = arg;
	struct egress_walk *w = b->walk;

	for (unsigned i = 0; i < TELL_PARTS; i++) {
		size_t left = w->n_flows - w->n_told, part = left < BROKER_FLOW_PAIRS ? left : BROKER_FLOW_PAIRS;
		int r = broker_flows_part(b, &w->asker, w->flow ? w->flow + w->n_told : NULL, part, part == left);

		if (r == 0) {
			loop_timer_arm(w->tell, TELL_MS);
			return;
		}
		w->n_told += part;
		if (r < 0 || part == left) {
			told(w);
			return;
		}
	}
	loop_timer_arm(w->tell, 0);
}

static void list_ended(void *arg, int fd, uint32_t events)
{
	struct broker *b = arg;
	struct egress_walk *w = b->walk;
	struct stat st = {0};

	(void)fd;
	(void)events;
	bool good = job_end(&w->list) && fstat(w->flows_fd, &st) == 0;
	w->n_told = 0;
	w->n_flows = good ? (size_t)st.st_size / sizeof(*w->flow) : 1; /* 1 without a map: it failed */
	if (good && w->n_flows) {
		w->flow = mmap(NULL, w->n_flows * sizeof(*w->flow), PROT_READ, MAP_PRIVATE, w->flows_fd, 0);
		if (w->flow == MAP_FAILED) {
			w->flow = NULL;
			w->n_flows = 1;
		}
	}
	tell(b);
}

/* Twice the connections there are now and some; those that come meanwhile have fresh leases. */
static uint32_t room_for_all(struct broker *b)
{
	struct sbx_err err;
	int n = links_conntrack_count(b->links, &err);
	uint32_t room = 4096;

	while (room < 2 * FLOWS_MAX && (n < 0 || room / 2 < (uint32_t)n + 1024))
		room *= 2;
	return room;
}

int egress_walk_list(struct broker *b, const struct broker_asker *asker, struct sbx_err *err)
{
	struct egress_walk *w = b->walk;

	if (w->list.pidfd >= 0 || w->flows_fd >= 0)
		return sbx_err_set(err, SBX_E_LIMIT, 0, "connections are being listed already");
	w->flows_fd = memfd_create("flows", MFD_CLOEXEC);
	if (w->flows_fd < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "list connections");
	w->asker = *asker;
	w->room = room_for_all(b);
	int r = job_start(b, &w->list, list_ended);
	if (r == 0)
		list(b, w->flows_fd);
	if (r > 0)
		return 0;
	replace_fd(&w->flows_fd, -1);
	return sbx_err_set(err, SBX_E_SYSTEM, -r, "list connections");
}

int egress_walk_init(struct broker *b, struct sbx_err *err)
{
	b->walk = calloc(1, sizeof(*b->walk));
	if (b->walk)
		b->walk->start_cut = loop_timer_new(b->loop, start_cut, b);
	if (b->walk)
		b->walk->tell = loop_timer_new(b->loop, tell, b);
	if (!b->walk || !b->walk->start_cut || !b->walk->tell)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "egress walks");
	b->walk->cut.pidfd = b->walk->list.pidfd = b->walk->flows_fd = -1;
	b->walk->cut.sock = b->walk->list.sock = -1;
	return 0;
}
