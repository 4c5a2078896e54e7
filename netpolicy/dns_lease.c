/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "netpolicy/dns_lease.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

#include "netpolicy/dns_cache.h"
#include "netpolicy/fqdn.h"

#define FILE_MAGIC  UINT64_C(0x31534541454c4e44) /* "DNLEAES1" as bytes */
#define FILE_VERSION 2u
#define LEASE_VALID 0x4c454153u
#define GROW	    1024u
#define BUCKETS	    65536u

/* In front of the records; as large as one. */
struct header {
	uint64_t magic;
	uint32_t version, record_bytes;
	uint8_t boot_id[16];
};

struct links {
	uint32_t next_in_bucket; /* 0: end */
	uint32_t next, prev;	 /* of the sandbox, least recently touched first */
	uint32_t adopted;	 /* linked into a sandbox */
	uint64_t asked;		 /* serial of the last question to close it */
};

struct dns_leases {
	int fd; /* borrowed */
	struct dns_lease *record; /* [0] is the header's place, so that 0 is no index */
	struct links *links;	  /* owned */
	uint32_t n_made; /* records that the mapping holds, with [0] */
	uint32_t unused; /* list through links.next */
	uint32_t n;
	uint32_t *bucket; /* owned */
	uint32_t elements; /* of the kernel, of the records that belong to a sandbox */
};

/* An address of either kind: @addr 0 is @six. */
struct far {
	uint32_t addr;
	struct ip6 six;
};

static uint32_t *bucket_of(const struct dns_leases *t, const struct dns_sandbox *s, const struct far *far)
{
	const uint64_t word[2] = {far->addr ? far->addr : far->six.hi, far->six.lo};

	return &t->bucket[dns_hash(word, sizeof(word), (uint64_t)s->ref.generation << 32 | s->ref.slot) % BUCKETS];
}

static struct far far_of(const struct dns_lease *r)
{
	return (struct far){r->addr, r->addr6};
}

static void *map(int fd, size_t bytes)
{
	return mmap(NULL, bytes, PROT_READ | PROT_WRITE, fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, fd, 0);
}

/* Makes room for @n records in all; what is there stays. */
static int resize(struct dns_leases *t, uint32_t n)
{
	size_t bytes = (size_t)n * sizeof(struct dns_lease);
	struct links *links = reallocarray(t->links, n, sizeof(*links));
	void *p;

	if (!links)
		return -ENOMEM;
	t->links = links;
	if (t->fd >= 0 && ftruncate(t->fd, (off_t)bytes) < 0)
		return -errno;
	p = t->record ? mremap(t->record, (size_t)t->n_made * sizeof(struct dns_lease), bytes, MREMAP_MAYMOVE) : map(t->fd, bytes);
	if (p == MAP_FAILED)
		return -errno;
	t->record = p;
	memset(links + t->n_made, 0, (n - t->n_made) * sizeof(*links));
	t->n_made = n;
	return 0;
}

static void put_unused(struct dns_leases *t, uint32_t i)
{
	t->links[i] = (struct links){.next = t->unused};
	t->unused = i;
}

static bool sane(const struct dns_lease *r)
{
	char name[FQDN_BYTES];

	if (!r->addr == ip6_none(r->addr6) || r->n_ports > DNS_LEASE_PORTS || r->via_len > DNS_LEASE_VIA || !r->name_len || r->name_len >= sizeof(r->name) ||
	    r->name[r->name_len] || (r->via_len && r->via[r->via_len - 1]))
		return false;
	return fqdn_canonical(r->name, r->name_len, name) == r->name_len && !memcmp(name, r->name, r->name_len);
}

static int load(struct dns_leases *t, const uint8_t boot_id[16], uint64_t now_ms)
{
	struct header want = {.magic = FILE_MAGIC, .version = FILE_VERSION, .record_bytes = sizeof(struct dns_lease)}, have = {0};
	struct stat st = {0};
	uint32_t n = GROW;
	int r;

	memcpy(want.boot_id, boot_id, 16);
	if (t->fd >= 0 && fstat(t->fd, &st) < 0)
		return -errno;
	if (t->fd >= 0 && pread(t->fd, &have, sizeof(have), 0) == (ssize_t)sizeof(have) && !memcmp(&have, &want, sizeof(have)) &&
	    st.st_size >= (off_t)sizeof(struct dns_lease) && (uint64_t)st.st_size / sizeof(struct dns_lease) <= DNS_LEASES_ALL + GROW)
		n = (uint32_t)((uint64_t)st.st_size / sizeof(struct dns_lease));
	else if (t->fd >= 0 && ftruncate(t->fd, 0) < 0)
		return -errno;
	r = resize(t, n < GROW ? GROW : n);
	if (r < 0)
		return r;
	memcpy(t->record, &want, sizeof(want));
	for (uint32_t i = t->n_made - 1; i; i--) {
		struct dns_lease *l = &t->record[i];

		if (l->valid == LEASE_VALID && sane(l) && l->until_ms + DNS_LEASE_GRACE_MS > now_ms) {
			t->n++;
			continue;
		}
		l->valid = 0;
		put_unused(t, i);
	}
	return 0;
}

