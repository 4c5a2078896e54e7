// SPDX-License-Identifier: Apache-2.0
/*
 * Messages of nf_tables, put together by hand: elements, and the two chains that the text language cannot say (keys joined of
 * masked and constant fields).  libmnl only lays out attributes.
 */
#include "config.h"

#include "runtime/broker/fwset.h"

#include "base/cleanup.h"
#include "base/fault.h"
#include "runtime/broker/fw_rules.h"
#include "runtime/broker/links.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#define BATCH_START    (128u << 10)
#define MESSAGE_MAX    (64u << 10) /* a nest's length is 16 bits */
#define ELEMENT_MAX    128u
#define SOCKET_BYTES   (16 << 20)
#define WAIT_S	       2
#define KEY_WORDS      9u
#define ALIGN4(n)      (((size_t)(n) + 3u) & ~(size_t)3)

struct fwset {
	int fd; /* owned */
	uint32_t port_id;
	uint32_t seq;
	uint8_t *buf; /* owned; the batch */
	size_t len, room;
	size_t last; /* offset of the last message of the batch */
	bool failed; /* no memory while it was put together */
	const struct ip6_prefix *subnet6; /* borrowed; NULL: no IPv6 */
	bool renews; /* adding an element again moves its timeout (6.12 and later) */
};

/* ---- a batch ---- */

/* Room for one more message of any size: libmnl does not check. */
static bool make_room(struct fwset *fw)
{
	if (fw->room - fw->len >= MESSAGE_MAX + 4096)
		return true;
	size_t room = fw->room * 2 + MESSAGE_MAX + 4096;
	uint8_t *more = realloc(fw->buf, room);
	if (!more) {
		fw->failed = true;
		fw->len = 0;
		return fw->room >= MESSAGE_MAX + 4096; /* what is written now is never sent */
	}
	fw->buf = more;
	fw->room = room;
	return true;
}

static struct nlmsghdr *message(struct fwset *fw, uint16_t type, uint16_t flags, uint8_t family)
{
	if (!make_room(fw))
		abort(); /* BATCH_START is more than that */
	struct nlmsghdr *h = mnl_nlmsg_put_header(fw->buf + fw->len);
	struct nfgenmsg *gen = mnl_nlmsg_put_extra_header(h, sizeof(*gen));

	h->nlmsg_type = type;
	h->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
	h->nlmsg_seq = ++fw->seq;
	gen->nfgen_family = family;
	gen->version = NFNETLINK_V0;
	return h;
}

static void message_end(struct fwset *fw, const struct nlmsghdr *h)
{
	fw->last = fw->len;
	fw->len += ALIGN4(h->nlmsg_len);
}

static struct nlmsghdr *table_message(struct fwset *fw, unsigned type, uint16_t flags)
{
	return message(fw, (uint16_t)(NFNL_SUBSYS_NFTABLES << 8 | type), flags, NFPROTO_INET);
}

static void batch_mark(struct fwset *fw, uint16_t type)
{
	struct nlmsghdr *h = message(fw, type, 0, AF_UNSPEC);
	struct nfgenmsg *gen = mnl_nlmsg_get_payload(h);

	gen->res_id = htons(NFNL_SUBSYS_NFTABLES);
	fw->len += ALIGN4(h->nlmsg_len);
}

static void batch_begin(struct fwset *fw)
{
	fw->len = 0;
	fw->last = 0;
	fw->failed = false;
	batch_mark(fw, NFNL_MSG_BATCH_BEGIN);
}

/* Reads answers until that of message @seq; Return: 0 or -errno, of the first message that failed */
static int read_acks(struct fwset *fw, uint32_t seq)
{
	uint8_t buf[8192];
	int failed = 0;

	for (;;) {
		ssize_t n = recv(fw->fd, buf, sizeof(buf), 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		int left = (int)n;
		for (const struct nlmsghdr *h = (const void *)buf; mnl_nlmsg_ok(h, left); h = mnl_nlmsg_next(h, &left)) {
			const struct nlmsgerr *e = mnl_nlmsg_get_payload(h);

			if (h->nlmsg_type != NLMSG_ERROR || h->nlmsg_len < NLMSG_LENGTH(sizeof(*e)))
				continue;
			if (e->error && !failed)
				failed = e->error;
			if (h->nlmsg_seq == seq)
				return failed;
		}
	}
}

/* Return: 0, or -errno and nothing was changed */
static int batch_commit(struct fwset *fw)
{
	struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};

	if (FAULT_POINT("fwset"))
		return -EIO;
	if (fw->failed)
		return -ENOMEM;
	if (!fw->last)
		return 0;
	struct nlmsghdr *last = (struct nlmsghdr *)(void *)(fw->buf + fw->last);
	uint32_t seq = last->nlmsg_seq;
	last->nlmsg_flags |= NLM_F_ACK;
	batch_mark(fw, NFNL_MSG_BATCH_END);
	if (fw->failed)
		return -ENOMEM;
	/* The kernel works on it before sendto() returns: the answers are there afterwards. */
	if (sendto(fw->fd, fw->buf, fw->len, 0, (const struct sockaddr *)&kernel, sizeof(kernel)) < 0)
		return -errno;
	return read_acks(fw, seq);
}

