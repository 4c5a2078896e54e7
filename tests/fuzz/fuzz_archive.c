// SPDX-License-Identifier: Apache-2.0
/*
 * Image archives.  The first byte says what the rest is: t, g, z an archive, plain or packed, which is indexed; T a table as a hostile
 * worker could leave it.  What an index says must load again, and what loads must lie inside the file.
 */
#include "base/cleanup.h"
#include "images/archive_image.h"
#include "images/archive_index.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_table(const struct archive_table *t, uint64_t end)
{
	for (size_t i = 0; i < t->n; i++) {
		const struct archive_member *m = &t->members[i];

		assert(m->name[0] && memchr(m->name, 0, sizeof(m->name)) && m->offset <= end && m->size <= end - m->offset);
		assert(archive_table_find(t, m->name) == m);
		assert(archive_table_blob(t, m->digest));
	}
}

static void choose(int fd, struct archive_table *table, enum archive_kind kind)
{
	struct archive_image image;
	struct sbx_err err = {0};

	if (archive_image_choose(fd, table, kind, NULL, &image, &err) < 0) {
		assert(err.code == SBX_E_IMAGE_INVALID || err.code == SBX_E_INVALID_REQUEST || err.code == SBX_E_SYSTEM ||
		       err.code == SBX_E_NO_MEMORY);
		return;
	}
	assert(image.manifest && image.n_manifest <= MANIFEST_MAX_BYTES);
	archive_image_clear(&image);
}

static void index_one(int fd, size_t size, enum layer_form form)
{
	struct archive_index_result result;
	struct archive_table table;
	struct sbx_err err = {0};

	if (archive_index(fd, form, ARCHIVE_UNKNOWN, 1000, 1 << 20, &result, &err) < 0) {
		assert(err.code == SBX_E_IMAGE_INVALID || err.code == SBX_E_LIMIT || err.code == SBX_E_NO_MEMORY);
		return;
	}
	assert(result.kind == ARCHIVE_ROOTFS || result.kind == ARCHIVE_OCI || result.kind == ARCHIVE_DOCKER);
	if (result.kind == ARCHIVE_ROOTFS)
		return;
	assert(result.table_offset >= size);
	assert(archive_table_load(fd, result.table_offset, result.n_members, &table, &err) == 0);
	check_table(&table, result.table_offset);
	choose(fd, &table, result.kind);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct archive_table table;
	struct sbx_err err = {0};

	if (size < 2)
		return 0;
	auto_fd fd = memfd_create("fuzz", MFD_CLOEXEC);
	size_t n = size - 1;
	if (fd < 0 || write(fd, data + 1, n) != (ssize_t)n)
		return 0;
	switch (data[0]) {
	case 't':
		index_one(fd, n, LAYER_TAR);
		break;
	case 'g':
		index_one(fd, n, LAYER_GZIP);
		break;
	case 'z':
		index_one(fd, n, LAYER_ZSTD);
		break;
	case 'T': {
		uint64_t at = n / 2, rows = n > at + 8 ? data[1 + at + 4] : 0;

		if (archive_table_load(fd, at, rows, &table, &err) == 0) {
			check_table(&table, at);
			choose(fd, &table, data[1] & 1 ? ARCHIVE_OCI : ARCHIVE_DOCKER);
		} else {
			assert(err.code == SBX_E_IMAGE_INVALID || err.code == SBX_E_NO_MEMORY);
		}
		break;
	}
	default:
		break;
	}
	return 0;
}