struct dns_leases *dns_leases_open(int fd, const uint8_t boot_id[16], uint64_t now_ms, struct sbx_err *err)
{
	struct dns_leases *t = calloc(1, sizeof(*t));
	int r = -ENOMEM;

	_Static_assert(sizeof(struct dns_lease) == 512 && sizeof(struct header) <= sizeof(struct dns_lease), "layout of the file");
	if (t) {
		t->fd = fd;
		t->bucket = calloc(BUCKETS, sizeof(*t->bucket));
		r = t->bucket ? load(t, boot_id, now_ms) : -ENOMEM;
	}
	if (r < 0) {
		dns_leases_close(t);
		sbx_err_set(err, r == -ENOMEM ? SBX_E_NO_MEMORY : SBX_E_SYSTEM, -r, "table of leases");
		return NULL;
	}
	return t;
}

void dns_leases_close(struct dns_leases *t)
{
	if (!t)
		return;
	if (t->record)
		munmap(t->record, (size_t)t->n_made * sizeof(struct dns_lease));
	free(t->links);
	free(t->bucket);
	free(t);
}

/* ---- lists ---- */

static void list_append(struct dns_leases *t, struct dns_sandbox *s, uint32_t i)
{
	t->links[i].next = 0;
	t->links[i].prev = s->lease_last;
	if (s->lease_last)
		t->links[s->lease_last].next = i;
	else
		s->lease_first = i;
	s->lease_last = i;
}

static void list_remove(struct dns_leases *t, struct dns_sandbox *s, uint32_t i)
{
	struct links *l = &t->links[i];

	if (l->prev)
		t->links[l->prev].next = l->next;
	else
		s->lease_first = l->next;
	if (l->next)
		t->links[l->next].prev = l->prev;
	else
		s->lease_last = l->prev;
}

static void list_prepend(struct dns_leases *t, struct dns_sandbox *s, uint32_t i)
{
	t->links[i].prev = 0;
	t->links[i].next = s->lease_first;
	if (s->lease_first)
		t->links[s->lease_first].prev = i;
	else
		s->lease_last = i;
	s->lease_first = i;
}

static bool is_closing(const struct dns_leases *t, uint32_t i)
{
	return t->record[i].flags & DNS_LEASE_CLOSING;
}

/* Puts record @i where it belongs and counts it: what is to be closed stands in front of all others. */
static void enlist(struct dns_leases *t, struct dns_sandbox *s, uint32_t i)
{
	uint32_t n = egress_lease_count(t->record[i].n_ports);

	if (is_closing(t, i)) {
		s->closing_elements += n;
		list_prepend(t, s, i);
		return;
	}
	s->lease_elements += n;
	t->elements += n;
	list_append(t, s, i);
}

static void delist(struct dns_leases *t, struct dns_sandbox *s, uint32_t i)
{
	uint32_t n = egress_lease_count(t->record[i].n_ports);

	list_remove(t, s, i);
	if (is_closing(t, i)) {
		s->closing_elements -= n;
		return;
	}
	s->lease_elements -= n;
	t->elements -= n;
}

static void adopt(struct dns_leases *t, struct dns_sandbox *s, uint32_t i)
{
	const struct far far = far_of(&t->record[i]);
	uint32_t *b = bucket_of(t, s, &far);

	t->links[i].next_in_bucket = *b;
	t->links[i].adopted = 1;
	*b = i;
	s->n_leases++;
	enlist(t, s, i);
}

static void release(struct dns_leases *t, struct dns_sandbox *s, uint32_t i)
{
	const struct far far = far_of(&t->record[i]);
	uint32_t *at = bucket_of(t, s, &far);

	while (*at != i)
		at = &t->links[*at].next_in_bucket;
	*at = t->links[i].next_in_bucket;
	delist(t, s, i);
	s->n_leases--;
	t->n--;
	__atomic_store_n(&t->record[i].valid, 0, __ATOMIC_RELEASE);
	put_unused(t, i);
}

struct dns_lease *dns_leases_next(const struct dns_leases *t, const struct dns_sandbox *s, uint32_t *index)
{
	*index = *index ? t->links[*index].next : s->lease_first;
	return *index ? &t->record[*index] : NULL;
}

