// SPDX-License-Identifier: Apache-2.0
#include "runtime/agent/agent_int.h"
#include "runtime/agent/agent_proc.h"
#include "runtime/agent/agent_sys.h"

#include "base/cleanup.h"

#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>

/* ---- records ---- */

static struct cmd *cmd_new(const uint8_t id[AGENT_ID_BYTES])
{
	struct cmd *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	memcpy(c->id, id, AGENT_ID_BYTES);
	c->report.fd = c->out[0].fd = c->out[1].fd = c->in.fd = c->watch.fd = c->tells.fd = -1;
	c->launched.slot = -1;
	spool_init(&c->spool);
	return c;
}

static void cmd_free(struct service *s, struct cmd *c)
{
	service_unwatch(s, &c->report);
	service_unwatch(s, &c->out[0]);
	service_unwatch(s, &c->out[1]);
	service_unwatch(s, &c->in);
	service_unwatch(s, &c->watch);
	service_unwatch(s, &c->tells);
	spool_drop(&c->spool, s->agent->spool_fd);
	s->input_bytes -= c->in_have - c->in_sent;
	launch_over(s, c);
	free(c->in_bytes);
	free(c->text);
	free(c);
}

static struct cmd **bucket(const struct service *s, const uint8_t id[AGENT_ID_BYTES])
{
	/* ids are random; the entrypoint's is zero */
	return (struct cmd **)(uintptr_t)&s->hash[id[0] % INT_HASH];
}

static void append(struct service *s, struct cmd *c)
{
	struct cmd **head = bucket(s, c->id);

	if (s->newest)
		s->newest->next = c;
	else
		s->oldest = c;
	s->newest = c;
	c->hash_next = *head;
	*head = c;
	c->live = true;
	c->live_next = s->live;
	s->live = c;
}

static void forget(struct service *s, struct cmd *gone)
{
	struct cmd *prev = NULL;
	struct cmd **at = bucket(s, gone->id);

	while (*at && *at != gone)
		at = &(*at)->hash_next;
	if (*at)
		*at = gone->hash_next;
	for (at = &s->live; gone->live && *at; at = &(*at)->live_next)
		if (*at == gone) {
			*at = gone->live_next;
			break;
		}

	for (struct cmd *c = s->oldest; c; prev = c, c = c->next) {
		if (c != gone)
			continue;
		if (prev)
			prev->next = c->next;
		else
			s->oldest = c->next;
		if (s->newest == c)
			s->newest = prev;
		cmd_free(s, c);
		return;
	}
}

static bool referenced(const struct service *s, const struct cmd *c)
{
	for (uint32_t i = 0; i < s->streams_top; i++)
		if (s->streams[i].kind != STREAM_FREE && s->streams[i].cmd == c)
			return true;
	return false;
}

/* The oldest finished command makes room; the entrypoint's record stays. */
static void evict(struct service *s)
{
	if (s->n_finished < LIMIT_COMMANDS_KEPT)
		return;
	for (struct cmd *c = s->oldest; c; c = c->next)
		if (c->state == CMD_ENDED && !c->entrypoint && !referenced(s, c)) {
			s->n_finished--;
			forget(s, c);
			return;
		}
}

struct cmd *cmd_find(const struct service *s, const uint8_t id[AGENT_ID_BYTES])
{
	for (struct cmd *c = *bucket(s, id); c; c = c->hash_next)
		if (!memcmp(c->id, id, AGENT_ID_BYTES))
			return c;
	return NULL;
}

/* ---- start ---- */

struct ends { /* [0] ours, [1] the child's */
	int report[2], out[2], err[2], in[2], tells[2];
};

static void ends_close(struct ends *e, int which)
{
	replace_fd(&e->report[which], -1);
	replace_fd(&e->out[which], -1);
	replace_fd(&e->err[which], -1);
	replace_fd(&e->in[which], -1);
	replace_fd(&e->tells[which], -1);
}

/* Ours is the reading end for output: non-blocking at our end only, since the flag belongs to the description. */
static int pipe_from_child(int end[2])
{
	/* it belongs to the agent's id: by mode alone can a tenant open /dev/stdout, its own, again */
	if (pipe2(end, O_CLOEXEC) < 0 || fchmod(end[0], 0666) < 0)
		return -errno;
	return sysx_ret(fcntl(end[0], F_SETFL, O_NONBLOCK));
}

static int pipe_to_child(int end[2])
{
	int p[2];

	if (pipe2(p, O_CLOEXEC) < 0 || fchmod(p[0], 0666) < 0)
		return -errno;
	end[0] = p[1];
	end[1] = p[0];
	return sysx_ret(fcntl(end[0], F_SETFL, O_NONBLOCK));
}

/* Standard output and error of what the launcher starts. */
static int outputs_open(struct ends *e, bool merged)
{
	*e = (struct ends){{-1, -1}, {-1, -1}, {-1, -1}, {-1, -1}, {-1, -1}};
	int r = pipe_from_child(e->out);
	return r || merged ? r : pipe_from_child(e->err);
}

static int ends_open(struct ends *e, const struct spec_view *v, bool merged)
{
	int r;

	*e = (struct ends){{-1, -1}, {-1, -1}, {-1, -1}, {-1, -1}, {-1, -1}};
	if (v->spec.flags & AGENT_SPEC_PTY)
		return sysx_ret(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, e->report));
	r = pipe_from_child(e->report);
	if (!r)
		r = pipe_from_child(e->out);
	if (!r && !merged)
		r = pipe_from_child(e->err);
	if (!r && (v->spec.flags & (AGENT_SPEC_STDIN | AGENT_SPEC_DRIVER)))
		r = pipe_to_child(e->in);
	if (!r && (v->spec.flags & (AGENT_SPEC_DRIVER | AGENT_SPEC_TELLS_ENV)))
		r = pipe_from_child(e->tells);
	return r;
}

