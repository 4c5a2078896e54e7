/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Texts of the two rule sets and the child that hands them to libnftables.  Everything that goes into a text is a number, an
 * interface name that we made or an instance name of [a-z0-9-].
 */
#include "config.h"

#include "runtime/broker/fw_rules_int.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <nftables/libnftables.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fault.h"
#include "base/limits.h"
#include "base/num.h"

#include "runtime/broker/broker_msg.h"
#include "runtime/broker/egress_plan.h"
#include "runtime/broker/fwset.h"
#include "runtime/broker/links.h"

/* Thousands of foreign rules (Docker, fail2ban) are read whole; the first use loads ten modules, which took over a minute emulated. */
#define CHILD_SECONDS 240u
#define OUTPUT_MAX    (8u << 20)

/* ---- the child ---- */

static int feed(const char *text, int out_fd)
{
	struct nft_ctx *ctx = nft_ctx_new(NFT_CTX_DEFAULT);
	const char *answer;
	int r;

	if (!ctx || nft_ctx_buffer_error(ctx) || nft_ctx_buffer_output(ctx))
		return 3;
	nft_ctx_output_set_flags(ctx, NFT_CTX_OUTPUT_HANDLE | NFT_CTX_OUTPUT_NUMERIC_PRIO);
	r = nft_run_cmd_from_buffer(ctx, text);
	answer = r ? nft_ctx_get_error_buffer(ctx) : nft_ctx_get_output_buffer(ctx);
	for (size_t n = answer ? strlen(answer) : 0; n;) {
		ssize_t w = write(out_fd, answer, n);

		if (w <= 0)
			return 3;
		answer += w;
		n -= (size_t)w;
	}
	return r ? 1 : 0;
}

static _Noreturn void child(const char *text, int netns_fd, int out_fd)
{
	struct rlimit none = {0};
	sigset_t all;

	/* The broker blocks signals for its loop; the alarm must come through, and an end of the broker ends us. */
	sigemptyset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	signal(SIGALRM, SIG_DFL);
	signal(SIGPIPE, SIG_DFL);
	alarm(CHILD_SECONDS);
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || setrlimit(RLIMIT_CORE, &none) < 0)
		_exit(3);
	if (netns_fd >= 0 && setns(netns_fd, CLONE_NEWNET) < 0)
		_exit(3);
	_exit(feed(text, out_fd));
}

/* Without an exit signal the child is no business of the broker's SIGCHLD handler, which waits for any child. */
static pid_t fork_quiet(int *ret_pidfd)
{
	struct clone_args {
		uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls;
	} args = {.flags = CLONE_PIDFD, .pidfd = (uint64_t)(uintptr_t)ret_pidfd};

	return (pid_t)syscall(SYS_clone3, &args, sizeof(args));
}

static int read_all(int fd, struct buf *out)
{
	for (;;) {
		char *room = buf_reserve(out, 16384);
		ssize_t n = room ? read(fd, room, 16384) : -1;

		if (n < 0)
			return room ? -errno : -ENOMEM;
		if (!n)
			return 0;
		buf_commit(out, (size_t)n);
	}
}

/* Runs commands in the namespace (-1: ours) and leaves the answer in @out; Return: 0, 1 (refused, @out says why) or -errno */
static int run_child(const char *text, int netns_fd, struct buf *out)
{
	auto_fd read_end = -1;
	auto_fd write_end = -1;
	auto_fd pidfd = -1;
	siginfo_t info = {0};
	int ends[2], r;
	pid_t pid;

	if (FAULT_POINT("fw-rules"))
		return -EIO;
	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	read_end = ends[0];
	write_end = ends[1];
	pid = fork_quiet(&pidfd);
	if (pid < 0)
		return -errno;
	if (!pid)
		child(text, netns_fd, write_end);
	replace_fd(&write_end, -1);
	r = read_all(read_end, out);
	/* Also when reading failed: a writer that nobody reads gets SIGPIPE. */
	replace_fd(&read_end, -1);
	while (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | __WALL) < 0)
		if (errno != EINTR)
			return -errno;
	if (r < 0)
		return r;
	if (info.si_code != CLD_EXITED)
		return -EINTR;
	return info.si_status == 0 || info.si_status == 1 ? info.si_status : -EPROTO;
}

