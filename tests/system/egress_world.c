// SPDX-License-Identifier: Apache-2.0
#include "tests/system/egress_world.h"

#include "base/cleanup.h"
#include "base/err.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const uint16_t ports[8] = {22, 80, 443, 853, 8080, 53, 5432, 7};

long now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

_Noreturn static void die(const char *what)
{
	printf("Bail out! %s: %s\n", what, strerror(errno));
	exit(1);
}

int sock_in(const struct world *w, int net_fd, int family, int type, int protocol)
{
	if (setns(net_fd, CLONE_NEWNET) < 0)
		die("enter a namespace");
	int fd = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
	if (setns(w->home_fd, CLONE_NEWNET) < 0)
		die("come back");
	if (fd < 0)
		die("socket");
	return fd;
}

int world_run(int net_fd, const char *command, char *out, size_t size)
{
	int ends[2], status = -1;
	size_t used = 0;

	if (pipe2(ends, O_CLOEXEC) < 0)
		die("pipe");
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		if (setns(net_fd, CLONE_NEWNET) < 0 || dup2(ends[1], 1) < 0)
			_exit(126);
		execl("/bin/sh", "sh", "-c", command, (char *)NULL);
		_exit(127);
	}
	close(ends[1]);
	for (ssize_t n; used + 1 < size && (n = read(ends[0], out + used, size - 1 - used)) > 0;)
		used += (size_t)n;
	if (size)
		out[used] = '\0';
	close(ends[0]);
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int world_sh(int net_fd, const char *command)
{
	static char out[4096];

	return world_run(net_fd, command, out, sizeof(out));
}

/* ---- the world ---- */

static int new_netns(void)
{
	int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);

	if (home < 0 || unshare(CLONE_NEWNET) < 0)
		die("network namespace");
	int fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (fd < 0 || setns(home, CLONE_NEWNET) < 0)
		die("network namespace");
	close(home);
	return fd;
}

static void listeners(struct world *w)
{
	for (size_t i = 0; i < ARRAY_SIZE(ports); i++) {
		struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(ports[i])};
		int on = 1;

		w->listen_fd[i] = sock_in(w, w->world_fd, AF_INET, SOCK_STREAM, 0);
		w->udp_fd[i] = sock_in(w, w->world_fd, AF_INET, SOCK_DGRAM, 0);
		setsockopt(w->listen_fd[i], SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
		if (bind(w->listen_fd[i], (struct sockaddr *)&at, sizeof(at)) < 0 || listen(w->listen_fd[i], 1024) < 0 ||
		    bind(w->udp_fd[i], (struct sockaddr *)&at, sizeof(at)) < 0)
			die("listen outside");
	}
}

int world_dnsd(struct world *w)
{
	struct broker_hello hello = {.version = BROKER_VERSION};
	union broker_any any;

	close_keep_errno(w->dnsd_fd);
	w->dnsd_fd = btc_connect(w->t, w->t->dnsd_uid);
	if (w->dnsd_fd < 0 || !btc_send(w->t, w->dnsd_fd, &hello, sizeof(hello), BROKER_OP_HELLO, -1))
		return -1;
	return btc_recv(w->dnsd_fd, &any, NULL, WAIT_MS) == sizeof(any.hello_reply) ? 0 : -1;
}

int world_start(struct world *w, struct btc *t, const char *name, const char *extra)
{
	char path[128], command[512];

	*w = (struct world){.t = t, .home_fd = -1, .dnsd_fd = -1};
	if (unshare(CLONE_NEWNET) < 0)
		return -1;
	w->home_fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	w->world_fd = new_netns();
	snprintf(command, sizeof(command), "ip link set lo up && ip link add out type veth peer name w0 netns /proc/%d/fd/%d && "
		 "ip addr add 198.51.100.1/24 dev out && ip link set out up", (int)getpid(), w->world_fd);
	if (world_sh(w->home_fd, command) != 0 ||
	    world_sh(w->world_fd, "ip link set lo up && ip addr add 198.51.100.10/24 dev w0 && ip link set w0 up && "
		     "for a in 198.51.100.11 198.51.100.20 10.9.0.5 10.9.0.6 169.254.169.254 8.8.8.8 1.2.3.4 192.168.7.7 100.64.1.1; do "
		     "ip addr add $a/32 dev w0 || exit 1; done; ip route add local 203.0.112.0/20 dev lo") != 0 ||
	    world_sh(w->home_fd, "ip route add default via 198.51.100.10") != 0)
		return -1;
	listeners(w);
	w->packet_fd = sock_in(w, w->world_fd, AF_PACKET, SOCK_DGRAM, htons(ETH_P_IP));
	int bytes = 32 << 20;
	setsockopt(w->packet_fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes));
	btc_keep_netns();
	if (btc_start(t, name, extra) < 0)
		return -1;
	snprintf(path, sizeof(path), "%s/run/router", t->dir);
	w->router_fd = open(path, O_RDONLY | O_CLOEXEC);
	return w->router_fd < 0 ? -1 : world_dnsd(w);
}