static int watch_ends(struct service *s, struct cmd *c, struct ends *e)
{
	int r = 0;

	if (e->report[0] >= 0 && !(r = service_watch(s, &c->report, e->report[0], EPOLLIN)))
		e->report[0] = -1;
	if (!r && e->out[0] >= 0 && !(r = service_watch(s, &c->out[0], e->out[0], EPOLLIN)))
		e->out[0] = -1;
	if (!r && e->err[0] >= 0 && !(r = service_watch(s, &c->out[1], e->err[0], EPOLLIN)))
		e->err[0] = -1;
	if (!r && e->in[0] >= 0 && !(r = service_watch(s, &c->in, e->in[0], EPOLLOUT)))
		e->in[0] = -1;
	if (!r && e->tells[0] >= 0 && !(r = service_watch(s, c->entrypoint ? &s->told_env : &c->tells, e->tells[0], EPOLLIN)))
		e->tells[0] = -1;
	return r;
}

static char *command_text(const struct spec_view *v)
{
	size_t n = 0, at = 0;
	const char *arg = v->args;

	for (uint32_t i = 0; i < v->spec.n_args && n < INT_TEXT_BYTES; i++, arg = spec_next(arg))
		n += strlen(arg) + 1;
	if (n > INT_TEXT_BYTES)
		n = INT_TEXT_BYTES;
	char *text = malloc(n + 1);
	if (!text)
		return NULL;
	memcpy(text, v->args, n);
	text[n] = 0;
	for (at = 0; at + 1 < n; at++)
		if (!text[at])
			text[at] = ' ';
	return text;
}

void cmd_drop_spare(struct service *s, bool reaped)
{
	struct spare *sp = &s->spare;

	if (!sp->pid)
		return;
	/* its order ends, and with it the child */
	close(sp->order_fd);
	close(sp->report_fd);
	close(sp->out_fd);
	close(sp->err_fd);
	if (!reaped)
		kill(sp->pid, SIGKILL);
	*sp = (struct spare){0};
}

void cmd_make_spare(struct service *s)
{
	static const struct spec_view any = {.cwd = "", .user = "", .args = "", .env = ""};
	struct ends e;

	if (s->spare.pid || s->dead || s->status.state != AGENT_STATE_WAITING)
		return;
	int r = ends_open(&e, &any, false);
	if (!r)
		r = pipe_to_child(e.in);
	struct spawn_req req = {.agent = s->agent, .view = &any, .stdin_fd = -1, .stdout_fd = e.out[1],
				.stderr_fd = e.err[1], .report_fd = e.report[1]};
	if (!r)
		r = spawn_spare(&req, e.in[1]);
	ends_close(&e, 1);
	if (r < 0) {
		ends_close(&e, 0); /* the entrypoint tries for itself and says so */
		return;
	}
	s->spare = (struct spare){.pid = r, .order_fd = e.in[0], .report_fd = e.report[0], .out_fd = e.out[0], .err_fd = e.err[0]};
}

#define NEEDS_MORE_ENDS                                                                                                         \
	(AGENT_SPEC_PTY | AGENT_SPEC_STDIN | AGENT_SPEC_DRIVER | AGENT_SPEC_MERGE | AGENT_SPEC_BARE_ENV | AGENT_SPEC_TELLS_ENV)

static const uint8_t *spec_bytes(const struct spec_view *view, uint32_t *ret_n)
{
	*ret_n = (uint32_t)sizeof(view->spec) + view->spec.string_bytes;
	return (const uint8_t *)view->cwd - sizeof(view->spec);
}

/* Has the spare run the entrypoint, if there is one and it can.  Return: its pid with our ends in @e, or 0. */
static pid_t use_spare(struct service *s, const struct spec_view *view, const struct cmd *c, struct ends *e)
{
	struct spare *sp = &s->spare;
	uint32_t n;
	const uint8_t *bytes = spec_bytes(view, &n);

	if (!sp->pid)
		return 0;
	if (view->spec.flags & NEEDS_MORE_ENDS) {
		cmd_drop_spare(s, false);
		return 0;
	}
	if (spawn_order(sp->order_fd, c->tag, c->entrypoint, c->background, bytes, n)) {
		cmd_drop_spare(s, false);
		return 0;
	}
	close(sp->order_fd);
	close(sp->err_fd);
	*e = (struct ends){{sp->report_fd, -1}, {sp->out_fd, -1}, {-1, -1}, {-1, -1}, {-1, -1}};
	pid_t pid = sp->pid;
	*sp = (struct spare){0};
	return pid;
}

static void spawned(struct cmd *c, pid_t pid)
{
	c->pid = c->group = pid;
	c->state = CMD_SPAWNED;
	c->launched.look_mono_usec = sysx_mono_usec() + INT_LAUNCH_USEC;
}