/* @text is a buffer that was filled with buf_printf(): a failed append is found here. */
static int run_text(struct buf *text, int netns_fd, struct buf *out, const char *what, struct sbx_err *err)
{
	const char *commands = buf_str(text), *said;
	int r;

	if (!commands)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "%s", what);
	r = run_child(commands, netns_fd, out);
	if (!r)
		return 0;
	said = buf_str(out);
	if (r < 0 || !said)
		return sbx_err_set(err, SBX_E_SYSTEM, r < 0 ? -r : 0, "%s", what);
	return sbx_err_set(err, SBX_E_SYSTEM, 0, "%s: %.*s", what, (int)strcspn(said, "\n"), said);
}

/* ---- pieces of text ---- */

struct dotted {
	char text[INET_ADDRSTRLEN];
};

static struct dotted dotted(uint32_t addr)
{
	struct dotted d;
	uint32_t wire = htonl(addr);

	inet_ntop(AF_INET, &wire, d.text, sizeof(d.text));
	return d;
}

int fw_rules_parse_prefix(const char *text, struct fw_rules_prefix *ret)
{
	size_t n = strcspn(text, "/");
	char addr[INET_ADDRSTRLEN];
	uint32_t wire, host, prefix = 32;

	if (n >= sizeof(addr))
		return -EINVAL;
	memcpy(addr, text, n);
	addr[n] = '\0';
	if (inet_pton(AF_INET, addr, &wire) != 1)
		return -EINVAL;
	if (text[n] && num_u32(text + n + 1, strlen(text + n + 1), 32, &prefix) < 0)
		return -EINVAL;
	host = ntohl(wire);
	if (prefix < 32 && (host & (UINT32_MAX >> prefix)))
		return -EINVAL;
	ret->addr = host;
	ret->prefix = prefix;
	return 0;
}

/* Overlapping elements of an interval set are an error for the kernel: `auto-merge` joins them. */
static void put_prefix_set(struct buf *b, const char *name, const struct fw_rules_config *config, uint32_t min_prefix)
{
	size_t n = 0;

	buf_printf(b, "\tset %s {\n\t\ttype ipv4_addr\n\t\tflags interval\n\t\tauto-merge\n", name);
	for (size_t i = 0; i < config->n_allow; i++)
		if (config->allow[i].prefix >= min_prefix)
			buf_printf(b, "%s%s/%u", n++ ? ", " : "\t\telements = { ", dotted(config->allow[i].addr).text,
				   config->allow[i].prefix);
	buf_printf(b, "%s\t}\n", n ? " }\n" : "");
}

/* ---- the router ---- */

/*
 * Ranges that are never the internet: RFC 6890 "special-purpose" without the documentation nets, which some labs route.
 * 169.254.0.0/16, the host and the sandboxes have rules of their own before it.
 */
static const struct fw_rules_prefix private_ranges[] = {
	{0x00000000, 8}, {0x0a000000, 8}, {0x64400000, 10}, {0x7f000000, 8}, {0xa9fe0000, 16}, {0xac100000, 12},
	{0xc0000000, 24}, {0xc0a80000, 16}, {0xc6120000, 15}, {0xe0000000, 3},
};

static bool in_prefix(const struct fw_rules_prefix *p, uint32_t addr)
{
	return !p->prefix || !((addr ^ p->addr) >> (32 - p->prefix));
}

bool fw_rules_private(uint32_t addr)
{
	for (size_t i = 0; i < ARRAY_SIZE(private_ranges); i++)
		if (in_prefix(&private_ranges[i], addr))
			return true;
	return false;
}

bool fw_rules_allowed(const struct fw_rules_config *config, uint32_t addr, uint32_t min_prefix)
{
	for (size_t i = 0; i < config->n_allow; i++)
		if (config->allow[i].prefix >= min_prefix && in_prefix(&config->allow[i], addr))
			return true;
	return false;
}

bool fw_rules_allowed6(const struct fw_rules_config *config, struct ip6 addr, uint32_t min_prefix)
{
	for (size_t i = 0; i < config->n_allow6; i++)
		if (config->allow6[i].prefix >= min_prefix && ip6_in(addr, &config->allow6[i]))
			return true;
	return false;
}

