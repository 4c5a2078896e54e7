// SPDX-License-Identifier: Apache-2.0
#include "runtime/agent/agent_files.h"

#include "runtime/agent/agent_spawn.h"
#include "runtime/agent/agent_sys.h"

#include "base/cleanup.h"
#include "base/limits.h"

#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/xattr.h>

#include <linux/falloc.h>
#include <linux/limits.h>

#define DATA_BYTES    (AGENT_OUT_FRAME - (uint32_t)sizeof(struct agent_frame))
#define REPLACE_BYTES (256u * 1024 * 1024)
#define PIPE_MIN      65536u /* below this the copy costs less than the detour */
#define CONTENT_STEP  (1024u * 1024)
#define SPLICE_MIN    (256u * 1024) /* of an upload that go before pages are moved: most are smaller */
#define RENAME_NOREPLACE_ 1u
#define AHEAD_MIN     (256u * 1024)
#define AHEAD_MAX     (64u * 1024 * 1024)
#define FREE_LATER_MIN	  (1024u * 1024)
#define FREE_LATER_TIMES  4u
#define LINKS_MAX     40 /* as the kernel follows */
#define MAGIC_EXT4    0xef53u
#define MAGIC_OVERLAY 0x794c7630u

/* ---- frames to the agent ---- */

static void send_frame(uint8_t *frame, uint16_t type, uint32_t n)
{
	struct agent_frame f = {.size = n, .type = type};
	ssize_t r;

	memcpy(frame, &f, sizeof(f));
	do
		r = send(FILES_SOCKET_FD, frame, sizeof(f) + n, MSG_NOSIGNAL);
	while (r < 0 && errno == EINTR);
	if (r < 0)
		_exit(1); /* the agent has dropped us */
}

static void flush_data(struct files_job *job)
{
	if (job->have)
		send_frame(job->out, AGENT_DATA, job->have);
	job->have = 0;
}

static uint8_t *data_room(struct files_job *job, uint32_t n)
{
	if (job->have + n > DATA_BYTES)
		flush_data(job);
	return job->out + sizeof(struct agent_frame) + job->have;
}

void files_data(struct files_job *job, const void *data, size_t n)
{
	const uint8_t *at = data;

	while (n) {
		uint32_t part = DATA_BYTES - job->have;

		if (!part) {
			flush_data(job);
			continue;
		}
		if (part > n)
			part = (uint32_t)n;
		memcpy(data_room(job, part), at, part);
		job->have += part;
		at += part;
		n -= part;
	}
}

__attribute__((noreturn)) static void finish(struct files_job *job, enum agent_reason reason, int sys, const char *text)
{
	struct agent_end end = {.reason = reason, .sys = sys < 0 ? -sys : sys, .value = job->value};
	size_t n = strnlen(text, 200);

	flush_data(job);
	end.text_bytes = (uint32_t)n;
	memcpy(job->out + sizeof(struct agent_frame), &end, sizeof(end));
	memcpy(job->out + sizeof(struct agent_frame) + sizeof(end), text, n);
	send_frame(job->out, AGENT_END, (uint32_t)(sizeof(end) + n));
	_exit(0);
}

/* ---- names and records ---- */

static void load_names(struct files_job *job)
{
	if (!job->passwd && users_load("/etc/passwd", &job->passwd, &job->passwd_n))
		job->passwd = NULL;
	if (!job->group && users_load("/etc/group", &job->group, &job->group_n))
		job->group = NULL;
}

static const char *owner_name(struct files_job *job, uint32_t uid, struct users_identity *id)
{
	id->name[0] = 0;
	if (job->passwd && !users_find_passwd(job->passwd, job->passwd_n, NULL, uid, id))
		return id->name;
	return "";
}

static enum agent_file_kind kind_of(mode_t mode)
{
	return S_ISREG(mode)   ? AGENT_FILE_REGULAR :
	       S_ISDIR(mode)   ? AGENT_FILE_DIRECTORY :
	       S_ISLNK(mode)   ? AGENT_FILE_SYMLINK :
				 AGENT_FILE_OTHER;
}

static int64_t usec_of(const struct sysx_statx_time *t)
{
	return t->sec * 1000000 + t->nsec / 1000;
}

static int put_record(struct files_job *job, const struct sysx_statx *st, const char *shown, uint32_t index)
{
	struct users_identity id;
	char group[USERS_NAME_BYTES] = "";

	load_names(job);
	const char *owner = owner_name(job, st->uid, &id);
	if (job->group && users_group_name(job->group, job->group_n, st->gid, group, sizeof(group)))
		group[0] = 0;
	const struct sysx_statx_time *born = st->mask & SYSX_STATX_BTIME ? &st->btime : &st->ctime;
	struct agent_file_record rec = {
		.kind = kind_of(st->mode),
		.mode = st->mode & 07777u,
		.index = index,
		.size_bytes = st->size,
		.modified_wall_usec = usec_of(&st->mtime),
		.created_wall_usec = usec_of(born),
		.uid = st->uid,
		.gid = st->gid,
		.path_bytes = (uint32_t)strlen(shown) + 1,
		.owner_bytes = (uint16_t)(strlen(owner) + 1),
		.group_bytes = (uint16_t)(strlen(group) + 1),
	};
	if (rec.path_bytes > LIMIT_PATH_BYTES)
		return -ENAMETOOLONG;
	rec.record_bytes = (uint32_t)sizeof(rec) + rec.path_bytes + rec.owner_bytes + rec.group_bytes;
	uint8_t *at = data_room(job, rec.record_bytes);
	memcpy(at, &rec, sizeof(rec));
	at += sizeof(rec);
	memcpy(at, shown, rec.path_bytes);
	memcpy(at + rec.path_bytes, owner, rec.owner_bytes);
	memcpy(at + rec.path_bytes + rec.owner_bytes, group, rec.group_bytes);
	job->have += rec.record_bytes;
	return 0;
}

