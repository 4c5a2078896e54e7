/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: bounds of what a sandbox or a volume may write
 *
 * One interface, two backends, chosen once at the start:
 *
 *   quota  the state directory's file system enforces project quotas: a life is a project (disk_quota.h), at no cost
 *   loop   it does not: a sandbox with a limit gets an ext4 image of that size for upper, work and output spool (disk_loop.h),
 *          taken from a pool of mounted ones that another process makes (disk_worker.h)
 *   none   neither: whatever names a limit is refused
 *
 * What counts: everything on disk.  /dev/shm is 64 MiB of memory in every sandbox and counts for its memory limit.  An image lies
 * beside the upper it replaces (sandboxes/<slot>.<generation>/disk) and goes with it; those of the pool (disks/p<n>) and
 * half-made volumes (disks/t...) belong to nobody after a restart and are removed.  Mounts are attached nowhere but for the
 * moment in which the overlay is mounted, so a broker or worker that is killed leaves neither mount nor device.
 */
#ifndef RUNTIME_DISK_H
#define RUNTIME_DISK_H

#include "base/err.h"
#include "runtime/broker/disk_quota.h"

#include <stdbool.h>
#include <stdint.h>

struct broker;
struct broker_asker;
struct slot;


/**
 * disk_init() - Choose the backend and remove what an earlier broker's pool left
 * @b:		The broker, its directories are open
 * @mib:	Size of the first images of the pool, the configured default; 0: there is none
 * @err:	Filled on failure: SYSTEM, INVALID_REQUEST (limits.disk_backend)
 *
 * Return: 0, or -1 with @err set
 */
int disk_init(struct broker *b, uint32_t mib, struct sbx_err *err) SBX_WUR;
/** disk_check() - Whether @b can give a sandbox or volume @mib MiB (0: no limit); Return: 0, or -1 with @err set (HOST_LACKS, INVALID_REQUEST, STATE_FULL) */
int disk_check(const struct broker *b, uint32_t mib, struct sbx_err *err) SBX_WUR;
/** disk_of_root() - What a root of @b has to be made with for a limit of @mib: itself, or 0 when the limit can be set later */
uint32_t disk_of_root(const struct broker *b, uint32_t mib);
/** disk_by_quota() - Whether the directory of each life of @b is a project of its own */
bool disk_by_quota(const struct broker *b);
/** disk_tag() - The fresh directory @dir_fd of the life in @s of @b, before anything is in it; Return: 0 or -errno */
int disk_tag(const struct broker *b, const struct slot *s, int dir_fd) SBX_WUR;
/**
 * disk_take() - Give slot @s of @b a disk of @mib MiB for its root
 *
 * Only where disk_of_root() is not 0.  Return: 1, it has one; 0, it waits (s->disk_waits) and launch_disk_done() is called;
 * or -1 with @err set
 */
int disk_take(struct broker *b, struct slot *s, uint32_t mib, struct sbx_err *err) SBX_WUR;
/** disk_limit() - Set the limit of @mib MiB for the life in @s of @b, where that is not what its root is made with; Return: 0, or -1 with @err set */
int disk_limit(const struct broker *b, const struct slot *s, uint32_t mib, struct sbx_err *err) SBX_WUR;
/** disk_end() - The life in @s of @b has ended: give back its disk */
void disk_end(struct broker *b, struct slot *s);
/** disk_unlimit() - The directory @dir_fd of a life or volume of @b is thrown away: its project, if it has one, loses its limit */
void disk_unlimit(const struct broker *b, int dir_fd);
/**
 * disk_again() - Another mount of the disk image of a life that runs
 * @s:		Its slot; which device has the image is remembered
 * @dir_fd:	Its directory
 * @err:	Filled on failure: SYSTEM
 *
 * Return: the mount, the caller's; -ENOENT, it has no image; or -1 with @err set
 */
int disk_again(struct slot *s, int dir_fd, struct sbx_err *err) SBX_WUR;
/** disk_read() - What the life in @s of @b uses and may; all zero: nobody counts it */
void disk_read(const struct broker *b, const struct slot *s, struct disk_figures *ret);
/**
 * disk_volume() - Make the named volume @claim of @b that holds at most @mib MiB
 * @b:		The broker
 * @claim:	volumes_claim_ok()
 * @mib:	Not 0
 * @at_least:	Whether one that is there and smaller is grown; else it is taken as it is
 * @asker:	Copied when the answer comes later
 * @err:	Filled on failure: HOST_LACKS, INVALID_REQUEST, STATE_FULL, VOLUME_SIZE (an image, and no CAP_SYS_RESOURCE), LIMIT, SYSTEM
 *
 * Return: 0 made, 1 it was there, 2 broker_volume_done() is called later, or -1 with @err set
 */
int disk_volume(struct broker *b, const char *claim, uint32_t mib, bool at_least, const struct broker_asker *asker, struct sbx_err *err) SBX_WUR;
/** disk_volumes() - Mount the images of the volumes that s->create of @s of @b names; Return: 1 done, 0 it waits as in disk_take(), or -1 with @err set */
int disk_volumes(struct broker *b, struct slot *s, struct sbx_err *err) SBX_WUR;
/** disk_volume_fd() - Mount of the image of volume @i of @s, the slot's; -1: that volume has none */
int disk_volume_fd(const struct slot *s, uint32_t i);
/** disk_forget() - Close the mounts of volumes that @s still holds; its sandbox has its own */
void disk_forget(struct slot *s);
/** disk_pool_lacks() - Whether the pool of @b should be filled, or emptied of another size */
bool disk_pool_lacks(const struct broker *b);
/** disk_pool_step() - One step of that for @b: asks for one or lets one go */
void disk_pool_step(struct broker *b);
/** disk_note() - A create of @b asked for @mib MiB: the pool follows */
void disk_note(struct broker *b, uint32_t mib);

#endif