/* Return: 0 with @c spawned, its ends watched, or a negative errno with nothing left of it. */
static int start_by_us(struct service *s, struct cmd *c, const struct spec_view *view)
{
	const struct agent_spec *spec = &view->spec;
	struct ends e;
	int r = c->entrypoint ? use_spare(s, view, c, &e) : 0;

	if (!r) {
		struct spawn_req req = {.agent = s->agent, .view = view, .entrypoint = c->entrypoint, .tag = c->tag};

		r = ends_open(&e, view, c->background || (spec->flags & AGENT_SPEC_MERGE));
		req.stdin_fd = c->driver ? -1 : e.in[1];
		req.stdout_fd = e.out[1];
		req.stderr_fd = e.err[1] >= 0 ? e.err[1] : e.out[1];
		req.report_fd = e.report[1];
		req.told_fd = e.in[1];
		req.tells_fd = e.tells[1];
		if (!r)
			r = spawn_process(&req);
		ends_close(&e, 1);
	}
	if (r > 0) {
		spawned(c, r);
		r = watch_ends(s, c, &e);
		if (r)
			kill(c->pid, SIGKILL); /* reaped as a stranger */
	}
	if (r)
		ends_close(&e, 0);
	return r;
}

void cmd_drop_ahead(struct service *s)
{
	struct ahead *a = &s->ahead;

	if (!a->cmd)
		return;
	close(a->end[0]);
	close(a->end[1]);
	cmd_free(s, take_ptr(a->cmd));
}

void cmd_make_ahead(struct service *s)
{
	static const uint8_t none[AGENT_ID_BYTES];
	struct ends e;

	s->ahead_due = false;
	if (s->ahead.cmd || !s->launcher.pid || s->launcher.ending)
		return;
	struct cmd *c = cmd_new(none);
	if (!c)
		return; /* the next command tries for itself and says so */
	int r = outputs_open(&e, false);
	if (!r)
		r = watch_ends(s, c, &e);
	if (r) {
		ends_close(&e, 1);
		ends_close(&e, 0);
		cmd_free(s, c);
		return;
	}
	s->ahead = (struct ahead){.cmd = c, .end = {e.out[1], e.err[1]}};
}

static bool for_launcher(const struct service *s, const struct spec_view *view, bool entrypoint)
{
	return !entrypoint && s->launcher.pid && !s->launcher.ending && !(view->spec.flags & NEEDS_MORE_ENDS);
}

/* A record for the command, with its outputs in @e when they were made ahead. */
static struct cmd *cmd_begin(struct service *s, const uint8_t id[AGENT_ID_BYTES], const struct spec_view *view, bool entrypoint,
			     struct ends *e)
{
	struct ahead *a = &s->ahead;

	*e = (struct ends){{-1, -1}, {-1, -1}, {-1, -1}, {-1, -1}, {-1, -1}};
	if (!a->cmd || (view->spec.flags & AGENT_SPEC_BACKGROUND) || !for_launcher(s, view, entrypoint))
		return cmd_new(id);
	e->out[1] = a->end[0];
	e->err[1] = a->end[1];
	memcpy(a->cmd->id, id, AGENT_ID_BYTES);
	return take_ptr(a->cmd);
}

/* The same by the launcher, which has half of it done already; @e: what cmd_begin() has said. */
static int start_by_launcher(struct service *s, struct cmd *c, const struct spec_view *view, struct ends *made)
{
	struct ends e = *made;
	uint32_t n;
	const uint8_t *bytes = spec_bytes(view, &n);
	int r = 0;

	if (!for_launcher(s, view, c->entrypoint))
		return -ENOENT;
	if (c->out[0].fd < 0) {
		r = outputs_open(&e, c->background);
		if (!r)
			r = watch_ends(s, c, &e);
	}
	/* last: what was sent cannot be taken back */
	if (!r)
		r = launch_order(s, c, bytes, n, e.out[1], e.err[1]);
	ends_close(&e, 1);
	ends_close(&e, 0);
	if (r) {
		service_unwatch(s, &c->out[0]);
		service_unwatch(s, &c->out[1]);
		return r;
	}
	c->state = CMD_SPAWNED;
	s->ahead_due = true;
	return 0;
}

int cmd_start(struct service *s, const uint8_t id[AGENT_ID_BYTES], const struct spec_view *view, bool entrypoint,
	      struct cmd **ret, enum agent_stage *ret_stage)
{
	const struct agent_spec *spec = &view->spec;

	*ret_stage = AGENT_STAGE_FORK;
	evict(s);
	struct ends made;
	struct cmd *c = cmd_begin(s, id, view, entrypoint, &made);
	if (!c)
		return -ENOMEM;
	c->entrypoint = entrypoint;
	c->background = entrypoint || (spec->flags & AGENT_SPEC_BACKGROUND);
	c->pty = spec->flags & AGENT_SPEC_PTY;
	c->driver = spec->flags & AGENT_SPEC_DRIVER;
	c->tag = proc_tag(++s->serial);
	c->text = command_text(view);
	c->started_wall_usec = sysx_wall_usec();
	if (!c->text) {
		ends_close(&made, 1);
		cmd_free(s, c);
		return -ENOMEM;
	}
	int r = start_by_launcher(s, c, view, &made);
	if (r)
		r = start_by_us(s, c, view);
	if (r) {
		cmd_free(s, c);
		return r;
	}
	s->launcher_due |= !entrypoint && !s->launcher.pid;
	if (spec->timeout_ms)
		c->deadline_mono_usec = sysx_mono_usec() + (int64_t)spec->timeout_ms * 1000;
	append(s, c);
	s->n_running++;
	s->cmd_events = true;
	*ret = c;
	return 0;
}

/* ---- life ---- */