const struct dns_lease *dns_leases_at(const struct dns_leases *t, uint32_t index)
{
	return &t->record[index];
}

static struct dns_lease *find(const struct dns_leases *t, const struct dns_sandbox *s, const struct far *far, uint32_t *index)
{
	uint32_t i = *index ? t->links[*index].next_in_bucket : *bucket_of(t, s, far);

	while (i && (t->record[i].addr != far->addr || !ip6_same(t->record[i].addr6, far->six) || t->record[i].slot != s->ref.slot ||
		     t->record[i].generation != s->ref.generation))
		i = t->links[i].next_in_bucket;
	*index = i;
	return i ? &t->record[i] : NULL;
}

struct dns_lease *dns_leases_find(const struct dns_leases *t, const struct dns_sandbox *s, uint32_t addr, uint32_t *index)
{
	return find(t, s, &(const struct far){.addr = addr}, index);
}

struct dns_lease *dns_leases_find6(const struct dns_leases *t, const struct dns_sandbox *s, struct ip6 addr, uint32_t *index)
{
	return find(t, s, &(const struct far){.six = addr}, index);
}

/* ---- taking and forgetting ---- */

static bool same_ports(const struct dns_lease *r, const uint16_t *port, uint32_t n)
{
	return r->n_ports == n && (!n || !memcmp(r->port, port, n * sizeof(*port)));
}

/* Return: index, or 0 */
static uint32_t make(struct dns_leases *t, struct dns_sandbox *s, const struct dns_lease_want *w)
{
	struct dns_lease *r;
	uint32_t i, from = t->n_made;

	if (!t->unused) {
		if (t->n_made >= DNS_LEASES_ALL || resize(t, t->n_made + GROW) < 0)
			return 0;
		for (uint32_t j = t->n_made - 1; j >= from; j--)
			put_unused(t, j);
	}
	i = t->unused;
	t->unused = t->links[i].next;
	r = &t->record[i];
	memset(r, 0, sizeof(*r));
	t->links[i].asked = 0;
	r->slot = s->ref.slot;
	r->generation = s->ref.generation;
	r->addr = w->addr;
	r->addr6 = w->addr6;
	r->n_ports = (uint8_t)w->n_ports;
	if (w->n_ports)
		memcpy(r->port, w->port, w->n_ports * sizeof(*w->port));
	r->name_len = (uint8_t)w->name_len;
	memcpy(r->name, w->name, w->name_len);
	t->n++;
	adopt(t, s, i);
	return i;
}

static bool is_of(const struct dns_lease *r, const struct dns_lease_want *w)
{
	return same_ports(r, w->port, w->n_ports) && r->name_len == w->name_len && !memcmp(r->name, w->name, w->name_len);
}

static bool fits(const struct dns_leases *t, const struct dns_sandbox *s, uint32_t more)
{
	return s->lease_elements + more <= DNS_LEASES_SANDBOX && t->elements + more <= DNS_LEASES_ALL;
}

bool dns_leases_make_room(struct dns_leases *t, struct dns_sandbox *s, const struct dns_lease_want *w, uint32_t *ret_close)
{
	const struct far far = {w->addr, w->addr6};
	uint32_t oldest = s->lease_first;
	const struct dns_lease *r;

	/* Who has as much to close as he may have open waits for the broker. */
	if (fits(t, s, egress_lease_count(w->n_ports)) || s->closing_elements >= DNS_LEASES_SANDBOX)
		return false;
	for (uint32_t i = 0; (r = find(t, s, &far, &i));)
		if (is_of(r, w) && !is_closing(t, i))
			return false;
	while (oldest && is_closing(t, oldest))
		oldest = t->links[oldest].next;
	if (!oldest)
		return false;
	*ret_close = dns_leases_shut(t, s, oldest) ? oldest : 0;
	return true;
}

