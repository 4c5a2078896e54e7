// SPDX-License-Identifier: Apache-2.0
/*
 * What egress policies cost in packets and messages: a packet through the router's table, a lease, a policy change, each with one
 * sandbox and with many.  Part one loads the table and its elements without a broker; part two asks a broker that has real
 * sandboxes (BENCH_EGRESS_SANDBOXES, default 100).  Root; everything happens in network namespaces of its own.
 */
#include "tests/system/egress_world.h"

#include "base/cleanup.h"
#include "base/num.h"
#include "runtime/broker/fw_rules.h"
#include "runtime/broker/fwset.h"
#include "runtime/broker/links.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <nftables/libnftables.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MANY	 1000u
#define LEASES	 100u /* of each of the many */
#define PACKETS	 200000
#define BLOCK	 200
#define FLOWS	 1500 /* below LIMIT_FLOWS */
#define FLOW_BLOCK 20
#define SAMPLES	 2000

static struct links_config config;
static struct fw_rules_config rules;
static struct links *links;
static struct fwset *fw;
static int home_fd, box_fd, world_fd;

_Noreturn static void die(const char *what, const struct sbx_err *err)
{
	fprintf(stderr, "bench_egress: %s: %s\n", what, err ? err->msg : strerror(errno));
	exit(1);
}

static double now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static int by_value(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static void print_sample(const char *what, double *us, size_t n)
{
	qsort(us, n, sizeof(us[0]), by_value);
	printf("%-62s %8.1f us  p99 %8.1f\n", what, us[n / 2], us[n * 99 / 100]);
	fflush(stdout);
}

static uint32_t addr_of(uint32_t slot)
{
	return links_addr(&config, slot);
}

static void set_policy(uint32_t slot, uint32_t old, uint32_t mark, enum egress_mode mode, const struct egress_plan *was, const struct egress_plan *plan)
{
	const struct fwset_policy p = {.addr = addr_of(slot), .old_mark = old, .mark = mark, .mode = mode, .old_plan = was, .plan = plan};
	struct sbx_err err;

	if (fwset_policy(fw, &p, &err) < 0)
		die("policy", &err);
}

/* ---- the stage ---- */

static void shell(const char *command)
{
	if (world_sh(home_fd, command) != 0)
		die(command, NULL);
}

static pid_t hold_netns(int *ret_fd)
{
	char path[64];
	int ready[2];
	char c;

	if (pipe2(ready, O_CLOEXEC) < 0)
		die("pipe", NULL);
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (unshare(CLONE_NEWNET) < 0 || write(ready[1], "", 1) != 1)
			_exit(1);
		pause();
		_exit(0);
	}
	if (read(ready[0], &c, 1) != 1)
		die("namespace", NULL);
	close(ready[0]);
	close(ready[1]);
	snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)pid);
	*ret_fd = open(path, O_RDONLY | O_CLOEXEC);
	return pid;
}

static void stage(const char *dir)
{
	char command[1024];
	struct links_end end;
	struct sbx_err err;

	if (unshare(CLONE_NEWNET | CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		die("namespaces", NULL);
	home_fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	pid_t world = hold_netns(&world_fd), box = hold_netns(&box_fd);
	snprintf(command, sizeof(command),
		 "ip link set lo up; ip link add out type veth peer name w0 netns %d; ip addr add 198.51.100.1/24 dev out; ip link set out up; "
		 "nsenter -t %d -n sh -c 'ip link set lo up; ip addr add 198.51.100.10/24 dev w0; ip link set w0 up; "
		 "ip route add local 203.0.112.0/20 dev lo; nft \"table inet sink { chain in { type filter hook prerouting priority -500; "
		 "meta l4proto udp drop; }; }\"'; ip route add default via 198.51.100.10; echo 1 >/proc/sys/net/ipv4/ip_forward",
		 (int)world, (int)world);
	shell(command);
	config = (struct links_config){.instance = "bench", .run_dir = dir, .subnet_addr = LINKS_DEFAULT_SUBNET, .subnet_prefix = LINKS_DEFAULT_PREFIX};
	links = links_open(&config, &err);
	if (!links)
		die("links", &err);
	rules = (struct fw_rules_config){.instance = "bench", .uplink_host = links_uplink_host(links), .uplink_router = links_uplink_router(links),
					 .subnet_addr = config.subnet_addr, .subnet_prefix = config.subnet_prefix};
	if (fw_rules_load_router(&rules, links_router_fd(links), &err) < 0 || fw_rules_load_host(&rules, &err) < 0)
		die("rules", &err);
	fw = fwset_open(links_router_fd(links), &err);
	if (!fw || fwset_probe(fw, &err) < 0 || fwset_release(fw, fw_rules_router_version(&rules), &err) < 0 || links_uplink_set(links, true, &err) < 0)
		die("table", &err);
	if (links_attach(links, box, 1, addr_of(0), &end, &err) < 0)
		die("sandbox", &err);
	struct in_addr in = {htonl(addr_of(0))};
	snprintf(command, sizeof(command),
		 "nsenter -t %d -n sh -c 'ip link set lo up; ip link set eth0 up; ip addr add %s/32 dev eth0; ip neigh add 169.254.1.1 lladdr "
		 "02:53:42:58:00:01 nud permanent dev eth0; ip route add default via 169.254.1.1 dev eth0 onlink'", (int)box, inet_ntoa(in));
	shell(command);
}

/* ---- packets ---- */

static int udp_in(int net_fd)
{
	if (setns(net_fd, CLONE_NEWNET) < 0)
		die("enter", NULL);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || setns(home_fd, CLONE_NEWNET) < 0)
		die("socket", NULL);
	return fd;
}

/* Sending runs through router and host within send(): its time is the packet's.  The best block is the one nobody disturbed. */
static double packet_ns(uint32_t addr)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(addr)};
	auto_fd fd = udp_in(box_fd);
	double best = 1e9;

	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
		die("connect", NULL);
	for (int block = 0; block < PACKETS / BLOCK; block++) {
		double start = now_us();

		for (int i = 0; i < BLOCK; i++)
			ignore_result(send(fd, "x", 1, 0));
		double each = (now_us() - start) * 1e3 / BLOCK;
		best = each < best ? each : best;
	}
	return best;
}