void world_stop(struct world *w, bool show_log)
{
	close_keep_errno(w->dnsd_fd);
	close_keep_errno(w->router_fd);
	btc_stop(w->t, show_log);
}

/* ---- sandboxes ---- */

int box_make(struct world *w, struct box *box, bool open_policy)
{
	static struct broker_create create;
	char path[64];

	*box = (struct box){.fds = {-1, -1}, .net_fd = -1};
	btc_host_create(w->t, &create);
	if (!open_policy)
		create.flags &= ~(uint32_t)BROKER_CREATE_EGRESS_OPEN;
	int r = SBX_E_LIMIT;
	/* Those that were ended give their slots back when nothing of them is left. */
	for (long end = now_ms() + WAIT_MS; r == SBX_E_LIMIT && now_ms() < end;) {
		r = btc_create(w->t, &create, &box->made, box->fds);
		if (r == SBX_E_LIMIT)
			poll(NULL, 0, 20);
	}
	if (r)
		return r;
	snprintf(path, sizeof(path), "/proc/%u/ns/net", box->made.pid);
	box->net_fd = open(path, O_RDONLY | O_CLOEXEC);
	/* the test pings as root, whom the sandbox's own range of groups leaves out */
	return box->net_fd < 0 ? -1 : world_sh(box->net_fd, "echo 0 2147483647 >/proc/sys/net/ipv4/ping_group_range");
}

void box_end(struct world *w, struct box *box)
{
	close_keep_errno(box->net_fd);
	box->net_fd = -1;
	btc_slot_call(w->t, BROKER_OP_SANDBOX_KILL, box->made.ref, 0, NULL, NULL);
	close_keep_errno(box->fds[0]);
	close_keep_errno(box->fds[1]);
}

struct broker_ip_rule rule_v4(uint32_t addr, uint32_t prefix, uint32_t flags, uint32_t n, const uint16_t *port)
{
	struct broker_ip_rule rule = {.addr = addr, .prefix = prefix, .flags = flags, .n_ports = n};

	for (uint32_t i = 0; i < n; i++)
		rule.port[i] = port[i];
	return rule;
}

int policy_set(struct world *w, const struct box *box, uint32_t flags, const struct broker_ip_rule *rule, size_t n, uint32_t *ret_mark)
{
	static struct broker_policy msg;
	union broker_any any;
	size_t done = 0;

	do {
		size_t part = n - done < BROKER_POLICY_PART ? n - done : BROKER_POLICY_PART;

		memset(&msg, 0, sizeof(msg));
		msg.ref = box->made.ref;
		msg.first = (uint32_t)done;
		msg.n_rules = (uint32_t)part;
		msg.flags = flags | (done + part == n ? BROKER_POLICY_LAST : 0u);
		if (part)
			memcpy(msg.rule, rule + done, part * sizeof(*rule));
		done += part;
		if (btc_call(w->t, &msg, sizeof(msg), BROKER_OP_POLICY, -1, &any, NULL) <= 0)
			return -1;
		if (any.policy_reply.status)
			return any.policy_reply.status;
	} while (done < n);
	if (ret_mark)
		*ret_mark = any.policy_reply.mark;
	return 0;
}

int pin_set(struct world *w, const struct box *box, uint32_t op, uint32_t addr, uint16_t port, uint32_t lease_ms)
{
	struct broker_pin msg = {.ref = box->made.ref, .n_addrs = 1, .n_ports = port ? 1 : 0, .lease_ms = lease_ms};
	union broker_any any;

	msg.addr[0] = addr;
	msg.port[0] = port;
	if (!btc_send(w->t, w->dnsd_fd, &msg, sizeof(msg), op, -1) || btc_recv(w->dnsd_fd, &any, NULL, WAIT_MS) != sizeof(any.reply))
		return -1;
	if (any.reply.status && getenv("VERBOSE"))
		printf("# %s\n", any.reply.text);
	return any.reply.status;
}

/* ---- traffic ---- */

static struct sockaddr_in at(uint32_t addr, uint16_t port)
{
	return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(addr)};
}

