// SPDX-License-Identifier: Apache-2.0
#include "runtime/agent/agent_spool.h"

#include "base/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/falloc.h>

static uint8_t region_used[SPOOL_REGIONS / 8];

static uint32_t region_take(void)
{
	for (uint32_t i = 0; i < SPOOL_REGIONS; i++)
		if (!(region_used[i / 8] & (1u << (i % 8)))) {
			region_used[i / 8] = (uint8_t)(region_used[i / 8] | (1u << (i % 8)));
			return i;
		}
	return SPOOL_NO_REGION;
}

void spool_init(struct spool *s)
{
	*s = (struct spool){.region = SPOOL_NO_REGION};
}

static int write_ring(const struct spool *s, int fd, uint64_t offset, const uint8_t *data, size_t n)
{
	while (n) {
		uint64_t at = offset % LIMIT_SPOOL_BYTES;
		size_t part = n < LIMIT_SPOOL_BYTES - at ? n : (size_t)(LIMIT_SPOOL_BYTES - at);
		ssize_t r = pwrite(fd, data, part, (off_t)(s->region * LIMIT_SPOOL_BYTES + at));

		if (r <= 0)
			return r < 0 ? -errno : -EIO;
		data += r;
		offset += (uint64_t)r;
		n -= (size_t)r;
	}
	return 0;
}

/* The first bytes that memory does not hold: from here on the spool lives in the file. */
static int move_to_file(struct spool *s, int fd)
{
	s->region = fd < 0 ? SPOOL_NO_REGION : region_take();
	if (s->region == SPOOL_NO_REGION)
		return -ENOSPC;
	int r = s->total ? write_ring(s, fd, 0, s->head, (size_t)s->total) : 0;
	free(s->head);
	s->head = NULL;
	return r;
}

void spool_append(struct spool *s, int file_fd, const uint8_t *data, size_t n)
{
	int r = 0;

	if (s->region == SPOOL_NO_REGION) {
		if (s->total + n <= SPOOL_HEAD && s->start == 0) {
			if (!s->head)
				s->head = malloc(SPOOL_HEAD);
			if (s->head) {
				memcpy(s->head + s->total, data, n);
				s->total += n;
				return;
			}
		}
		r = move_to_file(s, file_fd);
	}
	if (!r)
		r = write_ring(s, file_fd, s->total, data, n);
	s->total += n;
	if (r)
		s->start = s->total;
	else if (s->total - s->start > LIMIT_SPOOL_BYTES)
		s->start = s->total - LIMIT_SPOOL_BYTES;
}

ssize_t spool_read(const struct spool *s, int file_fd, uint64_t offset, uint8_t *out, size_t n, uint64_t *ret_offset)
{
	if (offset < s->start)
		offset = s->start;
	*ret_offset = offset;
	if (offset >= s->total)
		return 0;
	if (n > s->total - offset)
		n = (size_t)(s->total - offset);
	if (s->region == SPOOL_NO_REGION) {
		memcpy(out, s->head + offset, n);
		return (ssize_t)n;
	}
	uint64_t at = offset % LIMIT_SPOOL_BYTES;
	if (n > LIMIT_SPOOL_BYTES - at)
		n = (size_t)(LIMIT_SPOOL_BYTES - at);
	ssize_t r = pread(file_fd, out, n, (off_t)(s->region * LIMIT_SPOOL_BYTES + at));
	return r < 0 ? -errno : r == 0 ? -EIO : r;
}

bool spool_wants_region(const struct spool *s, size_t n)
{
	if (s->region != SPOOL_NO_REGION || (s->total + n <= SPOOL_HEAD && s->start == 0))
		return false;
	for (uint32_t i = 0; i < SPOOL_REGIONS / 8; i++)
		if (region_used[i] != UINT8_MAX)
			return false;
	return true;
}

void spool_forget(struct spool *s, int file_fd)
{
	uint64_t total = s->total;

	spool_drop(s, file_fd);
	s->total = s->start = total;
}

void spool_drop(struct spool *s, int file_fd)
{
	free(s->head);
	if (s->region != SPOOL_NO_REGION) {
		/* a file system that cannot punch keeps the blocks until the region is written again */
		if (fallocate(file_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			      (off_t)(s->region * LIMIT_SPOOL_BYTES), (off_t)LIMIT_SPOOL_BYTES) < 0)
			errno = 0;
		region_used[s->region / 8] = (uint8_t)(region_used[s->region / 8] & ~(1u << (s->region % 8)));
	}
	spool_init(s);
}