static int take_master(struct service *s, struct cmd *c)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	char byte;
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
			     .msg_controllen = sizeof(control.room)};
	ssize_t n = recvmsg(c->report.fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	struct cmsghdr *head = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;
	int fd;

	if (n < 0)
		return -errno;
	if (n == 0 || byte != 'T' || !head || head->cmsg_type != SCM_RIGHTS)
		return -EPROTO; /* a report: the terminal was not made */
	memcpy(&fd, CMSG_DATA(head), sizeof(fd));
	int r = service_watch(s, &c->out[0], fd, EPOLLIN | EPOLLOUT);
	if (r)
		close(fd);
	return r;
}

static void fail_with(struct cmd *c, uint32_t stage, int32_t sys)
{
	c->fail_stage = stage;
	c->fail_sys = sys;
}

static void entry_failed(struct service *s, const struct cmd *c)
{
	s->status.state = AGENT_STATE_START_FAILED;
	s->status.sys = c->fail_sys;
	s->status.stage = c->fail_stage;
	s->status_due = true;
	s->dead = true;
}

static void started(struct service *s, struct cmd *c)
{
	c->state = CMD_STARTED;
	launch_over(s, c);
	service_unwatch(s, &c->report);
	if (c->entrypoint) {
		s->status.state = AGENT_STATE_RUNNING;
		s->status.started_wall_usec = c->started_wall_usec;
		s->status_due = true;
		s->launcher_due = true;
	}
}

/*
 * EOF says that the exec took place, since the descriptor is closed by it; or that the child died before, which the reaper
 * then finds without a report.
 */
static void read_report(struct service *s, struct cmd *c)
{
	while (c->report.fd >= 0 && c->report.ready) {
		struct spawn_report rep;
		ssize_t n;

		if (c->pty && c->out[0].fd < 0 && !c->fail_stage) {
			char first;

			/* the terminal's descriptor comes before anything else, unless something failed before it */
			n = recv(c->report.fd, &first, 1, MSG_PEEK | MSG_DONTWAIT);
			if (n == 1 && first == 'T') {
				if (take_master(s, c))
					fail_with(c, AGENT_STAGE_IDENTITY, EIO);
				continue;
			}
		}
		n = read(c->report.fd, &rep, sizeof(rep));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			c->report.ready = 0;
			return;
		}
		if (n == (ssize_t)sizeof(rep)) {
			if (rep.stage == AGENT_STAGE_NONE)
				s->agent->default_user = rep.who;
			else
				fail_with(c, rep.stage, rep.sys);
			continue;
		}
		service_unwatch(s, &c->report);
		if (!c->fail_stage)
			started(s, c);
		else if (c->entrypoint)
			entry_failed(s, c);
	}
}

static uint64_t pipe_holds(const struct agent_source *src)
{
	int n = 0;

	return src->fd >= 0 && !ioctl(src->fd, FIONREAD, &n) && n > 0 ? (uint64_t)n : 0;
}

static void close_output(struct service *s, struct cmd *c, int i)
{
	service_unwatch(s, &c->out[i]);
	c->drain_bytes[i] = 0;
}

/* Notes what the pipes of @c, which has ended, still hold.  Return: whether somebody who was left behind may still write. */
static bool see_output(struct cmd *c)
{
	struct pollfd ends[2] = {{.fd = c->out[0].fd, .events = POLLIN}, {.fd = c->out[1].fd, .events = POLLIN}};
	bool writers = false;

	ignore_result(poll(ends, 2, 0)); /* on failure it is as if there were writers */
	for (int i = 0; i < 2; i++) {
		bool hung_up = ends[i].revents & POLLHUP, empty = !(ends[i].revents & POLLIN);

		if (c->out[i].fd < 0)
			continue;
		/* also what has only hung up stays open for now: it is closed when the answer is out, by drain_detached() */
		c->drain_bytes[i] = hung_up && empty ? 0 : pipe_holds(&c->out[i]);
		c->out[i].ready = 1;
		writers |= !hung_up;
	}
	return writers;
}

static void ended(struct service *s, struct cmd *c)
{
	c->pid = 0;
	c->deadline_mono_usec = 0;
	c->ended_wall_usec = sysx_wall_usec();
	c->state = CMD_ENDED;
	s->n_running--;
	s->n_finished++;
	s->cmd_events = true;
}

/* The launcher did not start @c, and is not going to. */
static void start_again(struct service *s, struct cmd *c)
{
	uint8_t *bytes = take_ptr(c->launched.bytes);
	struct spec_view view;
	uint32_t n = c->launched.n;
	uint64_t due = c->launched.due;
	int r = s->dead || !bytes ? -ESRCH : spec_read(bytes + sizeof(struct agent_exec), n - sizeof(struct agent_exec), 0, &view);

	launch_over(s, c);
	service_unwatch(s, &c->out[0]);
	service_unwatch(s, &c->out[1]);
	if (!r)
		r = start_by_us(s, c, &view);
	if (r) {
		fail_with(c, AGENT_STAGE_FORK, -r);
		ended(s, c);
	} else {
		c->launched.due = due;
		launch_learn(s, c);
	}
	free(bytes);
}

/* Whether @c has executed. */
static bool has_executed(const struct service *s, const struct cmd *c)
{
	struct proc_look look;

	if (!c->launched.lost)
		return launch_executed(s, c);
	/* nobody says so any more; whoever is gone is told by SIGCHLD */
	return !proc_look(s->agent, c->pid, &look) && look.executed;
}

/* When to look again: the longer it took so far, the later. */
static void look_again(struct launched *l, int64_t now_usec, int64_t most_usec)
{
	int64_t took = now_usec - l->sent_mono_usec;

	l->look_mono_usec = now_usec + (took < INT_STARTED_USEC ? INT_STARTED_USEC : took < most_usec ? took : most_usec);
}

