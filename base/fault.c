// SPDX-License-Identifier: Apache-2.0
#include "base/fault.h"

#include "base/num.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FAULT_WISH_SIZE 256

static const char *wish_text(char out[FAULT_WISH_SIZE])
{
	const char *path = getenv("SBX_FAULT_FILE");
	const char *wish = getenv("SBX_FAULT");

	if (!path)
		return wish;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return wish;
	ssize_t n = read(fd, out, FAULT_WISH_SIZE - 1);
	close(fd);
	if (n <= 0)
		return wish;
	out[n] = '\0';
	out[strcspn(out, "\n")] = '\0';
	return out;
}

bool fault_wanted(const char *name)
{
	static uint64_t passed;
	char text[FAULT_WISH_SIZE];
	const char *wish = wish_text(text);
	size_t n = strlen(name);

	if (!wish || strncmp(wish, name, n) != 0 || wish[n] != ':')
		return false;
	const char *action = wish + n + 1;
	const char *count = strchr(action, ':');
	uint64_t wanted = 0;
	if (count && (num_u64(count + 1, strcspn(count + 1, "\n"), UINT32_MAX, &wanted) < 0 || ++passed != wanted))
		return false;
	if (!strncmp(action, "kill", 4))
		kill(getpid(), SIGKILL);
	if (!strncmp(action, "stop", 4))
		kill(getpid(), SIGSTOP);
	return !strncmp(action, "fail", 4);
}
