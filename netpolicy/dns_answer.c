/* SPDX-License-Identifier: Apache-2.0 */
/* Reading what an upstream says, and writing what a sandbox is told. */
#include "config.h"

#include "netpolicy/dns_answer.h"

#include <errno.h>
#include <string.h>

#include "netpolicy/dns_msg_int.h"

struct record {
	uint16_t type, class;
	uint32_t ttl_s;
	size_t owner, data, len;
};

static bool take_record(struct dns_cursor *c, struct record *r)
{
	uint16_t high, low, len;

	r->owner = c->at;
	if (!dns_take_name(c, true, NULL, NULL) || !dns_take_u16(c, &r->type) || !dns_take_u16(c, &r->class) || !dns_take_u16(c, &high) ||
	    !dns_take_u16(c, &low) || !dns_take_u16(c, &len))
		return false;
	r->ttl_s = (uint32_t)high << 16 | low;
	/* RFC 2181 8: a set highest bit is a zero. */
	if (r->ttl_s > INT32_MAX)
		r->ttl_s = 0;
	r->data = c->at;
	r->len = len;
	return dns_skip(c, len);
}

int dns_answer_check(const uint8_t *data, size_t len, const uint8_t *sent, struct dns_answer *ret)
{
	struct dns_cursor c = {data, len, 0}, s = {sent, DNS_SENT_MAX, 0};
	uint8_t name_len;
	struct dns_head h, asked;
	bool same;

	if (len > DNS_ANSWER_MAX || !dns_take_head(&c, &h) || !dns_take_head(&s, &asked))
		return -EAGAIN;
	if (!(h.flags & DNS_FLAG_QR) || h.id != asked.id || (h.flags & DNS_OPCODE))
		return -EAGAIN;
	/* An upstream that cannot read a question with EDNS may repeat nothing of it. */
	if (h.n_question == 0 && (h.flags & DNS_RCODE) == DNS_FORMERR && len == DNS_HEAD_BYTES) {
		ret->rcode = DNS_FORMERR;
		ret->truncated = false;
		return 0;
	}
	if (h.n_question != 1 || !dns_take_name(&s, false, NULL, &name_len))
		return -EAGAIN;
	if (len - c.at < name_len + 4u || memcmp(data + c.at + name_len, sent + s.at, 4) != 0)
		return -EAGAIN;
	same = !memcmp(data + c.at, sent + DNS_HEAD_BYTES, name_len);
	if (!same && !dns_same_name(data + c.at, sent + DNS_HEAD_BYTES, name_len))
		return -EAGAIN;
	ret->rcode = (enum dns_rcode)(h.flags & DNS_RCODE);
	ret->truncated = h.flags & DNS_FLAG_TC;
	return same ? 0 : -EILSEQ;
}

/* ---- names ---- */

/* The name that the chain has come to. */
struct place {
	const uint8_t *name;
	uint8_t len;
	bool asked; /* it is the question's: a pointer to that is it */
};

static bool owner_is(const uint8_t *data, size_t len, size_t at, const struct place *p)
{
	struct dns_cursor c = {data, len, at};
	uint8_t name[DNS_NAME_MAX], name_len;

	if (p->asked && data[at] == 0xc0 && data[at + 1] == DNS_HEAD_BYTES)
		return true;
	return dns_take_name(&c, true, name, &name_len) && name_len == p->len && dns_same_name(name, p->name, name_len);
}

/* Takes a name of record data into @out, in lower case; Return: its length, or 0 */
static uint8_t data_name(struct dns_cursor *c, uint8_t *out)
{
	uint8_t n;

	if (!dns_take_name(c, true, out, &n))
		return 0;
	for (size_t i = 0; i < n; i++)
		out[i] = dns_lower(out[i]);
	return n;
}

/* ---- record data of types without addresses ---- */

enum service_key { KEY_MANDATORY = 0, KEY_ALPN = 1, KEY_NO_DEFAULT = 2, KEY_HINT4 = 4, KEY_ECH = 5, KEY_HINT6 = 6 };

