// SPDX-License-Identifier: Apache-2.0
#include "api/deny_hook.h"

#include "base/cleanup.h"
#include "base/fdpass.h"
#include "base/http_client.h"
#include "base/jv.h"
#include "base/log.h"
#include "base/num.h"
#include "base/settings.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BODY_MAX	 8192u
#define TRY_MS		 5000u
#define TRIES		 4u
#define BREAKER_FAILURES 5u
#define BREAKER_S	 30
#define RESTART_MS	 2000u

/* ---- http://host[:port][/path] ---- */

struct hook_url {
	char host[256];
	uint32_t port;
	const char *path; /* in the text that was read */
};

static int read_url(const char *text, struct hook_url *ret, struct sbx_err *err)
{
	const char *host = text + strlen("http://"), *end, *colon;

	if (!strncasecmp(text, "https://", 8))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "egress.deny_webhook: https is not offered yet; an http:// address is");
	if (strncasecmp(text, "http://", 7) != 0)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "egress.deny_webhook: \"%.100s\" is not http://HOST[:PORT][/PATH]", text);
	end = host + strcspn(host, "/?#");
	colon = memchr(host, ':', (size_t)(end - host));
	size_t n = (size_t)((colon ? colon : end) - host);
	ret->port = 80;
	if (!n || n >= sizeof(ret->host) || memchr(host, '@', (size_t)(end - host)) || *end == '?' || strpbrk(text, " \t\r\n#") ||
	    (colon && (num_u32(colon + 1, (size_t)(end - colon - 1), UINT16_MAX, &ret->port) < 0 || !ret->port)))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "egress.deny_webhook: \"%.100s\" is not http://HOST[:PORT][/PATH]", text);
	memcpy(ret->host, host, n);
	ret->host[n] = '\0';
	ret->path = *end ? end : "/";
	return 0;
}

/* ---- the child ---- */

/* Return: status, or 0 when there was none */
static unsigned post_once(const struct hook_url *url, const char *body, size_t n)
{
	const struct http_client_request request = {
		.method = "POST", .target = url->path, .headers = "Content-Type: application/json\r\n", .body = body, .body_len = n};
	struct http_client_response response = {0};
	struct sbx_err err = {0};
	struct http_client *c = http_client_open_tcp(url->host, url->port, TRY_MS, &err);
	int r = c ? http_client_begin(c, &request, &response, &err) : -1;

	http_client_free(c);
	if (r < 0)
		log_debug("deny webhook: %s", err.msg);
	return r < 0 ? 0 : response.status;
}

/* Return: whether the sink has it, or does not want it */
static bool post(const struct hook_url *url, const char *body, size_t n)
{
	unsigned status = 0;

	for (unsigned i = 0; i < TRIES; i++) {
		if (i)
			ignore_result(poll(NULL, 0, 1000 << (i - 1)) < 0);
		status = post_once(url, body, n);
		if (status && status < 500)
			break;
	}
	if (status >= 200 && status < 300)
		return true;
	log_warn("deny webhook: not delivered, %s%u", status ? "status " : "no answer ", status);
	return status && status < 500;
}

int deny_hook_child(const char *text)
{
	char body[BODY_MAX];
	struct hook_url url;
	struct sbx_err err;
	unsigned failures = 0;
	time_t closed_until = 0;
	ssize_t n;

	if (read_url(text, &url, &err) < 0) {
		log_error("%s", err.msg);
		return 1;
	}
	while ((n = recv(STDIN_FILENO, body, sizeof(body), 0)) > 0 || (n < 0 && errno == EINTR)) {
		struct timespec now;

		if (n < 0)
			continue;
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (now.tv_sec < closed_until)
			continue;
		if (post(&url, body, (size_t)n)) {
			failures = 0;
			continue;
		}
		if (++failures >= BREAKER_FAILURES) {
			log_warn("deny webhook: nothing is sent for %d s", BREAKER_S);
			clock_gettime(CLOCK_MONOTONIC, &now);
			closed_until = now.tv_sec + BREAKER_S;
			failures = BREAKER_FAILURES - 1; /* the next one decides */
		}
	}
	return 0;
}