int files_record(struct files_job *job, int dir_fd, const char *path, const char *shown, uint32_t index)
{
	struct sysx_statx st;

	int r = sysx_statx(dir_fd, path, AT_SYMLINK_NOFOLLOW, &st);
	return r ? r : put_record(job, &st, shown, index);
}

/* The path as the operation uses it: expanded and absolute.  Return: owned text, or NULL with errno. */
static char *absolute(const struct files_job *job, const char *asked)
{
	char *path, *cwd, *whole;

	errno = ENOMEM;
	if (!*asked) {
		errno = ENOENT;
		return NULL;
	}
	if (env_path(&job->env, asked, &path))
		return NULL;
	if (*path == '/')
		return path;
	cwd = getcwd(NULL, 0);
	whole = cwd ? malloc(strlen(cwd) + strlen(path) + 2) : NULL;
	if (whole) {
		size_t n = strlen(cwd);

		memcpy(whole, cwd, n);
		if (n && whole[n - 1] != '/')
			whole[n++] = '/';
		memcpy(whole + n, path, strlen(path) + 1);
	}
	free(cwd);
	free(path);
	return whole;
}

/* "name" or "number"; "" leaves the id alone (-1). */
static int owner_ids(struct files_job *job, const char *owner, const char *group, uid_t *ret_uid, gid_t *ret_gid)
{
	struct users_identity id = {0};
	uint32_t n;

	*ret_uid = (uid_t)-1;
	*ret_gid = (gid_t)-1;
	load_names(job);
	if (*owner) {
		if (!users_id(owner, strlen(owner), &n))
			*ret_uid = n;
		else if (job->passwd && !users_find_passwd(job->passwd, job->passwd_n, owner, 0, &id))
			*ret_uid = id.uid;
		else
			return -EINVAL;
	}
	if (*group) {
		if (!users_id(group, strlen(group), &n) ||
		    (job->group && !users_find_group(job->group, job->group_n, group, &n)))
			*ret_gid = n;
		else
			return -EINVAL;
	}
	return 0;
}

static int make_parents(const char *path)
{
	auto_free char *copy = strdup(path);

	if (!copy)
		return -ENOMEM;
	for (char *s = copy + 1; (s = strchr(s, '/')); s++) {
		*s = 0;
		if (mkdir(copy, 0777) < 0 && errno != EEXIST)
			return -errno;
		*s = '/';
	}
	return 0;
}

/* ---- operations: each a path as the client gave it, 0 or a negative errno ---- */

static int op_info(struct files_job *job)
{
	const char *asked = job->strings;

	for (uint32_t i = 0; i < job->fs.n_strings; i++, asked = spec_next(asked)) {
		job->blame = asked;
		auto_free char *path = absolute(job, asked);
		int r = path ? files_record(job, AT_FDCWD, path, path, i) : -errno;

		if (r)
			return r;
	}
	return 0;
}

static int op_list(struct files_job *job)
{
	auto_free char *path = absolute(job, job->strings);

	return path ? walk_list(job, path, job->fs.depth) : -errno;
}

static int op_search(struct files_job *job)
{
	auto_free char *path = absolute(job, job->strings);
	const char *pattern = job->fs.n_strings > 1 ? spec_next(job->strings) : "**";

	if (!path)
		return -errno;
	int r = walk_search(job, path, pattern);
	if (r == -EINVAL) {
		char text[200];

		snprintf(text, sizeof(text), "invalid pattern %.120s: syntax error in pattern", pattern);
		finish(job, AGENT_BAD_REQUEST, 0, text);
	}
	return r;
}

/* Return: bytes that went from the file into the pipe without a copy, or a negative errno. */
static int64_t send_by_pipe(int fd, uint64_t offset, uint64_t n)
{
	off_t at = (off_t)offset;
	uint64_t done = 0;

	ignore_result(fcntl(FILES_PIPE_FD, F_SETPIPE_SZ, (int)(2 * AGENT_WINDOW))); /* else it is only slower */
	while (done < n) {
		ssize_t r = splice(fd, &at, FILES_PIPE_FD, NULL, n - done < CONTENT_STEP ? (size_t)(n - done) : CONTENT_STEP, 0);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0 && errno == EINVAL && !done)
			return 0; /* a file system without it */
		if (r < 0)
			return -errno;
		if (r == 0)
			break; /* the file has become shorter */
		done += (uint64_t)r;
	}
	return (int64_t)done;
}

static int send_range(struct files_job *job, int fd, uint64_t offset, uint64_t n)
{
	if (n >= PIPE_MIN) {
		flush_data(job);
		int64_t r = send_by_pipe(fd, offset, n);

		if (r)
			return r < 0 ? (int)r : 0;
	}
	if (lseek(fd, (off_t)offset, SEEK_SET) < 0)
		return -errno;
	while (n) {
		flush_data(job);
		uint32_t part = n < DATA_BYTES ? (uint32_t)n : DATA_BYTES;
		ssize_t r = read(fd, data_room(job, part), part);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (r == 0)
			return 0;
		job->have = (uint32_t)r;
		n -= (uint64_t)r;
	}
	return 0;
}