static double new_flow_ns(uint32_t addr)
{
	auto_fd fd = udp_in(box_fd);
	double best = 1e9;

	for (int block = 0; block < FLOWS / FLOW_BLOCK; block++) {
		double start = now_us();

		for (int i = 0; i < FLOW_BLOCK; i++) {
			struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)(1024 + block * FLOW_BLOCK + i)),
						 .sin_addr.s_addr = htonl(addr)};

			ignore_result(sendto(fd, "x", 1, 0, (struct sockaddr *)&to, sizeof(to)));
		}
		double each = (now_us() - start) * 1e3 / FLOW_BLOCK;
		best = each < best ? each : best;
	}
	struct sbx_err err;
	if (links_conntrack_drop(links, addr_of(0), &err) < 0)
		die("connections", &err);
	return best;
}

/* The mean of 500 new flows beside @have others of the same sandbox: the count of them is a walk, once a tick. */
static void flows_beside(uint32_t have)
{
	auto_fd fd = udp_in(box_fd);
	struct sbx_err err;
	double start = 0;

	set_policy(0, 0, 1, EGRESS_MODE_OPEN, NULL, NULL);
	for (uint32_t i = 0; i < have + 500; i++) {
		struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)(1024 + i)), .sin_addr.s_addr = htonl(A_OK)};

		if (i == have)
			start = now_us();
		ignore_result(sendto(fd, "x", 1, 0, (struct sockaddr *)&to, sizeof(to)));
	}
	printf("a new flow beside %u others of the sandbox %*s %8.1f us\n", have, 20, "", (now_us() - start) / 500);
	fflush(stdout);
	set_policy(0, 1, 0, EGRESS_MODE_NONE, NULL, NULL);
	if (links_conntrack_drop(links, addr_of(0), &err) < 0)
		die("connections", &err);
}

static void packets(const char *what)
{
	static const struct broker_ip_rule some[] = {{.addr = 0xcb007100, .prefix = 24, .flags = BROKER_RULE_ALLOW},
						     {.addr = 0x01000000, .prefix = 8, .flags = 0}};
	const struct fwset_pin pin = {.addr = A_OK, .timeout_ms = 600000};
	struct egress_plan plan;
	struct sbx_err err;

	set_policy(0, 0, 1, EGRESS_MODE_OPEN, NULL, NULL);
	printf("%-40s default allow %5.0f ns a packet, %5.0f a new flow;", what, packet_ns(A_OK), new_flow_ns(A_OK));
	set_policy(0, 1, 2, EGRESS_MODE_LEASED, NULL, NULL);
	if (fwset_pin(fw, addr_of(0), &pin, 1, &err) < 0 || egress_plan_make(some, 2, &plan, &err) < 0)
		die("lease", &err);
	printf(" leased %5.0f, %5.0f;", packet_ns(A_OK), new_flow_ns(A_OK));
	set_policy(0, 2, 3, EGRESS_MODE_LEASED, NULL, &plan);
	printf(" by rule %5.0f, %5.0f\n", packet_ns(0xcb007105), new_flow_ns(0xcb007105));
	set_policy(0, 3, 0, EGRESS_MODE_NONE, &plan, NULL);
	egress_plan_clear(&plan);
	if (fwset_unpin(fw, addr_of(0), &pin, 1, &err) < 0)
		die("lease", &err);
	fflush(stdout);
}

