// SPDX-License-Identifier: Apache-2.0
/* In sandbox-unpack alone; what it appends is read back by archive_table.c. */
#include "images/archive_index.h"

#include "base/cleanup.h"
#include "base/limits.h"
#include "base/num.h"
#include "images/tar_io.h"
#include "images/tree_writer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct link {
	char from[ARCHIVE_NAME_BYTES], to[ARCHIVE_NAME_BYTES];
};

struct indexing {
	int fd;
	enum archive_kind kind; /* forced */
	uint64_t base;	/* of the plain form in the file */
	uint64_t end;	/* first byte behind all that is in the file */
	bool packed;
	bool is_image;	/* a name that only an image archive has was seen */
	struct archive_member *members; /* owned */
	size_t n;
	struct link *links; /* owned */
	size_t n_links;
};

static int write_at(struct indexing *x, const void *data, size_t n, struct sbx_err *err)
{
	for (const char *at = data; n;) {
		ssize_t w = pwrite(x->fd, at, n, (off_t)x->end);

		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0 && errno == EFBIG)
			return sbx_err_set(err, SBX_E_LIMIT, 0, "the archive unpacks to more than is allowed");
		if (w < 0)
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "write the plain archive");
		x->end += (uint64_t)w;
		at += w;
		n -= (size_t)w;
	}
	return 0;
}

static int on_bytes(void *arg, const void *data, size_t n, struct sbx_err *err)
{
	struct indexing *x = arg;

	return x->packed ? write_at(x, data, n, err) : 0;
}

static int invalid(const char *name, const char *what, struct sbx_err *err)
{
	return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "archive member \"%.100s\": %s", name, what);
}

/* "a/b/layer.tar" -> "../x/layer.tar": the target as a clean path from the root of the archive. */
static int resolve(const char *from, const char *target, bool symbolic, char out[ARCHIVE_NAME_BYTES])
{
	char path[2 * ARCHIVE_NAME_BYTES] = "";
	size_t n = 0;

	if (strlen(target) >= ARCHIVE_NAME_BYTES || target[0] == '/')
		return -1;
	if (symbolic) {
		const char *slash = strrchr(from, '/');

		n = slash ? (size_t)(slash - from) : 0;
		memcpy(path, from, n);
	}
	for (const char *part = target; *part;) {
		size_t len = strcspn(part, "/");

		if (len == 2 && !memcmp(part, "..", 2)) {
			if (!n)
				return -1;
			while (n && path[n - 1] != '/')
				n--;
			n -= n ? 1 : 0;
		} else if (len && !(len == 1 && part[0] == '.')) {
			if (n)
				path[n++] = '/';
			memcpy(path + n, part, len);
			n += len;
		}
		part += len + (part[len] == '/');
	}
	if (!n || n >= ARCHIVE_NAME_BYTES)
		return -1;
	memcpy(out, path, n);
	out[n] = '\0';
	return 0;
}

static int add_link(struct indexing *x, const struct tar_entry *e, const char *name, struct sbx_err *err)
{
	struct link *all = reallocarray(x->links, x->n_links + 1, sizeof(*all));

	if (!all)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "archive");
	x->links = all;
	struct link *l = &all[x->n_links];
	*l = (struct link){0};
	memcpy(l->from, name, strlen(name)); /* archive_name_known(): it fits */
	if (!(e->hard_link || e->symlink) || resolve(name, e->hard_link ? e->hard_link : e->symlink, !e->hard_link, l->to) < 0)
		return invalid(name, "a link out of the archive", err);
	x->n_links++;
	return 0;
}

