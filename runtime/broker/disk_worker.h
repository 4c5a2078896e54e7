/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the process that makes and ends the file systems of disks
 *
 * A mount takes a millisecond, the first image of a size ten, the last close of a full one a second: none of it is done in the
 * broker's loop.  The worker is a child of the broker with its powers; it speaks the fixed structs below with the broker
 * only, over a SOCK_SEQPACKET pair, and ends with it.  Images of sandboxes it makes one after the other; whatever waits for
 * the content of a disk (a last close, a volume's journal) is done by a child of its own, so that no tenant's data delays
 * another, and so is what is huge.
 */
#ifndef RUNTIME_DISK_WORKER_H
#define RUNTIME_DISK_WORKER_H

#include "runtime/broker/disk_format.h"

#include <stdint.h>
#include <sys/types.h>

#define DISK_NAME_BYTES 80u
#define DISK_TEXT_BYTES 160u
#define DISK_VOLUME_DIR "data" /* in a volume's image: what sandboxes see, without lost+found */
#define DISK_IMAGE	"disk" /* the image, in the directory of a life or of a volume */

enum disk_job_kind {
	DISK_JOB_MAKE = 1, /* answered with the mount of a new image `name` */
	DISK_JOB_VOLUME,   /* makes the volume `name`: it is whole and synced, or not there; sys EEXIST: it was there */
	DISK_JOB_GROW,	   /* makes the image of the volume `name` larger, never smaller; whoever has it mounted goes on */
	DISK_JOB_ATTACH,   /* answered with a mount of the volume `name` */
	DISK_JOB_END,	   /* carries a mount that nobody wants any more; not answered */
	DISK_JOB_CLOSE,	   /* carries a mount whose content stays: it is only closed; not answered */
};

struct disk_job {
	uint32_t kind;	/* enum disk_job_kind */
	uint32_t owner; /* VOLUME: id of DISK_VOLUME_DIR */
	uint64_t tag;	/* echoed */
	struct disk_form form;
	char name[DISK_NAME_BYTES];
};

struct disk_done {
	uint32_t kind;
	int32_t status; /* 0 or enum sbx_err_code */
	int32_t sys;
	uint32_t zero;
	uint64_t tag;
	uint64_t bytes;
	char name[DISK_NAME_BYTES];
	char text[DISK_TEXT_BYTES];
};

struct disk_worker_config {
	int sock;
	int dir_fd; /* of the images */
	int volumes_fd;
	uid_t format_uid;
};

/** disk_worker_run() - Body of the child: serve @config until the broker is gone */
_Noreturn void disk_worker_run(const struct disk_worker_config *config);

#endif