/*
 * Every packet that may be routed carries this mark: the router's routes exist for it only (links.c), so that nothing is
 * forwarded while the table is missing.  Rejects answer with the mark of what they refuse.
 */
static void put_router_raw(struct buf *b, const struct fw_family *f, const struct fw_rules_config *c)
{
	/* Before defragmentation (-400) and connection tracking (-200): a forged source costs no memory. */
	buf_printf(b,
		   "\tset dns_rate {\n\t\ttype ipv4_addr\n\t\tsize 65536\n\t\tflags dynamic,timeout\n\t\ttimeout 1m\n\t}\n"
		   "\tset echo_rate {\n\t\ttype ipv4_addr\n\t\tsize 65536\n\t\tflags dynamic,timeout\n\t\ttimeout 1m\n\t}\n"
		   "\tchain raw {\n"
		   "\t\ttype filter hook prerouting priority -450; policy drop;\n"
		   "\t\tmeta mark set %u\n"
		   "\t\tiifname \"lo\" accept\n"
		   "%s"
		   "%s"
		   "\t\tmeta nfproto != ipv4 drop\n"
		   "\t\tfib saddr . mark . iif oif missing drop\n"
		   "\t\tiifname \"%s\" accept\n"
		   "\t\tip hdrlength != 5 drop\n"
		   "%s"
		   "\t\tip protocol icmp goto echo\n"
		   "\t\tudp dport 53 goto dns\n"
		   "\t\ttcp dport 53 goto dns\n",
		   LINKS_ROUTE_MARK, c->gate ? "\t\tiifname \"" LINKS_GATE "\" accept\n" : "", c->ipv6 ? "\t\tmeta nfproto ipv6 goto raw6\n" : "", c->uplink_router,
		   FAULT_POINT("fw-fragments") ? "" : "\t\tip frag-off & 0x3fff != 0 drop\n");
	fw_rules_put_gate_raw(b, f, c);
	buf_puts(b, "\t\taccept\n\t}\n");
	/* A ping carries data: few and small ones are enough to see whether something is there. */
	buf_puts(b, "\tchain echo {\n");
	if (!FAULT_POINT("fw-echo-size"))
		buf_printf(b, "\t\tip length > %u drop\n", ECHO_BYTES + 28);
	buf_printf(b,
		   "\t\tupdate @echo_rate { ip saddr limit rate over %u/second burst %u packets } drop\n"
		   "\t\taccept\n"
		   "\t}\n",
		   ECHO_PER_SECOND, ECHO_PER_SECOND * 2);
}

/* What the router itself answers goes back by the routes of LINKS_ROUTE_MARK. */
static void put_router_local(struct buf *b, const struct fw_rules_config *c)
{
	buf_printf(b,
		   "\tchain input {\n"
		   "\t\ttype filter hook input priority filter; policy drop;\n"
		   "\t\tiifname \"lo\" accept\n"
		   "\t\tiifname \"%s\" drop\n"
		   "\t\tmeta mark %u meta mark set %u accept\n"
		   "\t\tip daddr 169.254.1.1 icmp type echo-request limit rate 100/second accept\n"
		   "\t\tmeta l4proto tcp reject with tcp reset\n"
		   "\t}\n"
		   "\tchain output {\n"
		   "\t\ttype filter hook output priority raw; policy accept;\n"
		   "\t\tudp sport 53 notrack\n"
		   "\t\ttcp sport 53 notrack\n"
		   "\t}\n",
		   c->uplink_router, LINKS_NAMES_MARK, LINKS_ROUTE_MARK);
}

