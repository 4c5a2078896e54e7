// SPDX-License-Identifier: Apache-2.0
#include "runtime/broker/egress.h"

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/path.h"
#include "runtime/broker/broker_int.h"
#include "runtime/broker/egress_plan.h"
#include "runtime/broker/egress_walk.h"
#include "runtime/broker/fwset.h"
#include "runtime/broker/slot.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define POLICY_MAGIC  0x324c4f50u /* "POL2" */
#define RULES_ALL     262144u /* of all sandboxes; 64 bytes each here, some 150 in the kernel */
#define TABLE_START   64u
/* What is left of a lease is told in whole milliseconds and takes a while to arrive: this much less is the same lease. */
#define LEASE_SLACK_MS 1000u

struct lease {
	struct egress_far far;
	uint32_t port;	 /* 0: all but 853 */
	uint64_t end_ms; /* on the loop's clock; 0: the place is empty */
};

struct slot_egress {
	struct broker_ip_rule *rule; /* owned; in force */
	size_t n_rules;
	struct egress_plan plan; /* of them */
	struct broker_ip_rule *part; /* owned; parts that came so far */
	size_t n_parts;
	struct lease *lease; /* owned; open addressing, a power of two; at most half full */
	size_t n_leases, lease_room;
};

struct policy_file {
	uint32_t magic, size, mark, n_rules;
};

static struct slot_egress *state_of(struct slot *s)
{
	if (!s->egress)
		s->egress = calloc(1, sizeof(*s->egress));
	return s->egress;
}

static const struct egress_plan *plan_of(const struct slot *s)
{
	return s->egress ? &s->egress->plan : NULL;
}

/* ---- files ---- */

static void policy_name(uint32_t mark, char name[24])
{
	snprintf(name, 24, "policy.%u", mark);
}