/* ---- the parent ---- */

struct waiting {
	struct waiting *next;
	size_t n;
	char body[];
};

struct deny_hook {
	struct loop *loop;
	const struct settings *settings;
	struct waiting *first, **last;
	unsigned n_waiting;
	uint64_t dropped;
	pid_t pid; /* 0: not running */
	int fd;	   /* owned; -1 */
	struct loop_fd *source;
	struct loop_timer *again;
};

static void close_child(struct deny_hook *h)
{
	loop_fd_remove(h->source);
	h->source = NULL;
	close_keep_errno(take_fd(&h->fd));
}

static void flush(struct deny_hook *h)
{
	while (h->first && h->fd >= 0) {
		struct waiting *w = h->first;

		if (send(h->fd, w->body, w->n, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
			if (errno == EAGAIN || errno == ENOBUFS) {
				loop_fd_events(h->source, EPOLLOUT);
				return;
			}
			close_child(h); /* on_child comes, and the timer starts another */
			loop_timer_arm(h->again, RESTART_MS);
			return;
		}
		h->first = w->next;
		if (!h->first)
			h->last = &h->first;
		h->n_waiting--;
		free(w);
	}
	if (h->source)
		loop_fd_events(h->source, 0);
}

static void on_ready(void *arg, int fd, uint32_t events)
{
	struct deny_hook *h = arg;

	(void)fd;
	if (events & EPOLLOUT)
		flush(h);
	else
		close_child(h);
}

__attribute__((noreturn)) static void be_child(int fd, const char *url)
{
	char name[] = "sandboxd", flag[] = "--deny-hook", config_flag[] = "--config", no_config[] = "/dev/null";
	auto_free char *copy = strdup(url);
	char *argv[] = {name, flag, config_flag, no_config, copy, NULL}, *envp[] = {NULL};
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (copy && dup2(fd, STDIN_FILENO) == STDIN_FILENO)
		execve("/proc/self/exe", argv, envp);
	_exit(127);
}

static void start(struct deny_hook *h)
{
	int fds[2];

	if (h->pid || h->fd >= 0 || loop_timer_armed(h->again))
		return;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0) {
		log_warn("deny webhook: %s", strerrordesc_np(errno));
		return;
	}
	pid_t pid = fork();
	if (pid == 0)
		be_child(fds[1], h->settings->egress_deny_webhook);
	close(fds[1]);
	if (pid > 0) {
		h->pid = pid;
		h->fd = fds[0];
		h->source = loop_fd_add(h->loop, h->fd, 0, on_ready, h);
		if (h->source)
			return;
		h->fd = -1;
	}
	log_warn("deny webhook: %s", strerrordesc_np(errno));
	close(fds[0]);
}

static void on_again(void *arg)
{
	struct deny_hook *h = arg;

	if (!h->first)
		return;
	start(h);
	flush(h);
}

void deny_hook_reap(struct deny_hook *h)
{
	int status;

	if (!h || !h->pid || waitpid(h->pid, &status, WNOHANG) != h->pid)
		return;
	h->pid = 0;
	close_child(h);
	log_warn("deny webhook: its process ended, status %d", status);
	loop_timer_arm(h->again, RESTART_MS);
}