static int commit(struct fwset *fw, const char *what, struct sbx_err *err)
{
	int r = batch_commit(fw);

	return r < 0 ? sbx_err_set(err, SBX_E_SYSTEM, -r, "%s", what) : 0;
}

/* ---- elements ---- */

struct key {
	uint32_t word[KEY_WORDS]; /* as the kernel's registers hold them */
	unsigned n;
};

struct elems {
	struct fwset *fw;
	const char *set;
	unsigned type; /* NFT_MSG_NEWSETELEM or NFT_MSG_DELSETELEM */
	struct nlmsghdr *h;
	struct nlattr *list;
};

static void elems_end(struct elems *e)
{
	if (!e->h)
		return;
	mnl_attr_nest_end(e->h, e->list);
	message_end(e->fw, e->h);
	e->h = NULL;
}

/* Begins a message for (set, type) or goes on with the open one while it has room. */
static void elems_for(struct elems *e, const char *set, unsigned type)
{
	if (e->h && (strcmp(e->set, set) || e->type != type || e->h->nlmsg_len > MESSAGE_MAX - 2 * ELEMENT_MAX))
		elems_end(e);
	if (e->h)
		return;
	e->set = set;
	e->type = type;
	e->h = table_message(e->fw, type, type == NFT_MSG_NEWSETELEM ? NLM_F_CREATE : 0);
	mnl_attr_put_strz(e->h, NFTA_SET_ELEM_LIST_TABLE, FW_RULES_ROUTER_TABLE);
	mnl_attr_put_strz(e->h, NFTA_SET_ELEM_LIST_SET, set);
	e->list = mnl_attr_nest_start(e->h, NFTA_SET_ELEM_LIST_ELEMENTS);
}

static void put_value(struct nlmsghdr *h, uint16_t type, const void *data, size_t size)
{
	struct nlattr *nest = mnl_attr_nest_start(h, type);

	mnl_attr_put(h, NFTA_DATA_VALUE, size, data);
	mnl_attr_nest_end(h, nest);
}

/* @data and @timeout_ms may be NULL and 0. */
static void elems_put(struct elems *e, const char *set, unsigned type, struct key key, const uint32_t *data, uint64_t timeout_ms)
{
	elems_for(e, set, type);
	struct nlattr *elem = mnl_attr_nest_start(e->h, NFTA_LIST_ELEM);

	put_value(e->h, NFTA_SET_ELEM_KEY, key.word, key.n * sizeof(key.word[0]));
	if (data)
		put_value(e->h, NFTA_SET_ELEM_DATA, data, sizeof(*data));
	if (timeout_ms)
		mnl_attr_put_u64(e->h, NFTA_SET_ELEM_TIMEOUT, htobe64(timeout_ms));
	mnl_attr_nest_end(e->h, elem);
}

static struct key key1(uint32_t addr)
{
	return (struct key){.word = {htonl(addr)}, .n = 1};
}

static struct key key_current(uint32_t addr, uint32_t mark)
{
	return (struct key){.word = {htonl(addr), mark}, .n = 2};
}

static struct key key_node(uint32_t addr, const struct egress_node *node)
{
	return (struct key){.word = {htonl(addr), htonl(node->addr), node->prefix}, .n = 3};
}

/* Two bytes of network order, then two of padding. */
static uint32_t port_word(uint32_t port)
{
	uint8_t bytes[4] = {(uint8_t)(port >> 8), (uint8_t)port};
	uint32_t word;

	memcpy(&word, bytes, sizeof(word));
	return word;
}

static struct key key_port(uint32_t addr, const struct egress_port *port)
{
	return (struct key){.word = {htonl(addr), port->list, port_word(port->port)}, .n = 3};
}

/* ---- the same of IPv6 ---- */

static struct key key6(const struct fwset *fw, uint32_t addr)
{
	struct key k = {.n = 4};

	ip6_write(ip6_of_slot(fw->subnet6, addr), k.word);
	return k;
}

static struct key key6_with(struct key k, uint32_t word)
{
	k.word[k.n++] = word;
	return k;
}

static struct key key6_far(struct key k, struct ip6 far)
{
	ip6_write(far, k.word + k.n);
	k.n += 4;
	return k;
}

static struct key key6_lease(const struct fwset *fw, uint32_t addr, const struct fwset_pin *pin)
{
	struct key k = key6_far(key6(fw, addr), pin->addr6);

	return pin->port ? key6_with(k, port_word(pin->port)) : k;
}

static struct key key_lease(const struct fwset *fw, uint32_t addr, const struct fwset_pin *pin)
{
	if (!ip6_none(pin->addr6))
		return key6_lease(fw, addr, pin);
	return (struct key){.word = {htonl(addr), htonl(pin->addr), port_word(pin->port)}, .n = pin->port ? 3 : 2};
}

static const char *lease_set(const struct fwset_pin *pin)
{
	if (!ip6_none(pin->addr6))
		return pin->port ? "lease6_port" : "lease6";
	return pin->port ? "lease_port" : "lease";
}

/* ---- policies ---- */

static const struct egress_plan no_plan;

static int compare_nodes(const struct egress_node *x, const struct egress_node *y)
{
	if (x->prefix != y->prefix)
		return x->prefix < y->prefix ? -1 : 1;
	return x->addr < y->addr ? -1 : x->addr > y->addr;
}