static void bare_packet(void)
{
	/* the same way with the table's chains replaced by an empty one that marks */
	if (world_sh(links_router_fd(links), "nft 'flush ruleset; table inet t { chain raw { type filter hook prerouting priority -450; meta mark set 0x53; }; "
		     "chain track { type filter hook forward priority 0; ct state established accept; }; }'") != 0)
		die("empty table", NULL);
	printf("%-40s               %5.0f ns a packet\n", "no filter, connection tracking only", packet_ns(A_OK));
}

/* ---- leases and policies, straight ---- */

static void lease_latency(const char *what)
{
	static double us[SAMPLES];
	struct sbx_err err;

	for (uint32_t i = 0; i < SAMPLES; i++) {
		const struct fwset_pin pin = {.addr = 0x02000000 + i, .timeout_ms = 60000};
		double start = now_us();

		if (fwset_pin(fw, addr_of(0), &pin, 1, &err) < 0)
			die("lease", &err);
		us[i] = now_us() - start;
	}
	print_sample(what, us, SAMPLES);
	for (uint32_t i = 0; i < SAMPLES; i++) {
		const struct fwset_pin pin = {.addr = 0x02000000 + i};

		if (fwset_unpin(fw, addr_of(0), &pin, 1, &err) < 0)
			die("lease", &err);
	}
}

static void lease_by_library(const char *what, size_t n)
{
	static double us[SAMPLES];
	struct nft_ctx *ctx;
	char text[128];

	if (setns(links_router_fd(links), CLONE_NEWNET) < 0)
		die("router", NULL);
	ctx = nft_ctx_new(NFT_CTX_DEFAULT);
	if (setns(home_fd, CLONE_NEWNET) < 0 || !ctx)
		die("libnftables", NULL);
	for (size_t i = 0; i < n; i++) {
		struct in_addr in = {htonl(addr_of(0))};

		snprintf(text, sizeof(text), "add element inet sandboxd lease { %s . 3.0.%zu.%zu timeout 60s }", inet_ntoa(in), i / 256, i % 256);
		double start = now_us();
		if (nft_run_cmd_from_buffer(ctx, text) != 0)
			die("libnftables", NULL);
		us[i] = now_us() - start;
	}
	print_sample(what, us, n);
	nft_ctx_free(ctx);
}

static void fill(void)
{
	static struct fwset_pin pin[LEASES];
	struct sbx_err err;

	for (uint32_t slot = 1; slot < MANY; slot++) {
		set_policy(slot, 0, 100 + slot, EGRESS_MODE_LEASED, NULL, NULL);
		for (uint32_t i = 0; i < LEASES; i++)
			pin[i] = (struct fwset_pin){.addr = 0x04000000 + slot * LEASES + i, .timeout_ms = 3600000};
		if (fwset_pin(fw, addr_of(slot), pin, LEASES, &err) < 0)
			die("leases", &err);
	}
}

static void policy_change(const char *what, const struct egress_plan *was, const struct egress_plan *plan, uint32_t old, uint32_t new)
{
	double start = now_us();

	for (uint32_t slot = 1; slot < MANY; slot++)
		set_policy(slot, old + slot, new + slot, EGRESS_MODE_LEASED, was, plan);
	printf("%-62s %8.1f ms\n", what, (now_us() - start) / 1e3);
	fflush(stdout);
}

static void straight(void)
{
	struct broker_ip_rule rule[10] = {0};
	struct egress_plan plan;
	struct sbx_err err;

	for (uint32_t i = 0; i < ARRAY_SIZE(rule); i++)
		rule[i] = rule_v4(0x05000000 + (i << 16), 16, i % 2 ? BROKER_RULE_ALLOW : 0, 0, NULL);
	if (egress_plan_make(rule, ARRAY_SIZE(rule), &plan, &err) < 0)
		die("plan", &err);
	packets("packets, 1 sandbox:");
	flows_beside(0);
	flows_beside(3500);
	flows_beside(0);
	flows_beside(3500);
	lease_latency("lease by netlink, acknowledged, 1 sandbox");
	lease_by_library("lease by libnftables, 1 sandbox", 200);
	fill();
	packets("packets, 1,000 sandboxes, 100,000 leases:");
	lease_latency("lease by netlink, 1,000 sandboxes, 100,000 leases");
	lease_by_library("lease by libnftables, 1,000 sandboxes, 100,000 leases", 20);
	policy_change("policy change of 999 sandboxes, no address rules", NULL, NULL, 100, 2000);
	policy_change("policy change of 999 sandboxes, 10 address rules more", NULL, &plan, 2000, 4000);
	policy_change("policy change of 999 sandboxes, the same 10 rules", &plan, &plan, 4000, 6000);
	egress_plan_clear(&plan);
	bare_packet();
}