static int policy_write(const struct slot *s, uint32_t mark, const struct broker_ip_rule *rule, size_t n)
{
	const struct policy_file head = {.magic = POLICY_MAGIC, .size = (uint32_t)sizeof(*rule), .mark = mark, .n_rules = (uint32_t)n};
	const size_t bytes = n * sizeof(*rule);
	char name[24];

	policy_name(mark, name);
	auto_fd fd = openat(s->dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	if (write(fd, &head, sizeof(head)) != (ssize_t)sizeof(head) || write(fd, rule, bytes) != (ssize_t)bytes)
		return -EIO;
	return 0;
}

static void policy_unlink(const struct slot *s, uint32_t mark)
{
	char name[24];

	policy_name(mark, name);
	if (unlinkat(s->dir_fd, name, 0) < 0 && errno != ENOENT)
		log_warn("slot %u: old policy: %s", s->number, strerror(errno));
}

static int policy_read(const struct slot *s, struct broker_ip_rule **ret, size_t *ret_n)
{
	struct policy_file head;
	char name[24];

	policy_name(s->mark, name);
	auto_fd fd = openat(s->dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	if (read(fd, &head, sizeof(head)) != (ssize_t)sizeof(head) || head.magic != POLICY_MAGIC || head.mark != s->mark ||
	    head.size != sizeof(**ret) || head.n_rules > BROKER_POLICY_RULES)
		return -EBADMSG;
	const size_t bytes = head.n_rules * sizeof(**ret);
	auto_free struct broker_ip_rule *rule = malloc(bytes ? bytes : 1);
	if (!rule)
		return -ENOMEM;
	if (read(fd, rule, bytes) != (ssize_t)bytes)
		return -EBADMSG;
	*ret_n = head.n_rules;
	*ret = take_ptr(rule);
	return 0;
}

/* ---- policies ---- */

int egress_open(struct broker *b, struct slot *s, struct sbx_err *err)
{
	const struct fwset_policy p = {.addr = s->addr, .mark = s->generation, .mode = EGRESS_MODE_OPEN};

	if (fwset_policy(b->fw, &p, err) < 0)
		return -1;
	s->mark = s->generation;
	s->mode = EGRESS_MODE_OPEN;
	return 0;
}

static void drop_parts(struct broker *b, struct slot_egress *e)
{
	b->n_rules -= (uint32_t)e->n_parts;
	free(e->part);
	e->part = NULL;
	e->n_parts = 0;
}

static int take_part(struct broker *b, struct slot_egress *e, const struct broker_policy *msg, struct sbx_err *err)
{
	if (msg->first == 0)
		drop_parts(b, e);
	if (msg->first != e->n_parts)
		return sbx_err_set(err, SBX_E_PROTOCOL, 0, "rules from %u on after %zu rules", msg->first, e->n_parts);
	if (e->n_parts + msg->n_rules > BROKER_POLICY_RULES || b->n_rules + msg->n_rules > RULES_ALL)
		return sbx_err_set(err, SBX_E_LIMIT, 0, "more than %u address rules in a policy, or %u in all", BROKER_POLICY_RULES, RULES_ALL);
	if (!msg->n_rules)
		return 0;
	struct broker_ip_rule *more = reallocarray(e->part, e->n_parts + msg->n_rules, sizeof(*more));
	if (!more)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "address rules");
	memcpy(more + e->n_parts, msg->rule, msg->n_rules * sizeof(*more));
	e->part = more;
	e->n_parts += msg->n_rules;
	b->n_rules += msg->n_rules;
	return 0;
}

static enum egress_mode mode_of(uint32_t flags)
{
	if (!(flags & BROKER_POLICY_DEFAULT_ALLOW))
		return EGRESS_MODE_LEASED;
	return flags & BROKER_POLICY_NAMES ? EGRESS_MODE_NAMES : EGRESS_MODE_OPEN;
}

/* The parts become the policy: a new mark, the file, the kernel, the record. */
static int apply_parts(struct broker *b, struct slot *s, uint32_t flags, struct sbx_err *err)
{
	struct slot_egress *e = s->egress;
	struct egress_plan plan = {0};
	struct fwset_policy p = {.addr = s->addr, .old_mark = s->mark, .old_plan = &e->plan, .plan = &plan, .mode = mode_of(flags)};
	uint32_t old = s->mark;

	if (egress_plan_make(e->part, e->n_parts, &plan, err) < 0)
		return -1;
	int r = slot_generation(b, &p.mark, err);
	if (r == 0 && e->n_parts) {
		r = policy_write(s, p.mark, e->part, e->n_parts);
		if (r < 0)
			sbx_err_set(err, SBX_E_SYSTEM, -r, "keep the policy of slot %u", s->number);
	}
	if (r == 0 && FAULT_POINT("egress-file"))
		r = sbx_err_set(err, SBX_E_SYSTEM, EIO, "policy");
	if (r < 0 || fwset_policy(b->fw, &p, err) < 0) {
		egress_plan_clear(&plan);
		if (p.mark)
			policy_unlink(s, p.mark);
		return -1;
	}
	bool had_file = e->n_rules > 0 && !FAULT_POINT("egress-kernel");
	egress_plan_clear(&e->plan);
	b->n_rules -= (uint32_t)e->n_rules;
	free(e->rule);
	e->plan = plan;
	e->rule = take_ptr(e->part);
	e->n_rules = e->n_parts;
	e->n_parts = 0;
	s->mark = p.mark;
	s->mode = p.mode;
	(void)slot_set_state(b, s, s->state); /* logged; a restart would put the old policy back, which sandboxd then replaces */
	if (old && had_file)
		policy_unlink(s, old);
	if (old && (p.mode != EGRESS_MODE_OPEN || e->n_rules)) /* else nothing can have been revoked */
		egress_walk_cut(b, s);
	return 0;
}

int egress_policy(struct broker *b, struct slot *s, const struct broker_policy *msg, uint32_t *ret_mark, struct sbx_err *err)
{
	struct slot_egress *e = state_of(s);

	*ret_mark = 0;
	if (!e)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "policy");
	int r = take_part(b, e, msg, err);
	if (r == 0 && (msg->flags & BROKER_POLICY_LAST)) {
		r = apply_parts(b, s, msg->flags, err);
		*ret_mark = r == 0 ? s->mark : 0;
	}
	if (r < 0)
		drop_parts(b, e);
	return r;
}

