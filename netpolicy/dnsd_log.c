/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Refused packets become events.  The router logs at most some of them a second, and a flood fills the socket, not us: what
 * is lost is counted by the kernel's ENOBUFS.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/wallclock.h"

#include "netpolicy/dns_nflog.h"
#include "netpolicy/dnsd_int.h"
#include "runtime/broker/broker_msg.h"

#define BATCH 16u

struct dnsd_log {
	struct dnsd *d;
	int fd; /* owned */
	struct loop_fd *source;
	uint64_t malformed;
	uint8_t buf[65536];
};

static const uint8_t reasons[BROKER_REFUSED_COUNT] = {
	[BROKER_REFUSED_CLOSED] = EGRESS_REASON_DEFAULT,	 [BROKER_REFUSED_METADATA] = EGRESS_REASON_METADATA,
	[BROKER_REFUSED_HOST] = EGRESS_REASON_HOST,		 [BROKER_REFUSED_SANDBOX] = EGRESS_REASON_SANDBOX,
	[BROKER_REFUSED_PRIVATE] = EGRESS_REASON_PRIVATE,	 [BROKER_REFUSED_RULE_OPERATOR] = EGRESS_REASON_RULE,
	[BROKER_REFUSED_RULE_USER] = EGRESS_REASON_RULE,	 [BROKER_REFUSED_PORT] = EGRESS_REASON_PORT,
	[BROKER_REFUSED_DOT] = EGRESS_REASON_DOT,		 [BROKER_REFUSED_DOH] = EGRESS_REASON_DOH,
	[BROKER_REFUSED_QUIC] = EGRESS_REASON_QUIC,		 [BROKER_REFUSED_PROTOCOL] = EGRESS_REASON_PROTOCOL,
	[BROKER_REFUSED_NO_LEASE] = EGRESS_REASON_NO_LEASE,	 [BROKER_REFUSED_LIMIT] = EGRESS_REASON_LIMIT,
};

/* What the policy says to the packet, so that the event names the rule that denies, or whose ports do not fit. */
static struct policy_verdict verdict_of(const struct dns_sandbox *s, const struct dns_packet *p, const struct dns_lease *newest)
{
	struct policy_flow flow = {.addr = p->target, .addr6 = p->target6, .port = p->port, .protocol = p->protocol, .lease_rule = EGRESS_NO_RULE};

	if (!s->policy)
		return (struct policy_verdict){false, EGRESS_NO_RULE, EGRESS_REASON_NONE};
	if (newest)
		flow.lease_rule = policy_decide_name(s->policy, newest->name, newest->name_len).rule;
	return policy_decide_addr(s->policy, NULL, &flow);
}

static void one_packet(struct dnsd_log *log, const struct dns_packet *p)
{
	struct dnsd *d = log->d;
	const struct dns_sandbox *s = dns_sandboxes_find(d->sandboxes, p->source);
	const struct dns_lease *r, *newest = NULL;
	struct dnsd_note note = {.kind = EGRESS_EVENT_IP_DENIED, .rule = EGRESS_NO_RULE, .name = ""};
	uint32_t at = 0;

	d->counts.packets_denied++;
	if (!s)
		return;
	while ((r = p->target ? dns_leases_find(d->leases, s, p->target, &at) : dns_leases_find6(d->leases, s, p->target6, &at)))
		if (!newest || r->touched_ms > newest->touched_ms)
			newest = r;
	if (newest) {
		note.name = newest->name;
		note.name_len = newest->name_len;
	}
	note.reason = p->refusal < BROKER_REFUSED_COUNT ? reasons[p->refusal] : EGRESS_REASON_NONE;
	note.addr = p->target;
	note.addr6 = p->target6;
	note.port = p->port;
	note.protocol = p->protocol;
	if (note.reason == EGRESS_REASON_RULE || note.reason == EGRESS_REASON_PORT || (note.reason == EGRESS_REASON_NO_LEASE && newest)) {
		const struct policy_verdict v = verdict_of(s, p, newest);

		/* The kernel knows no lease for this port; that the name has one for others is known here. */
		if (note.reason != EGRESS_REASON_NO_LEASE || v.reason == EGRESS_REASON_PORT) {
			note.rule = v.rule;
			note.reason = note.reason == EGRESS_REASON_NO_LEASE ? v.reason : note.reason;
		}
	}
	dnsd_event(d, s, &note);
}

static void log_ready(void *arg, int fd, uint32_t events)
{
	struct dnsd_log *log = arg;

	(void)events;
	for (unsigned i = 0; i < BATCH; i++) {
		ssize_t n = recv(fd, log->buf, sizeof(log->buf), MSG_DONTWAIT | MSG_TRUNC);
		struct dns_packet p;
		size_t at = 0;
		int r;

		if (n < 0 && errno == ENOBUFS)
			log->d->counts.events_lost++;
		if (n < 0)
			break;
		if ((size_t)n > sizeof(log->buf)) {
			log->malformed++;
			continue;
		}
		while ((r = dns_nflog_read(log->buf, (size_t)n, &at, &p)))
			if (r > 0)
				one_packet(log, &p);
			else
				log->malformed++;
	}
}

struct dnsd_log *dnsd_log_new(struct dnsd *d, struct sbx_err *err)
{
	struct dnsd_log *log = calloc(1, sizeof(*log));

	if (!log) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "log of refused packets");
		return NULL;
	}
	log->d = d;
	log->fd = -1;
	return log;
}

static void stop(struct dnsd_log *log)
{
	loop_fd_remove(log->source);
	log->source = NULL;
	replace_fd(&log->fd, -1);
}

void dnsd_log_free(struct dnsd_log *log)
{
	if (!log)
		return;
	stop(log);
	free(log);
}

void dnsd_log_socket(struct dnsd_log *log, int fd)
{
	stop(log);
	if (fd < 0)
		return;
	log->fd = fd;
	log->source = loop_fd_add(log->d->loop, fd, EPOLLIN, log_ready, log);
	if (!log->source)
		log_warn("refused packets cannot be read: %s", strerror(errno));
}