/* The launcher has not made a child of @c yet. */
static void wait_for_launcher(struct service *s, struct cmd *c, int64_t now_usec, bool late)
{
	struct launched *l = &c->launched;
	int32_t sys;

	if (launch_failure(s, c, &sys)) {
		start_again(s, c); /* for want of something that the agent may have, or to be told again */
	} else if (late && (now_usec - l->sent_mono_usec > INT_LAUNCH_USEC || launch_stands_still(s, now_usec))) {
		l->look_mono_usec = 0;
		launch_drop(s); /* cmd_relaunch() */
	} else if (late) {
		look_again(l, now_usec, INT_STILL_USEC);
	}
}

/*
 * The launcher's word about @c is looked at when something else says that it is worth it: output, which nobody writes before the
 * exec, its end, or the time (@late).
 */
static void follow_launch(struct service *s, struct cmd *c, int64_t now_usec, bool late)
{
	struct launched *l = &c->launched;
	int32_t sys;

	if (l->slot < 0) {
		/* its report says the rest; a tenant may have stopped it on its way */
		l->look_mono_usec = now_usec + INT_LAUNCH_USEC;
		kill(c->pid, SIGCONT);
		return;
	}
	if (!launch_learn(s, c)) {
		wait_for_launcher(s, c, now_usec, late);
		return;
	}
	if (launch_failure(s, c, &sys))
		return; /* its end is near, and says so */
	/* what has only hung up is mostly over: its end is told with its beginning */
	if (c->out[0].printed || c->out[1].printed || ((late || (c->background && !l->lost)) && has_executed(s, c))) {
		started(s, c);
	} else if (late) {
		look_again(l, now_usec, INT_LAUNCH_USEC);
		if (now_usec - l->sent_mono_usec > INT_STILL_USEC) {
			kill(c->pid, SIGCONT); /* a tenant may have stopped it on its way, or who tells of it */
			launch_wake(s);
		}
	}
}

void cmd_relaunch(struct service *s)
{
	for (struct cmd *c = s->live; c; c = c->live_next) {
		if (c->launched.slot < 0)
			continue;
		if (launch_take_back(s, c)) {
			start_again(s, c);
			s->launcher_due = true;
			continue;
		}
		launch_learn(s, c);
		c->launched.look_mono_usec = sysx_mono_usec();
	}
	s->cmd_events = true;
}

static void end_sandbox(struct service *s, const struct cmd *c)
{
	s->status.state = AGENT_STATE_ENDED;
	s->status.exit_code = c->code;
	s->status.exit_signal = c->signal;
	s->status.ended_wall_usec = c->ended_wall_usec;
	s->status_due = true;
	s->dead = true;
	/* all processes of this pid namespace but us; the kernel lets none of them fork past it */
	kill(-1, SIGKILL);
}

static void interrupt_over(struct service *s, struct cmd *c)
{
	c->interrupted = false;
	c->kill_mono_usec = 0;
	service_unwatch(s, &c->watch);
	for (uint32_t i = 0; i < s->streams_top; i++)
		if (s->streams[i].kind == STREAM_INTERRUPT && s->streams[i].cmd == c)
			service_end(s, &s->streams[i], AGENT_OK, 0, 0, "");
}

/* Is anyone of the group left?  If so the kernel tells us about that one's end; no polling. */
static void interrupt_check(struct service *s, struct cmd *c)
{
	service_unwatch(s, &c->watch);
	for (int tries = 0; tries < 16; tries++) {
		pid_t member = proc_group_member(s->agent, c->group);

		if (!member) {
			int status;

			/* who was told that it is over finds it ended: the leader may be dead and its SIGCHLD still to be read */
			if (c->pid && waitpid(c->pid, &status, WNOHANG | __WALL) == c->pid)
				cmd_reaped(s, c->pid, status);
			interrupt_over(s, c);
			return;
		}
		int fd = sysx_pidfd_open(member);
		if (fd == -ESRCH)
			continue; /* it ended in between: look again */
		/* without a watch the next SIGCHLD or the KILL timer looks again */
		if (fd >= 0 && service_watch(s, &c->watch, fd, EPOLLIN))
			close(fd);
		return;
	}
}

bool cmd_reaped(struct service *s, pid_t pid, int wait_status)
{
	struct cmd *c = s->live;

	for (; c; c = c->live_next) {
		if (!c->pid && c->launched.slot >= 0)
			launch_learn(s, c);
		if (c->pid == pid)
			break;
	}
	if (!c)
		return false;
	c->report.ready = 1;
	read_report(s, c);
	if (c->launched.slot >= 0) {
		int32_t sys;
		uint32_t stage = launch_failure(s, c, &sys);

		if (stage)
			fail_with(c, stage, sys);
		started(s, c);
	}
	ended(s, c);
	c->code = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : -1;
	c->signal = WIFSIGNALED(wait_status) ? WTERMSIG(wait_status) : 0;
	bool writers = see_output(c);
	c->tells_left = pipe_holds(&c->tells);
	c->before_left[0] = c->before_left[1] = 0; /* drain_bytes knows better now */
	if (c->pty) {
		/* its last bytes are on their way through a kernel worker; the hang-up behind them ends the wait */
		c->drain_bytes[0] = UINT64_MAX;
		c->drain_mono_usec = sysx_mono_usec() + INT_PTY_DRAIN_USEC;
	} else if (c->stream && !c->background && writers) {
		/* `exec > >(tee log)`: who passes the output on has its end behind the shell's */
		c->drain_bytes[0] += INT_TAIL_BYTES;
		c->drain_bytes[1] += INT_TAIL_BYTES;
		c->drain_mono_usec = sysx_mono_usec() + INT_TAIL_USEC;
		c->tail_step_usec = INT_TAIL_FIRST_USEC;
		c->tail_mono_usec = c->drain_mono_usec - INT_TAIL_USEC + c->tail_step_usec;
	}
	if (c->entrypoint && !c->fail_stage)
		end_sandbox(s, c);
	return true;
}