static int compare_ports(const struct egress_port *x, const struct egress_port *y)
{
	if (x->list != y->list)
		return x->list < y->list ? -1 : 1;
	return x->port < y->port ? -1 : x->port > y->port;
}

/* Both sides are sorted: what only the old one has goes, what only the new one has comes.  @type chooses the half. */
static void put_nodes(struct elems *e, uint32_t addr, const struct egress_plan *old, const struct egress_plan *new, unsigned type)
{
	for (size_t i = 0, k = 0; i < old->n_nodes || k < new->n_nodes;) {
		const struct egress_node *x = i < old->n_nodes ? &old->node[i] : NULL;
		const struct egress_node *y = k < new->n_nodes ? &new->node[k] : NULL;
		int order = !x ? 1 : !y ? -1 : compare_nodes(x, y);
		bool same = order == 0 && x->decision == y->decision;

		i += order <= 0;
		k += order >= 0;
		if (!same && order <= 0 && type == NFT_MSG_DELSETELEM)
			elems_put(e, "rules", type, key_node(addr, x), NULL, 0);
		if (!same && order >= 0 && type == NFT_MSG_NEWSETELEM)
			elems_put(e, "rules", type, key_node(addr, y), &y->decision, 0);
	}
}

static void put_ports(struct elems *e, uint32_t addr, const struct egress_plan *old, const struct egress_plan *new, unsigned type)
{
	for (size_t i = 0, k = 0; i < old->n_ports || k < new->n_ports;) {
		const struct egress_port *x = i < old->n_ports ? &old->port[i] : NULL;
		const struct egress_port *y = k < new->n_ports ? &new->port[k] : NULL;
		int order = !x ? 1 : !y ? -1 : compare_ports(x, y);
		bool same = order == 0 && x->decision == y->decision;

		i += order <= 0;
		k += order >= 0;
		if (!same && order <= 0 && type == NFT_MSG_DELSETELEM)
			elems_put(e, "ports", type, key_port(addr, x), NULL, 0);
		if (!same && order >= 0 && type == NFT_MSG_NEWSETELEM)
			elems_put(e, "ports", type, key_port(addr, y), &y->decision, 0);
	}
}

static int compare_nodes6(const struct egress_node6 *x, const struct egress_node6 *y)
{
	if (x->net.prefix != y->net.prefix)
		return x->net.prefix < y->net.prefix ? -1 : 1;
	if (x->net.addr.hi != y->net.addr.hi)
		return x->net.addr.hi < y->net.addr.hi ? -1 : 1;
	return x->net.addr.lo < y->net.addr.lo ? -1 : x->net.addr.lo > y->net.addr.lo;
}

static void put_nodes6(struct elems *e, uint32_t addr, const struct egress_plan *old, const struct egress_plan *new, unsigned type)
{
	for (size_t i = 0, k = 0; i < old->n_nodes6 || k < new->n_nodes6;) {
		const struct egress_node6 *x = i < old->n_nodes6 ? &old->node6[i] : NULL;
		const struct egress_node6 *y = k < new->n_nodes6 ? &new->node6[k] : NULL;
		int order = !x ? 1 : !y ? -1 : compare_nodes6(x, y);
		bool same = order == 0 && x->decision == y->decision;

		i += order <= 0;
		k += order >= 0;
		if (!same && order <= 0 && type == NFT_MSG_DELSETELEM)
			elems_put(e, "rules6", type, key6_with(key6_far(key6(e->fw, addr), x->net.addr), x->net.prefix), NULL, 0);
		if (!same && order >= 0 && type == NFT_MSG_NEWSETELEM)
			elems_put(e, "rules6", type, key6_with(key6_far(key6(e->fw, addr), y->net.addr), y->net.prefix), &y->decision, 0);
	}
}

/* Rules of either kind make it a policy: then names are asked of our name server (the chains `dns` and `dns6`). */
static uint32_t mode_word(const struct fwset_policy *p, const struct egress_plan *plan)
{
	return (uint32_t)p->mode + (plan->n_nodes || plan->n_nodes6 ? EGRESS_MODE_RULES : 0);
}

/* Nothing here where the router has no IPv6: then its packets are dropped before any chain looks for them. */
static void put_policy6(struct elems *e, const struct fwset_policy *p, const struct egress_plan *old, const struct egress_plan *new,
			unsigned type)
{
	const uint32_t mark = type == NFT_MSG_NEWSETELEM ? p->mark : p->old_mark;
	const uint32_t mode = mode_word(p, new);
	bool adds = type == NFT_MSG_NEWSETELEM;

	if (!e->fw->subnet6)
		return;
	put_nodes6(e, p->addr, old, new, type);
	if (!mark)
		return;
	const struct key k = key6(e->fw, p->addr);
	elems_put(e, "modes6", type, k, adds ? &mode : NULL, 0);
	elems_put(e, "stamps6", type, k, adds ? &mark : NULL, 0);
	elems_put(e, "current6", type, key6_with(k, mark), NULL, 0);
}