static int send_lines(struct files_job *job, int fd, uint64_t first, uint64_t count)
{
	uint64_t skip = first ? first - 1 : 0, left = count ? count : UINT64_MAX;
	uint8_t *buf = malloc(64 * 1024);
	ssize_t n;

	if (!buf)
		return -ENOMEM;
	while (left && (n = read(fd, buf, 64 * 1024)) > 0) {
		const uint8_t *at = buf, *end = buf + n;

		while (at < end && left) {
			const uint8_t *eol = memchr(at, '\n', (size_t)(end - at));
			const uint8_t *next = eol ? eol + 1 : end;

			if (!skip)
				files_data(job, at, (size_t)(next - at));
			if (eol) {
				left -= !skip;
				skip -= !!skip;
			}
			at = next;
		}
	}
	free(buf);
	return left && n < 0 ? -errno : 0;
}

static int op_read(struct files_job *job)
{
	const struct agent_fs *q = &job->fs;
	auto_free char *path = absolute(job, job->strings);
	struct sysx_statx st;

	if (!path)
		return -errno;
	/* a device or a FIFO is not content; without O_NONBLOCK the open alone could wait for ever */
	auto_fd fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	int r = sysx_statx(fd, "", 0x1000 /* AT_EMPTY_PATH */, &st);
	if (r)
		return r;
	if (S_ISDIR(st.mode))
		return -EISDIR;
	if (!S_ISREG(st.mode))
		return -EINVAL;
	r = put_record(job, &st, path, 0);
	flush_data(job);
	if (r || (q->flags & AGENT_FS_STAT_ONLY))
		return r;
	if (q->flags & AGENT_FS_LINES)
		return send_lines(job, fd, q->offset, q->length);
	if (q->flags & AGENT_FS_TAIL)
		return send_range(job, fd, q->length < st.size ? st.size - q->length : 0, q->length);
	if (q->offset >= st.size)
		return 0;
	/* what is told in the record is what is sent, also when the file grows meanwhile */
	uint64_t rest = st.size - q->offset;
	return send_range(job, fd, q->offset, q->length && q->length < rest ? q->length : rest);
}

int files_write_all(int fd, const uint8_t *data, size_t n)
{
	while (n) {
		ssize_t r = write(fd, data, n);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		data += r;
		n -= (size_t)r;
	}
	return 0;
}

struct intake {
	int fd;
	bool ahead;	    /* room is made before it is needed */
	uint64_t most;	    /* bytes that can come at all; 0: not known */
	uint64_t have;	    /* bytes written */
	uint64_t allocated; /* bytes from the start that have blocks, as far as we made them */
	uint8_t *buf;	    /* owned */
	bool copies;	    /* this file takes no pages of a pipe */
	int own_read_fd, own_write_fd; /* owned; a pipe of ours; 0: not needed so far */
};

/*
 * ext4 gives blocks to written pages when it writes them out.  A rename over an old file makes it do that at once, for all of
 * the new one, so that a crash does not leave an empty file: that costs more than the upload itself.  Pages that lie
 * over blocks which are there already have nothing left to be decided, and nothing is flushed.  So the blocks are made first, in
 * steps that grow with the file; writing gets faster by it, too.  Only where this is how it works: tmpfs would clear the
 * pages, and a remote file system be asked once more.
 */
static bool wants_blocks_first(int fd)
{
	struct statfs fs;

	return !fstatfs(fd, &fs) && ((uint64_t)fs.f_type == MAGIC_EXT4 || (uint64_t)fs.f_type == MAGIC_OVERLAY);
}

static void allocate_ahead(struct intake *in, uint64_t need)
{
	uint64_t step = in->have < AHEAD_MIN ? AHEAD_MIN : in->have > AHEAD_MAX ? AHEAD_MAX : in->have;

	if (!in->ahead || need <= in->allocated)
		return;
	if (in->most && in->most - in->have <= AHEAD_MAX)
		step = in->most - in->have;
	if (step < need - in->have)
		step = need - in->have;
	/* no room for what may never come is no failure: the write that does not fit says so, as it does without this */
	in->ahead = !fallocate(in->fd, FALLOC_FL_KEEP_SIZE, (off_t)in->allocated, (off_t)(in->have + step - in->allocated));
	in->allocated = in->have + step;
}

/* What was made ahead and not needed goes back. */
static int cut_surplus(const struct intake *in)
{
	return in->allocated > in->have ? sysx_ret(ftruncate(in->fd, (off_t)in->have)) : 0;
}

static ssize_t copy_from(struct intake *in, int pipe_fd, size_t most)
{
	if (!in->buf && !(in->buf = malloc(AGENT_WINDOW)))
		return -ENOMEM;
	ssize_t n = read(pipe_fd, in->buf, most < AGENT_WINDOW ? most : AGENT_WINDOW);
	if (n <= 0)
		return n < 0 ? -errno : 0;
	allocate_ahead(in, in->have + (uint64_t)n);
	int r = files_write_all(in->fd, in->buf, (size_t)n);
	return r ? r : n;
}