/* Elements come and go by fwset.c, which says what each of them means. */
static void put_router_sets(struct buf *b)
{
	buf_printf(b,
		   "\tset host4 {\n\t\ttype ipv4_addr\n\t}\n"
		   "\tmap modes {\n\t\ttype ipv4_addr : mark\n\t\tsize %u\n\t}\n"
		   "\tmap stamps {\n\t\ttype ipv4_addr : mark\n\t\tsize %u\n\t}\n"
		   "\tset current {\n\t\ttype ipv4_addr . mark\n\t\tsize %u\n\t}\n"
		   "\tmap rules {\n\t\ttype ipv4_addr . ipv4_addr . mark : mark\n\t}\n"
		   "\tmap ports {\n\t\ttype ipv4_addr . mark . inet_service : mark\n\t}\n"
		   "\tset lease {\n\t\ttype ipv4_addr . ipv4_addr\n\t\tflags timeout\n\t}\n"
		   "\tset lease_port {\n\t\ttype ipv4_addr . ipv4_addr . inet_service\n\t\tflags timeout\n\t}\n"
		   "\tset no_rate {\n\t\ttype ipv4_addr\n\t\tsize 65536\n\t\tflags dynamic,timeout\n\t\ttimeout 1m\n\t}\n"
		   "\tset log_rate {\n\t\ttype ipv4_addr\n\t\tsize 65536\n\t\tflags dynamic,timeout\n\t\ttimeout 1m\n\t}\n"
		   /* The table of connections is the host's and all sandboxes': nobody may fill it alone. */
		   "\tset flows {\n\t\ttype ipv4_addr\n\t\tsize 65536\n\t\tflags dynamic\n\t}\n",
		   SOURCES_MAX, SOURCES_MAX, SOURCES_MAX);
}

static void put_private(struct buf *b)
{
	buf_puts(b, "\t\tct original ip daddr != @allow4 ct original ip daddr { ");
	for (size_t i = 0; i < ARRAY_SIZE(private_ranges); i++)
		buf_printf(b, "%s%s/%u", i ? ", " : "", dotted(private_ranges[i].addr).text, private_ranges[i].prefix);
	buf_printf(b, " } goto no_%02d\n", BROKER_REFUSED_PRIVATE);
}

static const struct fw_family family4 = {
	.ip = "ip", .chain = "", .doh_set = "doh4", .tcp_udp = {"tcp", "udp"}, .dns_to_many = "\t\tip daddr >= 224.0.0.0 accept\n",
	.fault_dns = "fw-dns", .fault_dns_rate = "fw-dns-rate", .put_private = put_private,
};

static void put_router_forward(struct buf *b, const struct fw_rules_config *c)
{
	const int r = (int)EGRESS_MODE_RULES;

	/* The order is the order of verdicts: never, then rules, then private, then leases and the default. */
	buf_printf(b,
		   "\tchain judge {\n"
		   "\t\tct original ip daddr 169.254.0.0/16 goto no_%02d\n"
		   "\t\tct original ip daddr %s/%u goto no_%02d\n"
		   "\t\tct original ip daddr @host4 ct original ip daddr != @allow_host4 goto no_%02d\n"
		   "\t\tct original protocol != { icmp, tcp, udp } goto no_%02d\n"
		   "\t\tct state new icmp type != echo-request goto no_%02d\n"
		   "\t\tmeta mark set ct original ip saddr map @modes\n"
		   "\t\tmeta mark vmap { %d : goto open, %d : goto names, %d : goto leased, %d : goto rules, %d : goto rules, %d : goto rules }\n"
		   "\t\tgoto no_%02d\n"
		   "\t}\n",
		   BROKER_REFUSED_METADATA, dotted(c->subnet_addr).text, c->subnet_prefix, BROKER_REFUSED_SANDBOX, BROKER_REFUSED_HOST,
		   BROKER_REFUSED_PROTOCOL, BROKER_REFUSED_PROTOCOL, EGRESS_MODE_OPEN, EGRESS_MODE_NAMES, EGRESS_MODE_LEASED,
		   r + EGRESS_MODE_OPEN, r + EGRESS_MODE_NAMES, r + EGRESS_MODE_LEASED, BROKER_REFUSED_CLOSED);
	/*
	 * A new connection has mark 0, which is never current: one lookup is the whole way of a packet that was judged before.  An ICMP
	 * error belongs to the flow that it is about, and that may be another sandbox's: what is not its sender's own is not judged at all.
	 */
	buf_printf(b,
		   "\tchain hold {\n\t\tdrop\n\t}\n"
		   "\tchain forward {\n"
		   "\t\ttype filter hook forward priority filter; policy drop;\n"
		   "\t\tjump hold\n"
		   "\t\tct state invalid drop\n"
		   "%s",
		   c->ipv6 ? "\t\tmeta nfproto ipv6 goto forward6\n" : "");
	fw_rules_put_gate_forward(b, &family4, c);
	buf_printf(b,
		   "\t\tiifname \"%s\" goto inbound\n"
		   "\t\toifname != \"%s\" goto no_%02d\n"
		   "\t\tip saddr . ct mark @current accept\n"
		   "\t\tct state related goto no_%02d\n"
		   "\t\tgoto judge\n"
		   "\t}\n"
		   "\tchain inbound {\n"
		   "\t\tip daddr . ct mark @current accept\n"
		   "\t\tct state established,related goto judge\n"
		   "\t}\n",
		   c->uplink_router, c->uplink_router, BROKER_REFUSED_SANDBOX, BROKER_REFUSED_PROTOCOL);
}