int fwset_policy(struct fwset *fw, const struct fwset_policy *p, struct sbx_err *err)
{
	const struct egress_plan *old = p->old_plan ? p->old_plan : &no_plan, *new = p->plan ? p->plan : &no_plan;
	struct elems e = {.fw = fw};
	uint32_t mode = mode_word(p, new);

	batch_begin(fw);
	if (p->old_mark) {
		elems_put(&e, "modes", NFT_MSG_DELSETELEM, key1(p->addr), NULL, 0);
		elems_put(&e, "stamps", NFT_MSG_DELSETELEM, key1(p->addr), NULL, 0);
		elems_put(&e, "current", NFT_MSG_DELSETELEM, key_current(p->addr, p->old_mark), NULL, 0);
	}
	put_nodes(&e, p->addr, old, new, NFT_MSG_DELSETELEM);
	put_ports(&e, p->addr, old, new, NFT_MSG_DELSETELEM);
	put_policy6(&e, p, old, new, NFT_MSG_DELSETELEM);
	put_nodes(&e, p->addr, old, new, NFT_MSG_NEWSETELEM);
	put_ports(&e, p->addr, old, new, NFT_MSG_NEWSETELEM);
	put_policy6(&e, p, old, new, NFT_MSG_NEWSETELEM);
	if (p->mark) {
		elems_put(&e, "modes", NFT_MSG_NEWSETELEM, key1(p->addr), &mode, 0);
		elems_put(&e, "stamps", NFT_MSG_NEWSETELEM, key1(p->addr), &p->mark, 0);
		elems_put(&e, "current", NFT_MSG_NEWSETELEM, key_current(p->addr, p->mark), NULL, 0);
	}
	elems_end(&e);
	return commit(fw, "policy of a sandbox", err);
}

/* ---- leases ---- */

/*
 * Before 6.12 an element that is there keeps its timeout when it is added again: added (it may just have gone), deleted, added,
 * in one transaction, so that no packet finds it missing.
 */
static void put_pins(struct fwset *fw, uint32_t addr, const struct fwset_pin *pin, size_t n, bool stays)
{
	static const unsigned renew[] = {NFT_MSG_NEWSETELEM, NFT_MSG_DELSETELEM, NFT_MSG_NEWSETELEM};
	size_t first = stays && fw->renews ? 2 : 0, end = stays ? 3 : 2;
	struct elems e = {.fw = fw};

	for (size_t step = first; step < end; step++) {
		for (int kind = 0; kind < 4; kind++)
			for (size_t i = 0; i < n; i++)
				if (!!pin[i].port + 2 * !ip6_none(pin[i].addr6) == kind && (kind < 2 || fw->subnet6))
					elems_put(&e, lease_set(&pin[i]), renew[step], key_lease(fw, addr, &pin[i]), NULL,
						  renew[step] == NFT_MSG_DELSETELEM ? 0 : pin[i].timeout_ms ? pin[i].timeout_ms : 1);
		elems_end(&e);
	}
}

int fwset_pin(struct fwset *fw, uint32_t addr, const struct fwset_pin *pin, size_t n, struct sbx_err *err)
{
	batch_begin(fw);
	put_pins(fw, addr, pin, n, true);
	return commit(fw, "leases of a sandbox", err);
}

int fwset_unpin(struct fwset *fw, uint32_t addr, const struct fwset_pin *pin, size_t n, struct sbx_err *err)
{
	batch_begin(fw);
	put_pins(fw, addr, pin, n, false);
	return commit(fw, "end of leases", err);
}

/* Without elements a deletion empties the set. */
static void put_empty(struct fwset *fw, const char *set)
{
	struct nlmsghdr *h = table_message(fw, NFT_MSG_DELSETELEM, 0);

	mnl_attr_put_strz(h, NFTA_SET_ELEM_LIST_TABLE, FW_RULES_ROUTER_TABLE);
	mnl_attr_put_strz(h, NFTA_SET_ELEM_LIST_SET, set);
	message_end(fw, h);
}

int fwset_hosts6(struct fwset *fw, const struct ip6 *addr, size_t n, const struct ip6 *lan, size_t n_lan, struct sbx_err *err)
{
	struct elems e = {.fw = fw};

	batch_begin(fw);
	put_empty(fw, "host6");
	put_empty(fw, "lan6");
	for (size_t i = 0; i < n; i++)
		elems_put(&e, "host6", NFT_MSG_NEWSETELEM, key6_far((struct key){0}, addr[i]), NULL, 0);
	for (size_t i = 0; i < n_lan; i++)
		elems_put(&e, "lan6", NFT_MSG_NEWSETELEM, key6_far((struct key){0}, lan[i]), NULL, 0);
	elems_end(&e);
	return commit(fw, "IPv6 host addresses of the router", err);
}

int fwset_hosts(struct fwset *fw, const uint32_t *addr, size_t n, struct sbx_err *err)
{
	struct elems e = {.fw = fw};

	batch_begin(fw);
	put_empty(fw, "host4");
	for (size_t i = 0; i < n; i++)
		elems_put(&e, "host4", NFT_MSG_NEWSETELEM, key1(addr[i]), NULL, 0);
	elems_end(&e);
	return commit(fw, "host addresses of the router", err);
}

/* ---- the chains that text cannot say ---- */

struct rule {
	struct fwset *fw;
	struct nlmsghdr *h;
	struct nlattr *list, *elem, *data;
};