/* ---- leases ---- */

static bool same_far(const struct egress_far *a, const struct egress_far *b)
{
	return a->addr == b->addr && ip6_same(a->six, b->six);
}

static size_t place_of(const struct slot_egress *e, const struct egress_far *far, uint32_t port)
{
	uint64_t word = far->addr ^ far->six.hi * UINT64_C(0x9e3779b97f4a7c15) ^ far->six.lo;
	uint32_t hash = ((uint32_t)(word ^ word >> 32) * 2654435761u) ^ (port * 40503u);

	for (size_t i = hash >> 7;; i++) {
		const struct lease *l = &e->lease[i & (e->lease_room - 1)];

		if (!l->end_ms || (same_far(&l->far, far) && l->port == port))
			return i & (e->lease_room - 1);
	}
}

static struct lease *lease_find(const struct slot_egress *e, const struct egress_far *far, uint32_t port)
{
	if (!e->lease_room)
		return NULL;
	struct lease *l = &e->lease[place_of(e, far, port)];
	return l->end_ms ? l : NULL;
}

/* Makes a new table with room for @more and without what has ended; 0: only the latter. */
static int lease_make_room(struct broker *b, struct slot_egress *e, size_t more)
{
	uint64_t now = loop_now_ms(b->loop);
	struct slot_egress next = {.lease_room = TABLE_START};
	size_t alive = 0;

	if (more && (e->n_leases + more) * 2 <= e->lease_room)
		return 0;
	for (size_t i = 0; i < e->lease_room; i++)
		alive += e->lease[i].end_ms > now;
	while ((alive + more) * 2 > next.lease_room)
		next.lease_room *= 2;
	next.lease = calloc(next.lease_room, sizeof(*next.lease));
	if (!next.lease)
		return -ENOMEM;
	for (size_t i = 0; i < e->lease_room; i++)
		if (e->lease[i].end_ms > now)
			next.lease[place_of(&next, &e->lease[i].far, e->lease[i].port)] = e->lease[i];
	b->n_leases -= (uint32_t)(e->n_leases - alive);
	free(e->lease);
	e->lease = next.lease;
	e->lease_room = next.lease_room;
	e->n_leases = alive;
	return 0;
}

static void lease_put(struct broker *b, struct slot_egress *e, const struct egress_far *far, uint32_t port, uint64_t end_ms)
{
	struct lease *l = &e->lease[place_of(e, far, port)];

	if (!l->end_ms) {
		e->n_leases++;
		b->n_leases++;
	}
	*l = (struct lease){.far = *far, .port = port, .end_ms = end_ms};
}

/* Ends are kept until the table is made anew: taking a place out would hide those behind it. */
static void lease_cut(struct slot_egress *e, const struct egress_far *far, uint32_t port)
{
	struct lease *l = lease_find(e, far, port);

	if (l)
		l->end_ms = 1;
}

/* Where an address lies, of either kind; the rules for both are the same from here on. */
enum far_kind { FAR_NEVER, FAR_SANDBOX, FAR_HOST, FAR_PRIVATE, FAR_OPEN };

static bool is_host(const struct broker *b, const struct egress_far *far)
{
	const struct links_host_addrs *hosts = netwatch_hosts(b->watch);

	for (uint32_t i = 0; far->addr && i < hosts->n; i++)
		if (hosts->addr[i] == far->addr)
			return true;
	for (uint32_t i = 0; !far->addr && i < hosts->n6; i++)
		if (ip6_same(hosts->addr6[i], far->six))
			return true;
	return false;
}

