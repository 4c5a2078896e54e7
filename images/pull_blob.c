// SPDX-License-Identifier: Apache-2.0
/*
 * The blobs of pulls: one job for each that is on its way, a child that receives it, and sandbox-fetch or an archive that feeds it.
 */
#include "images/pull_int.h"

#include "base/settings.h"
#include "images/blob_store.h"
#include "images/pull_transfer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct blob_job *pull_blob_job(const struct image_pulls *set, const uint8_t digest[DIGEST_BYTES])
{
	for (struct blob_job *j = set->jobs; j; j = j->next)
		if (!memcmp(j->digest, digest, DIGEST_BYTES))
			return j;
	return NULL;
}

void pull_blob_free(struct blob_job *job)
{
	for (struct blob_job **at = &job->set->jobs; *at; at = &(*at)->next) {
		if (*at != job)
			continue;
		*at = job->next;
		break;
	}
	transfer_free(job->transfer);
	free(job);
}

static int job_wanted(void *arg, uint64_t offset, int fd, struct sbx_err *err)
{
	struct blob_job *job = arg;
	struct pull *p = job->owner;
	struct fetch_get get = {.head = {.kind = FETCH_BLOB}, .offset = offset, .size = job->size};
	char text[DIGEST_TEXT_SIZE];

	digest_format(job->digest, text);
	snprintf(get.path, sizeof(get.path), "%s", p->ref.path);
	snprintf(get.ref, sizeof(get.ref), "%s", text);
	get.head.tag = ++job->set->last_tag;
	if (!p->fetch || fetch_client_get(p->fetch, &get, fd, err) < 0)
		return p->fetch ? -1 : sbx_err_set(err, SBX_E_PEER_GONE, 0, "sandbox-fetch is gone");
	job->tag = get.head.tag;
	return 0;
}

static void job_progress(void *arg, uint64_t bytes)
{
	struct blob_job *job = arg;

	job->done = bytes;
}

static void job_ended(void *arg, const struct sbx_err *err, bool resumed)
{
	struct blob_job *job = arg;

	job->err = *err;
	job->resumed = resumed;
	job->ended = true;
	transfer_free(job->transfer);
	job->transfer = NULL;
	pull_soon(job->set);
}

static int job_start(struct blob_job *job, struct sbx_err *err)
{
	const struct transfer_config config = {
		.loop = job->set->config.loop,
		.reaper = job->set->reaper,
		.blobs = job->set->config.blobs,
		.digest = job->digest,
		.size = job->size,
		.file = job->file,
		.file_offset = job->file_offset,
		.arg = job,
		.wanted = job_wanted,
		.progress = job_progress,
		.ended = job_ended,
	};

	job->ended = false;
	job->err = job->fetch_err = (struct sbx_err){0};
	job->tag = 0;
	job->transfer = transfer_new(&config, err);
	return job->transfer ? 0 : -1;
}

static int job_new(struct pull *p, const uint8_t digest[DIGEST_BYTES], uint64_t size, int file, uint64_t offset, bool counted,
		   struct sbx_err *err)
{
	struct blob_job *job = calloc(1, sizeof(*job));

	if (!job)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "pull");
	job->set = p->set;
	job->owner = p;
	job->size = size;
	job->file = file;
	job->file_offset = offset;
	job->counted = counted;
	memcpy(job->digest, digest, DIGEST_BYTES);
	job->next = p->set->jobs;
	p->set->jobs = job;
	if (job_start(job, err) < 0) {
		pull_blob_free(job);
		return -1;
	}
	return 0;
}

/* Looks at a job whose child has ended; it may begin again, or wait for what sandbox-fetch has to say. */
void pull_blob_settle(struct blob_job *job)
{
	struct pull *p = job->owner;
	struct sbx_err err = job->err;
	char text[DIGEST_TEXT_SIZE];

	if (!err.code) {
		pull_blob_free(job);
		return;
	}
	if (err.code == SBX_E_PEER_GONE && job->tag)
		return; /* bytes are missing, and DONE will say why */
	if (err.code == SBX_E_PEER_GONE && job->fetch_err.code)
		err = job->fetch_err;
	/* the bytes of an earlier try may have been the wrong ones: the child has thrown them away */
	if (err.code == SBX_E_IMAGE_INVALID && job->resumed && !job->again) {
		job->again = true;
		if (job_start(job, &err) == 0)
			return;
	}
	digest_format(job->digest, text);
	if (err.code == SBX_E_PEER_GONE)
		err.code = p->is_local ? SBX_E_IMAGE_INVALID : SBX_E_IMAGE_PULL_FAILED;
	sbx_err_wrap(&err, "blob %.19s", text);
	pull_blob_free(job);
	pull_note_failure(p, &err);
}

static unsigned jobs_of(const struct pull *p)
{
	unsigned n = 0;

	for (const struct blob_job *j = p->set->jobs; j; j = j->next)
		n += j->owner == p && j->counted;
	return n;
}

int pull_blob_local(struct pull *p, const uint8_t digest[DIGEST_BYTES], uint64_t size, int *ret_fd, uint64_t *ret_offset,
		      struct sbx_err *err)
{
	char text[DIGEST_TEXT_SIZE];
	uint64_t is = 0;

	digest_format(digest, text);
	if (p->local.find(p->local.arg, digest, ret_fd, ret_offset, &is) < 0)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "blob %s is not there", text);
	if (is != size)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "blob %s has %llu bytes, its descriptor says %llu", text,
				   (unsigned long long)is, (unsigned long long)size);
	return 0;
}

/*
 * Return: 1 when the blob is in the store, 0 when it is on its way or waits for its turn, -1 with @err set
 */
int pull_blob_need(struct pull *p, const uint8_t digest[DIGEST_BYTES], uint64_t size, int file, struct sbx_err *err)
{
	uint64_t is = 0;
	int r = blob_store_size(p->set->config.blobs, digest, &is);

	if (r == 0 && is != size)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "a descriptor says %llu bytes of a blob that has %llu",
				   (unsigned long long)size, (unsigned long long)is);
	if (r == 0)
		return 1;
	if (r != -ENOENT)
		return sbx_err_set(err, SBX_E_SYSTEM, -r, "blob store");
	bool counted = file < 0;
	uint64_t offset = 0;
	if (pull_blob_job(p->set, digest) || (counted && jobs_of(p) >= (unsigned)p->set->config.settings->images_parallel_blobs))
		return 0;
	if (p->is_local && counted && pull_blob_local(p, digest, size, &file, &offset, err) < 0)
		return -1;
	return job_new(p, digest, size, file, offset, counted, err);
}