static bool own_pipe(struct intake *in)
{
	int p[2];

	if (in->copies || in->own_read_fd)
		return !in->copies;
	in->copies = pipe2(p, O_CLOEXEC) < 0;
	if (in->copies)
		return false;
	in->own_read_fd = p[0];
	in->own_write_fd = p[1];
	ignore_result(fcntl(p[0], F_SETPIPE_SZ, (int)(2 * AGENT_WINDOW))); /* else it is only slower */
	return true;
}

/* Return: 0 when all of the @n bytes in our own pipe are in the file, or a negative errno. */
static int empty_own_pipe(struct intake *in, size_t n)
{
	while (n) {
		ssize_t r = in->copies ? copy_from(in, in->own_read_fd, n) :
					 sysx_ret(splice(in->own_read_fd, NULL, in->fd, NULL, n, SPLICE_F_MOVE));

		if (r == -EINTR)
			continue;
		if (r == -EINVAL && !in->copies) {
			in->copies = true; /* a file system without it */
			continue;
		}
		if (r <= 0)
			return r < 0 ? (int)r : -EIO;
		n -= (size_t)r;
	}
	return 0;
}

/*
 * Return: bytes moved from the pipe into the file, 0 at the end of the pipe, or a negative errno (-EAGAIN: nothing there
 * now).  Large content goes by way of a pipe of ours: a splice into a file holds its pipe locked while it writes, and the
 * agent would wait for that.
 */
static ssize_t move_content(struct intake *in)
{
	ssize_t n;

	if (in->have < SPLICE_MIN || !own_pipe(in)) {
		n = copy_from(in, FILES_PIPE_FD, AGENT_WINDOW);
	} else {
		n = sysx_ret(splice(FILES_PIPE_FD, NULL, in->own_write_fd, NULL, CONTENT_STEP, SPLICE_F_MOVE | SPLICE_F_NONBLOCK));
		if (n <= 0)
			return n;
		allocate_ahead(in, in->have + (uint64_t)n);
		int r = empty_own_pipe(in, (size_t)n);
		n = r ? r : n;
	}
	if (n > 0)
		in->have += (uint64_t)n;
	return n;
}