static bool allowed(const struct broker *b, const struct egress_far *far, bool whole)
{
	return far->addr ? fw_rules_allowed(&b->rules, far->addr, whole ? 32 : 0) :
			   fw_rules_allowed6(&b->rules, far->six, whole ? IP6_PREFIX_MAX : 0);
}

static bool is_private(const struct broker *b, const struct egress_far *far)
{
	const struct links_host_addrs *hosts = netwatch_hosts(b->watch);

	return far->addr ? fw_rules_private(far->addr) : ip6_private(far->six) || ip6_in_lan(far->six, hosts->lan6, hosts->n_lan6);
}

static enum far_kind kind_of(const struct broker *b, const struct egress_far *far)
{
	uint32_t subnet = ~UINT32_C(0) << (32 - b->rules.subnet_prefix);

	if (far->addr ? far->addr >> 16 == LINKS_GATEWAY >> 16 : !b->rules.ipv6 || ip6_never(far->six))
		return FAR_NEVER;
	if (far->addr ? (far->addr & subnet) == b->rules.subnet_addr : ip6_in(far->six, &b->rules.subnet6))
		return FAR_SANDBOX;
	if (is_host(b, far) && !allowed(b, far, true))
		return FAR_HOST;
	return is_private(b, far) && !allowed(b, far, false) ? FAR_PRIVATE : FAR_OPEN;
}

/* What a name may never open, whoever answered it: the order of the router's verdicts. */
static const char *pin_refused(const struct broker *b, const struct slot *s, const struct egress_far *far)
{
	switch (kind_of(b, far)) {
	case FAR_NEVER:
		return far->addr || b->rules.ipv6 ? "a link-local address" : "of IPv6, which sandboxes do not have";
	case FAR_SANDBOX:
		return "an address of the sandboxes";
	case FAR_HOST:
		return "an address of the host";
	case FAR_PRIVATE:
		if (s->egress && (far->addr ? egress_plan_names(&s->egress->plan, far->addr) : egress_plan_names6(&s->egress->plan, far->six)))
			return NULL;
		return "a private address that no rule names";
	case FAR_OPEN:
		break;
	}
	return NULL;
}

static const char *far_text(const struct egress_far *far, char out[INET6_ADDRSTRLEN])
{
	if (!far->addr)
		return ip6_text(far->six, out);
	snprintf(out, INET6_ADDRSTRLEN, "%u.%u.%u.%u", far->addr >> 24, far->addr >> 16 & 255, far->addr >> 8 & 255, far->addr & 255);
	return out;
}

static struct egress_far far_of_msg(const struct broker_pin *msg, uint32_t i)
{
	return msg->ipv6 ? (struct egress_far){.six = msg->addr6[i]} : (struct egress_far){.addr = msg->addr[i]};
}

static struct egress_far far_of_pin(const struct fwset_pin *pin)
{
	return (struct egress_far){pin->addr, pin->addr6};
}

/* Fills @pin with what @msg names; Return: how many */
static size_t list_pins(const struct broker_pin *msg, struct fwset_pin *pin)
{
	size_t n = 0;

	for (uint32_t i = 0; i < msg->n_addrs; i++)
		for (uint32_t p = 0; p < (msg->n_ports ? msg->n_ports : 1); p++) {
			const struct egress_far far = far_of_msg(msg, i);

			pin[n++] = (struct fwset_pin){.addr = far.addr, .addr6 = far.six, .port = msg->n_ports ? msg->port[p] : 0,
						      .timeout_ms = msg->lease_ms};
		}
	return n;
}

/* What has ended counts until somebody looks: that is here, when there seems to be no room. */
static bool leases_fit(struct broker *b, struct slot_egress *e, size_t more)
{
	if (e->n_leases + more > BROKER_PINS_SANDBOX && lease_make_room(b, e, 0) < 0)
		return false;
	for (uint32_t i = 0; b->n_leases + more > BROKER_PINS_ALL && i < LIMIT_SANDBOXES; i++)
		if (b->slot[i].egress && lease_make_room(b, b->slot[i].egress, 0) < 0)
			return false;
	return e->n_leases + more <= BROKER_PINS_SANDBOX && b->n_leases + more <= BROKER_PINS_ALL &&
	       (!more || lease_make_room(b, e, more) == 0);
}