static void rule_begin(struct rule *r, struct fwset *fw, const char *chain)
{
	r->fw = fw;
	r->h = table_message(fw, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND);
	mnl_attr_put_strz(r->h, NFTA_RULE_TABLE, FW_RULES_ROUTER_TABLE);
	mnl_attr_put_strz(r->h, NFTA_RULE_CHAIN, chain);
	r->list = mnl_attr_nest_start(r->h, NFTA_RULE_EXPRESSIONS);
}

static void rule_end(struct rule *r)
{
	mnl_attr_nest_end(r->h, r->list);
	message_end(r->fw, r->h);
}

static void expr_begin(struct rule *r, const char *name)
{
	r->elem = mnl_attr_nest_start(r->h, NFTA_LIST_ELEM);
	mnl_attr_put_strz(r->h, NFTA_EXPR_NAME, name);
	r->data = mnl_attr_nest_start(r->h, NFTA_EXPR_DATA);
}

static void expr_end(struct rule *r)
{
	mnl_attr_nest_end(r->h, r->data);
	mnl_attr_nest_end(r->h, r->elem);
}

static void put_be32(struct rule *r, uint16_t type, uint32_t value)
{
	mnl_attr_put_u32(r->h, type, htonl(value));
}

static void load_ct(struct rule *r, uint32_t key, uint32_t reg)
{
	expr_begin(r, "ct");
	put_be32(r, NFTA_CT_DREG, reg);
	put_be32(r, NFTA_CT_KEY, key);
	mnl_attr_put_u8(r->h, NFTA_CT_DIRECTION, 0); /* as the flow began, whichever way this packet goes */
	expr_end(r);
}

static void load_mark(struct rule *r, uint32_t reg)
{
	expr_begin(r, "meta");
	put_be32(r, NFTA_META_DREG, reg);
	put_be32(r, NFTA_META_KEY, NFT_META_MARK);
	expr_end(r);
}

static void store_mark(struct rule *r, uint32_t reg)
{
	expr_begin(r, "meta");
	put_be32(r, NFTA_META_KEY, NFT_META_MARK);
	put_be32(r, NFTA_META_SREG, reg);
	expr_end(r);
}

static void load_value(struct rule *r, uint32_t reg, uint32_t value)
{
	expr_begin(r, "immediate");
	put_be32(r, NFTA_IMMEDIATE_DREG, reg);
	put_value(r->h, NFTA_IMMEDIATE_DATA, &value, sizeof(value));
	expr_end(r);
}

static void mask_bytes(struct rule *r, uint32_t reg, const void *mask, uint32_t size)
{
	static const uint8_t zero[16];

	expr_begin(r, "bitwise");
	put_be32(r, NFTA_BITWISE_SREG, reg);
	put_be32(r, NFTA_BITWISE_DREG, reg);
	put_be32(r, NFTA_BITWISE_LEN, size);
	put_value(r->h, NFTA_BITWISE_MASK, mask, size);
	put_value(r->h, NFTA_BITWISE_XOR, zero, size);
	expr_end(r);
}

static void mask_reg(struct rule *r, uint32_t reg, uint32_t mask)
{
	mask_bytes(r, reg, &mask, sizeof(mask));
}

static void compare(struct rule *r, uint32_t reg, const void *value, size_t size, uint32_t op)
{
	expr_begin(r, "cmp");
	put_be32(r, NFTA_CMP_SREG, reg);
	put_be32(r, NFTA_CMP_OP, op);
	put_value(r->h, NFTA_CMP_DATA, value, size);
	expr_end(r);
}

static void look_up(struct rule *r, const char *map, uint32_t from, uint32_t to)
{
	expr_begin(r, "lookup");
	mnl_attr_put_strz(r->h, NFTA_LOOKUP_SET, map);
	put_be32(r, NFTA_LOOKUP_SREG, from);
	put_be32(r, NFTA_LOOKUP_DREG, to);
	expr_end(r);
}