/* ---- through the broker ---- */

static int pin_by(const struct world *w, const struct broker_slot_ref ref, uint32_t addr)
{
	struct broker_pin msg = {.ref = ref, .n_addrs = 1, .lease_ms = 60000};
	union broker_any any;

	msg.addr[0] = addr;
	return btc_send(w->t, w->dnsd_fd, &msg, sizeof(msg), BROKER_OP_PIN, -1) && btc_recv(w->dnsd_fd, &any, NULL, 10000) > 0 ? any.reply.status : -1;
}

/* Without its children, in ticks of 10 ms. */
static double broker_cpu_ms(pid_t pid)
{
	char path[64], text[512];

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	auto_fd fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	text[n > 0 ? n : 0] = '\0';
	const char *at = strrchr(text, ')');
	uint64_t ticks = 0;
	/* utime and stime are the 12th and 13th word behind the name */
	for (int word = 0; at && word < 13; word++) {
		uint64_t value = 0;

		at = strchr(at + 1, ' ');
		if (at && word >= 11 && num_u64(at + 1, strspn(at + 1, "0123456789"), UINT64_MAX, &value) == 0)
			ticks += value;
	}
	return (double)ticks * 10;
}

static void by_broker(void)
{
	const char *text = getenv("BENCH_EGRESS_SANDBOXES");
	uint64_t wanted = 100;
	size_t made = 0;
	static double us[SAMPLES];
	static struct btc t;
	static struct world w;
	char what[80], slots[32];

	if (text && num_u64(text, strlen(text), 1900, &wanted) < 0)
		die("BENCH_EGRESS_SANDBOXES", NULL);
	size_t n = (size_t)wanted;
	struct box *box = calloc(n, sizeof(*box));

	snprintf(slots, sizeof(slots), "%zu", n + 4);
	setenv("BTC_SLOTS", slots, 1);
	if (!box || world_start(&w, &t, "benchegress", "[pool]\ntarget = 0\n") < 0)
		die("broker", NULL);
	while (made < n && box_make(&w, &box[made], false) == 0)
		made++;
	for (size_t i = 0; i < made; i++)
		if (policy_set(&w, &box[i], 0, NULL, 0, NULL) != 0)
			die("policy", NULL);
	for (uint32_t i = 0; i < SAMPLES; i++) {
		double start = now_us();

		if (pin_by(&w, box[0].made.ref, 0x02000000 + i) != 0)
			die("pin", NULL);
		us[i] = now_us() - start;
	}
	snprintf(what, sizeof(what), "PIN sent to answer, broker with %zu sandboxes", made);
	print_sample(what, us, SAMPLES);
	const struct broker_ip_rule rule = rule_v4(0x05000000, 16, BROKER_RULE_ALLOW, 0, NULL);
	for (int round = 0; round < 6; round++) {
		double start = now_us(), *each = us, cpu = broker_cpu_ms(t.pid);

		for (size_t i = 0; i < made; i++) {
			double begin = now_us();

			if (policy_set(&w, &box[i], 0, &rule, (size_t)round % 2, NULL) != 0)
				die("policy", NULL);
			each[i] = now_us() - begin;
		}
		double all = now_us() - start;
		snprintf(what, sizeof(what), "POLICY, %d address rules, each of %zu sandboxes", round % 2, made);
		print_sample(what, each, made);
		printf("    all, one after another: %.1f ms; processor time of the broker %.0f ms, the longest %.1f ms\n", all / 1e3,
		       broker_cpu_ms(t.pid) - cpu, each[made - 1] / 1e3);
	}
	for (size_t i = 0; i < made; i++)
		box_end(&w, &box[i]);
	world_stop(&w, false);
	free(box);
}

int main(void)
{
	char dir[] = "/tmp/bench_egress.XXXXXX";

	if (geteuid() != 0 || !mkdtemp(dir)) {
		fprintf(stderr, "bench_egress: needs root\n");
		return 1;
	}
	pid_t pid = fork();
	if (pid == 0) {
		stage(dir);
		straight();
		exit(0);
	}
	int status = 1;
	waitpid(pid, &status, 0);
	rmdir(dir);
	if (status)
		return 1;
	by_broker();
	return 0;
}