/* Return: 0 with *@ret_bytes, -EAGAIN when the word has not come, -ECANCELED when it never will. */
static int completion(uint64_t *ret_bytes)
{
	struct files_complete all;
	ssize_t n = recv(FILES_SOCKET_FD, &all, sizeof(all), MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return -EAGAIN;
	if (n != (ssize_t)sizeof(all))
		return -ECANCELED;
	*ret_bytes = all.bytes;
	return 0;
}

/* Takes the upload until it is complete.  What was given up is no upload, however much of it came. */
static int receive_upload(struct intake *in)
{
	uint64_t whole = UINT64_MAX;
	int r = sysx_ret(fcntl(FILES_PIPE_FD, F_SETFL, O_NONBLOCK));

	while (!r && in->have < whole) {
		ssize_t n = move_content(in);

		if (n < 0 && n != -EAGAIN && n != -EINTR)
			r = (int)n;
		if (n > 0 || r)
			continue;
		struct pollfd p[] = {{.fd = FILES_PIPE_FD, .events = POLLIN},
				     {.fd = whole == UINT64_MAX ? FILES_SOCKET_FD : -1, .events = POLLIN}};
		if (n == -EAGAIN && poll(p, ARRAY_SIZE(p), -1) < 0 && errno != EINTR)
			r = -errno;
		if (whole == UINT64_MAX && !r) {
			r = completion(&whole);
			if (r == -EAGAIN && n != 0)
				r = 0;
		} else if (n == 0) {
			r = -ECANCELED; /* the pipe ends before the bytes that were promised */
		}
	}
	free(take_ptr(in->buf));
	if (in->own_read_fd) {
		close(in->own_read_fd);
		close(in->own_write_fd);
	}
	return r ? r : cut_surplus(in);
}

/* ---- content that takes the place of a file in one step ---- */

struct swap {
	char *target; /* owned; what the last link leads to */
	char *temp;   /* owned; beside it */
	int fd;
	bool exists;
	struct stat old;
};

/* What a cancelled operation has to remove; set and cleared with SIGTERM blocked. */
static char *volatile half_done;

static void on_cancel(int signo)
{
	(void)signo;
	if (half_done)
		unlink(half_done);
	_exit(1);
}

static void hold_cancel(bool hold)
{
	sigset_t term;

	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	sigprocmask(hold ? SIG_BLOCK : SIG_UNBLOCK, &term, NULL);
}

/* Where open() would make the file that a chain of links names and that is not there yet.  Return: owned, or NULL with errno set */
static char *end_of_links(const char *path)
{
	char *at = strdup(path), link[PATH_MAX];

	for (int hops = 0; at && hops < LINKS_MAX; hops++) {
		ssize_t n = readlink(at, link, sizeof(link) - 1);

		if (n < 0)
			return at; /* no link, or nothing: the rename tells what is wrong with the rest */
		link[n] = '\0';
		const char *slash = *link == '/' ? NULL : strrchr(at, '/');
		char *next = NULL;
		if (asprintf(&next, "%.*s%s", slash ? (int)(slash + 1 - at) : 0, at, link) < 0)
			next = NULL;
		free(at);
		at = next;
	}
	free(at);
	errno = at ? ELOOP : ENOMEM;
	return NULL;
}

static int swap_begin(struct swap *s, const char *path)
{
	static const char suffix[] = "/.sbx-upload-XXXXXX";

	*s = (struct swap){.fd = -1};
	s->target = realpath(path, NULL);
	if (!s->target && errno == ENOENT)
		s->target = end_of_links(path);
	if (!s->target)
		return -errno;
	s->exists = !stat(s->target, &s->old);
	if (s->exists && S_ISDIR(s->old.st_mode))
		return -EISDIR;
	if (s->exists && !S_ISREG(s->old.st_mode))
		return -EINVAL;
	const char *slash = strrchr(s->target, '/');
	size_t dir = slash ? (size_t)(slash - s->target) : 0;
	s->temp = malloc(dir + sizeof(suffix));
	if (!s->temp)
		return -ENOMEM;
	memcpy(s->temp, s->target, dir);
	memcpy(s->temp + dir, suffix, sizeof(suffix));
	hold_cancel(true);
	s->fd = mkostemp(s->temp, O_CLOEXEC);
	half_done = s->fd < 0 ? NULL : s->temp;
	hold_cancel(false);
	if (s->fd >= 0)
		return 0;
	/* a directory that this user may not write: the file itself may still be writable */
	free(take_ptr(s->temp));
	if (!s->exists)
		return -errno;
	s->fd = open(s->target, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC | O_TRUNC);
	return s->fd < 0 ? -errno : 0;
}

static int copy_content(int from, int to)
{
	uint8_t *buf = malloc(64 * 1024);
	ssize_t n = 0;
	int r = buf ? 0 : -ENOMEM;

	if (!r && lseek(from, 0, SEEK_SET) < 0)
		r = -errno;
	while (!r && (n = read(from, buf, 64 * 1024)) > 0)
		r = files_write_all(to, buf, (size_t)n);
	free(buf);
	return r ? r : n < 0 ? -errno : 0;
}

int files_keep_xattrs(const char *from, int to_fd)
{
	auto_free char *names = malloc(XATTR_LIST_MAX), *value = malloc(XATTR_SIZE_MAX);
	ssize_t n = names && value ? llistxattr(from, names, XATTR_LIST_MAX) : -1;

	if (!names || !value)
		return -ENOMEM;
	if (n < 0)
		return errno == EOPNOTSUPP || errno == ENOSYS ? 0 : -errno;
	for (const char *name = names; name < names + n; name = spec_next(name)) {
		/* the system's own: capabilities go with any write, labels are given by the directory */
		bool needed = strncmp(name, "security.", 9) != 0;
		ssize_t size = lgetxattr(from, name, value, XATTR_SIZE_MAX);

		if ((size < 0 || fsetxattr(to_fd, name, value, (size_t)size, 0) < 0) && needed)
			return -errno;
	}
	return 0;
}

/*
 * A rename is seen whole or not at all, but it makes a new inode: not where the old one has more names, belongs to somebody
 * that we cannot give the new one to, has attributes that cannot be carried over, or is a mount.  There the content is
 * copied into the old inode.
 */
static int swap_commit(struct swap *s, mode_t new_mode)
{
	if (!s->temp)
		return 0;
	mode_t mode = s->exists ? s->old.st_mode & 07777 : new_mode;
	bool same = !s->exists || (s->old.st_nlink == 1 && !fchown(s->fd, s->old.st_uid, s->old.st_gid) &&
				   !files_keep_xattrs(s->target, s->fd));
	hold_cancel(true);
	if (same && !fchmod(s->fd, mode) && !rename(s->temp, s->target)) {
		half_done = NULL;
		hold_cancel(false);
		free(take_ptr(s->temp));
		return 0;
	}
	hold_cancel(false);
	if (!s->exists)
		return -errno;
	auto_fd to = open(s->target, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC | O_TRUNC);
	return to < 0 ? -errno : copy_content(s->fd, to);
}

static void swap_end(struct swap *s)
{
	hold_cancel(true);
	half_done = NULL;
	if (s->temp)
		unlink(s->temp);
	hold_cancel(false);
	if (s->fd >= 0)
		close(s->fd);
	free(s->temp);
	free(s->target);
}

static int set_mode_and_owner(struct files_job *job, const char *path, uid_t uid, gid_t gid)
{
	if ((uid != (uid_t)-1 || gid != (gid_t)-1) && chown(path, uid, gid) < 0)
		return -errno;
	/* behind the change of owner, which takes the setuid bits away */
	if ((job->fs.flags & AGENT_FS_HAS_MODE) && chmod(path, job->fs.mode & 07777) < 0)
		return -errno;
	return 0;
}

static int owner_strings(struct files_job *job, uid_t *uid, gid_t *gid)
{
	const char *owner = "", *group = "";

	if (job->fs.n_strings > 1)
		owner = spec_next(job->strings);
	if (job->fs.n_strings > 2)
		group = spec_next(owner);
	return owner_ids(job, owner, group, uid, gid);
}

/*
 * A rename over a file frees its blocks and pages, which takes as long as a sixth of the upload that took its place.  With a name held
 * open that is done when this process ends, behind the word that the upload is complete.  Not where the room may be needed at
 * once: then who is told that the file was replaced must find the old one's place free.
 */
static void free_old_later(const struct swap *s, const struct intake *in)
{
	struct statfs fs;

	if (!s->temp || !s->exists || s->old.st_size < (off_t)FREE_LATER_MIN || !in->ahead || fstatfs(s->fd, &fs) < 0 || fs.f_bsize <= 0)
		return;
	uint64_t need = (in->have + (uint64_t)s->old.st_size) / (uint64_t)fs.f_bsize;
	if (fs.f_bavail / FREE_LATER_TIMES > need)
		ignore_result(open(s->target, O_PATH | O_CLOEXEC)); /* closed by _exit() */
}

/* @content_fd: the file's content is there already; -1: it comes */
static int write_file(struct files_job *job, int content_fd)
{
	auto_free char *path = absolute(job, job->strings);
	struct swap s;
	uid_t uid;
	gid_t gid;

	if (!path)
		return -errno;
	int r = owner_strings(job, &uid, &gid);
	if (!r)
		r = make_parents(path);
	if (r)
		return r;
	r = swap_begin(&s, path);
	if (!r && content_fd >= 0) {
		r = copy_content(content_fd, s.fd);
	} else if (!r) {
		/* not in place: others may write to that file, and the end of what they wrote is not ours to cut */
		struct intake in = {.fd = s.fd, .most = job->fs.length, .ahead = s.temp && wants_blocks_first(s.fd)};

		r = receive_upload(&in);
		if (!r)
			free_old_later(&s, &in);
	}
	if (!r)
		r = swap_commit(&s, 0755); /* what an upload without a mode has always got: 0777 less the umask */
	swap_end(&s);
	return r ? r : set_mode_and_owner(job, path, uid, gid);
}

/* A file without a name: it is gone when this process is.  Return: its descriptor, or a negative errno */
static int nameless_file(void)
{
	static const char *const places[] = {"/var/tmp/.sbx-upload-XXXXXX", "/tmp/.sbx-upload-XXXXXX", "./.sbx-upload-XXXXXX"};
	int r = -EACCES;

	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		char path[40];

		memcpy(path, places[i], strlen(places[i]) + 1);
		hold_cancel(true);
		int fd = mkostemp(path, O_CLOEXEC);
		r = fd < 0 ? -errno : fd;
		if (fd >= 0)
			unlink(path);
		hold_cancel(false);
		if (r >= 0 || r == -ENOSPC || r == -EDQUOT)
			return r;
	}
	return r;
}

