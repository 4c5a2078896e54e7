// SPDX-License-Identifier: Apache-2.0
/*
 * Egress policies through the end of things (SBX_FAULT=links-guard:fail leaves routes to unmarked packets): the broker killed and stopped under traffic, rules flushed in the router and in the
 * host under a flood, a broker killed in the middle of a change, records that tell something else than the kernel.
 */
#include "tests/system/egress_world.h"
#include "tests/tap.h"

#include "base/cleanup.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIN 60000u

static struct btc t;
static struct world w;

/* A child that sends datagrams from the sandbox to denied addresses and another sandbox as fast as it may. */
static pid_t flood(const struct box *box, const uint32_t *addr, size_t n)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (setns(box->net_fd, CLONE_NEWNET) < 0)
		_exit(1);
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	for (;;) {
		for (size_t i = 0; i < n; i++) {
			struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(7), .sin_addr.s_addr = htonl(addr[i])};

			ignore_result(sendto(fd, "flood", 5, 0, (struct sockaddr *)&to, sizeof(to)));
		}
		poll(NULL, 0, 1); /* two processors for all */
	}
}

static void flood_end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void dump(char *out, size_t size)
{
	/* without what counts down by itself */
	world_run(w.router_fd, "for s in modes stamps rules ports; do nft list map inet sandboxd $s; done; for s in current lease lease_port; do "
		  "nft list set inet sandboxd $s; done | sed 's/ expires [0-9a-z]*//g; s/ timeout [0-9a-z]*//g'", out, size);
}

/* Elements come out in the order of a hash: sorted words are compared. */
static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void sorted(char *text, char *out, size_t size)
{
	static char *word[8192];
	size_t n = 0, used = 0;

	for (char *at = strtok(text, ",\n\t"); at && n < ARRAY_SIZE(word); at = strtok(NULL, ",\n\t"))
		word[n++] = at + strspn(at, " ");
	qsort(word, n, sizeof(word[0]), by_text);
	for (size_t i = 0; i < n && used < size; i++)
		used += (size_t)snprintf(out + used, size - used, "%s\n", word[i]);
}

static bool same_elements(char *before)
{
	static char text[1 << 16], now[1 << 16];

	dump(text, sizeof(text));
	sorted(text, now, sizeof(now));
	if (strcmp(before, now) != 0)
		printf("# before:\n%s# now:\n%s\n", before, now);
	return !strcmp(before, now);
}

static void remember(char *out, size_t size)
{
	static char text[1 << 16];

	dump(text, sizeof(text));
	sorted(text, out, size);
}

static void killed(struct box *a, struct box *b, struct flow *f)
{
	static char before[1 << 16];
	const uint32_t denied[] = {A_OTH, A_PRIV, A_META, b->made.addr};
	unsigned leaked = 0;
	int dead = 0;

	remember(before, sizeof(before));
	world_seen(&w, 0);
	pid_t pid = flood(a, denied, ARRAY_SIZE(denied));
	for (int i = 0; i < 4; i++) {
		kill(t.pid, SIGKILL);
		waitpid(t.pid, NULL, 0);
		t.pid = 0;
		dead += !flow_lives(f) + (tcp_try(&w, a->net_fd, A_OK, 80, NULL) != 0);
		leaked += (tcp_try(&w, a->net_fd, A_OTH, 80, NULL) == 0) + world_seen(&w, A_OTH);
		if (!ok(btc_restart(&t) == 0, "91: the broker killed under a flood starts again"))
			break;
		dead += !flow_lives(f);
	}
	leaked += world_seen(&w, A_OTH) + world_seen(&w, A_PRIV);
	flood_end(pid);
	ok(leaked == 0, "91: %u packets to denied addresses arrived", leaked);
	ok(dead == 0, "91: the live flow and the leased address were never interrupted");
	ok(same_elements(before), "91: the kernel's elements are the same after it");
	ok(world_dnsd(&w) == 0 && pin_set(&w, a, BROKER_OP_PIN, A_OK, 0, MIN) == 0 && pin_set(&w, a, BROKER_OP_UNPIN, A_OK, 0, 0) == 0 &&
	   tcp_try(&w, a->net_fd, A_OK, 80, NULL) != 0, "91: the new broker knows the leases of the old one");
	ok(pin_set(&w, a, BROKER_OP_PIN, A_OK, 0, 60 * MIN) == 0, "91: and makes them");
}

static void stopped(struct box *a)
{
	kill(t.pid, SIGTERM);
	ok(btc_wait_end(&t) == 0, "92: the broker is stopped");
	ok(tcp_try(&w, a->net_fd, A_OTH, 80, NULL) != 0, "92: the denied stays denied");
	ok(tcp_try(&w, a->net_fd, A_OK, 80, NULL) == 0, "92: the leased stays open");
	ok(btc_restart(&t) == 0 && world_dnsd(&w) == 0, "92: it starts again");
}

