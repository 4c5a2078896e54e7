/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deletes the connections of one address from the router's table.  Raw nfnetlink: four attributes are needed, and a library
 * for them would be one more thing that runs as root.
 */
#include "config.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "base/cleanup.h"

#include "runtime/broker/links.h"

/* The last round must find nothing: a dump may miss entries that move while it runs. */
#define ROUNDS	    80 /* times TUPLES_MAX is more than nf_conntrack_max of most hosts */
#define TUPLE_BYTES 256u
#define TUPLES_MAX  4096u
#define ATTR_HEAD   sizeof(struct nlattr)

struct tuple {
	uint16_t len;
	uint8_t family;
	_Alignas(4) uint8_t data[TUPLE_BYTES]; /* the CTA_TUPLE_ORIG attribute with its header */
};

struct request {
	struct nlmsghdr head;
	struct nfgenmsg gen;
	uint8_t attrs[TUPLE_BYTES];
};

static const struct nlattr *attr_first(const void *data, size_t len, size_t *left)
{
	const struct nlattr *a = data;

	*left = len;
	return len >= sizeof(*a) && a->nla_len >= sizeof(*a) && a->nla_len <= len ? a : NULL;
}

static const struct nlattr *attr_next(const struct nlattr *a, size_t *left)
{
	size_t step = NLA_ALIGN(a->nla_len);

	if (step >= *left)
		return NULL;
	return attr_first((const uint8_t *)a + step, *left - step, left);
}

static const struct nlattr *attr_find(const void *data, size_t len, uint16_t type)
{
	size_t left;

	for (const struct nlattr *a = attr_first(data, len, &left); a; a = attr_next(a, &left))
		if ((a->nla_type & NLA_TYPE_MASK) == type)
			return a;
	return NULL;
}

static const struct nlattr *attr_within(const struct nlattr *a, uint16_t type)
{
	return a ? attr_find((const uint8_t *)a + ATTR_HEAD, a->nla_len - ATTR_HEAD, type) : NULL;
}

/* Addresses whose connections go, in network byte order, sorted as numbers. */
struct wires {
	const uint32_t *wire;
	size_t n;
	const struct ip6_prefix *subnet6; /* NULL: no IPv6; else what lies in it ends with one of the wires */
};