/* Cuts what stands behind the content off the file and reads it.  Return: 0 with the job as it would have been, or a negative errno */
static int take_target(struct files_job *job, int fd, uint64_t have)
{
	static uint8_t text[AGENT_FS_TARGET_MAX];
	struct spec_fs target;
	uint32_t n;

	if (have < sizeof(n) || pread(fd, &n, sizeof(n), (off_t)(have - sizeof(n))) != (ssize_t)sizeof(n) || n > sizeof(text) ||
	    n > have - sizeof(n))
		return -EPROTO;
	have -= sizeof(n) + n;
	if (pread(fd, text, n, (off_t)have) != (ssize_t)n || spec_read_fs(text, n, &target) || target.fs.op != AGENT_FS_WRITE ||
	    target.fs.n_strings != 3)
		return -EPROTO;
	job->fs = target.fs;
	job->blame = job->strings = target.strings;
	return sysx_ret(ftruncate(fd, (off_t)have));
}

static int op_write(struct files_job *job)
{
	if (!(job->fs.flags & AGENT_FS_TARGET_LAST))
		return write_file(job, -1);
	job->blame = "upload";
	int content = nameless_file();
	if (content < 0)
		return content;
	auto_fd fd = content;
	struct intake in = {.fd = fd};
	int r = receive_upload(&in);
	if (!r)
		r = take_target(job, fd, in.have);
	return r ? r : write_file(job, fd);
}

static int op_append(struct files_job *job)
{
	auto_free char *path = absolute(job, job->strings);
	struct stat st;

	if (!path)
		return -errno;
	int r = make_parents(path);
	if (r)
		return r;
	auto_fd fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0644);
	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	/* it is a log that is appended to: whoever calls the API must not fill the disk by calling */
	if (st.st_size >= (off_t)LIMIT_LOG_FILE_BYTES)
		return -EFBIG;
	struct intake in = {.fd = fd, .copies = true};
	return receive_upload(&in);
}

static int op_mkdir(struct files_job *job)
{
	auto_free char *path = absolute(job, job->strings);
	struct stat st;
	uid_t uid;
	gid_t gid;

	if (!path)
		return -errno;
	for (size_t n = strlen(path); n > 1 && path[n - 1] == '/'; n--)
		path[n - 1] = 0;
	int r = owner_strings(job, &uid, &gid);
	if (!r)
		r = make_parents(path);
	if (r)
		return r;
	if (mkdir(path, 0777) < 0) {
		if (errno != EEXIST || stat(path, &st) < 0)
			return -errno;
		return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
	}
	return set_mode_and_owner(job, path, uid, gid);
}

static int op_unlink(struct files_job *job)
{
	const char *asked = job->strings;

	for (uint32_t i = 0; i < job->fs.n_strings; i++, asked = spec_next(asked)) {
		auto_free char *path = absolute(job, asked);
		struct stat st;

		job->blame = asked;
		if (!path)
			return -errno;
		if (!stat(path, &st) && S_ISDIR(st.st_mode))
			return -EISDIR;
		if (unlink(path) < 0 && errno != ENOENT)
			return -errno;
	}
	return 0;
}