/* ---- output ---- */

/* The oldest finished command that holds a region gives it to one that still prints. */
static void keep_output(struct service *s, struct cmd *c, const uint8_t *data, uint32_t n)
{
	if (spool_wants_region(&c->spool, n))
		for (struct cmd *old = s->oldest; old; old = old->next)
			if (old->state == CMD_ENDED && old->spool.region != SPOOL_NO_REGION) {
				spool_forget(&old->spool, s->agent->spool_fd);
				break;
			}
	spool_append(&c->spool, s->agent->spool_fd, data, n);
}

/* Reads once into @out; closes at the end.  Return: bytes, 0 when nothing is there now. */
static uint32_t read_output(struct service *s, struct cmd *c, int i, uint8_t *out, uint64_t n)
{
	ssize_t r = read(c->out[i].fd, out, n < INT_SCRATCH_BYTES ? (size_t)n : INT_SCRATCH_BYTES);

	if (r < 0 && (errno == EAGAIN || errno == EINTR)) {
		c->out[i].ready = errno == EINTR;
		return 0;
	}
	if (r <= 0) {
		close_output(s, c, i);
		return 0;
	}
	if (c->state == CMD_ENDED && c->drain_bytes[i] != UINT64_MAX)
		c->drain_bytes[i] -= (uint64_t)r < c->drain_bytes[i] ? (uint64_t)r : c->drain_bytes[i];
	return (uint32_t)r;
}

/* Output that nobody is attached to: to the spool; what a finished foreground command left behind: nowhere. */
static bool drain_detached(struct service *s, struct cmd *c, int i)
{
	struct agent_source *src = &c->out[i];
	bool keep = !c->driver && (c->background || c->state != CMD_ENDED || c->drain_bytes[i]);

	if (src->fd < 0 || !src->ready || c->state == CMD_SPAWNED)
		return false;
	uint32_t n = read_output(s, c, i, s->scratch, INT_SCRATCH_BYTES);
	if (n && keep)
		keep_output(s, c, s->scratch, n);
	return src->fd >= 0 && src->ready;
}

static bool attached(const struct cmd *c)
{
	return c->stream && !c->background;
}

static bool send_output(struct service *s, struct stream *st, int i)
{
	struct cmd *c = st->cmd;
	uint64_t n = INT_SCRATCH_BYTES;

	if (c->out[i].fd < 0 || !c->out[i].ready || st->credit <= 0)
		return false;
	if (c->state == CMD_ENDED) {
		if (!c->drain_bytes[i])
			return false;
		if (n > c->drain_bytes[i])
			n = c->drain_bytes[i];
	}
	if (c->before_left[i] && n > c->before_left[i])
		n = c->before_left[i];
	if (n > (uint64_t)st->credit)
		n = (uint64_t)st->credit;
	uint8_t *room = service_room(s, INT_SCRATCH_BYTES);
	if (!room)
		return false;
	uint32_t got = read_output(s, c, i, room, n);
	if (!c->out[i].ready)
		c->before_left[i] = 0;
	c->before_left[i] -= got < c->before_left[i] ? got : c->before_left[i];
	if (!got)
		return false;
	if (!c->driver)
		keep_output(s, c, room, got);
	st->credit -= got;
	service_commit(s, i ? AGENT_STDERR : AGENT_STDOUT, st->id, got);
	return true;
}

static bool drained(const struct cmd *c)
{
	return (c->out[0].fd < 0 || !c->drain_bytes[0]) && (c->out[1].fd < 0 || !c->drain_bytes[1]) &&
	       (c->tells.fd < 0 || !c->tells_left);
}

/* Notes how much a driver has told, and then how much output lies before that: both can only have grown in between. */
static void see_told(struct cmd *c)
{
	if (c->state == CMD_ENDED || c->tells_left || c->tells.fd < 0 || !c->tells.ready)
		return;
	/* in this order: what is written after the question gives a new edge */
	c->tells.ready = 0;
	c->tells_left = pipe_holds(&c->tells);
	if (!c->tells_left)
		return;
	c->tells.ready = 1;
	for (int i = 0; i < 2; i++) {
		c->before_left[i] = pipe_holds(&c->out[i]);
		c->out[i].ready |= c->before_left[i] > 0;
	}
}

static bool send_told(struct service *s, struct stream *st)
{
	struct cmd *c = st->cmd;
	uint64_t n = c->tells_left < INT_SCRATCH_BYTES ? c->tells_left : INT_SCRATCH_BYTES;

	if (!n || c->tells.fd < 0 || st->credit <= 0)
		return false;
	if (n > (uint64_t)st->credit)
		n = (uint64_t)st->credit;
	uint8_t *room = service_room(s, INT_SCRATCH_BYTES);
	if (!room)
		return false;
	ssize_t got = read(c->tells.fd, room, (size_t)n);
	if (got < 0 && errno == EINTR)
		return true;
	if (got <= 0) {
		c->tells_left = 0; /* cannot be: nobody else reads it */
		return false;
	}
	c->tells_left -= (uint64_t)got;
	st->credit -= got;
	service_commit(s, AGENT_DATA, st->id, (uint32_t)got);
	return true;
}