static void flushed(struct box *a, struct box *b, struct flow *f)
{
	static char before[1 << 16];
	const uint32_t denied[] = {A_OTH, A_PRIV, A_META, b->made.addr};
	auto_fd inside = sock_in(&w, b->net_fd, AF_INET, SOCK_DGRAM, 0);
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(7)};
	unsigned leaked = 0;
	char buf[16];

	ok(bind(inside, (struct sockaddr *)&at, sizeof(at)) == 0, "another sandbox listens");
	remember(before, sizeof(before));
	world_seen(&w, 0);
	pid_t pid = flood(a, denied, ARRAY_SIZE(denied));
	for (int i = 0; i < 6; i++) {
		ok(world_sh(i % 2 ? w.home_fd : w.router_fd, "nft flush ruleset") == 0, "95: nft flush ruleset in the %s", i % 2 ? "host" : "router");
		ok(opens(&w, a, A_OK, 8080), "95: the leased address is open again");
		leaked += world_seen(&w, A_OTH);
	}
	kill(t.pid, SIGSTOP);
	ok(world_sh(w.router_fd, "nft flush ruleset") == 0, "95: flushed while the broker cannot notice");
	poll(NULL, 0, 500);
	ok(tcp_quiet(&w, b->net_fd, A_OK, 80) != 0, "95: nothing is forwarded without rules");
	leaked += world_seen(&w, A_OTH);
	kill(t.pid, SIGCONT);
	ok(opens(&w, a, A_OK, 8080), "95: the broker goes on and puts them back");
	leaked += world_seen(&w, A_OTH) + world_seen(&w, A_PRIV) + world_seen(&w, A_META);
	flood_end(pid);
	ok(leaked == 0, "95: %u packets to denied addresses arrived", leaked);
	ok(recv(inside, buf, sizeof(buf), MSG_DONTWAIT) < 0, "95: none at the other sandbox");
	ok(flow_lives(f), "95: the live flow goes on");
	ok(same_elements(before), "95: policies and leases are what they were");
	ok(world_sh(w.router_fd, "nft insert rule inet sandboxd forward accept") == 0, "95: a rule put in by somebody");
	bool there = true;
	for (long end = now_ms() + WAIT_MS; there && now_ms() < end; poll(NULL, 0, 50))
		there = world_sh(w.router_fd, "nft list chain inet sandboxd forward | grep -x '[[:space:]]*accept'") != 1;
	ok(!there, "95: is taken out");
	ok(opens(&w, a, A_OK, 8080), "95: what is leased opens again");
	ok(tcp_quiet(&w, a->net_fd, A_OTH, 80) != 0, "95: and the denied is closed");
}

/* Killed between two steps of a change; the next broker has to put the old policy back, or have the new one whole. */
static void interrupted(struct box *a)
{
	static const char *const points[] = {"egress-file", "egress-kernel"};
	const struct broker_ip_rule rule = rule_v4(A_OTH, 32, BROKER_RULE_ALLOW, 0, NULL);
	char path[128];

	for (size_t i = 0; i < ARRAY_SIZE(points); i++) {
		char wish[64];
		int status;

		kill(t.pid, SIGTERM);
		ignore_result(btc_wait_end(&t));
		snprintf(path, sizeof(path), "%s/fault", t.dir);
		snprintf(wish, sizeof(wish), "SBX_FAULT=%s:kill", points[i]);
		close_keep_errno(t.fd);
		if (!ok(btc_spawn(&t, wish) == 0 && btc_hello(&t) == 0, "a broker that dies at %s", points[i]))
			return;
		ok(policy_set(&w, a, 0, &rule, 1, NULL) != 0, "a policy that opens an address is not answered");
		ok(waitpid(t.pid, &status, 0) == t.pid && WIFSIGNALED(status), "it was killed there");
		t.pid = 0;
		ok(btc_restart(&t) == 0 && world_dnsd(&w) == 0, "the next broker starts");
		ok(tcp_try(&w, a->net_fd, A_OTH, 80, NULL) != 0, "the address that nobody was told of is closed");
		ok(tcp_try(&w, a->net_fd, A_OK, 80, NULL) == 0, "the leased one is open");
	}
	ok(policy_set(&w, a, 0, &rule, 1, NULL) == 0 && tcp_try(&w, a->net_fd, A_OTH, 80, NULL) == 0, "sent again it is in force");
	ok(btc_restart(&t) == 0 && world_dnsd(&w) == 0 && tcp_try(&w, a->net_fd, A_OTH, 80, NULL) == 0, "and over a restart");
	/* the table is lost while no broker is there: rules come from the files */
	kill(t.pid, SIGKILL);
	waitpid(t.pid, NULL, 0);
	t.pid = 0;
	ok(world_sh(w.router_fd, "nft flush ruleset") == 0 && tcp_quiet(&w, a->net_fd, A_OTH, 80) != 0, "flushed without a broker: closed");
	ok(btc_restart(&t) == 0 && world_dnsd(&w) == 0 && tcp_try(&w, a->net_fd, A_OTH, 80, NULL) == 0, "the next broker knows the rules");
	ok(tcp_try(&w, a->net_fd, A_OK, 80, NULL) != 0, "a lease that nobody remembers is closed");
	ok(pin_set(&w, a, BROKER_OP_PIN, A_OK, 0, 60 * MIN) == 0 && tcp_try(&w, a->net_fd, A_OK, 80, NULL) == 0, "until it is sent again");
	ok(policy_set(&w, a, 0, NULL, 0, NULL) == 0, "default deny again");
}