static int op_rmtree(struct files_job *job)
{
	const char *asked = job->strings;

	for (uint32_t i = 0; i < job->fs.n_strings; i++, asked = spec_next(asked)) {
		auto_free char *path = absolute(job, asked);

		job->blame = asked;
		int r = path ? walk_remove(path) : -errno;
		if (r)
			return r;
	}
	return 0;
}

static int op_move(struct files_job *job)
{
	const char *dest = spec_next(job->strings);
	auto_free char *from = absolute(job, job->strings);
	auto_free char *to = absolute(job, dest);
	struct stat st;

	if (job->fs.n_strings != 2)
		return -EPROTO;
	if (!from || !to || lstat(from, &st) < 0)
		return -errno;
	int r = make_parents(to);
	if (!r && !lstat(to, &st))
		r = -EEXIST;
	if (r) {
		job->blame = dest;
		return r;
	}
	if (!syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE_))
		return 0;
	if (errno == EINVAL && !rename(from, to)) /* a file system that does not know the flag */
		return 0;
	if (errno != EXDEV)
		return -errno;
	/* another mount, or a directory of a lower layer, which overlayfs cannot rename */
	r = walk_copy(from, to);
	if (!r)
		return walk_remove(from);
	ignore_result(walk_remove(to)); /* half a copy is worse than none; the first error is the one to tell */
	return r;
}

static int op_chmod(struct files_job *job)
{
	auto_free char *path = absolute(job, job->strings);
	struct stat st;
	uid_t uid;
	gid_t gid;

	if (!path || stat(path, &st) < 0)
		return -errno;
	int r = owner_strings(job, &uid, &gid);
	return r ? r : set_mode_and_owner(job, path, uid, gid);
}

static int read_whole(const char *path, uint8_t **ret, size_t *ret_n)
{
	struct stat st;
	auto_fd fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	size_t have = 0;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
	if (st.st_size > (off_t)REPLACE_BYTES)
		return -EFBIG;
	size_t size = (size_t)st.st_size;
	uint8_t *data = malloc(size + 1);
	if (!data)
		return -ENOMEM;
	for (ssize_t r; have < size && (r = read(fd, data + have, size - have)) > 0;)
		have += (size_t)r;
	*ret = data;
	*ret_n = have;
	return 0;
}

/* Pieces of a new content, written in large ones. */
struct pieces {
	int fd;
	uint32_t have;
	uint8_t buf[64 * 1024];
};

static int pieces_flush(struct pieces *p)
{
	int r = files_write_all(p->fd, p->buf, p->have);

	p->have = 0;
	return r;
}

static int pieces_put(struct pieces *p, const uint8_t *data, size_t n)
{
	int r = n > sizeof(p->buf) - p->have ? pieces_flush(p) : 0;

	if (r || n > sizeof(p->buf))
		return r ? r : files_write_all(p->fd, data, n);
	memcpy(p->buf + p->have, data, n);
	p->have += (uint32_t)n;
	return 0;
}

struct replacement {
	const char *path;
	const uint8_t *old_text, *new_text;
	size_t old_bytes, new_bytes;
};

static const uint8_t *next_hit(const struct replacement *what, const uint8_t *at, const uint8_t *end)
{
	return memmem(at, (size_t)(end - at), what->old_text, what->old_bytes);
}

static int write_replaced(const struct replacement *what, const uint8_t *data, size_t n, int fd)
{
	static struct pieces out;
	const uint8_t *at = data, *end = data + n;
	int r = 0;

	out.fd = fd;
	out.have = 0;
	for (const uint8_t *hit; !r && (hit = next_hit(what, at, end)); at = hit + what->old_bytes) {
		r = pieces_put(&out, at, (size_t)(hit - at));
		if (!r)
			r = pieces_put(&out, what->new_text, what->new_bytes);
	}
	if (!r)
		r = pieces_put(&out, at, (size_t)(end - at));
	return r ? r : pieces_flush(&out);
}

/* A file without the text is left as it is. */
static int replace_one(const struct files_job *job, const struct replacement *what, uint64_t *ret_hits)
{
	auto_free char *path = absolute(job, what->path);
	auto_free uint8_t *data = NULL;
	uint64_t hits = 0;
	size_t n = 0;
	struct swap s;

	if (!path)
		return -errno;
	int r = read_whole(path, &data, &n);
	if (r)
		return r;
	for (const uint8_t *at = data, *hit; (hit = next_hit(what, at, data + n)); at = hit + what->old_bytes)
		hits++;
	*ret_hits = hits;
	if (!hits)
		return 0;
	r = swap_begin(&s, path);
	if (!r) {
		uint64_t size = n - hits * what->old_bytes + hits * what->new_bytes;

		if (size && s.temp && wants_blocks_first(s.fd))
			ignore_result(fallocate(s.fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)size)); /* the write says what is wrong */
		r = write_replaced(what, data, n, s.fd);
	}
	if (!r)
		r = swap_commit(&s, 0644);
	swap_end(&s);
	return r;
}

/* Takes @n bytes of what comes through the pipe.  Return: 0, -ENODATA when nothing more comes, -errno. */
static int take(uint8_t *to, size_t n, uint64_t *taken)
{
	static uint8_t buf[64 * 1024];
	static size_t at, have;

	for (size_t done = 0; done < n;) {
		if (at == have) {
			ssize_t r = read(FILES_PIPE_FD, buf, sizeof(buf));

			if (r < 0 && errno == EINTR)
				continue;
			if (r <= 0)
				return r < 0 ? -errno : done ? -ECANCELED : -ENODATA;
			at = 0;
			have = (size_t)r;
		}
		size_t part = n - done < have - at ? n - done : have - at;
		memcpy(to + done, buf + at, part);
		at += part;
		done += part;
		*taken += part;
	}
	return 0;
}