/* First bytes and digest of the member; blobs are hashed when they are taken, under the digest that their name claims. */
static int read_content(struct indexing *x, struct tar_reader *r, struct archive_member *m, struct sbx_err *err)
{
	uint8_t first[4] = {0};
	uint64_t at = 0, offset = 0;
	const void *data;
	size_t n;
	int rc;
	struct digest *d = NULL;

	m->offset = x->base + tar_reader_position(r);
	if (!m->is_blob && !(d = digest_new(err)))
		return -1;
	while ((rc = tar_reader_data(r, &data, &n, &offset, err)) > 0) {
		if (offset != at) {
			rc = invalid(m->name, "it has holes", err);
			break;
		}
		for (size_t i = 0; i < n && at + i < sizeof(first); i++)
			first[at + i] = ((const uint8_t *)data)[i];
		if (d && digest_update(d, data, n, err) < 0) {
			rc = -1;
			break;
		}
		at += n;
	}
	if (rc == 0 && at != m->size)
		rc = invalid(m->name, "it is shorter than its head says", err);
	if (rc == 0 && d)
		rc = digest_finish(d, m->digest, err);
	digest_free(d);
	m->form = LAYER_TAR;
	if (first[0] == 0x1f && first[1] == 0x8b)
		m->form = LAYER_GZIP;
	else if (!memcmp(first, "\x28\xb5\x2f\xfd", sizeof(first)))
		m->form = LAYER_ZSTD;
	return rc < 0 ? -1 : 0;
}

static int add_member(struct indexing *x, struct tar_reader *r, const struct tar_entry *e, const char *name, struct sbx_err *err)
{
	static const char blob[] = "blobs/sha256/";

	if (x->n == ARCHIVE_MEMBERS_MAX)
		return sbx_err_set(err, SBX_E_LIMIT, 0, "an image archive with more than %u members", ARCHIVE_MEMBERS_MAX);
	struct archive_member *m = &x->members[x->n];
	*m = (struct archive_member){.size = (uint64_t)e->size};
	memcpy(m->name, name, strlen(name)); /* archive_name_known(): it fits */
	m->is_blob = !strncmp(name, blob, sizeof(blob) - 1) && strlen(name) == sizeof(blob) - 1 + 2 * DIGEST_BYTES &&
		     hex_decode(name + sizeof(blob) - 1, m->digest, DIGEST_BYTES) == 0;
	if (e->sparse)
		return invalid(name, "it has holes", err);
	if (read_content(x, r, m, err) < 0)
		return -1;
	x->n++;
	return 0;
}

/* Return: 1 to go on, 0 when this is no image archive, -1 with @err set */
static int take_entry(struct indexing *x, struct tar_reader *r, const struct tar_entry *e, struct sbx_err *err)
{
	char name[LIMIT_PATH_BYTES];

	if (tree_path_clean(e->path, name, err) < 0)
		return -1;
	if (e->type == S_IFDIR && !e->hard_link) {
		/* only those above known names; a root file system mostly begins with one of its own */
		bool known = !name[0] || !strcmp(name, "blobs") || !strncmp(name, "blobs/", 6) || strspn(name, "0123456789abcdef") == 64;

		return known || x->kind ? 1 : 0;
	}
	if (!archive_name_known(name)) {
		if (!x->kind && !x->is_image)
			return 0;
		if (!x->kind)
			return invalid(name, "an image archive has no such file; --kind says what the archive is", err);
		return 1; /* the kind is given: what it does not know is passed over */
	}
	if (!strcmp(name, "oci-layout") || !strcmp(name, "manifest.json") || !strcmp(name, "index.json"))
		x->is_image = true;
	if (e->hard_link || e->type == S_IFLNK)
		return add_link(x, e, name, err) < 0 ? -1 : 1;
	if (e->type != S_IFREG)
		return invalid(name, "no plain file", err);
	return add_member(x, r, e, name, err) < 0 ? -1 : 1;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct archive_member *)a)->name, ((const struct archive_member *)b)->name);
}

static int resolve_links(struct indexing *x, struct sbx_err *err)
{
	size_t n_files = x->n;

	for (size_t i = 0; i < x->n_links; i++) {
		const struct archive_member *to = NULL;

		for (size_t k = 0; !to && k < n_files; k++)
			if (!strcmp(x->members[k].name, x->links[i].to))
				to = &x->members[k];
		if (!to)
			return invalid(x->links[i].from, "a link to nothing in the archive", err);
		if (x->n == ARCHIVE_MEMBERS_MAX)
			return sbx_err_set(err, SBX_E_LIMIT, 0, "an image archive with more than %u members", ARCHIVE_MEMBERS_MAX);
		struct archive_member *m = &x->members[x->n++];
		*m = *to;
		memcpy(m->name, x->links[i].from, sizeof(m->name));
		/* a blob's digest is its name; the copy of it under another name is none */
		if (strncmp(m->name, "blobs/", 6) == 0 || to->is_blob)
			return invalid(m->name, "a link where a file belongs", err);
	}
	return 0;
}