/* Protocol names without those of HTTP/3, which would go around what looks at TCP; Return: bytes left, or -EBADMSG */
static int filter_alpn(const uint8_t *value, size_t len, uint8_t *out)
{
	size_t used = 0;

	for (size_t at = 0; at < len;) {
		size_t n = value[at];

		if (!n || len - at < n + 1)
			return -EBADMSG;
		if (!(n >= 2 && value[at + 1] == 'h' && value[at + 2] == '3')) {
			memcpy(out + used, value + at, n + 1);
			used += n + 1;
		}
		at += n + 1;
	}
	return (int)used;
}

static bool taken_out(unsigned key)
{
	return key == KEY_HINT4 || key == KEY_HINT6 || key == KEY_ECH;
}

/* RFC 9460 8: a record whose mandatory keys are not all there is not to be used. */
static bool mandatory_kept(const uint8_t *value, size_t len)
{
	for (size_t i = 0; i + 1 < len; i += 2)
		if (taken_out((unsigned)value[i] << 8 | value[i + 1]))
			return false;
	return true;
}

/*
 * SVCB and HTTPS (RFC 9460): addresses that were not judged, keys that hide the name from who looks at the connection, and
 * protocols over UDP go.  Return: bytes written, 0 when nothing usable is left, or -EBADMSG
 */
static int service_data(struct dns_cursor *c, uint8_t *out)
{
	uint16_t priority, key, n;
	int last = -1;
	bool no_default = false, alpn = false;
	size_t at;
	uint8_t name_len;

	if (!dns_take_u16(c, &priority))
		return -EBADMSG;
	at = dns_put_u16(out, 0, priority);
	name_len = data_name(c, out + at);
	if (!name_len)
		return -EBADMSG;
	at += name_len;
	while (c->at < c->len) {
		const uint8_t *value;
		size_t from = at;

		if (!dns_take_u16(c, &key) || !dns_take_u16(c, &n) || (int)key <= last)
			return -EBADMSG;
		value = c->data + c->at;
		last = key;
		if (!dns_skip(c, n))
			return -EBADMSG;
		if (taken_out(key))
			continue;
		if (key == KEY_MANDATORY && !mandatory_kept(value, n))
			return 0;
		at = dns_put_u16(out, dns_put_u16(out, at, key), n);
		if (key == KEY_ALPN) {
			int left = filter_alpn(value, n, out + at);

			if (left < 0)
				return left;
			dns_put_u16(out, from + 2, (unsigned)left);
			alpn = left > 0;
			at = alpn ? at + (size_t)left : from;
			continue;
		}
		no_default |= key == KEY_NO_DEFAULT;
		memcpy(out + at, value, n);
		at += n;
	}
	return no_default && !alpn ? 0 : (int)at;
}

/* What stands in front of the (first) name in a record's data; types that are not here have no name that may be compressed. */
static int before_name(uint16_t type, const struct dns_cursor *c)
{
	size_t at = c->at + 4;

	switch (type) {
	case DNS_TYPE_NS:
	case DNS_TYPE_CNAME:
	case DNS_TYPE_PTR:
	case DNS_TYPE_SOA:
		return 0;
	case DNS_TYPE_MX:
		return 2;
	case DNS_TYPE_SRV:
		return 6;
	case DNS_TYPE_NAPTR:
		for (int i = 0; i < 3; i++) {
			if (at >= c->len)
				return -EBADMSG;
			at += c->data[at] + 1u;
		}
		return (int)(at - c->at);
	default:
		return -ENOENT;
	}
}

/* Writes the data of @r with its names written out; Return: bytes (0: leave the record out), or -EBADMSG */
static int record_data(const uint8_t *data, const struct record *r, uint8_t *out)
{
	struct dns_cursor c = {data, r->data + r->len, r->data};
	int before;
	size_t at;
	uint8_t n;

	if (r->type == DNS_TYPE_SVCB || r->type == DNS_TYPE_HTTPS)
		return service_data(&c, out);
	before = before_name(r->type, &c);
	if (before == -ENOENT) {
		memcpy(out, data + r->data, r->len);
		return (int)r->len;
	}
	if (before < 0 || (size_t)before >= r->len)
		return -EBADMSG;
	memcpy(out, data + c.at, (size_t)before);
	c.at += (size_t)before;
	at = (size_t)before;
	for (int i = 0; i < (r->type == DNS_TYPE_SOA ? 2 : 1); i++) {
		n = data_name(&c, out + at);
		if (!n)
			return -EBADMSG;
		at += n;
	}
	if (c.len - c.at != (r->type == DNS_TYPE_SOA ? 20u : 0u))
		return -EBADMSG;
	memcpy(out + at, data + c.at, c.len - c.at);
	return (int)(at + c.len - c.at);
}