static void go_to(struct rule *r, const char *chain)
{
	expr_begin(r, "immediate");
	put_be32(r, NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
	struct nlattr *data = mnl_attr_nest_start(r->h, NFTA_IMMEDIATE_DATA);
	struct nlattr *verdict = mnl_attr_nest_start(r->h, NFTA_DATA_VERDICT);
	put_be32(r, NFTA_VERDICT_CODE, (uint32_t)NFT_GOTO);
	mnl_attr_put_strz(r->h, NFTA_VERDICT_CHAIN, chain);
	mnl_attr_nest_end(r->h, verdict);
	mnl_attr_nest_end(r->h, data);
	expr_end(r);
}

/* Longest prefix first: the first node found is the answer.  A lookup that finds nothing goes on with the next rule. */
static void put_rules_chain(struct fwset *fw)
{
	for (uint32_t prefix = 33; prefix-- > 0;) {
		struct rule r;

		rule_begin(&r, fw, "rules");
		load_ct(&r, NFT_CT_SRC_IP, NFT_REG32_00);
		load_ct(&r, NFT_CT_DST_IP, NFT_REG32_01);
		if (prefix < 32)
			mask_reg(&r, NFT_REG32_01, prefix ? htonl(~UINT32_C(0) << (32 - prefix)) : 0);
		load_value(&r, NFT_REG32_02, prefix);
		look_up(&r, "rules", NFT_REG32_00, NFT_REG32_00);
		store_mark(&r, NFT_REG32_00);
		go_to(&r, "decide");
		rule_end(&r);
	}
	struct rule none;

	rule_begin(&none, fw, "rules");
	go_to(&none, "base");
	rule_end(&none);
}

/* As put_rules_chain(); a new connection of a sandbox with IPv6 rules costs these 129 looks, some 10 us. */
static void put_rules6_chain(struct fwset *fw)
{
	static const struct ip6 ones = {UINT64_MAX, UINT64_MAX};
	struct rule r;

	for (uint32_t prefix = IP6_PREFIX_MAX + 1; prefix-- > 0;) {
		uint8_t mask[16];

		ip6_write(ip6_mask(ones, prefix), mask);
		rule_begin(&r, fw, "rules6");
		load_ct(&r, NFT_CT_SRC_IP6, NFT_REG32_00);
		load_ct(&r, NFT_CT_DST_IP6, NFT_REG32_04);
		mask_bytes(&r, NFT_REG32_04, mask, sizeof(mask));
		load_value(&r, NFT_REG32_08, prefix);
		look_up(&r, "rules6", NFT_REG32_00, NFT_REG32_00);
		store_mark(&r, NFT_REG32_00);
		go_to(&r, "decide6");
		rule_end(&r);
	}
	rule_begin(&r, fw, "rules6");
	go_to(&r, "base6");
	rule_end(&r);
}

/* As put_lists_chain(): the last word of the source is the IPv4 address under which the ports stand. */
static void put_lists6_chain(struct fwset *fw)
{
	static const uint8_t icmp = IPPROTO_ICMPV6;

	for (int rest = 0; rest < 2; rest++) {
		struct rule r;

		rule_begin(&r, fw, "lists6");
		if (!rest) {
			load_ct(&r, NFT_CT_PROTOCOL, NFT_REG32_00);
			compare(&r, NFT_REG32_00, &icmp, sizeof(icmp), NFT_CMP_NEQ);
		}
		load_ct(&r, NFT_CT_SRC_IP6, NFT_REG32_00);
		load_mark(&r, NFT_REG32_04);
		if (rest)
			load_value(&r, NFT_REG32_05, 0);
		else
			load_ct(&r, NFT_CT_PROTO_DST, NFT_REG32_05);
		look_up(&r, "ports", NFT_REG32_03, NFT_REG32_00);
		store_mark(&r, NFT_REG32_00);
		go_to(&r, "decided6");
		rule_end(&r);
	}
}

/* The mark holds a list's number: this port's decision, else that of all others. */
static void put_lists_chain(struct fwset *fw)
{
	static const uint8_t icmp = IPPROTO_ICMP;

	for (int rest = 0; rest < 2; rest++) {
		struct rule r;

		rule_begin(&r, fw, "lists");
		if (!rest) {
			load_ct(&r, NFT_CT_PROTOCOL, NFT_REG32_00);
			compare(&r, NFT_REG32_00, &icmp, sizeof(icmp), NFT_CMP_NEQ);
		}
		load_ct(&r, NFT_CT_SRC_IP, NFT_REG32_00);
		load_mark(&r, NFT_REG32_01);
		if (rest)
			load_value(&r, NFT_REG32_02, 0);
		else
			load_ct(&r, NFT_CT_PROTO_DST, NFT_REG32_02);
		look_up(&r, "ports", NFT_REG32_00, NFT_REG32_00);
		store_mark(&r, NFT_REG32_00);
		go_to(&r, "decided");
		rule_end(&r);
	}
}

/* ---- the table ---- */

static void ready_name(uint64_t version, char name[32])
{
	snprintf(name, 32, "ready_%016llx", (unsigned long long)version);
}

int fwset_ready(struct fwset *fw, uint64_t version, struct sbx_err *err)
{
	struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
	char name[32];

	ready_name(version, name);
	fw->len = 0;
	fw->failed = false;
	struct nlmsghdr *h = table_message(fw, NFT_MSG_GETCHAIN, NLM_F_ACK);
	mnl_attr_put_strz(h, NFTA_CHAIN_TABLE, FW_RULES_ROUTER_TABLE);
	mnl_attr_put_strz(h, NFTA_CHAIN_NAME, name);
	uint32_t seq = h->nlmsg_seq;
	if (sendto(fw->fd, h, h->nlmsg_len, 0, (const struct sockaddr *)&kernel, sizeof(kernel)) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "ask for the router's table");
	int r = read_acks(fw, seq);
	if (r == -ENOENT)
		return 0;
	return r < 0 ? sbx_err_set(err, SBX_E_SYSTEM, -r, "ask for the router's table") : 1;
}

int fwset_release(struct fwset *fw, uint64_t version, struct sbx_err *err)
{
	char name[32];

	ready_name(version, name);
	batch_begin(fw);
	put_rules_chain(fw);
	put_lists_chain(fw);
	if (fw->subnet6) {
		put_rules6_chain(fw);
		put_lists6_chain(fw);
	}
	/* Without a handle: all rules of the chain, which is the one that stops everything. */
	struct nlmsghdr *h = table_message(fw, NFT_MSG_DELRULE, 0);
	mnl_attr_put_strz(h, NFTA_RULE_TABLE, FW_RULES_ROUTER_TABLE);
	mnl_attr_put_strz(h, NFTA_RULE_CHAIN, "hold");
	message_end(fw, h);
	h = table_message(fw, NFT_MSG_NEWCHAIN, NLM_F_CREATE);
	mnl_attr_put_strz(h, NFTA_CHAIN_TABLE, FW_RULES_ROUTER_TABLE);
	mnl_attr_put_strz(h, NFTA_CHAIN_NAME, name);
	message_end(fw, h);
	return commit(fw, "open the router's table", err);
}

/* ---- reading back ---- */

struct dump {
	fwset_found *found;
	void *arg;
	bool stamps, six;
};

static const struct nlattr *attr_of(const void *data, size_t size, uint16_t type)
{
	const struct nlattr *a = data;

	for (size_t left = size; left >= sizeof(*a) && a->nla_len >= sizeof(*a) && a->nla_len <= left;) {
		size_t step = ALIGN4(a->nla_len);

		if (mnl_attr_get_type(a) == type)
			return a;
		if (step >= left)
			return NULL;
		left -= step;
		a = (const void *)((const uint8_t *)a + step);
	}
	return NULL;
}

static const struct nlattr *attr_within(const struct nlattr *a, uint16_t type)
{
	return a ? attr_of(mnl_attr_get_payload(a), mnl_attr_get_payload_len(a), type) : NULL;
}

static bool words_of(const struct nlattr *elem, uint16_t type, uint32_t *out, size_t n)
{
	const struct nlattr *value = attr_within(attr_within(elem, type), NFTA_DATA_VALUE);

	if (!value || mnl_attr_get_payload_len(value) != n * sizeof(*out))
		return false;
	memcpy(out, mnl_attr_get_payload(value), n * sizeof(*out));
	return true;
}

static void take_left(const struct nlattr *elem, struct fwset_pin *pin)
{
	const struct nlattr *left = attr_within(elem, NFTA_SET_ELEM_EXPIRATION);

	if (left && mnl_attr_get_payload_len(left) == sizeof(pin->timeout_ms)) {
		memcpy(&pin->timeout_ms, mnl_attr_get_payload(left), sizeof(pin->timeout_ms));
		pin->timeout_ms = be64toh(pin->timeout_ms);
	}
}

static void take_elem6(const struct dump *d, const struct nlattr *elem)
{
	uint32_t key[9] = {0};
	struct fwset_pin pin = {0};
	const uint8_t *port = (const uint8_t *)&key[8];

	if (!words_of(elem, NFTA_SET_ELEM_KEY, key, 9) && !words_of(elem, NFTA_SET_ELEM_KEY, key, 8))
		return;
	pin.addr6 = ip6_read(&key[4]);
	pin.port = (uint32_t)port[0] << 8 | port[1];
	take_left(elem, &pin);
	d->found(d->arg, ntohl(key[3]), 0, &pin);
}

static void take_elem(const struct dump *d, const struct nlattr *elem)
{
	uint32_t key[3] = {0}, mark = 0;
	struct fwset_pin pin = {0};

	if (d->six) {
		take_elem6(d, elem);
		return;
	}

	if (d->stamps) {
		if (words_of(elem, NFTA_SET_ELEM_KEY, key, 1) && words_of(elem, NFTA_SET_ELEM_DATA, &mark, 1))
			d->found(d->arg, ntohl(key[0]), mark, NULL);
		return;
	}
	if (!words_of(elem, NFTA_SET_ELEM_KEY, key, 3) && !words_of(elem, NFTA_SET_ELEM_KEY, key, 2))
		return;
	const uint8_t *port = (const uint8_t *)&key[2];
	pin.addr = ntohl(key[1]);
	pin.port = (uint32_t)port[0] << 8 | port[1];
	take_left(elem, &pin);
	d->found(d->arg, ntohl(key[0]), 0, &pin);
}

static void take_message(const struct dump *d, const struct nlmsghdr *h)
{
	size_t head = ALIGN4(sizeof(struct nfgenmsg));
	const uint8_t *data = mnl_nlmsg_get_payload(h);
	size_t size = mnl_nlmsg_get_payload_len(h);
	const struct nlattr *list = size > head ? attr_of(data + head, size - head, NFTA_SET_ELEM_LIST_ELEMENTS) : NULL;
	size_t left = list ? mnl_attr_get_payload_len(list) : 0;

	for (const uint8_t *at = list ? mnl_attr_get_payload(list) : NULL; left >= sizeof(struct nlattr);) {
		const struct nlattr *elem = (const void *)at;
		size_t step = ALIGN4(elem->nla_len);

		if (elem->nla_len < sizeof(*elem) || elem->nla_len > left)
			return;
		take_elem(d, elem);
		if (step >= left)
			return;
		at += step;
		left -= step;
	}
}

static int dump_set(struct fwset *fw, const char *set, const struct dump *d)
{
	struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
	static union {
		struct nlmsghdr head;
		uint8_t bytes[65536];
	} buf;

	fw->len = 0;
	fw->failed = false;
	struct nlmsghdr *h = table_message(fw, NFT_MSG_GETSETELEM, NLM_F_DUMP);
	mnl_attr_put_strz(h, NFTA_SET_ELEM_LIST_TABLE, FW_RULES_ROUTER_TABLE);
	mnl_attr_put_strz(h, NFTA_SET_ELEM_LIST_SET, set);
	uint32_t seq = h->nlmsg_seq;
	if (sendto(fw->fd, h, h->nlmsg_len, 0, (const struct sockaddr *)&kernel, sizeof(kernel)) < 0)
		return -errno;
	for (;;) {
		ssize_t n = recv(fw->fd, &buf, sizeof(buf), 0);
		int left = (int)n;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		for (const struct nlmsghdr *m = &buf.head; mnl_nlmsg_ok(m, left); m = mnl_nlmsg_next(m, &left)) {
			if (m->nlmsg_seq != seq)
				continue;
			if (m->nlmsg_type == NLMSG_DONE)
				return 0;
			if (m->nlmsg_type == NLMSG_ERROR)
				return ((const struct nlmsgerr *)mnl_nlmsg_get_payload(m))->error;
			take_message(d, m);
		}
	}
}

int fwset_each(struct fwset *fw, fwset_found *found, void *arg, struct sbx_err *err)
{
	static const char *const sets[] = {"stamps", "lease", "lease_port", "lease6", "lease6_port"};
	struct dump d = {.found = found, .arg = arg};

	for (size_t i = 0; i < (fw->subnet6 ? ARRAY_SIZE(sets) : 3); i++) {
		d.stamps = i == 0;
		d.six = i >= 3;
		int r = dump_set(fw, sets[i], &d);
		if (r == -ENOENT && d.six)
			continue; /* a table of before IPv6 was switched on */
		if (r < 0)
			return sbx_err_set(err, SBX_E_SYSTEM, -r, "read %s of the router's table", sets[i]);
	}
	return 0;
}

/* ---- life ---- */

struct probe {
	uint64_t left_ms;
};

static void probe_seen(void *arg, uint32_t addr, uint32_t mark, const struct fwset_pin *pin)
{
	struct probe *p = arg;

	(void)mark;
	if (addr == 0 && pin)
		p->left_ms = pin->timeout_ms;
}

static int probe_renew(struct fwset *fw)
{
	/* Sources of 0.0.0.0 do not exist: nobody is let through by it. */
	const struct fwset_pin brief = {.addr = 0, .timeout_ms = 1000}, lasting = {.addr = 0, .timeout_ms = 3600000};
	struct probe p = {0};
	struct dump d = {.found = probe_seen, .arg = &p};
	int r;

	fw->renews = true;
	for (int i = 0; i < 2; i++) {
		batch_begin(fw);
		put_pins(fw, 0, i ? &lasting : &brief, 1, true);
		r = batch_commit(fw);
		if (r < 0)
			return r;
	}
	r = dump_set(fw, "lease", &d);
	fw->renews = p.left_ms > 1000;
	batch_begin(fw);
	put_pins(fw, 0, &brief, 1, false);
	int undo = batch_commit(fw);
	return r < 0 ? r : undo;
}

static int open_socket(int router_fd)
{
	return router_fd < 0 ? socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_NETFILTER)
			     : links_netns_socket(router_fd, AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);
}