/* Output that lies before what was told, then that, then the output behind it. */
static bool send_any(struct service *s, struct stream *st)
{
	struct cmd *c = st->cmd;

	see_told(c);
	if (c->tells_left) {
		bool all = c->state == CMD_ENDED;

		for (int i = 0; i < 2; i++)
			if ((all || c->before_left[i]) && send_output(s, st, i))
				return true;
		if (!c->before_left[0] && !c->before_left[1] && send_told(s, st))
			return true;
		return false;
	}
	return send_output(s, st, 0) || send_output(s, st, 1);
}

bool cmd_produce(struct service *s, struct stream *st)
{
	struct cmd *c = st->cmd;

	if (c->fail_stage) {
		service_end(s, st, AGENT_FAILED_START, c->fail_sys, c->fail_stage, "");
		return true;
	}
	if (c->state == CMD_SPAWNED)
		return false;
	if (!st->started_sent) {
		struct agent_started msg = {.pid = (uint32_t)c->group, .started_wall_usec = c->started_wall_usec};

		st->started_sent = true;
		service_frame(s, AGENT_STARTED, st->id, 0, &msg, sizeof(msg), NULL, 0);
		if (c->background)
			service_end(s, st, AGENT_OK, 0, 0, "");
		return true;
	}
	if (st->grant) {
		service_frame(s, AGENT_CREDIT, st->id, st->grant, NULL, 0, NULL, 0);
		st->window += st->grant;
		st->grant = 0;
		return true;
	}
	if (send_any(s, st))
		return true;
	if (c->state != CMD_ENDED || !drained(c))
		return false;
	struct agent_exit msg = {.code = c->code, .signal = c->signal, .flags = c->exit_flags,
				 .started_wall_usec = c->started_wall_usec, .ended_wall_usec = c->ended_wall_usec};
	service_frame(s, AGENT_EXIT, st->id, 0, &msg, sizeof(msg), NULL, 0);
	service_unwatch(s, &c->tells);
	c->stream = NULL;
	s->cmd_events = true;
	service_free_stream(s, st);
	return true;
}

/* ---- input ---- */

static struct agent_source *input_of(struct cmd *c)
{
	return c->pty ? &c->out[0] : &c->in;
}

static void push_input(struct service *s, struct cmd *c)
{
	struct agent_source *src = input_of(c);

	if (c->state == CMD_SPAWNED)
		return; /* the terminal is still to come */
	while (c->in_sent < c->in_have) {
		ssize_t n = -1;

		if (src->fd >= 0) {
			if (!src->writable)
				return;
			n = write(src->fd, c->in_bytes + c->in_sent, c->in_have - c->in_sent);
			if (n < 0 && errno == EINTR)
				continue;
			if (n < 0 && errno == EAGAIN) {
				src->writable = 0;
				return;
			}
		}
		/* nobody reads any more: the rest is dropped, and the client is not stalled by it */
		uint32_t took = n > 0 ? (uint32_t)n : c->in_have - c->in_sent;
		c->in_sent += took;
		s->input_bytes -= took;
		if (c->stream)
			c->stream->grant += took;
	}
	c->in_have = c->in_sent = 0;
	free(c->in_bytes);
	c->in_bytes = NULL;
	if (!c->in_eof)
		return;
	c->in_eof = false;
	if (!c->pty)
		service_unwatch(s, &c->in);
	else if (src->fd >= 0)
		ignore_result(write(src->fd, "\004", 1)); /* a full terminal queue has no reader to tell */
}

int cmd_input(struct service *s, struct cmd *c, const uint8_t *data, uint32_t n)
{
	if (c->in_eof || n > AGENT_WINDOW - (c->in_have - c->in_sent))
		return -EPROTO;
	if (c->in_sent) {
		memmove(c->in_bytes, c->in_bytes + c->in_sent, c->in_have - c->in_sent);
		c->in_have -= c->in_sent;
		c->in_sent = 0;
	}
	uint8_t *p = s->input_bytes + n > INT_INPUT_BYTES ? NULL : realloc(c->in_bytes, c->in_have + n + !n);
	if (!p)
		return -ENOMEM;
	c->in_bytes = p;
	memcpy(p + c->in_have, data, n);
	c->in_have += n;
	s->input_bytes += n;
	push_input(s, c);
	return 0;
}

void cmd_input_eof(struct service *s, struct cmd *c)
{
	c->in_eof = true;
	push_input(s, c);
}

void cmd_resize(const struct cmd *c, uint32_t rows_cols)
{
	struct winsize size = {.ws_row = (unsigned short)(rows_cols >> 16), .ws_col = (unsigned short)rows_cols};

	if (c->pty && c->out[0].fd >= 0 && size.ws_row && size.ws_col)
		ignore_result(ioctl(c->out[0].fd, TIOCSWINSZ, &size)); /* the terminal has just been hung up */
}

/* ---- signals and time ---- */

int cmd_signal(struct service *s, struct cmd *c, int sig)
{
	if (c->state == CMD_ENDED)
		return -ESRCH;
	if (c->state == CMD_SPAWNED) {
		launch_signal(c, sig);
		launch_learn(s, c);
		return 0;
	}
	pid_t group = c->group;
	if (c->pty && c->out[0].fd >= 0) {
		pid_t front = 0;

		if (!ioctl(c->out[0].fd, TIOCGPGRP, &front) && front > 1)
			group = front;
	}
	return sysx_ret(kill(-group, sig));
}