static void put_doh(struct buf *b, const struct fw_rules_config *c)
{
	buf_puts(b, "\tset doh4 {\n\t\ttype ipv4_addr\n\t\tflags interval\n\t\tauto-merge\n");
	for (size_t i = 0; i < c->n_doh; i++)
		buf_printf(b, "%s%s/%u", i ? ", " : "\t\telements = { ", dotted(c->doh[i].addr).text, c->doh[i].prefix);
	buf_printf(b, "%s\t}\n", c->n_doh ? " }\n" : "");
}

static void put_router(struct buf *b, const struct fw_rules_config *c)
{
	/* `delete` needs something to delete: one transaction makes, empties and fills the table. */
	buf_puts(b, "add table inet " FW_RULES_ROUTER_TABLE "\ndelete table inet " FW_RULES_ROUTER_TABLE "\ntable inet " FW_RULES_ROUTER_TABLE " {\n");
	put_prefix_set(b, "allow4", c, 0);
	put_prefix_set(b, "allow_host4", c, 32);
	put_doh(b, c);
	put_router_sets(b);
	if (c->ipv6)
		fw_rules6_router(b, c);
	put_router_raw(b, &family4, c);
	fw_rules_put_dns(b, &family4, "169.254.1.1", c);
	put_router_local(b, c);
	fw_rules_put_refusals(b, &family4, c);
	fw_rules_put_modes(b, &family4, c);
	fw_rules_put_rules(b, &family4, c);
	fw_rules_put_gate(b, &family4, c);
	fw_rules_put_gate_hook(b, c);
	put_router_forward(b, c);
	buf_puts(b, "}\n");
}

uint64_t fw_rules_router_version(const struct fw_rules_config *config)
{
	auto_buf text = {0};
	uint64_t hash = UINT64_C(14695981039346656037) ^ FWSET_CHAINS_VERSION ^ (config->ipv6 ? FWSET_CHAINS6_VERSION << 16 : 0);

	put_router(&text, config);
	for (const char *c = buf_str(&text); c && *c; c++)
		hash = (hash ^ (uint8_t)*c) * UINT64_C(1099511628211);
	return hash;
}

int fw_rules_load_router(const struct fw_rules_config *config, int router_fd, struct sbx_err *err)
{
	auto_buf text = {0};
	auto_buf out = {.max = OUTPUT_MAX};

	put_router(&text, config);
	return run_text(&text, router_fd, &out, "rules of the router", err);
}

/* ---- the host ---- */