int dns_leases_take(struct dns_leases *t, struct dns_sandbox *s, const struct dns_lease_want *w, bool *ret_grows)
{
	const struct far far = {w->addr, w->addr6};
	uint64_t kernel_until = 0;
	uint32_t mine = 0;
	struct dns_lease *r;

	for (uint32_t i = 0; (r = find(t, s, &far, &i));) {
		if (!same_ports(r, w->port, w->n_ports))
			continue;
		if ((r->flags & (DNS_LEASE_PINNED | DNS_LEASE_UNSURE | DNS_LEASE_CLOSING)) == DNS_LEASE_PINNED && r->until_ms > kernel_until)
			kernel_until = r->until_ms;
		if (is_of(r, w))
			mine = i;
	}
	*ret_grows = w->until_ms > kernel_until;
	if ((!mine || is_closing(t, mine)) && !fits(t, s, egress_lease_count(w->n_ports)))
		return -ENOSPC;
	if (!mine)
		mine = make(t, s, w);
	if (!mine)
		return -ENOSPC;
	ignore_result(dns_leases_keep(t, s, mine)); /* it fits */
	r = &t->record[mine];
	r->via_len = (uint8_t)(w->via_len > DNS_LEASE_VIA ? 0 : w->via_len);
	if (r->via_len)
		memcpy(r->via, w->via, r->via_len);
	r->flags = (uint16_t)((r->flags & DNS_LEASE_PINNED) | w->flags | (w->via_len > DNS_LEASE_VIA ? DNS_LEASE_VIA_CUT : 0));
	r->until_ms = w->until_ms > r->until_ms ? w->until_ms : r->until_ms;
	r->touched_ms = w->now_ms;
	__atomic_store_n(&r->valid, LEASE_VALID, __ATOMIC_RELEASE);
	if (s->lease_last != mine) {
		list_remove(t, s, mine);
		list_append(t, s, mine);
	}
	return 0;
}

/* Whether somebody else has pinned what record @index has; who does, inherits its lease. */
static bool inherited(const struct dns_leases *t, const struct dns_sandbox *s, uint32_t index)
{
	const struct dns_lease *gone = &t->record[index];
	const struct far far = far_of(gone);
	bool others = false;
	struct dns_lease *r;

	for (uint32_t i = 0; (r = find(t, s, &far, &i));) {
		if (i == index || !same_ports(r, gone->port, gone->n_ports) || (r->flags & (DNS_LEASE_PINNED | DNS_LEASE_CLOSING)) != DNS_LEASE_PINNED)
			continue;
		others = true;
		/* The kernel holds it open as long as the longest owner said: who stays must know. */
		r->until_ms = gone->until_ms > r->until_ms ? gone->until_ms : r->until_ms;
	}
	return others;
}

bool dns_leases_shut(struct dns_leases *t, struct dns_sandbox *s, uint32_t index)
{
	if (!(t->record[index].flags & DNS_LEASE_PINNED) || inherited(t, s, index)) {
		release(t, s, index);
		return false;
	}
	if (!is_closing(t, index)) {
		delist(t, s, index);
		t->record[index].flags |= DNS_LEASE_CLOSING;
		enlist(t, s, index);
	}
	return true;
}

bool dns_leases_keep(struct dns_leases *t, struct dns_sandbox *s, uint32_t index)
{
	if (!is_closing(t, index))
		return true;
	if (!fits(t, s, egress_lease_count(t->record[index].n_ports)))
		return false;
	delist(t, s, index);
	t->record[index].flags &= (uint16_t)~DNS_LEASE_CLOSING;
	enlist(t, s, index);
	return true;
}

void dns_leases_shut_asked(struct dns_leases *t, uint32_t index, uint64_t serial)
{
	t->links[index].asked = serial;
}

void dns_leases_shut_done(struct dns_leases *t, struct dns_sandbox *s, uint64_t serial)
{
	for (uint32_t i = s->lease_first, next; i && is_closing(t, i); i = next) {
		next = t->links[i].next;
		if (t->links[i].asked == serial)
			release(t, s, i);
	}
}

void dns_leases_drop(struct dns_leases *t, struct dns_sandbox *s)
{
	while (s->lease_first)
		release(t, s, s->lease_first);
}

uint32_t dns_leases_adopt(struct dns_leases *t, struct dns_sandbox *s)
{
	for (uint32_t i = 1; i < t->n_made && s->n_leases < 2 * DNS_LEASES_SANDBOX; i++) {
		const struct dns_lease *r = &t->record[i];

		if (r->valid == LEASE_VALID && !t->links[i].adopted && r->slot == s->ref.slot && r->generation == s->ref.generation)
			adopt(t, s, i);
	}
	return s->n_leases;
}

void dns_leases_orphans(struct dns_leases *t)
{
	for (uint32_t i = 1; i < t->n_made; i++) {
		if (t->record[i].valid != LEASE_VALID || t->links[i].adopted)
			continue;
		t->record[i].valid = 0;
		t->n--;
		put_unused(t, i);
	}
}

void dns_leases_expire(struct dns_leases *t, struct dns_sandbox *s, uint64_t now_ms)
{
	for (uint32_t i = s->lease_first, next; i; i = next) {
		next = t->links[i].next;
		if (t->record[i].until_ms + DNS_LEASE_GRACE_MS <= now_ms)
			release(t, s, i);
	}
}

uint32_t dns_leases_count(const struct dns_leases *t)
{
	return t->n;
}