#define PINS_MAX (BROKER_PIN_ADDRS * BROKER_RULE_PORTS)

int egress_pin(struct broker *b, struct slot *s, const struct broker_pin *msg, struct sbx_err *err)
{
	static struct fwset_pin pin[PINS_MAX]; /* 16 KiB; one request at a time */
	struct slot_egress *e = state_of(s);
	uint64_t now = loop_now_ms(b->loop);
	size_t n = 0, n_new = 0, all = list_pins(msg, pin);

	for (uint32_t i = 0; i < msg->n_addrs; i++) {
		const struct egress_far far = far_of_msg(msg, i);
		const char *why = pin_refused(b, s, &far);
		char text[INET6_ADDRSTRLEN];

		if (why)
			return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "%s is %s", far_text(&far, text), why);
	}
	if (!e)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "leases");
	for (size_t i = 0; i < all; i++) {
		const struct egress_far far = far_of_pin(&pin[i]);
		const struct lease *l = lease_find(e, &far, pin[i].port);

		if (l && l->end_ms + LEASE_SLACK_MS >= now + pin[i].timeout_ms)
			continue; /* the kernel has it at least that long */
		n_new += !l;
		pin[n++] = pin[i];
	}
	if (!leases_fit(b, e, n_new))
		return sbx_err_set(err, SBX_E_LIMIT, 0, "%zu leases of the sandbox, %u of all", e->n_leases, b->n_leases);
	if (n && fwset_pin(b->fw, s->addr, pin, n, err) < 0)
		return -1;
	for (size_t i = 0; i < n; i++) {
		const struct egress_far far = far_of_pin(&pin[i]);

		lease_put(b, e, &far, pin[i].port, now + pin[i].timeout_ms);
	}
	return 0;
}

int egress_unpin(struct broker *b, struct slot *s, const struct broker_pin *msg, struct sbx_err *err)
{
	static struct fwset_pin pin[PINS_MAX];
	size_t n = 0, all = list_pins(msg, pin);

	for (size_t i = 0; i < all; i++) {
		const struct egress_far far = far_of_pin(&pin[i]);

		if (s->egress && lease_find(s->egress, &far, pin[i].port))
			pin[n++] = pin[i];
	}
	if (n && fwset_unpin(b->fw, s->addr, pin, n, err) < 0)
		return -1;
	for (size_t i = 0; i < n; i++) {
		const struct egress_far far = far_of_pin(&pin[i]);

		lease_cut(s->egress, &far, pin[i].port);
	}
	return 0;
}

/* Calls fwset_pin() or fwset_unpin() for all leases of a slot. */
static int each_lease(struct broker *b, struct slot *s, bool add, struct sbx_err *err)
{
	static struct fwset_pin pin[PINS_MAX];
	struct slot_egress *e = s->egress;
	uint64_t now = loop_now_ms(b->loop);
	size_t n = 0;
	int r = 0;

	for (size_t i = 0; e && r == 0 && i <= e->lease_room; i++) {
		const struct lease *l = i < e->lease_room ? &e->lease[i] : NULL;

		if (l && l->end_ms > (add ? now : 0))
			pin[n++] = (struct fwset_pin){.addr = l->far.addr, .addr6 = l->far.six, .port = l->port,
						      .timeout_ms = add ? l->end_ms - now : 0};
		if (n && (n == PINS_MAX || !l)) {
			r = add ? fwset_pin(b->fw, s->addr, pin, n, err) : fwset_unpin(b->fw, s->addr, pin, n, err);
			n = 0;
		}
	}
	return r;
}

/* ---- what the router says ---- */

