/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: scope-bound release
 *
 * `auto_fd` and `auto_free` release what a variable owns when it leaves its scope; take_fd() and take_ptr() hand it over.
 * Descriptors start as -1 and pointers as NULL.  Nothing here is for kernel objects that outlive the process: those are
 * undone by the step table that made them.
 */
#ifndef BASE_CLEANUP_H
#define BASE_CLEANUP_H

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* gcc, unlike clang, warns about a (void) cast of a warn_unused_result call; every use says why beside it. */
#define ignore_result(expr) \
	do { \
		if (expr) { \
		} \
	} while (0)

static inline void close_keep_errno(int fd)
{
	int saved = errno;

	if (fd >= 0)
		close(fd);
	errno = saved;
}

static inline void cleanup_fd(const int *fd)
{
	close_keep_errno(*fd);
}

static inline void cleanup_free(void *p)
{
	free(*(void **)p);
}

static inline void cleanup_file(FILE *const *f)
{
	if (*f)
		fclose(*f);
}

static inline void cleanup_dir(DIR *const *d)
{
	if (*d)
		closedir(*d);
}

#define auto_fd	  __attribute__((cleanup(cleanup_fd))) int
#define auto_free __attribute__((cleanup(cleanup_free)))
#define auto_file __attribute__((cleanup(cleanup_file))) FILE *
#define auto_dir  __attribute__((cleanup(cleanup_dir))) DIR *

static inline int take_fd(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

static inline void replace_fd(int *fd, int with)
{
	close_keep_errno(*fd);
	*fd = with;
}

#define take_ptr(p) \
	__extension__({ \
		__typeof__(p) taken_ = (p); \
		(p) = NULL; \
		taken_; \
	})

#endif
