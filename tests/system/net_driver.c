/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Network half of the broker without the broker, for the system tests: makes router, uplink and rules, keeps them as
 * netwatch.c does, and obeys one command a line on stdin:
 *   attach PID GENERATION SLOT   veth for the network namespace of PID; configures eth0 inside as the agent would
 *   drop SLOT                    delete the connections of the slot's address
 *   present IFINDEX              whether the link is there
 *   gone IFINDEX                 wait until netwatch has reported that link gone
 *   open                         whether the uplink is up
 *   dns                          answer DNS questions on the gateway address (echo with one fixed address)
 *   purge                        remove everything and end
 * Each is answered by one line, "ok ..." or "error ...".  Arguments: RUN_DIR INSTANCE SUBNET/PREFIX [ALLOW]...
 */
#include "config.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/num.h"

#include "runtime/broker/fw_rules.h"
#include "runtime/broker/fwset.h"
#include "runtime/broker/links.h"
#include "runtime/broker/netwatch.h"
#include "runtime/broker/sysctl_record.h"

static struct links_config config;
static struct fw_rules_config rules;
static struct links *links;
static struct netwatch *watch;
static struct fwset *fw;
static uint32_t marks[2000]; /* of the slots that were attached */
static struct loop *loop;
static uint32_t gone[4096], n_gone, wait_gone;
static char line[512];
static size_t line_len;

static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	fflush(stdout);
}

static void link_gone(void *arg, uint32_t ifindex)
{
	(void)arg;
	if (n_gone < ARRAY_SIZE(gone))
		gone[n_gone++] = ifindex;
	if (wait_gone && wait_gone == ifindex) {
		wait_gone = 0;
		say("ok gone");
	}
}

static void rules_lost(void *arg, const char *text)
{
	(void)arg;
	fprintf(stderr, "rules lost: %s\n", text);
}

static int fill(void *arg, struct fwset *set, enum netwatch_fill what, struct sbx_err *err)
{
	(void)arg;
	fw = set;
	for (uint32_t slot = 0; what == NETWATCH_FILL_FRESH && slot < ARRAY_SIZE(marks); slot++) {
		const struct fwset_policy p = {.addr = links_addr(&config, slot), .mark = marks[slot], .mode = EGRESS_MODE_OPEN};

		if (marks[slot] && fwset_policy(fw, &p, err) < 0)
			return -1;
	}
	return 0;
}

static int open_slot(uint32_t slot, uint32_t mark, struct sbx_err *err)
{
	struct fwset_policy p = {.addr = links_addr(&config, slot), .old_mark = marks[slot], .mark = mark, .mode = EGRESS_MODE_OPEN};

	if (slot >= ARRAY_SIZE(marks))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "slot %u", slot);
	marks[slot] = mark;
	return fwset_policy(fw, &p, err);
}

static int run(const char *const argv[])
{
	int status = -1;
	pid_t pid = fork();

	if (!pid) {
		execvp(argv[0], (char *const *)(uintptr_t)argv);
		_exit(127);
	}
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status;
}

/* What the agent does in its shell stage, with ip(8). */
static int configure_inside(const char *pid, uint32_t addr, const struct links_end *end)
{
	char text[INET_ADDRSTRLEN], script[512], mac[18];
	uint32_t wire = htonl(addr);
	const uint8_t *m = end->gateway_mac;

	inet_ntop(AF_INET, &wire, text, sizeof(text));
	snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5]);
	snprintf(script, sizeof(script),
		 "if [ -e /proc/sys/net/ipv6 ]; then echo 1 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6; fi && ip link set lo up && ip link set eth0 up && ip addr add %s/32 dev eth0 && "
		 "ip neigh add 169.254.1.1 lladdr %s nud permanent dev eth0 && ip route add default via 169.254.1.1 dev eth0 onlink",
		 text, mac);
	return run((const char *const[]){"nsenter", "-t", pid, "-n", "sh", "-c", script, NULL});
}

static void do_attach(const char *pid_text, uint32_t generation, uint32_t slot)
{
	uint32_t pid, addr = links_addr(&config, slot);
	struct links_end end;
	struct sbx_err err;

	if (num_u32(pid_text, strlen(pid_text), INT32_MAX, &pid) < 0 || !addr)
		say("error bad pid or slot");
	else if (open_slot(slot, generation, &err) < 0)
		say("error %s", err.msg);
	else if (links_attach(links, (pid_t)pid, generation, addr, &end, &err) < 0)
		say("error %s", err.msg);
	else if (configure_inside(pid_text, addr, &end))
		say("error configuring eth0 inside");
	else
		say("ok %u %s", end.ifindex, end.ifname);
}

static void do_drop(uint32_t slot)
{
	struct sbx_err err;
	int n = links_conntrack_drop(links, links_addr(&config, slot), &err);

	if (n < 0)
		say("error %s", err.msg);
	else
		say("ok %d", n);
}

static void do_gone(uint32_t ifindex)
{
	for (uint32_t i = 0; i < n_gone; i++)
		if (gone[i] == ifindex) {
			say("ok gone");
			return;
		}
	wait_gone = ifindex;
}