static void write_body(const struct deny_hook *h, const struct journal_event *e, struct buf *out)
{
	struct jw w = {.out = out};
	char addr[INET_ADDRSTRLEN] = "", text[SBX_ERR_MSG_SIZE], id[UUID_SIZE];
	struct in_addr in = {htonl(e->addr)};
	time_t s = (time_t)(e->wall_usec / 1000000);
	struct tm tm;

	gmtime_r(&s, &tm);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
	if (e->addr)
		inet_ntop(AF_INET, &in, addr, sizeof(addr));
	uuid_format(e->sandbox_id, id);
	jw_object(&w);
	jw_key_str(&w, "hostname", *e->name ? e->name : addr);
	jw_key_str(&w, "timestamp", text);
	jw_key_str(&w, "source", "opensandbox-egress");
	jw_key_str(&w, "sandboxId", id);
	jw_key_str(&w, "kind", journal_kind_name(e->kind));
	jw_key_str(&w, "reason", policy_reason_name(e->reason));
	if (*e->rule)
		jw_key_str(&w, "rule", e->rule);
	if (*addr)
		jw_key_str(&w, "address", addr);
	if (e->port)
		jw_key_i64(&w, "port", e->port);
	jw_key_i64(&w, "count", e->count);
	for (size_t i = 0; i < h->settings->egress_deny_webhook_attributes.n; i++) {
		const char *pair = h->settings->egress_deny_webhook_attributes.item[i], *value = strchr(pair, '=');

		snprintf(text, sizeof(text), "%.*s", (int)(value - pair), pair);
		jw_key_str(&w, text, value + 1);
	}
	jw_object_end(&w);
}

void deny_hook_add(struct deny_hook *h, const struct journal_event *event)
{
	auto_buf body = {.max = BODY_MAX};
	struct waiting *w = NULL;

	if (!h || (!journal_is_denial(event) && event->kind != EGRESS_EVENT_TUNNEL_SUSPECTED) || (!*event->name && !event->addr))
		return;
	write_body(h, event, &body);
	if (!body.failed && h->n_waiting < DENY_HOOK_QUEUE)
		w = malloc(sizeof(*w) + buf_used(&body));
	if (!w) {
		h->dropped++;
		return;
	}
	w->next = NULL;
	w->n = buf_used(&body);
	memcpy(w->body, buf_peek(&body), w->n);
	*h->last = w;
	h->last = &w->next;
	h->n_waiting++;
	start(h);
	flush(h);
}

uint64_t deny_hook_dropped(const struct deny_hook *h)
{
	return h ? h->dropped : 0;
}

static int check_attributes(const struct settings_texts *list, struct sbx_err *err)
{
	static const char *const ours[] = {"hostname", "timestamp", "source", "sandboxId", "kind", "reason", "rule", "address", "port", "count"};

	for (size_t i = 0; i < list->n; i++) {
		const char *value = strchr(list->item[i], '=');
		size_t n = value ? (size_t)(value - list->item[i]) : 0;

		if (!n || n > 64)
			return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "egress.deny_webhook_attributes: \"%.60s\" is not NAME=VALUE", list->item[i]);
		for (size_t k = 0; k < ARRAY_SIZE(ours); k++)
			if (strlen(ours[k]) == n && !memcmp(ours[k], list->item[i], n))
				return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "egress.deny_webhook_attributes: \"%s\" is a name of ours", ours[k]);
	}
	return 0;
}

int deny_hook_new(struct loop *loop, const struct settings *settings, struct deny_hook **ret, struct sbx_err *err)
{
	struct hook_url url;
	struct deny_hook *h;

	*ret = NULL;
	if (!*settings->egress_deny_webhook)
		return 0;
	if (read_url(settings->egress_deny_webhook, &url, err) < 0 || check_attributes(&settings->egress_deny_webhook_attributes, err) < 0)
		return -1;
	h = calloc(1, sizeof(*h));
	if (h) {
		*h = (struct deny_hook){.loop = loop, .settings = settings, .fd = -1};
		h->last = &h->first;
		h->again = loop_timer_new(loop, on_again, h);
	}
	if (!h || !h->again) {
		free(h);
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "deny webhook");
	}
	*ret = h;
	return 0;
}

void deny_hook_free(struct deny_hook *h)
{
	if (!h)
		return;
	close_child(h);
	if (h->pid)
		kill(h->pid, SIGTERM);
	while (h->first) {
		struct waiting *w = h->first;

		h->first = w->next;
		free(w);
	}
	loop_timer_free(h->again);
	free(h);
}