static bool has(const struct indexing *x, const char *name)
{
	for (size_t i = 0; i < x->n; i++)
		if (!strcmp(x->members[i].name, name))
			return true;
	return false;
}

/* `docker save` of today writes both forms into one archive: the one that names digests is taken. */
static int decide_kind(const struct indexing *x, enum archive_kind *ret, struct sbx_err *err)
{
	bool oci = has(x, "oci-layout") && has(x, "index.json"), docker = has(x, "manifest.json");

	*ret = x->kind ? x->kind : oci ? ARCHIVE_OCI : docker ? ARCHIVE_DOCKER : ARCHIVE_ROOTFS;
	if (*ret == ARCHIVE_OCI && !oci)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "no OCI layout: the archive has no %s",
				   has(x, "index.json") ? "oci-layout" : "index.json");
	if (*ret == ARCHIVE_DOCKER && !docker)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "not from docker save: the archive has no manifest.json");
	if (*ret == ARCHIVE_ROOTFS && x->is_image)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "half an OCI layout: the archive has no %s",
				   has(x, "index.json") ? "oci-layout" : "index.json");
	return 0;
}

static int write_table(struct indexing *x, struct archive_index_result *ret, struct sbx_err *err)
{
	const uint32_t head[4] = {ARCHIVE_TABLE_MAGIC, (uint32_t)x->n, sizeof(struct archive_member), 0};

	if (x->n)
		qsort(x->members, x->n, sizeof(*x->members), by_name);
	for (size_t i = 1; i < x->n; i++)
		if (!strcmp(x->members[i - 1].name, x->members[i].name))
			return invalid(x->members[i].name, "it is there twice", err);
	ret->table_offset = x->end;
	ret->n_members = x->n;
	return write_at(x, head, sizeof(head), err) < 0 ? -1 : write_at(x, x->members, x->n * sizeof(*x->members), err);
}

static int walk(struct indexing *x, uint64_t file_bytes, enum layer_form form, uint64_t max_entries, uint64_t max_bytes, struct archive_index_result *ret,
		struct sbx_err *err)
{
	const struct tar_reader_config config = {.fd = x->fd, .file_bytes = file_bytes, .form = form, .max_bytes = max_bytes, .arg = x, .tap = on_bytes};
	auto_tar_reader *r = tar_reader_new(&config, err);
	struct tar_entry e;
	uint64_t seen = 0;
	int rc = 1;

	if (!r)
		return -1;
	while (rc > 0 && (rc = tar_reader_next(r, &e, err)) > 0) {
		if (++seen > max_entries)
			return sbx_err_set(err, SBX_E_LIMIT, 0, "an image archive with more than %llu entries", (unsigned long long)max_entries);
		rc = take_entry(x, r, &e, err);
		if (rc == 0) {
			ret->kind = ARCHIVE_ROOTFS;
			return 0;
		}
	}
	if (rc < 0 || (x->packed && tar_reader_finish(r, err) < 0) || resolve_links(x, err) < 0 || decide_kind(x, &ret->kind, err) < 0)
		return -1;
	return ret->kind == ARCHIVE_ROOTFS ? 0 : write_table(x, ret, err);
}

int archive_index(int fd, enum layer_form form, enum archive_kind kind, uint64_t max_entries, uint64_t max_bytes,
		  struct archive_index_result *ret, struct sbx_err *err)
{
	struct indexing x = {.fd = fd, .kind = kind, .packed = form != LAYER_TAR};
	struct stat st;
	int rc = -1;

	*ret = (struct archive_index_result){0};
	if (kind == ARCHIVE_ROOTFS)
		return sbx_err_set(err, SBX_E_PROTOCOL, 0, "a root file system has no table");
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || lseek(fd, 0, SEEK_SET) < 0)
		return sbx_err_set(err, SBX_E_PROTOCOL, 0, "the archive is no plain file");
	x.end = (uint64_t)st.st_size;
	x.base = x.packed ? x.end : 0;
	x.members = calloc(ARCHIVE_MEMBERS_MAX, sizeof(*x.members));
	if (!x.members)
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "archive");
	else
		rc = walk(&x, (uint64_t)st.st_size, form, max_entries, max_bytes, ret, err);
	free(x.members);
	free(x.links);
	return rc;
}