static bool leased(const struct broker *b, const struct slot *s, const struct egress_far *far, uint32_t port)
{
	const struct lease *l = s->egress ? lease_find(s->egress, far, port) : NULL;

	return l && l->end_ms > loop_now_ms(b->loop);
}

static enum broker_refusal by_lease(const struct broker *b, const struct slot *s, const struct egress_far *far, unsigned protocol,
				    uint16_t port, enum broker_refusal otherwise)
{
	bool ports = protocol == IPPROTO_TCP || protocol == IPPROTO_UDP;
	bool quic = protocol == IPPROTO_UDP && (port == 443 || port == 80) && !b->rules.quic;

	if (leased(b, s, far, 0))
		return quic ? BROKER_REFUSED_QUIC : ports && port == 853 ? BROKER_REFUSED_DOT : BROKER_REFUSED_NONE;
	if (ports && leased(b, s, far, port))
		return quic ? BROKER_REFUSED_QUIC : BROKER_REFUSED_NONE;
	return otherwise;
}

static bool is_doh(const struct broker *b, const struct egress_far *far)
{
	if (!far->addr)
		return ip6_in_any(far->six, b->rules.doh6, b->rules.n_doh6);
	for (size_t i = 0; i < b->rules.n_doh; i++)
		if (!b->rules.doh[i].prefix || !((far->addr ^ b->rules.doh[i].addr) >> (32 - b->rules.doh[i].prefix)))
			return true;
	return false;
}

static enum broker_refusal by_mode(const struct broker *b, const struct slot *s, const struct egress_far *far, unsigned protocol,
				   uint16_t port, bool other_port)
{
	bool ports = protocol == IPPROTO_TCP || protocol == IPPROTO_UDP;
	bool private = kind_of(b, far) == FAR_PRIVATE;

	if (s->mode == EGRESS_MODE_OPEN)
		return private ? BROKER_REFUSED_PRIVATE : BROKER_REFUSED_NONE;
	if (s->mode == EGRESS_MODE_LEASED)
		return by_lease(b, s, far, protocol, port,
				other_port ? BROKER_REFUSED_PORT : private ? BROKER_REFUSED_PRIVATE : BROKER_REFUSED_NO_LEASE);
	enum broker_refusal r = by_lease(b, s, far, protocol, port, BROKER_REFUSED_COUNT);
	if (r != BROKER_REFUSED_COUNT)
		return r;
	if (private)
		return BROKER_REFUSED_PRIVATE;
	if (protocol == IPPROTO_UDP && (port == 443 || port == 80) && !b->rules.quic)
		return BROKER_REFUSED_QUIC;
	if (ports && port == 853)
		return BROKER_REFUSED_DOT;
	return ports && port == 443 && is_doh(b, far) ? BROKER_REFUSED_DOH : BROKER_REFUSED_NONE;
}

bool egress_asks_us(const struct slot *s)
{
	return s->mark && egress_record_mode(s) != EGRESS_MODE_OPEN;
}

/* What does not come past the chains that judge: the router's own address, the sandbox's own. */
static bool stays_inside(const struct broker *b, const struct slot *s, const struct egress_far *far)
{
	if (far->addr)
		return far->addr == LINKS_GATEWAY || far->addr >> 24 == 127 || far->addr == s->addr;
	return ip6_same(far->six, (struct ip6){0, 1}) ||
	       (b->rules.ipv6 && (ip6_same(far->six, ip6_of_slot(&b->rules.subnet6, s->addr)) ||
				  ip6_same(far->six, links_router6(&b->rules.subnet6))));
}

static enum egress_decision by_rules(const struct slot *s, const struct egress_far *far, unsigned protocol, uint16_t port)
{
	if (!s->egress)
		return EGRESS_DECISION_NEXT;
	return far->addr ? egress_plan_decide(&s->egress->plan, far->addr, protocol, port) :
			   egress_plan_decide6(&s->egress->plan, far->six, protocol, port);
}