static void put_host_table(struct buf *b, const struct fw_rules_config *c)
{
	const char *up = c->uplink_host;
	struct dotted subnet = dotted(c->subnet_addr);
	char subnet6[INET6_ADDRSTRLEN];

	buf_printf(b, "add table inet sandboxd-%s\ndelete table inet sandboxd-%s\ntable inet sandboxd-%s {\n", c->instance, c->instance,
		   c->instance);
	put_prefix_set(b, "allow_host4", c, 32);
	if (c->ipv6)
		fw_rules6_host_sets(b, c);
	buf_printf(b,
		   "\tchain prerouting {\n"
		   "\t\ttype filter hook prerouting priority raw; policy accept;\n"
		   "\t\tiifname \"%s\" ip saddr != %s/%u drop\n",
		   up, subnet.text, c->subnet_prefix);
	if (c->ipv6)
		fw_rules6_host_prerouting(b, c);
	else
		buf_printf(b, "\t\tiifname \"%s\" meta nfproto != ipv4 drop\n", up);
	buf_printf(b,
		   "\t\tiifname != \"%s\" ip saddr %s/%u drop\n"
		   "\t}\n"
		   "\tchain input {\n"
		   "\t\ttype filter hook input priority filter; policy accept;\n"
		   "\t\tiifname \"%s\" ip daddr @allow_host4 accept\n",
		   up, subnet.text, c->subnet_prefix, up);
	if (c->ipv6)
		buf_printf(b, "\t\tiifname \"%s\" ip6 daddr @allow_host6 accept\n", up);
	buf_printf(b, "\t\tiifname \"%s\" drop\n\t}\n", up);
	buf_printf(b,
		   "\tchain forward {\n"
		   "\t\ttype filter hook forward priority filter; policy accept;\n"
		   "\t\tiifname \"%s\" oifname \"%s\" drop\n"
		   "\t\tiifname \"%s\" accept\n"
		   "\t\toifname \"%s\" ct state established,related accept\n"
		   "\t\toifname \"%s\" drop\n"
		   "\t}\n"
		   "\tchain postrouting {\n"
		   "\t\ttype nat hook postrouting priority srcnat; policy accept;\n"
		   "\t\tip saddr %s/%u oifname != \"%s\" masquerade\n",
		   up, up, up, up, up, subnet.text, c->subnet_prefix, up);
	if (c->ipv6)
		buf_printf(b, "\t\tip6 saddr %s/%u oifname != \"%s\" masquerade\n", ip6_text(c->subnet6.addr, subnet6), c->subnet6.prefix, up);
	buf_puts(b, "\t}\n}\n");
}

/* ---- chains of others ---- */

/* Walks the text of `list ruleset`: which table and chain a line is in. */
struct walk {
	char family[16], table[64], chain[64];
};