static int socket_error(int fd)
{
	int e = 0;
	socklen_t size = sizeof(e);

	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &size) < 0 ? errno : e;
}

static int tcp_within(const struct world *w, int net_fd, uint32_t addr, uint16_t port, int ms, int *ret_fd)
{
	struct sockaddr_in to = at(addr, port);
	int fd = sock_in(w, net_fd, AF_INET, SOCK_STREAM, 0);
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	int e = connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0 ? errno : 0;

	if (e == EINPROGRESS)
		e = poll(&p, 1, ms) == 1 ? socket_error(fd) : ETIMEDOUT;
	if (e || !ret_fd)
		close(fd);
	if (ret_fd)
		*ret_fd = e ? -1 : fd;
	return e;
}

int tcp_try(const struct world *w, int net_fd, uint32_t addr, uint16_t port, int *ret_fd)
{
	return tcp_within(w, net_fd, addr, port, WAIT_MS, ret_fd);
}

int tcp_quiet(const struct world *w, int net_fd, uint32_t addr, uint16_t port)
{
	return tcp_within(w, net_fd, addr, port, QUIET_MS, NULL);
}

bool closes(const struct world *w, const struct box *box, uint32_t addr, uint16_t port)
{
	for (long end = now_ms() + WAIT_MS; now_ms() < end; poll(NULL, 0, 50))
		if (tcp_within(w, box->net_fd, addr, port, WAIT_MS, NULL) != 0)
			return true;
	return false;
}

bool opens(const struct world *w, const struct box *box, uint32_t addr, uint16_t port)
{
	/* a handshake that was lost is begun anew rather than waited for */
	for (long end = now_ms() + WAIT_MS; now_ms() < end; poll(NULL, 0, 20))
		if (tcp_within(w, box->net_fd, addr, port, 1500, NULL) == 0)
			return true;
	return false;
}

/* What is looked for outside: packets to an address, of one protocol and port (0: any). */
struct look {
	uint32_t addr;
	uint8_t protocol;
	uint16_t port;
};

/* Counts what has arrived; @most ends it. */
static unsigned seen(struct world *w, const struct look *look, unsigned most)
{
	uint8_t buf[128];
	unsigned n = 0;
	ssize_t size;

	while (n < most && (size = recv(w->packet_fd, buf, sizeof(buf), MSG_DONTWAIT)) >= 20) {
		const struct iphdr *ip = (const void *)buf;
		size_t head = ip->ihl * 4u;

		if (ntohl(ip->daddr) != look->addr || (look->protocol && ip->protocol != look->protocol))
			continue;
		if (look->port && ((size_t)size < head + 4 || (buf[head + 2] << 8 | buf[head + 3]) != look->port))
			continue;
		n++;
	}
	return n;
}

static void forget(struct world *w)
{
	seen(w, &(struct look){0}, UINT32_MAX);
}

unsigned world_seen(struct world *w, uint32_t addr)
{
	/* what was sent before is on its way through softirqs of other processors at most */
	poll(NULL, 0, 20);
	return seen(w, &(struct look){.addr = addr}, UINT32_MAX);
}

unsigned world_wait(struct world *w, uint32_t addr, unsigned n)
{
	struct pollfd p = {.fd = w->packet_fd, .events = POLLIN};
	unsigned have = 0;

	for (long end = now_ms() + WAIT_MS; have < n && now_ms() < end;)
		if (poll(&p, 1, 1000) == 1)
			have += seen(w, &(struct look){.addr = addr}, n - have);
	return have + world_seen(w, addr);
}

/* Waits for the packet at the world's end or an error at this one. */
static int arrival(struct world *w, int fd, const struct look *look, int ms)
{
	struct pollfd p[2] = {{.fd = fd, .events = 0}, {.fd = w->packet_fd, .events = POLLIN}};

	for (long end = now_ms() + ms, left; (left = end - now_ms()) > 0;) {
		if (poll(p, 2, (int)left) <= 0)
			return ETIMEDOUT;
		if (seen(w, look, 1))
			return 0;
		int e = p[0].revents ? socket_error(fd) : 0;
		if (e)
			return e;
	}
	return ETIMEDOUT;
}

static int send_until(struct world *w, int fd, const void *data, size_t size, const struct look *look, bool once)
{
	struct sockaddr_in to = at(look->addr, look->port);
	int e;

	forget(w);
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
		return errno;
	long end = now_ms() + (once ? QUIET_MS : WAIT_MS);
	do {
		if (send(fd, data, size, 0) < 0)
			return errno;
		e = arrival(w, fd, look, once ? QUIET_MS : 1000);
	} while (e == ETIMEDOUT && now_ms() < end);
	return e;
}