/* A name server that answers every question with 192.0.2.77: enough to see that the path works. */
static void dns_ready(void *arg, int fd, uint32_t events)
{
	static const uint8_t answer[16] = {0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 192, 0, 2, 77};
	uint8_t buf[512];
	struct sockaddr_in from;
	socklen_t len = sizeof(from);
	ssize_t n = recvfrom(fd, buf, sizeof(buf) - sizeof(answer), MSG_DONTWAIT, (struct sockaddr *)&from, &len);
	size_t end = 12;

	(void)arg;
	(void)events;
	while (n > 12 && end < (size_t)n && buf[end])
		end += buf[end] + 1u;
	end += 5;
	if (n < 17 || end > (size_t)n)
		return;
	buf[2] = 0x81;
	buf[3] = 0x80;
	buf[7] = 1;
	buf[11] = 0;
	memcpy(buf + end, answer, sizeof(answer));
	ignore_result(sendto(fd, buf, end + sizeof(answer), 0, (const struct sockaddr *)&from, len) < 0);
}

static void do_dns(void)
{
	struct sbx_err err;
	int udp, tcp;

	if (links_dns_sockets(links, &udp, &tcp, &err) < 0)
		say("error %s", err.msg);
	else if (!loop_fd_add(loop, udp, EPOLLIN, dns_ready, NULL))
		say("error watch");
	else
		say("ok %d", tcp);
}

static void do_purge(void)
{
	struct sbx_err err;

	netwatch_free(watch);
	watch = NULL;
	if (links_purge(links, &err) < 0 || fw_rules_purge_host(&rules, &err) < 0 || sysctl_record_undo(config.run_dir, &err) < 0)
		say("error %s", err.msg);
	else
		say("ok purged");
	loop_quit(loop, 0);
}

static void obey(char *text)
{
	char *word[4] = {0}, *save = NULL;
	uint32_t a = 0, b = 0;
	size_t n = 0;

	for (char *w = strtok_r(text, " ", &save); w && n < ARRAY_SIZE(word); w = strtok_r(NULL, " ", &save))
		word[n++] = w;
	if (n == 4 && !strcmp(word[0], "attach") && !num_u32(word[2], strlen(word[2]), UINT32_MAX, &a) &&
	    !num_u32(word[3], strlen(word[3]), UINT32_MAX, &b))
		do_attach(word[1], a, b);
	else if (n == 2 && num_u32(word[1], strlen(word[1]), UINT32_MAX, &a) < 0)
		say("error bad number");
	else if (n == 2 && !strcmp(word[0], "drop"))
		do_drop(a);
	else if (n == 2 && !strcmp(word[0], "present"))
		say("ok %d", links_present(links, a));
	else if (n == 2 && !strcmp(word[0], "gone"))
		do_gone(a);
	else if (n == 1 && !strcmp(word[0], "open"))
		say("ok %d", netwatch_open(watch));
	else if (n == 1 && !strcmp(word[0], "dns"))
		do_dns();
	else if (n == 1 && !strcmp(word[0], "purge"))
		do_purge();
	else
		say("error unknown command");
}

static void stdin_ready(void *arg, int fd, uint32_t events)
{
	ssize_t n = read(fd, line + line_len, sizeof(line) - 1 - line_len);
	char *end;

	(void)arg;
	(void)events;
	if (n <= 0) {
		loop_quit(loop, 0);
		return;
	}
	line_len += (size_t)n;
	line[line_len] = '\0';
	while ((end = strchr(line, '\n'))) {
		*end = '\0';
		obey(line);
		line_len -= (size_t)(end + 1 - line);
		memmove(line, end + 1, line_len + 1);
	}
}

static int start(struct sbx_err *err)
{
	struct netwatch_hooks hooks = {.link_gone = link_gone, .rules_lost = rules_lost, .fill = fill};

	loop = loop_new(err);
	links = loop ? links_open(&config, err) : NULL;
	if (!links)
		return -1;
	rules.instance = config.instance;
	rules.uplink_host = links_uplink_host(links);
	rules.uplink_router = links_uplink_router(links);
	rules.subnet_addr = config.subnet_addr;
	rules.subnet_prefix = config.subnet_prefix;
	watch = netwatch_new(loop, links, &rules, config.run_dir, &hooks, err);
	if (!watch)
		return -1;
	if (!loop_fd_add(loop, STDIN_FILENO, EPOLLIN, stdin_ready, NULL))
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "watch stdin");
	return 0;
}

int main(int argc, char **argv)
{
	struct fw_rules_prefix subnet;
	struct sbx_err err;

	log_init("net_driver", LOG_LEVEL_INFO);
	if (argc < 4 || fw_rules_parse_prefix(argv[3], &subnet) < 0)
		return 2;
	config.run_dir = argv[1];
	config.instance = argv[2];
	config.subnet_addr = subnet.addr;
	config.subnet_prefix = subnet.prefix;
	for (int i = 4; i < argc; i++)
		if (rules.n_allow == FW_RULES_ALLOW_MAX || fw_rules_parse_prefix(argv[i], &rules.allow[rules.n_allow++]) < 0)
			return 2;
	if (start(&err) < 0) {
		say("error %s", err.msg);
		return 1;
	}
	say("ok ready %s", links_uplink_host(links));
	int code = loop_run(loop);

	netwatch_free(watch);
	links_free(links);
	return code;
}