struct fwset *fwset_open(int router_fd, struct sbx_err *err)
{
	struct sockaddr_nl at = {.nl_family = AF_NETLINK};
	struct timeval wait = {.tv_sec = WAIT_S};
	socklen_t size = sizeof(at);
	int bytes = SOCKET_BYTES, on = 1;
	struct fwset *fw = calloc(1, sizeof(*fw));

	if (!fw || !(fw->buf = malloc(BATCH_START))) {
		free(fw);
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "packet filter");
		return NULL;
	}
	fw->room = BATCH_START;
	fw->fd = open_socket(router_fd);
	/* Answers are there when sendto() returns; the timeout makes a lost one an error instead of a stop. */
	if (fw->fd < 0 || fcntl(fw->fd, F_SETFL, 0) < 0 || bind(fw->fd, (const struct sockaddr *)&at, sizeof(at)) < 0 ||
	    getsockname(fw->fd, (struct sockaddr *)&at, &size) < 0 ||
	    setsockopt(fw->fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) < 0 ||
	    setsockopt(fw->fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0 ||
	    setsockopt(fw->fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) < 0 ||
	    setsockopt(fw->fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof(on)) < 0) {
		sbx_err_set(err, SBX_E_SYSTEM, fw->fd < -1 ? -fw->fd : errno, "netlink socket of the router");
		fwset_free(fw);
		return NULL;
	}
	fw->port_id = at.nl_pid;
	return fw;
}

void fwset_free(struct fwset *fw)
{
	if (!fw)
		return;
	if (fw->fd >= 0)
		close(fw->fd);
	free(fw->buf);
	free(fw);
}

void fwset_subnet6(struct fwset *fw, const struct ip6_prefix *subnet6)
{
	fw->subnet6 = subnet6;
}

uint32_t fwset_port_id(const struct fwset *fw)
{
	return fw->port_id;
}

int fwset_probe(struct fwset *fw, struct sbx_err *err)
{
	int r = probe_renew(fw);

	return r < 0 ? sbx_err_set(err, SBX_E_SYSTEM, -r, "probe of leases") : fw->renews;
}