static bool word_ok(const char *word)
{
	return *word && !word[strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./")];
}

/* Takes the next word of a line into @out; a word that does not fit is cut, which word_ok() or a comparison then refuses. */
static const char *next_word(const char *line, char *out, size_t size)
{
	size_t n;

	line += strspn(line, " \t");
	n = strcspn(line, " \t");
	snprintf(out, size, "%.*s", (int)(n < size ? n : 0), line);
	return line + n;
}

static void walk_line(struct walk *w, const char *line)
{
	char word[16];
	const char *rest = next_word(line, word, sizeof(word));

	if (!strcmp(word, "table") && line[0] == 't') {
		rest = next_word(rest, w->family, sizeof(w->family));
		next_word(rest, w->table, sizeof(w->table));
		*w->chain = '\0';
	} else if (!strcmp(word, "chain")) {
		next_word(rest, w->chain, sizeof(w->chain));
	}
}

#define FOREIGN_MAX 16

struct foreign {
	struct walk at;
	bool has_ours;
};

struct foreign_list {
	struct foreign chain[FOREIGN_MAX];
	size_t n;
	bool docker_user; /* Docker asks for rules of others to be in its chain DOCKER-USER */
};

static struct foreign *foreign_at(struct foreign_list *list, const struct walk *w)
{
	for (size_t i = 0; i < list->n; i++)
		if (!strcmp(list->chain[i].at.family, w->family) && !strcmp(list->chain[i].at.table, w->table) &&
		    !strcmp(list->chain[i].at.chain, w->chain))
			return &list->chain[i];
	if (list->n == FOREIGN_MAX || !word_ok(w->family) || !word_ok(w->table) || !word_ok(w->chain))
		return NULL;
	list->chain[list->n].at = *w;
	return &list->chain[list->n++];
}

/* Forward chains that would drop what we send: by policy, or (firewalld) by a last reject rule. */
static bool drops_forwarded(const struct walk *w, const char *line, bool ipv6)
{
	if ((!ipv6 && !strcmp(w->family, "ip6")) || !strncmp(w->table, "sandboxd-", 9))
		return false;
	if (!strcmp(w->table, "firewalld"))
		return strstr(line, " hook forward ") && strstr(line, "type filter");
	return strstr(line, "type filter hook forward ") && strstr(line, "policy drop;");
}

static void scan_foreign(struct buf *ruleset, const char *comment, bool ipv6, struct foreign_list *list)
{
	struct walk w = {0};
	struct foreign *f;
	char *text = NULL, *line, *save = NULL;

	buf_append(ruleset, "", 1);
	if (ruleset->failed)
		return;
	text = ruleset->data + ruleset->head;
	for (line = text; line; line = save) {
		char *end = strchrnul(line, '\n');

		save = *end ? end + 1 : NULL;
		*end = '\0';
		walk_line(&w, line);
		if (!strcmp(w.family, "ip") && !strcmp(w.table, "filter") && !strcmp(w.chain, "DOCKER-USER"))
			list->docker_user = true;
		f = drops_forwarded(&w, line, ipv6) ? foreign_at(list, &w) : NULL;
		if (!f && strstr(line, comment))
			f = foreign_at(list, &w);
		if (f && strstr(line, comment))
			f->has_ours = true;
	}
}

static void put_foreign(struct buf *b, const struct fw_rules_config *c, struct foreign_list *list)
{
	static const struct walk docker = {.family = "ip", .table = "filter", .chain = "DOCKER-USER"};

	for (size_t i = 0; i < list->n; i++) {
		const struct walk *at = &list->chain[i].at;
		bool filter = !strcmp(at->family, "ip") && !strcmp(at->table, "filter") && !strcmp(at->chain, "FORWARD");
		struct foreign *docker_user = filter && list->docker_user ? foreign_at(list, &docker) : NULL;

		if (list->chain[i].has_ours || (docker_user && docker_user->has_ours))
			continue;
		if (docker_user) {
			at = &docker;
			docker_user->has_ours = true; /* it is in the list now, for its own turn */
		}
		/* Plain interface matches: iptables-nft still shows such a chain.  What is new towards us our own table drops. */
		buf_printf(b,
			   "insert rule %s %s %s oifname \"%s\" accept comment \"sandboxd-%s\"\n"
			   "insert rule %s %s %s iifname \"%s\" accept comment \"sandboxd-%s\"\n",
			   at->family, at->table, at->chain, c->uplink_host, c->instance, at->family, at->table, at->chain,
			   c->uplink_host, c->instance);
	}
}

static int list_ruleset(struct buf *out, struct sbx_err *err)
{
	auto_buf text = {0};

	buf_puts(&text, "list ruleset\n");
	return run_text(&text, -1, out, "list the host's rules", err);
}

static void comment_of(const struct fw_rules_config *c, char out[64])
{
	snprintf(out, 64, "comment \"sandboxd-%.32s\"", c->instance);
}

int fw_rules_foreign(const struct fw_rules_config *config, struct sbx_err *err)
{
	struct foreign_list list = {0};
	auto_buf ruleset = {.max = OUTPUT_MAX};
	auto_buf text = {0};
	auto_buf out = {.max = OUTPUT_MAX};
	char comment[64];

	comment_of(config, comment);
	if (list_ruleset(&ruleset, err) < 0)
		return -1;
	scan_foreign(&ruleset, comment, config->ipv6, &list);
	put_foreign(&text, config, &list);
	if (!buf_used(&text))
		return 0;
	return run_text(&text, -1, &out, "accept rules in the host's forward chains", err) < 0 ? -1 : 1;
}

int fw_rules_load_host(const struct fw_rules_config *config, struct sbx_err *err)
{
	auto_buf text = {0};
	auto_buf out = {.max = OUTPUT_MAX};

	put_host_table(&text, config);
	return run_text(&text, -1, &out, "rules of the host", err);
}

int fw_rules_host_list(const struct fw_rules_config *config, struct buf *ret, struct sbx_err *err)
{
	auto_buf text = {0};
	const char *commands;
	int r;

	buf_printf(&text, "list table inet sandboxd-%s\n", config->instance);
	commands = buf_str(&text);
	if (!commands)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "list rules");
	r = run_child(commands, -1, ret);
	if (r < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -r, "list our rules of the host");
	if (r)
		buf_clear(ret);
	return !r;
}