/* The texts stay where they are until the next one is taken.  Return: as take(). */
static int take_replacement(struct replacement *ret, uint64_t *taken)
{
	static uint8_t *texts;
	struct agent_fs_replace head;

	int r = take((uint8_t *)&head, sizeof(head), taken);
	if (r)
		return r;
	if (head.path_bytes < 1 || head.path_bytes > LIMIT_PATH_BYTES || !head.old_bytes || head.old_bytes > LIMIT_SPAWN_BYTES ||
	    head.new_bytes > LIMIT_SPAWN_BYTES || head.zero)
		return -EPROTO;
	size_t n = (size_t)head.path_bytes + head.old_bytes + head.new_bytes;
	uint8_t *more = realloc(texts, n);
	if (!more)
		return -ENOMEM;
	texts = more;
	r = take(texts, n, taken);
	if (r)
		return r == -ENODATA ? -ECANCELED : r;
	if (memchr(texts, 0, head.path_bytes) != texts + head.path_bytes - 1)
		return -EPROTO;
	*ret = (struct replacement){.path = (const char *)texts,
				    .old_text = texts + head.path_bytes,
				    .new_text = texts + head.path_bytes + head.old_bytes,
				    .old_bytes = head.old_bytes,
				    .new_bytes = head.new_bytes};
	return 0;
}

/* One child for all files of a request; each is done before the next is looked at. */
static int op_replace(struct files_job *job)
{
	struct replacement what;
	uint64_t taken = 0, whole = 0, hits;
	int r;

	while (!(r = take_replacement(&what, &taken))) {
		job->blame = what.path;
		r = replace_one(job, &what, &hits);
		if (r)
			return r;
		job->value += hits;
		files_data(job, &hits, sizeof(hits));
	}
	if (r != -ENODATA)
		return r;
	/* the word comes before the end of the pipe */
	return completion(&whole) || whole != taken ? -ECANCELED : 0;
}

/* ---- the child ---- */

static int run(struct files_job *job)
{
	static int (*const ops[AGENT_FS_OP_COUNT])(struct files_job *) = {
		[AGENT_FS_INFO] = op_info,     [AGENT_FS_LIST] = op_list,     [AGENT_FS_SEARCH] = op_search,
		[AGENT_FS_READ] = op_read,     [AGENT_FS_WRITE] = op_write,   [AGENT_FS_APPEND] = op_append,
		[AGENT_FS_MKDIR] = op_mkdir,   [AGENT_FS_UNLINK] = op_unlink, [AGENT_FS_RMTREE] = op_rmtree,
		[AGENT_FS_MOVE] = op_move,     [AGENT_FS_CHMOD] = op_chmod,   [AGENT_FS_REPLACE] = op_replace,
	};

	bool no_strings = job->fs.op == AGENT_FS_REPLACE ||
			  (job->fs.op == AGENT_FS_WRITE && (job->fs.flags & AGENT_FS_TARGET_LAST));

	if (!job->fs.n_strings != no_strings)
		return -EPROTO;
	job->blame = job->fs.n_strings ? job->strings : "";
	return ops[job->fs.op](job);
}

void files_main(const struct agent *a, const struct users_identity *who, const struct spec_fs *request)
{
	static char home[USERS_HOME_BYTES + 8];
	struct files_job job = {.fs = request->fs, .strings = request->strings, .blame = ""};
	struct users_identity id = *who;
	enum agent_stage stage;

	job.out = malloc(AGENT_OUT_FRAME);
	if (!job.out)
		_exit(1);
	int r = spawn_enter(a, &stage);
	if (!r && (request->fs.flags & AGENT_FS_UID))
		r = users_resolve_uid(request->fs.uid, NULL, &id);
	if (!r)
		r = spawn_identity(&id);
	signal(SIGTERM, on_cancel);
	/* these have a pipe; of the others the number may be something of the agent's */
	bool piped = request->fs.op == AGENT_FS_READ || request->fs.op == AGENT_FS_WRITE || request->fs.op == AGENT_FS_APPEND ||
		     request->fs.op == AGENT_FS_REPLACE;
	sysx_close_range(piped ? FILES_PIPE_FD + 1 : FILES_SOCKET_FD + 1, ~0u);
	umask(022);
	snprintf(home, sizeof(home), "HOME=%s", *who->home ? who->home : "/");
	if (!r)
		r = env_put(&job.env, home);
	if (!r)
		r = env_put_row(&job.env, a->base_env, a->n_base_env);
	/* a relative path is beneath the sandbox's working directory; without it only absolute ones mean something */
	if (!r && chdir(a->base_cwd && *a->base_cwd ? a->base_cwd : "/") < 0 && chdir("/") < 0)
		r = -errno;
	if (!r)
		r = run(&job);
	if (r == -EPROTO)
		finish(&job, AGENT_BAD_REQUEST, 0, "the file request is not well-formed");
	finish(&job, r ? AGENT_FAILED_SYS : AGENT_OK, r, r ? job.blame : "");
}