enum broker_refusal egress_refuses(struct broker *b, struct slot *s, const struct egress_far *far, unsigned protocol, uint16_t port)
{
	bool ports = protocol == IPPROTO_TCP || protocol == IPPROTO_UDP;

	if (stays_inside(b, s, far))
		return BROKER_REFUSED_NONE;
	switch (kind_of(b, far)) {
	case FAR_NEVER:
		return BROKER_REFUSED_METADATA;
	case FAR_SANDBOX:
		return BROKER_REFUSED_SANDBOX;
	case FAR_HOST:
		return BROKER_REFUSED_HOST;
	case FAR_PRIVATE:
	case FAR_OPEN:
		break;
	}
	if (!ports && protocol != (far->addr ? IPPROTO_ICMP : IPPROTO_ICMPV6))
		return BROKER_REFUSED_PROTOCOL;
	if (!s->mark)
		return BROKER_REFUSED_CLOSED;
	switch (by_rules(s, far, protocol, port)) {
	case EGRESS_DECISION_PASS:
		return ports && port == 853 ? BROKER_REFUSED_DOT : BROKER_REFUSED_NONE;
	case EGRESS_DECISION_PASS_PORT:
		return BROKER_REFUSED_NONE;
	case EGRESS_DECISION_DENY_OPERATOR:
		return BROKER_REFUSED_RULE_OPERATOR;
	case EGRESS_DECISION_DENY_USER:
		return BROKER_REFUSED_RULE_USER;
	case EGRESS_DECISION_NEXT_PORT:
		return by_mode(b, s, far, protocol, port, true);
	case EGRESS_DECISION_NEXT:
		return by_mode(b, s, far, protocol, port, false);
	case EGRESS_DECISION_NONE:
	case EGRESS_DECISION_LIST:
	default:
		return BROKER_REFUSED_CLOSED;
	}
}

/* ---- the end ---- */

uint32_t egress_record_mode(const struct slot *s)
{
	return s->mode + (s->egress && s->egress->n_rules ? EGRESS_MODE_RULES : 0);
}

void egress_forget(struct slot *s)
{
	struct slot_egress *e = s->egress;

	if (!e)
		return;
	drop_parts(s->broker, e);
	s->broker->n_rules -= (uint32_t)e->n_rules;
	s->broker->n_leases -= (uint32_t)e->n_leases;
	egress_plan_clear(&e->plan);
	free(e->rule);
	free(e->lease);
	free(e);
	s->egress = NULL;
}

bool egress_end(struct broker *b, struct slot *s)
{
	struct fwset_policy p = {.addr = s->addr, .old_mark = s->mark, .old_plan = plan_of(s)};
	struct sbx_err err = {0};

	if (!s->mark && !s->egress)
		return true;
	if (!b->fw)
		return false;
	if (each_lease(b, s, false, &err) < 0 || (s->mark && fwset_policy(b->fw, &p, &err) < 0)) {
		log_error("slot %u: its rules stay for now: %s", s->number, err.msg);
		return false;
	}
	if (s->egress && s->egress->n_rules)
		policy_unlink(s, s->mark);
	s->mark = 0;
	s->mode = EGRESS_MODE_NONE;
	egress_forget(s);
	return true;
}

/* ---- after a restart, after a loss ---- */

int egress_recover(struct broker *b, struct slot *s)
{
	struct slot_egress *e;
	struct sbx_err err = {0};

	if (!s->mark || !(s->mode & EGRESS_MODE_RULES))
		return 0;
	s->mode -= EGRESS_MODE_RULES;
	e = state_of(s);
	int r = e ? policy_read(s, &e->rule, &e->n_rules) : -ENOMEM;
	if (r == 0) {
		b->n_rules += (uint32_t)e->n_rules;
		if (egress_plan_make(e->rule, e->n_rules, &e->plan, &err) < 0)
			r = -ENOMEM;
	}
	if (r < 0)
		s->mark = 0;
	return r;
}