/* The handle behind "# handle " at the end of @line. */
static int handle_of(const char *line, uint64_t *ret)
{
	const char *mark = strstr(line, "# handle ");

	return mark ? num_u64(mark + 9, strspn(mark + 9, "0123456789"), UINT64_MAX, ret) : -ENOENT;
}

int fw_rules_purge_host(const struct fw_rules_config *config, struct sbx_err *err)
{
	auto_buf ruleset = {.max = OUTPUT_MAX};
	auto_buf text = {0};
	auto_buf out = {.max = OUTPUT_MAX};
	struct walk w = {0};
	char comment[64];
	const char *line;

	comment_of(config, comment);
	if (list_ruleset(&ruleset, err) < 0)
		return -1;
	for (line = buf_str(&ruleset); line && *line;) {
		const char *end = strchrnul(line, '\n');
		auto_free char *copy = strndup(line, (size_t)(end - line));
		uint64_t handle;

		if (!copy)
			return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "remove rules");
		walk_line(&w, copy);
		if (strstr(copy, comment) && !handle_of(copy, &handle) && word_ok(w.family) && word_ok(w.table) && word_ok(w.chain))
			buf_printf(&text, "delete rule %s %s %s handle %llu\n", w.family, w.table, w.chain, (unsigned long long)handle);
		line = *end ? end + 1 : end;
	}
	buf_printf(&text, "add table inet sandboxd-%s\ndelete table inet sandboxd-%s\n", config->instance, config->instance);
	return run_text(&text, -1, &out, "remove rules of the host", err);
}

int fw_rules_look(struct fw_rules_others *ret, struct sbx_err *err)
{
	struct foreign_list list = {0};
	auto_buf ruleset = {.max = OUTPUT_MAX};
	auto_fd legacy = open("/proc/net/ip_tables_names", O_RDONLY | O_CLOEXEC);
	char names[64];

	if (list_ruleset(&ruleset, err) < 0)
		return -1;
	scan_foreign(&ruleset, "comment \"sandboxd-", false, &list);
	memset(ret, 0, sizeof(*ret));
	ret->docker = list.docker_user;
	for (size_t i = 0; i < list.n; i++) {
		ret->n_drop++;
		ret->firewalld |= !strcmp(list.chain[i].at.table, "firewalld");
	}
	ssize_t n = legacy < 0 ? 0 : read(legacy, names, sizeof(names) - 1);
	names[n > 0 ? n : 0] = '\0';
	ret->legacy = strstr(names, "filter") != NULL; /* nat and mangle drop nothing */
	return 0;
}

int fw_rules_try(bool ipv6, bool gate, struct sbx_err *err)
{
	static const uint32_t far = 0x01010101;
	static const struct ip6 far6 = {UINT64_C(0x2001) << 48, 1};
	static const struct fwset_pin pin = {.addr = far, .timeout_ms = 60000}, pin6 = {.addr6 = {UINT64_C(0x2001) << 48, 1}, .timeout_ms = 60000};
	const struct fw_rules_config config = {.instance = "probe", .uplink_host = "probe0", .uplink_router = "probe1",
					       .subnet_addr = LINKS_DEFAULT_SUBNET, .subnet_prefix = LINKS_DEFAULT_PREFIX,
					       .gate = gate, .ipv6 = ipv6, .subnet6 = {{UINT64_C(0xfd) << 56, 0}, 64}};

	if (fw_rules_load_host(&config, err) < 0 || fw_rules_load_router(&config, -1, err) < 0)
		return -1;
	struct fwset *fw = fwset_open(-1, err);
	int r = fw ? fwset_hosts(fw, &far, 1, err) : -1;
	r = r < 0 ? r : fwset_pin(fw, LINKS_DEFAULT_SUBNET + 1, &pin, 1, err);
	if (fw && ipv6) {
		fwset_subnet6(fw, &config.subnet6);
		r = r < 0 ? r : fwset_hosts6(fw, &far6, 1, &far6, 1, err);
		r = r < 0 ? r : fwset_pin(fw, LINKS_DEFAULT_SUBNET + 1, &pin6, 1, err);
	}
	r = r < 0 ? r : fwset_release(fw, fw_rules_router_version(&config), err);
	fwset_free(fw);
	return r;
}