static int by_number(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static bool attr_is_addr(const struct nlattr *a, const struct wires *wires)
{
	uint32_t wire;

	if (a && wires->subnet6 && a->nla_len == ATTR_HEAD + sizeof(struct in6_addr)) {
		struct ip6 six = ip6_read((const uint8_t *)a + ATTR_HEAD);

		wire = htonl((uint32_t)six.lo);
		return ip6_in(six, wires->subnet6) && bsearch(&wire, wires->wire, wires->n, sizeof(wire), by_number);
	}
	if (!a || a->nla_len != ATTR_HEAD + sizeof(wire))
		return false;
	memcpy(&wire, (const uint8_t *)a + ATTR_HEAD, sizeof(wire));
	return bsearch(&wire, wires->wire, wires->n, sizeof(wire), by_number) != NULL;
}

/* The address is an end of the connection, seen from either side (masquerade and redirects change one of them). */
static bool concerns(const void *attrs, size_t len, const struct wires *wire)
{
	static const uint16_t tuples[] = {CTA_TUPLE_ORIG, CTA_TUPLE_REPLY};

	for (size_t i = 0; i < ARRAY_SIZE(tuples); i++) {
		const struct nlattr *ip = attr_within(attr_find(attrs, len, tuples[i]), CTA_TUPLE_IP);

		if (attr_is_addr(attr_within(ip, CTA_IP_V4_SRC), wire) || attr_is_addr(attr_within(ip, CTA_IP_V4_DST), wire) ||
		    attr_is_addr(attr_within(ip, CTA_IP_V6_SRC), wire) || attr_is_addr(attr_within(ip, CTA_IP_V6_DST), wire))
			return true;
	}
	return false;
}

struct found {
	struct wires wires;
	links_conntrack_found *each; /* told of all instead */
	void *each_arg;
	bool count_only; /* an answer with the number of all entries is expected */
	uint32_t entries;
	struct tuple *list; /* owned */
	size_t n;
	bool more;
};

static uint32_t word_of(const struct nlattr *a)
{
	uint32_t wire = 0;

	if (a && a->nla_len == ATTR_HEAD + sizeof(wire))
		memcpy(&wire, (const uint8_t *)a + ATTR_HEAD, sizeof(wire));
	return ntohl(wire);
}

static struct ip6 six_of(const struct nlattr *a)
{
	return a && a->nla_len == ATTR_HEAD + sizeof(struct in6_addr) ? ip6_read((const uint8_t *)a + ATTR_HEAD) : (struct ip6){0};
}

static void tell_entry(const struct found *found, const void *attrs, size_t len)
{
	const struct nlattr *ip = attr_within(attr_find(attrs, len, CTA_TUPLE_ORIG), CTA_TUPLE_IP);
	struct ip6 src6 = six_of(attr_within(ip, CTA_IP_V6_SRC)), dst6 = six_of(attr_within(ip, CTA_IP_V6_DST));
	bool six = found->wires.subnet6 && ip6_in(src6, found->wires.subnet6);

	if (!ip6_none(dst6) && !six)
		return; /* of nobody */
	found->each(found->each_arg, six ? (uint32_t)src6.lo : word_of(attr_within(ip, CTA_IP_V4_SRC)),
		    word_of(attr_within(ip, CTA_IP_V4_DST)), dst6, word_of(attr_find(attrs, len, CTA_MARK)));
}

static void take_entry(struct found *found, const struct nlmsghdr *h)
{
	const struct nfgenmsg *gen = (const void *)((const uint8_t *)h + NLMSG_HDRLEN);
	const uint8_t *attrs = (const uint8_t *)gen + NLMSG_ALIGN(sizeof(*gen));
	size_t len = h->nlmsg_len - NLMSG_SPACE(sizeof(*gen));
	const struct nlattr *orig;
	struct tuple *t;

	if (found->count_only) {
		found->entries = word_of(attr_find(attrs, len, CTA_STATS_GLOBAL_ENTRIES));
		return;
	}
	if (found->each) {
		tell_entry(found, attrs, len);
		return;
	}
	if (!concerns(attrs, len, &found->wires))
		return;
	orig = attr_find(attrs, len, CTA_TUPLE_ORIG);
	if (!orig || orig->nla_len > TUPLE_BYTES)
		return;
	if (found->n == TUPLES_MAX) {
		found->more = true;
		return;
	}
	t = &found->list[found->n++];
	t->family = gen->nfgen_family;
	t->len = orig->nla_len;
	memcpy(t->data, orig, orig->nla_len);
}

/* Reads answers until the end of a dump or the acknowledgement of @seq; Return: 0 or -errno of the kernel */
static int read_answers(int sock, uint32_t seq, struct found *found)
{
	static union {
		struct nlmsghdr head;
		uint8_t bytes[65536];
	} buf;

	for (;;) {
		ssize_t n = recv(sock, &buf, sizeof(buf), 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		unsigned left = (unsigned)n;

		for (struct nlmsghdr *h = &buf.head; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
			if (h->nlmsg_seq != seq)
				continue;
			if (h->nlmsg_type == NLMSG_DONE)
				return 0;
			if (h->nlmsg_type == NLMSG_ERROR) {
				const struct nlmsgerr *e = NLMSG_DATA(h);

				return e->error;
			}
			if (found && h->nlmsg_len >= NLMSG_SPACE(sizeof(struct nfgenmsg)))
				take_entry(found, h);
		}
	}
}

static int ask(int sock, uint16_t type, uint16_t flags, uint8_t family, const struct tuple *tuple, uint32_t seq)
{
	struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
	struct request req = {0};

	req.head.nlmsg_type = (uint16_t)(NFNL_SUBSYS_CTNETLINK << 8 | type);
	req.head.nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
	req.head.nlmsg_seq = seq;
	req.head.nlmsg_len = (uint32_t)(offsetof(struct request, attrs) + (tuple ? NLA_ALIGN(tuple->len) : 0u));
	req.gen.nfgen_family = family;
	req.gen.version = NFNETLINK_V0;
	if (tuple)
		memcpy(req.attrs, tuple->data, tuple->len);
	if (sendto(sock, &req, req.head.nlmsg_len, 0, (const struct sockaddr *)&kernel, sizeof(kernel)) < 0)
		return -errno;
	return 0;
}

static int one_round(int sock, struct found *found, uint32_t *seq)
{
	int r;

	found->n = 0;
	found->more = false;
	r = ask(sock, IPCTNL_MSG_CT_GET, NLM_F_DUMP, found->wires.subnet6 ? AF_UNSPEC : AF_INET, NULL, ++*seq);
	r = r ? r : read_answers(sock, *seq, found);
	for (size_t i = 0; !r && i < found->n; i++) {
		r = ask(sock, IPCTNL_MSG_CT_DELETE, NLM_F_ACK, found->list[i].family, &found->list[i], ++*seq);
		r = r ? r : read_answers(sock, *seq, NULL);
		/* It ended by itself in the meantime. */
		if (r == -ENOENT)
			r = 0;
	}
	return r;
}

/* Entries of the whole namespace: nearly always cheaper to ask than to walk the table, which is shared by all namespaces. */
static int count_entries(int sock, struct found *found, uint32_t *seq)
{
	found->count_only = true;
	found->entries = UINT32_MAX;
	int r = ask(sock, IPCTNL_MSG_CT_GET_STATS, NLM_F_ACK, AF_UNSPEC, NULL, ++*seq);
	r = r ? r : read_answers(sock, *seq, found);
	found->count_only = false;
	return r;
}

static int open_socket(struct links *links, struct sbx_err *err)
{
	struct timeval wait = {.tv_sec = 2};
	int sock = links_netns_socket(links_router_fd(links), AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);

	if (sock < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -sock, "netlink socket of the router");
	/* The kernel answers at once; the timeout is only there so that a lost answer is an error and not a stop. */
	if (fcntl(sock, F_SETFL, 0) < 0 || setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) < 0) {
		sbx_err_set(err, SBX_E_SYSTEM, errno, "netlink socket of the router");
		close(sock);
		return -1;
	}
	return sock;
}

int links_conntrack_count(struct links *links, struct sbx_err *err)
{
	/*
	 * Kept: closing a socket of nfnetlink waits for what nf_tables has still to free, an RCU grace period (10 ms) behind each
	 * change of a rule or set, and this is asked behind each sandbox that ends.
	 */
	static int sock = -1;
	static uint32_t seq;
	struct found found = {0};

	if (sock < 0)
		sock = open_socket(links, err);
	if (sock < 0)
		return -1;
	int r = count_entries(sock, &found, &seq);
	if (r) {
		replace_fd(&sock, -1); /* an answer that comes late must not be taken for the next one */
		return sbx_err_set(err, SBX_E_SYSTEM, -r, "count connections");
	}
	return found.entries > INT32_MAX ? INT32_MAX : (int)found.entries;
}

int links_conntrack_each(const struct links *links, int sock, links_conntrack_found *each, void *arg, struct sbx_err *err)
{
	struct found found = {.each = each, .each_arg = arg, .wires.subnet6 = links_subnet6(links)};
	int r = ask(sock, IPCTNL_MSG_CT_GET, NLM_F_DUMP, found.wires.subnet6 ? AF_UNSPEC : AF_INET, NULL, 1);

	r = r ? r : read_answers(sock, 1, &found);
	return r ? sbx_err_set(err, SBX_E_SYSTEM, -r, "list connections") : 0;
}

int links_conntrack_open(struct links *links, struct sbx_err *err)
{
	return open_socket(links, err);
}

/* Appends an attribute; Return: where it stands */
static struct nlattr *put_attr(struct tuple *t, uint16_t type, const void *data, size_t size)
{
	struct nlattr a = {.nla_len = (uint16_t)(sizeof(a) + size), .nla_type = type};
	uint8_t *at = t->data + t->len;

	memcpy(at, &a, sizeof(a));
	if (size)
		memcpy(at + sizeof(a), data, size);
	t->len = (uint16_t)(t->len + NLA_ALIGN(a.nla_len));
	return (struct nlattr *)(void *)at;
}

static void end_attr(const struct tuple *t, struct nlattr *nest)
{
	nest->nla_len = (uint16_t)(t->data + t->len - (const uint8_t *)nest);
}

static void take_mark(void *arg, uint32_t src, uint32_t dst, struct ip6 dst6, uint32_t mark)
{
	(void)src;
	(void)dst;
	(void)dst6;
	*(uint32_t *)arg = mark;
}

int links_conntrack_mark(const struct links *links, int sock, const struct links_flow *flow, uint32_t *ret)
{
	const struct ip6_prefix *subnet6 = flow->dst ? NULL : links_subnet6(links);
	struct tuple t = {.family = subnet6 ? AF_INET6 : AF_INET};
	struct found found = {.each = take_mark, .each_arg = ret, .wires.subnet6 = subnet6};
	uint8_t src6[16], dst6[16];
	const uint32_t src = htonl(flow->src), dst = htonl(flow->dst);
	const uint16_t sport = htons(flow->sport), dport = htons(flow->dport);
	static uint32_t seq;

	struct nlattr *orig = put_attr(&t, CTA_TUPLE_ORIG | NLA_F_NESTED, NULL, 0);
	struct nlattr *ip = put_attr(&t, CTA_TUPLE_IP | NLA_F_NESTED, NULL, 0);
	if (subnet6) {
		ip6_write(ip6_of_slot(subnet6, flow->src), src6);
		ip6_write(flow->dst6, dst6);
		put_attr(&t, CTA_IP_V6_SRC, src6, sizeof(src6));
		put_attr(&t, CTA_IP_V6_DST, dst6, sizeof(dst6));
	} else {
		put_attr(&t, CTA_IP_V4_SRC, &src, sizeof(src));
		put_attr(&t, CTA_IP_V4_DST, &dst, sizeof(dst));
	}
	end_attr(&t, ip);
	struct nlattr *proto = put_attr(&t, CTA_TUPLE_PROTO | NLA_F_NESTED, NULL, 0);
	put_attr(&t, CTA_PROTO_NUM, &flow->protocol, sizeof(flow->protocol));
	put_attr(&t, CTA_PROTO_SRC_PORT, &sport, sizeof(sport));
	put_attr(&t, CTA_PROTO_DST_PORT, &dport, sizeof(dport));
	end_attr(&t, proto);
	end_attr(&t, orig);
	*ret = 0;
	int r = ask(sock, IPCTNL_MSG_CT_GET, NLM_F_ACK, t.family, &t, ++seq);
	return r ? r : read_answers(sock, seq, &found);
}

int links_conntrack_drop_many(struct links *links, const uint32_t *addr, size_t n, struct sbx_err *err)
{
	auto_free struct tuple *list = malloc(TUPLES_MAX * sizeof(*list));
	auto_free uint32_t *wire = calloc(n ? n : 1, sizeof(*wire));
	struct found found = {.wires = {.wire = wire, .n = n, .subnet6 = links_subnet6(links)}, .list = list};
	uint32_t seq = 0;
	int deleted = 0, r = 0;

	if (!list || !wire)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "connection list");
	for (size_t i = 0; i < n; i++)
		wire[i] = htonl(addr[i]);
	qsort(wire, n, sizeof(*wire), by_number);
	auto_fd sock = open_socket(links, err);
	if (sock < 0)
		return -1;
	for (int i = 0; i < ROUNDS && !r; i++) {
		r = one_round(sock, &found, &seq);
		deleted += (int)found.n;
		if (!r && !found.n && !found.more)
			return deleted;
	}
	return sbx_err_set(err, SBX_E_SYSTEM, r ? -r : EBUSY, "delete connections of %zu addresses", n);
}

int links_conntrack_drop(struct links *links, uint32_t addr, struct sbx_err *err)
{
	return links_conntrack_drop_many(links, &addr, 1, err);
}
