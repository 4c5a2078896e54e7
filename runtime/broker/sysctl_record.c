/* SPDX-License-Identifier: Apache-2.0 */
/* What we changed below /proc/sys of the host, and the way back. */
#include "config.h"

#include "runtime/broker/sysctl_record.h"

#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/path.h"

#define RECORD_FILE "sysctl"
#define RECORD_MAX  65536u
#define LINE_MAX_BYTES 512u

/* Names of interfaces may hold nearly anything; these are the paths that we ever write. */
static bool path_ok(const char *path)
{
	return *path && strlen(path) < 200 && !strstr(path, "..") && !strpbrk(path, " \n\t") && *path != '/';
}

static int sysctl_file(const char *path, char out[256])
{
	return snprintf(out, 256, "/proc/sys/%s", path) < 256 ? 0 : -ENAMETOOLONG;
}

static int write_value(const char *path, const char *value)
{
	char file[256];
	int r = sysctl_file(path, file);

	return r ? r : path_write_file(AT_FDCWD, file, value, strlen(value));
}

/* Whether @record has a line of @path already: the oldest value is the one that counts, and others may flip it for ever. */
static bool recorded(const char *record, const char *path)
{
	char text[RECORD_MAX];
	size_t n = strlen(path);

	if (path_read_head(AT_FDCWD, record, text, sizeof(text)) < 0)
		return false;
	for (const char *line = text; *line; line = strchrnul(line, '\n') + (*strchrnul(line, '\n') == '\n'))
		if (!strncmp(line, path, n) && line[n] == ' ')
			return true;
	return false;
}

/* Somebody has made the whole host a router since (Docker does): then its interfaces have to go on forwarding. */
static bool is_wanted_by_others(const char *path)
{
	static const char suffix[] = "/forwarding";
	char value[16];
	size_t n = strlen(path);

	return n > sizeof(suffix) && !strncmp(path, "net/ipv4/", 9) && !strcmp(path + n - (sizeof(suffix) - 1), suffix) &&
	       path_read_head(AT_FDCWD, "/proc/sys/net/ipv4/ip_forward", value, sizeof(value)) > 0 && *value == '1';
}

int sysctl_record_set(const char *run_dir, const char *path, const char *value, struct sbx_err *err)
{
	char record[512], old[128], file[256], line[LINE_MAX_BYTES];
	auto_fd fd = -1;
	int n, r;

	if (!path_ok(path) || sysctl_file(path, file) < 0 || snprintf(record, sizeof(record), "%s/" RECORD_FILE, run_dir) >= (int)sizeof(record))
		return sbx_err_set(err, SBX_E_SYSTEM, EINVAL, "sysctl %s", path);
	r = (int)path_read_head(AT_FDCWD, file, old, sizeof(old));
	if (r < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -r, "read sysctl %s", path);
	old[strcspn(old, "\n")] = '\0';
	if (!strcmp(old, value))
		return 0;
	if (!recorded(record, path)) {
		n = snprintf(line, sizeof(line), "%s %s\n", path, old);
		fd = open(record, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (fd < 0 || write(fd, line, (size_t)n) != n)
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "record sysctl %s in %s", path, record);
	}
	r = write_value(path, value);
	return r < 0 ? sbx_err_set(err, SBX_E_SYSTEM, -r, "set sysctl %s to %s", path, value) : 1;
}

/* Each line is "path value". */
static bool lines_ok(const char *text)
{
	while (*text) {
		size_t n = strcspn(text, "\n"), at = strcspn(text, " ");
		char path[200];

		if (at == 0 || at >= n || at >= sizeof(path) || at + 1 == n)
			return false;
		snprintf(path, sizeof(path), "%.*s", (int)at, text);
		if (!path_ok(path))
			return false;
		text += n + (text[n] == '\n');
	}
	return true;
}

int sysctl_record_undo(const char *run_dir, struct sbx_err *err)
{
	char record[512], text[RECORD_MAX];
	int n, count = 0, failed = 0;

	if (snprintf(record, sizeof(record), "%s/" RECORD_FILE, run_dir) >= (int)sizeof(record))
		return sbx_err_set(err, SBX_E_SYSTEM, ENAMETOOLONG, "run directory");
	n = (int)path_read_head(AT_FDCWD, record, text, sizeof(text));
	if (n == -ENOENT)
		return 0;
	if (n < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -n, "read %s", record);
	/* A record that is cut, or longer than any that we write, does not tell what the oldest values were. */
	if (n && (n >= (int)sizeof(text) - 1 || text[n - 1] != '\n' || !lines_ok(text)))
		return sbx_err_set(err, SBX_E_SYSTEM, EBADMSG,
				   "%s is cut or not ours: nothing is restored; look at its lines, set what is to be set, and remove it", record);
	/* Backwards, so that of several values of one path the oldest is written last. */
	while (n > 0) {
		char *line, *space;
		int r;

		text[--n] = '\0';
		line = memrchr(text, '\n', (size_t)n);
		line = line ? line + 1 : text;
		n = (int)(line - text);
		space = strchr(line, ' ');
		if (!space)
			continue;
		*space = '\0';
		if (!path_ok(line) || is_wanted_by_others(line))
			continue;
		r = write_value(line, space + 1);
		if (!r)
			count++;
		else if (r != -ENOENT && !failed)
			failed = sbx_err_set(err, SBX_E_SYSTEM, -r, "restore sysctl %s", line);
	}
	if (unlink(record) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "remove %s", record);
	return failed ? failed : count;
}
