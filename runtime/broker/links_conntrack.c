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
	uint8_t data[TUPLE_BYTES]; /* the CTA_TUPLE_ORIG attribute with its header */
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

static bool attr_is_addr(const struct nlattr *a, uint32_t wire)
{
	return a && a->nla_len == ATTR_HEAD + sizeof(wire) && !memcmp((const uint8_t *)a + ATTR_HEAD, &wire, sizeof(wire));
}

/* The address is an end of the connection, seen from either side (masquerade and redirects change one of them). */
static bool concerns(const void *attrs, size_t len, uint32_t wire)
{
	static const uint16_t tuples[] = {CTA_TUPLE_ORIG, CTA_TUPLE_REPLY};

	for (size_t i = 0; i < ARRAY_SIZE(tuples); i++) {
		const struct nlattr *ip = attr_within(attr_find(attrs, len, tuples[i]), CTA_TUPLE_IP);

		if (attr_is_addr(attr_within(ip, CTA_IP_V4_SRC), wire) || attr_is_addr(attr_within(ip, CTA_IP_V4_DST), wire))
			return true;
	}
	return false;
}

struct found {
	uint32_t wire;
	struct tuple *list; /* owned */
	size_t n;
	bool more;
};

static void take_entry(struct found *found, const struct nlmsghdr *h)
{
	const struct nfgenmsg *gen = NLMSG_DATA(h);
	const uint8_t *attrs = (const uint8_t *)gen + NLMSG_ALIGN(sizeof(*gen));
	size_t len = h->nlmsg_len - NLMSG_SPACE(sizeof(*gen));
	const struct nlattr *orig;
	struct tuple *t;

	if (!concerns(attrs, len, found->wire))
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
	r = ask(sock, IPCTNL_MSG_CT_GET, NLM_F_DUMP, AF_INET, NULL, ++*seq);
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

int links_conntrack_drop(struct links *links, uint32_t addr, struct sbx_err *err)
{
	struct timeval wait = {.tv_sec = 2};
	auto_free struct tuple *list = malloc(TUPLES_MAX * sizeof(*list));
	struct found found = {.wire = htonl(addr), .list = list};
	auto_fd sock = links_netns_socket(links_router_fd(links), AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);
	uint32_t seq = 0;
	int deleted = 0, r = 0;

	if (!list)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "connection list");
	if (sock < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -sock, "nfnetlink socket");
	/* The kernel answers within the call; the time-out is for a kernel that does not answer at all. */
	if (fcntl(sock, F_SETFL, 0) < 0 || setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "nfnetlink socket");
	for (int round = 0; round < ROUNDS; round++) {
		r = one_round(sock, &found, &seq);
		if (r < 0)
			break;
		deleted += (int)found.n;
		if (!found.n)
			return deleted;
	}
	return sbx_err_set(err, SBX_E_SYSTEM, r < 0 ? -r : EBUSY, "delete connections of a sandbox");
}