struct found {
	struct broker *b;
	bool odd;   /* something is there that no record tells of */
	bool *seen; /* owned; by slot */
};

struct slot *egress_slot_of(struct broker *b, uint32_t addr)
{
	uint32_t number = addr - b->rules.subnet_addr - 1;

	if (number >= LIMIT_SANDBOXES)
		return NULL;
	struct slot *s = &b->slot[number];
	return s->state != BROKER_SLOT_FREE && s->addr == addr ? s : NULL;
}

static void on_found(void *arg, uint32_t addr, uint32_t mark, const struct fwset_pin *pin)
{
	struct found *f = arg;
	struct slot *s = egress_slot_of(f->b, addr);

	if (!s || !s->mark || (!pin && s->mark != mark)) {
		f->odd = true;
		return;
	}
	f->seen[s->number] |= !pin;
	const struct egress_far far = pin ? far_of_pin(pin) : (struct egress_far){0};
	struct slot_egress *e = pin ? state_of(s) : NULL;
	if (e && lease_make_room(f->b, e, 1) == 0)
		lease_put(f->b, e, &far, pin->port, loop_now_ms(f->b->loop) + pin->timeout_ms);
}

static int put_slot(struct broker *b, struct slot *s, struct sbx_err *err)
{
	const struct fwset_policy p = {.addr = s->addr, .mark = s->mark, .mode = (enum egress_mode)s->mode, .plan = plan_of(s)};

	return fwset_policy(b->fw, &p, err) < 0 ? -1 : each_lease(b, s, true, err);
}

/*
 * A table of another configuration or version: what was judged by it is judged again.  The order is that of a change of the
 * policy; flows that are still allowed do not notice, those that are not are ended.
 */
static int mark_again(struct broker *b, struct slot *s, struct sbx_err *err)
{
	struct slot_egress *e = s->egress;
	uint32_t old = s->mark, mark = 0;

	if (slot_generation(b, &mark, err) < 0)
		return -1;
	if (e && e->n_rules) {
		int r = policy_write(s, mark, e->rule, e->n_rules);

		if (r < 0)
			return sbx_err_set(err, SBX_E_SYSTEM, -r, "keep the policy of slot %u", s->number);
	}
	s->mark = mark;
	if (put_slot(b, s, err) < 0)
		return -1;
	(void)slot_set_state(b, s, s->state);
	if (e && e->n_rules)
		policy_unlink(s, old);
	egress_walk_cut(b, s);
	return 0;
}

static void forget_leases(struct broker *b)
{
	for (uint32_t i = 0; i < LIMIT_SANDBOXES; i++) {
		struct slot_egress *e = b->slot[i].egress;

		if (!e || !e->lease)
			continue;
		b->n_leases -= (uint32_t)e->n_leases;
		free(e->lease);
		e->lease = NULL;
		e->n_leases = e->lease_room = 0;
	}
}

int egress_fill(void *arg, struct fwset *fw, enum netwatch_fill what, struct sbx_err *err)
{
	const bool fresh = what == NETWATCH_FILL_FRESH;
	struct broker *b = arg;
	auto_free bool *seen = calloc(LIMIT_SANDBOXES, sizeof(*seen));
	struct found f = {.b = b, .seen = seen};

	if (!seen)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "policies");
	b->fw = fw;
	if (!fresh)
		forget_leases(b); /* they are read from the table */
	if (!fresh && fwset_each(fw, on_found, &f, err) < 0)
		return -1;
	for (uint32_t i = 0; i < LIMIT_SANDBOXES; i++) {
		struct slot *s = &b->slot[i];

		if (s->state == BROKER_SLOT_FREE || !s->mark || seen[i])
			continue;
		f.odd = true;
		if (fresh && (b->table_known ? put_slot(b, s, err) : mark_again(b, s, err)) < 0)
			return -1;
	}
	if (!fresh && f.odd)
		return 1;
	b->table_known = what != NETWATCH_FILL_READ;
	return 0;
}