static int udp_within(struct world *w, int net_fd, uint32_t addr, uint16_t port, bool once)
{
	auto_fd fd = sock_in(w, net_fd, AF_INET, SOCK_DGRAM, 0);

	return send_until(w, fd, "x", 1, &(struct look){.addr = addr, .protocol = IPPROTO_UDP, .port = port}, once);
}

int udp_try(struct world *w, int net_fd, uint32_t addr, uint16_t port)
{
	return udp_within(w, net_fd, addr, port, false);
}

int udp_quiet(struct world *w, int net_fd, uint32_t addr, uint16_t port)
{
	return udp_within(w, net_fd, addr, port, true);
}

static int ping_within(struct world *w, int net_fd, uint32_t addr, size_t bytes, bool once)
{
	auto_fd fd = sock_in(w, net_fd, AF_INET, SOCK_DGRAM, IPPROTO_ICMP);
	uint8_t buf[2048] = {ICMP_ECHO};
	int on = 1;

	setsockopt(fd, SOL_IP, IP_RECVERR, &on, sizeof(on));
	return send_until(w, fd, buf, sizeof(struct icmphdr) + bytes, &(struct look){.addr = addr, .protocol = IPPROTO_ICMP}, once);
}

int ping_try(struct world *w, int net_fd, uint32_t addr, size_t bytes)
{
	return ping_within(w, net_fd, addr, bytes, false);
}

int ping_quiet(struct world *w, int net_fd, uint32_t addr, size_t bytes)
{
	return ping_within(w, net_fd, addr, bytes, true);
}

static int listener(const struct world *w, uint16_t port)
{
	for (size_t i = 0; i < ARRAY_SIZE(ports); i++)
		if (ports[i] == port)
			return w->listen_fd[i];
	return -1;
}

void world_drain(struct world *w, uint16_t port)
{
	for (int fd; (fd = accept(listener(w, port), NULL, NULL)) >= 0;)
		close(fd);
}

int world_accept(struct world *w, uint16_t port)
{
	struct pollfd p = {.fd = listener(w, port), .events = POLLIN};

	return poll(&p, 1, WAIT_MS) == 1 ? accept4(p.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC) : -1;
}

bool moves(int from, int to)
{
	struct pollfd p = {.fd = to, .events = POLLIN};
	char buf[256];
	size_t have = 0;

	while (recv(to, buf, sizeof(buf), MSG_DONTWAIT) > 0)
		;
	if (send(from, "hello", 5, MSG_NOSIGNAL | MSG_DONTWAIT) != 5)
		return false;
	while (have < 5 && poll(&p, 1, WAIT_MS) == 1) {
		ssize_t n = recv(to, buf, sizeof(buf), MSG_DONTWAIT);

		if (n <= 0)
			return false;
		have += (size_t)n;
	}
	return have == 5;
}

bool flow_open(struct world *w, struct flow *f, const struct box *box, uint32_t addr)
{
	/*
	 * A connection is in the queue a moment after its opener heard that it is made: one that was opened and closed just before
	 * may come first.  The right one is that over which the first bytes come.
	 */
	*f = (struct flow){.in = -1, .out = -1};
	world_drain(w, 8080);
	if (tcp_try(w, box->net_fd, addr, 8080, &f->in) != 0 || send(f->in, "first", 5, MSG_NOSIGNAL) != 5)
		return false;
	struct pollfd p = {.events = POLLIN};
	char buf[8];
	do {
		close_keep_errno(f->out);
		f->out = p.fd = world_accept(w, 8080);
		if (f->out < 0 || poll(&p, 1, WAIT_MS) != 1)
			return false;
	} while (recv(f->out, buf, sizeof(buf), MSG_DONTWAIT) <= 0);
	return flow_lives(f);
}

bool flow_lives(const struct flow *f)
{
	return moves(f->in, f->out) && moves(f->out, f->in);
}

void flow_close(struct flow *f)
{
	close_keep_errno(f->in);
	close_keep_errno(f->out);
	f->in = f->out = -1;
}

int wait_error(int fd, int ms, int *ret)
{
	struct pollfd p = {.fd = fd, .events = 0};
	long start = now_ms();

	if (poll(&p, 1, ms ? ms : WAIT_MS) != 1)
		return -1;
	*ret = socket_error(fd);
	return (int)(now_ms() - start);
}