void cmd_detached(struct service *s, struct cmd *c)
{
	c->stream = NULL;
	s->cmd_events = true;
	if (!c->driver)
		return;
	service_unwatch(s, &c->tells);
	service_unwatch(s, &c->in);
	if (c->state != CMD_ENDED)
		proc_kill_tree(s->agent, c->group, c->tag);
}

void cmd_interrupt(struct service *s, struct cmd *c)
{
	c->exit_flags |= AGENT_EXIT_INTERRUPTED;
	if (!c->interrupted) {
		c->interrupted = true;
		c->kill_mono_usec = sysx_mono_usec() + INT_INTERRUPT_USEC;
	}
	launch_signal(c, SIGTERM);
	if (launch_learn(s, c))
		interrupt_check(s, c);
	s->cmd_events = true;
}

/* A server that was left behind waits for clients, a `tee` is fed and wakes up to the end of its input: only the latter is waited for. */
static void look_for_tail(struct service *s, struct cmd *c, int64_t now_usec)
{
	bool open = c->out[0].fd >= 0 || c->out[1].fd >= 0;
	struct proc_tail tail = {0};

	if (open)
		proc_tail(s->agent, c->tag, c->out[c->out[0].fd < 0].fd, &tail);
	if (tail.fed && !c->tail_fed) {
		c->tail_fed = true;
		c->drain_mono_usec += INT_FED_USEC - INT_TAIL_USEC;
		for (int i = 0; i < 2; i++)
			c->drain_bytes[i] += c->out[i].fd >= 0 ? INT_FED_BYTES - INT_TAIL_BYTES : 0;
	}
	bool quiet = !pipe_holds(&c->out[0]) && !pipe_holds(&c->out[1]) && !tail.at_work && !tail.fed;

	if (!open || (quiet && c->tail_quiet)) {
		c->tail_mono_usec = 0;
		c->drain_mono_usec = now_usec;
		return;
	}
	c->tail_quiet = quiet;
	c->tail_step_usec *= 3;
	c->tail_mono_usec = now_usec + c->tail_step_usec;
}

int64_t cmd_timers(struct service *s, int64_t now_usec)
{
	int64_t next = INT64_MAX;

	if (s->launcher.pid && !s->launcher.ending && s->launcher.until_mono_usec <= now_usec)
		launch_drop(s);
	if (s->launcher.pid && !s->launcher.ending)
		next = s->launcher.until_mono_usec;
	for (struct cmd *c = s->live; c; c = c->live_next) {
		if (c->state == CMD_SPAWNED && c->launched.look_mono_usec && c->launched.look_mono_usec <= now_usec) {
			follow_launch(s, c, now_usec, true);
			s->cmd_events = true;
		}
		if (c->state == CMD_SPAWNED && c->launched.look_mono_usec && c->launched.look_mono_usec < next)
			next = c->launched.look_mono_usec;
		if (!c->pid && c->state != CMD_ENDED && !launch_learn(s, c))
			continue; /* nobody to end yet: the launcher tells, or its own time runs out */
		if (c->deadline_mono_usec && c->deadline_mono_usec <= now_usec) {
			c->deadline_mono_usec = 0;
			c->exit_flags |= AGENT_EXIT_TIMEOUT;
			proc_kill_tree(s->agent, c->group, c->tag);
		}
		if (c->kill_mono_usec && c->kill_mono_usec <= now_usec) {
			c->kill_mono_usec = 0;
			kill(-c->group, SIGKILL);
			interrupt_check(s, c);
		}
		if (c->tail_mono_usec && c->tail_mono_usec <= now_usec)
			look_for_tail(s, c, now_usec);
		if (c->drain_mono_usec && c->drain_mono_usec <= now_usec) {
			c->drain_mono_usec = c->tail_mono_usec = 0;
			for (int i = 0; i < 2; i++) {
				uint64_t left = c->pty ? 0 : pipe_holds(&c->out[i]);

				c->drain_bytes[i] = left < c->drain_bytes[i] ? left : c->drain_bytes[i];
			}
			s->cmd_events = true;
		}
		int64_t due[] = {c->deadline_mono_usec, c->kill_mono_usec, c->drain_mono_usec, c->tail_mono_usec};
		for (size_t i = 0; i < ARRAY_SIZE(due); i++)
			if (due[i] && due[i] < next)
				next = due[i];
	}
	return next;
}

/* Whether anything can still happen to @c that the loop has to look at. */
static bool is_settled(const struct cmd *c)
{
	return c->state == CMD_ENDED && !c->interrupted && !c->in_have && !c->in_eof && c->report.fd < 0 && c->out[0].fd < 0 &&
	       c->out[1].fd < 0 && c->in.fd < 0 && c->watch.fd < 0 && c->tells.fd < 0 && !c->kill_mono_usec && !c->drain_mono_usec;
}

void cmd_walk(struct service *s)
{
	bool more = false;

	s->cmd_events = false;
	if (s->launcher.sock.ready)
		launch_read(s);
	for (struct cmd **at = &s->live, *c; (c = *at);) {
		if (c->report.fd >= 0 && c->report.ready)
			read_report(s, c);
		if (c->state == CMD_SPAWNED && c->launched.slot >= 0)
			follow_launch(s, c, sysx_mono_usec(), false);
		if (c->interrupted && c->group && (c->watch.fd < 0 || c->watch.ready))
			interrupt_check(s, c);
		if (c->in_have || c->in_eof)
			push_input(s, c);
		for (int i = 0; i < 2 && !attached(c); i++)
			more |= drain_detached(s, c, i);
		if (is_settled(c)) {
			*at = c->live_next;
			c->live = false;
		} else {
			at = &c->live_next;
		}
	}
	s->cmd_events |= more;
}
