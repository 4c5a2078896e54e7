// SPDX-License-Identifier: Apache-2.0
#include "images/archive_index.h"

#include "base/cleanup.h"
#include "base/num.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const kind_names[] = {[ARCHIVE_UNKNOWN] = "unknown", [ARCHIVE_ROOTFS] = "rootfs", [ARCHIVE_OCI] = "oci",
					 [ARCHIVE_DOCKER] = "docker"};
_Static_assert(ARRAY_SIZE(kind_names) == ARCHIVE_KIND_COUNT, "a name for each kind");
_Static_assert(sizeof(struct archive_member) <= 256, "ARCHIVE_TABLE_MAX_BYTES");

enum archive_kind archive_kind_parse(const char *text)
{
	for (enum archive_kind k = ARCHIVE_ROOTFS; k < ARCHIVE_KIND_COUNT; k++)
		if (!strcmp(text, kind_names[k]))
			return k;
	return ARCHIVE_UNKNOWN;
}

const char *archive_kind_name(enum archive_kind kind)
{
	return kind < ARCHIVE_KIND_COUNT ? kind_names[kind] : kind_names[0];
}

static size_t hex_run(const char *s)
{
	return strspn(s, "0123456789abcdef");
}

/* What stands behind 64 digits of `docker save`, of the tools that write the same form, and of go-containerregistry. */
static const char *const docker_ends[] = {"/layer.tar", "/json", "/VERSION", ".json", ".tar", ".tar.gz", ""};

bool archive_name_known(const char *name)
{
	static const char *const plain[] = {"index.json", "oci-layout", "manifest.json", "repositories"};
	static const char blobs[] = "blobs/";

	for (size_t i = 0; i < ARRAY_SIZE(plain); i++)
		if (!strcmp(name, plain[i]))
			return true;
	if (strlen(name) >= ARCHIVE_NAME_BYTES)
		return false;
	if (!strncmp(name, blobs, sizeof(blobs) - 1)) {
		const char *algorithm = name + sizeof(blobs) - 1;
		size_t n = strspn(algorithm, "abcdefghijklmnopqrstuvwxyz0123456789+._-");
		const char *hex = algorithm + n + 1;

		return n && algorithm[n] == '/' && hex_run(hex) >= 32 && !hex[hex_run(hex)];
	}
	bool prefixed = !strncmp(name, "sha256:", 7);
	name += prefixed ? 7 : 0;
	if (hex_run(name) != 2 * DIGEST_BYTES)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(docker_ends) - (prefixed ? 0 : 1); i++)
		if (!strcmp(name + 2 * DIGEST_BYTES, docker_ends[i]))
			return true;
	return false;
}

static int bad_table(struct sbx_err *err, const char *what)
{
	return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "table of the archive: %s", what);
}

static int read_all(int fd, void *out, size_t n, uint64_t offset, struct sbx_err *err)
{
	for (size_t done = 0; done < n;) {
		ssize_t r = pread(fd, (char *)out + done, n - done, (off_t)(offset + done));

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "read the table of the archive");
		if (r == 0)
			return bad_table(err, "it is cut off");
		done += (size_t)r;
	}
	return 0;
}

static const char *check_member(const struct archive_member *m, const struct archive_member *before, uint64_t end)
{
	static const char blob[] = "blobs/sha256/";
	size_t n = strnlen(m->name, sizeof(m->name));

	if (n == 0 || n == sizeof(m->name))
		return "name";
	for (size_t i = n; i < sizeof(m->name); i++)
		if (m->name[i])
			return "bytes behind a name";
	for (size_t i = 0; i < n; i++)
		if (m->name[i] < 0x21 || m->name[i] > 0x7e)
			return "character of a name";
	if (before && strcmp(before->name, m->name) >= 0)
		return "order";
	if (m->offset > end || m->size > end - m->offset)
		return "a member outside the archive";
	if (m->form < LAYER_TAR || m->form > LAYER_ZSTD)
		return "form";
	bool is_blob = !strncmp(m->name, blob, sizeof(blob) - 1) && strlen(m->name) == sizeof(blob) - 1 + 2 * DIGEST_BYTES;
	uint8_t digest[DIGEST_BYTES];
	if ((m->is_blob != 0) != is_blob)
		return "blob or not";
	if (is_blob && (hex_decode(m->name + sizeof(blob) - 1, digest, sizeof(digest)) < 0 || memcmp(digest, m->digest, sizeof(digest)) != 0))
		return "digest of a blob";
	return NULL;
}

int archive_table_load(int fd, uint64_t offset, uint64_t n, struct archive_table *ret, struct sbx_err *err)
{
	uint32_t head[4];

	*ret = (struct archive_table){0};
	if (n > ARCHIVE_MEMBERS_MAX || offset > INT64_MAX / 2)
		return bad_table(err, "its size");
	if (read_all(fd, head, sizeof(head), offset, err) < 0)
		return -1;
	if (head[0] != ARCHIVE_TABLE_MAGIC || head[1] != n || head[2] != sizeof(struct archive_member) || head[3])
		return bad_table(err, "its head");
	ret->members = calloc(n ? n : 1, sizeof(*ret->members));
	if (!ret->members)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "table of the archive");
	ret->n = n;
	const char *wrong = NULL;
	int rc = read_all(fd, ret->members, n * sizeof(*ret->members), offset + sizeof(head), err);
	for (size_t i = 0; rc == 0 && !wrong && i < n; i++)
		wrong = check_member(&ret->members[i], i ? &ret->members[i - 1] : NULL, offset);
	if (wrong)
		rc = bad_table(err, wrong);
	if (rc < 0)
		archive_table_clear(ret);
	return rc;
}

void archive_table_clear(struct archive_table *table)
{
	free(table->members);
	*table = (struct archive_table){0};
}

static int by_name(const void *key, const void *member)
{
	return strcmp(key, ((const struct archive_member *)member)->name);
}

const struct archive_member *archive_table_find(const struct archive_table *table, const char *name)
{
	return table->n ? bsearch(name, table->members, table->n, sizeof(*table->members), by_name) : NULL;
}

const struct archive_member *archive_table_blob(const struct archive_table *table, const uint8_t digest[DIGEST_BYTES])
{
	char name[ARCHIVE_NAME_BYTES], hex[2 * DIGEST_BYTES + 1];

	hex_encode(digest, DIGEST_BYTES, hex);
	snprintf(name, sizeof(name), "blobs/sha256/%s", hex);
	const struct archive_member *found = archive_table_find(table, name);
	for (size_t i = 0; !found && i < table->n; i++)
		if (!table->members[i].is_blob && !memcmp(table->members[i].digest, digest, DIGEST_BYTES))
			found = &table->members[i];
	return found;
}