/* Elements without a record, as after a lost run directory: none of them may serve the next tenant of the address. */
static void strange_elements(struct box *a)
{
	kill(t.pid, SIGKILL);
	waitpid(t.pid, NULL, 0);
	t.pid = 0;
	struct in_addr in = {htonl(a->made.addr + 7)};
	char command[300];
	snprintf(command, sizeof(command), "nft 'add element inet sandboxd lease { %s . 198.51.100.11 timeout 1h }; "
		 "add element inet sandboxd modes { %s : 1 }; add element inet sandboxd stamps { %s : 77 }'", inet_ntoa(in), inet_ntoa(in), inet_ntoa(in));
	ok(world_sh(w.router_fd, command) == 0, "elements that belong to nobody");
	ok(btc_restart(&t) == 0 && world_dnsd(&w) == 0, "the next broker");
	snprintf(command, sizeof(command), "nft list table inet sandboxd | grep -q '%s '", inet_ntoa(in));
	ok(world_sh(w.router_fd, command) != 0, "has taken them out");
	ok(tcp_try(&w, a->net_fd, A_OK, 80, NULL) == 0, "and kept what belongs to somebody");
}

/* Another configuration is another table: flows are judged by it, leases and what is allowed stay. */
static void configured_anew(struct box *a, struct flow *f)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(443), .sin_addr.s_addr = htonl(A_OK)};
	auto_fd quic = sock_in(&w, a->net_fd, AF_INET, SOCK_DGRAM, 0);
	char command[128];

	ok(connect(quic, (struct sockaddr *)&to, sizeof(to)) == 0 && send(quic, "x", 1, 0) == 1 && udp_try(&w, a->net_fd, A_OK, 443) == 0,
	   "a flow that egress.quic lets through");
	snprintf(command, sizeof(command), "sed -i 's/quic = true/quic = false/' %s/config", t.dir);
	ok(world_sh(w.home_fd, command) == 0 && btc_restart(&t) == 0 && world_dnsd(&w) == 0, "a broker that does not");
	ok(udp_try(&w, a->net_fd, A_OK, 443) != 0, "a new one is refused");
	int e = 0;
	bool ended = send(quic, "x", 1, 0) < 0; /* it has the error of its socket's end already, or gets that of the packet */
	ok(ended || wait_error(quic, 0, &e) >= 0, "the old one has ended (%s)", strerror(ended ? errno : e));
	ok(flow_lives(f), "the flow that is still allowed goes on");
	ok(tcp_try(&w, a->net_fd, A_OK, 80, NULL) == 0, "and its lease is there");
	ok(tcp_try(&w, a->net_fd, A_MANY + 1, 80, NULL) == 0, "as are the rules");
}

int main(void)
{
	const struct broker_ip_rule rule = rule_v4(A_MANY, 24, BROKER_RULE_ALLOW, 0, NULL);
	struct box a, b;
	struct flow f;

	if (geteuid() != 0) {
		printf("1..0 # SKIP needs root\n");
		return 0;
	}
	if (!ok(world_start(&w, &t, "egresslife", "[pool]\ntarget = 1\n[egress]\nquic = true\ntls_gate = \"off\"\n") == 0, "a broker and a world"))
		goto out;
	if (!ok(box_make(&w, &a, false) == 0 && box_make(&w, &b, true) == 0 && policy_set(&w, &a, 0, &rule, 1, NULL) == 0 &&
		pin_set(&w, &a, BROKER_OP_PIN, A_OK, 0, 60 * MIN) == 0 && flow_open(&w, &f, &a, A_OK), "two sandboxes, a policy, a lease, a flow"))
		goto out;
	configured_anew(&a, &f);
	killed(&a, &b, &f);
	stopped(&a);
	flushed(&a, &b, &f);
	interrupted(&a);
	strange_elements(&a);
	box_end(&w, &a);
	box_end(&w, &b);
out:
	world_stop(&w, tap_failed > 0);
	return tap_done();
}