static int add_record(const uint8_t *data, const struct record *r, struct dns_records *out)
{
	/* Names become at most 255 bytes each: two of them, or one and what stands in front of it. */
	static uint8_t room[DNS_ANSWER_MAX + 2 * DNS_NAME_MAX];
	int n = record_data(data, r, room);

	if (n <= 0)
		return n;
	if (out->len + 2 + (size_t)n > sizeof(out->data))
		return 0;
	dns_put_u16(out->data, out->len, (unsigned)n);
	memcpy(out->data + out->len + 2, room, (size_t)n);
	out->len += 2 + (size_t)n;
	out->n++;
	return 0;
}

/* ---- the walk ---- */

struct walk {
	const uint8_t *data;
	size_t len;
	struct record record[DNS_INDEX_MAX];
	size_t n;
	struct place place;
};

static uint32_t smaller(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/* Takes the records of the asked type at the place where the walk is; Return: their number or -EBADMSG */
static int take_wanted(struct walk *w, struct dns_answer *a, struct dns_records *records)
{
	int found = 0;

	for (size_t i = 0; i < w->n; i++) {
		const struct record *r = &w->record[i];
		const uint8_t *d = w->data + r->data;

		if (r->type != a->type || r->class != 1 || !owner_is(w->data, w->len, r->owner, &w->place))
			continue;
		found++;
		a->ttl_s = smaller(a->ttl_s, r->ttl_s);
		if (a->type == DNS_TYPE_AAAA) {
			if (r->len != 16)
				return -EBADMSG;
			if (a->n_addrs < DNS_ADDRS6_MAX)
				a->addr6[a->n_addrs++] = ip6_read(d);
			continue;
		}
		if (a->type != DNS_TYPE_A) {
			if (add_record(w->data, r, records) < 0)
				return -EBADMSG;
			continue;
		}
		if (r->len != 4)
			return -EBADMSG;
		if (a->n_addrs < DNS_ADDRS_MAX)
			a->addr[a->n_addrs++] = (uint32_t)d[0] << 24 | (uint32_t)d[1] << 16 | (uint32_t)d[2] << 8 | d[3];
	}
	return found;
}

/* Goes one CNAME further; Return: 1, 0 when there is none, -EBADMSG or -ELOOP */
static int follow(struct walk *w, struct dns_answer *a)
{
	for (size_t i = 0; i < w->n; i++) {
		const struct record *r = &w->record[i];
		struct dns_cursor c = {w->data, r->data + r->len, r->data};
		uint8_t *target = a->names + a->names_len;
		uint8_t n;

		if (r->type != DNS_TYPE_CNAME || r->class != 1 || !owner_is(w->data, w->len, r->owner, &w->place))
			continue;
		if (a->n_links == DNS_LINKS_MAX)
			return -ELOOP;
		n = data_name(&c, target);
		if (!n || c.at != c.len)
			return -EBADMSG;
		a->link_at[a->n_links++] = a->names_len;
		a->names_len = (uint16_t)(a->names_len + n);
		a->ttl_s = smaller(a->ttl_s, r->ttl_s);
		w->place = (struct place){target, n, false};
		return 1;
	}
	return 0;
}

/* Bytes in front of the owner of @r within the last name of the chain; -ENOENT when the owner is not above it. */
static int suffix_at(const struct walk *w, size_t owner)
{
	struct dns_cursor c = {w->data, w->len, owner};
	uint8_t name[DNS_NAME_MAX], n;

	if (!dns_take_name(&c, true, name, &n) || n > w->place.len)
		return -ENOENT;
	for (size_t at = 0; at < w->place.len; at += w->place.name[at] + 1u)
		if (w->place.len - at == n)
			return dns_same_name(w->place.name + at, name, n) ? (int)at : -ENOENT;
	return -ENOENT;
}

/* The SOA record says how long "there is none" holds (RFC 2308). */
static int take_soa(const struct walk *w, const struct record *r, struct dns_answer *a)
{
	uint8_t *to = a->names + a->names_len;
	uint8_t room[2 * DNS_NAME_MAX + 20];
	int skip = suffix_at(w, r->owner), n;
	uint32_t minimum;

	if (skip < 0 || a->soa_len)
		return 0;
	if (r->len > sizeof(room))
		return -EBADMSG;
	n = record_data(w->data, r, room);
	if (n < 20)
		return -EBADMSG;
	memcpy(to, room, (size_t)n);
	minimum = (uint32_t)to[n - 4] << 24 | (uint32_t)to[n - 3] << 16 | (uint32_t)to[n - 2] << 8 | to[n - 1];
	a->ttl_s = smaller(a->ttl_s, smaller(r->ttl_s, minimum));
	a->soa_at = a->names_len;
	a->soa_len = (uint16_t)n;
	a->soa_skip = (uint8_t)skip;
	a->names_len = (uint16_t)(a->names_len + n);
	return 0;
}

static int walk(struct walk *w, struct dns_answer *a, struct dns_records *records)
{
	for (;;) {
		int r;

		if (a->type != DNS_TYPE_CNAME) {
			r = take_wanted(w, a, records);
			if (r)
				return r;
		}
		r = follow(w, a);
		if (r <= 0)
			return r;
		/* Who asks for a CNAME record has got it, as the only link. */
		if (a->type == DNS_TYPE_CNAME)
			return 1;
	}
}

int dns_answer_read(const uint8_t *data, size_t len, const struct dns_query *query, struct dns_answer *ret, struct dns_records *records)
{
	struct dns_cursor c = {data, len, 0};
	static struct walk w; /* 20 KiB: neither on the stack nor zeroed for each answer */
	struct dns_head h;
	struct record r;
	int found;

	w.data = data;
	w.len = len;
	w.n = 0;
	w.place = (struct place){query->name, query->name_len, true};
	memset(ret, 0, offsetof(struct dns_answer, addr));
	records->n = 0;
	records->len = 0;
	if (!dns_take_head(&c, &h) || h.n_question > 1 || (h.n_question && (!dns_take_name(&c, false, NULL, NULL) || !dns_skip(&c, 4))))
		return -EBADMSG;
	ret->rcode = (enum dns_rcode)(h.flags & DNS_RCODE);
	ret->type = query->type;
	ret->ttl_s = INT32_MAX;
	for (uint16_t i = 0; i < h.n_answer; i++) {
		if (!take_record(&c, &r))
			return -EBADMSG;
		if (w.n < DNS_INDEX_MAX)
			w.record[w.n++] = r;
	}
	found = walk(&w, ret, records);
	if (found < 0)
		return found;
	for (uint16_t i = 0; i < h.n_authority; i++) {
		if (!take_record(&c, &r))
			return -EBADMSG;
		if (!found && r.type == DNS_TYPE_SOA && r.class == 1 && take_soa(&w, &r, ret) < 0)
			return -EBADMSG;
	}
	for (uint16_t i = 0; i < h.n_additional; i++)
		if (!take_record(&c, &r))
			return -EBADMSG;
	if (c.at != len)
		return -EBADMSG;
	if (!found && !ret->soa_len)
		ret->ttl_s = 0;
	return 0;
}

/* ---- writing ---- */

static size_t put_record_head(uint8_t *out, size_t at, size_t owner, unsigned type, uint32_t ttl_s, size_t len)
{
	at = dns_put_u16(out, at, (unsigned)(0xc000 | owner));
	at = dns_put_u16(out, at, type);
	at = dns_put_u16(out, at, 1);
	at = dns_put_u32(out, at, ttl_s);
	return dns_put_u16(out, at, (unsigned)len);
}

static size_t name_bytes(const uint8_t *name)
{
	size_t at = 0;

	while (name[at])
		at += name[at] + 1u;
	return at + 1;
}

/* An upper bound that is exact: every record's owner is a pointer. */
static size_t built_bytes(const struct dns_answer *a, const struct dns_records *records, const struct dns_query *q)
{
	size_t n = DNS_HEAD_BYTES + q->name_len + 4u + (q->edns ? DNS_OPT_BYTES - 6 : 0);

	n += a->n_links * 12u + a->names_len + a->n_addrs * (a->type == DNS_TYPE_AAAA ? 28u : 16u) + (a->soa_len ? 12u : 0u);
	return n + (records ? records->n * 10u + records->len : 0);
}

size_t dns_answer_build(const struct dns_answer *a, const struct dns_records *records, const struct dns_query *query, uint32_t ttl_s,
			size_t max, uint8_t *out)
{
	bool cut = built_bytes(a, records, query) > max;
	unsigned flags = (unsigned)a->rcode | (cut ? DNS_FLAG_TC : 0);
	size_t owner = DNS_HEAD_BYTES, at;

	if (cut) {
		at = dns_put_answer_head(out, query, flags, 0, 0);
		return query->edns ? dns_put_opt(out, at, 0, DNS_EDE_NONE) : at;
	}
	at = dns_put_answer_head(out, query, flags, a->n_links + a->n_addrs + (records ? records->n : 0u), a->soa_len ? 1 : 0);
	for (size_t i = 0; i < a->n_links; i++) {
		const uint8_t *target = a->names + a->link_at[i];
		size_t n = name_bytes(target);

		at = put_record_head(out, at, owner, DNS_TYPE_CNAME, ttl_s, n);
		owner = at;
		memcpy(out + at, target, n);
		at += n;
	}
	for (size_t i = 0; i < a->n_addrs; i++) {
		if (a->type == DNS_TYPE_AAAA) {
			at = put_record_head(out, at, owner, DNS_TYPE_AAAA, ttl_s, 16);
			ip6_write(a->addr6[i], out + at);
			at += 16;
			continue;
		}
		at = put_record_head(out, at, owner, DNS_TYPE_A, ttl_s, 4);
		at = dns_put_u32(out, at, a->addr[i]);
	}
	for (size_t i = 0, from = 0; records && i < records->n; i++) {
		size_t n = (size_t)records->data[from] << 8 | records->data[from + 1];

		at = put_record_head(out, at, owner, a->type, ttl_s, n);
		memcpy(out + at, records->data + from + 2, n);
		at += n;
		from += n + 2;
	}
	if (a->soa_len) {
		at = put_record_head(out, at, owner + a->soa_skip, DNS_TYPE_SOA, ttl_s, a->soa_len);
		memcpy(out + at, a->names + a->soa_at, a->soa_len);
		at += a->soa_len;
	}
	return query->edns ? dns_put_opt(out, at, 0, DNS_EDE_NONE) : at;
}

size_t dns_any_build(const struct dns_query *query, uint8_t *out)
{
	static const uint8_t data[] = "\x07RFC8482";
	size_t at = dns_put_answer_head(out, query, 0, 1, 0);

	at = put_record_head(out, at, DNS_HEAD_BYTES, DNS_TYPE_HINFO, 300, sizeof(data));
	memcpy(out + at, data, sizeof(data)); /* its NUL is the empty second string */
	at += sizeof(data);
	return query->edns ? dns_put_opt(out, at, 0, DNS_EDE_NONE) : at;
}

size_t dns_answer_addr_bytes(const struct dns_answer *answer)
{
	return answer->n_addrs * (answer->type == DNS_TYPE_AAAA ? sizeof(answer->addr6[0]) : sizeof(answer->addr[0]));
}

size_t dns_answer_bytes(const struct dns_answer *answer)
{
	return offsetof(struct dns_answer, names) + answer->names_len;
}

void dns_answer_copy(struct dns_answer *to, const struct dns_answer *from)
{
	memcpy(to, from, dns_answer_bytes(from));
}
