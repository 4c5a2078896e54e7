// SPDX-License-Identifier: Apache-2.0
#include "base/fdpass.h"

#include "base/cleanup.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

union control {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(sizeof(int) * FDPASS_MAX)];
};

int fdpass_send(int sock, const struct iovec *iov, size_t n_iov, const int *fds, size_t n_fds)
{
	union control control;
	struct iovec pieces[16];
	struct msghdr msg = {.msg_iov = pieces, .msg_iovlen = n_iov};

	if (n_fds > FDPASS_MAX || n_iov > ARRAY_SIZE(pieces))
		return -EINVAL;
	memcpy(pieces, iov, n_iov * sizeof(*iov));
	if (n_fds) {
		memset(&control, 0, sizeof(control));
		msg.msg_control = control.bytes;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * n_fds);
	}
	for (;;) {
		if (sendmsg(sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
			return 0;
		if (errno != EINTR)
			return -errno;
	}
}

/* Moves received descriptors into fds; closes all that do not fit.  Returns their number or -EPROTO. */
static ssize_t collect_fds(struct msghdr *msg, int *fds, size_t room)
{
	size_t n = 0;
	bool excess = false;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < count; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (n < room)
				fds[n++] = fd;
			else {
				close(fd);
				excess = true;
			}
		}
	}
	if (!excess && !(msg->msg_flags & MSG_CTRUNC))
		return (ssize_t)n;
	while (n)
		close(fds[--n]);
	return -EPROTO;
}

ssize_t fdpass_recv(int sock, void *data, size_t size, int *fds, size_t n_fds, size_t *ret_n_fds)
{
	union control control;
	struct iovec iov = {data, size};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n, got = 0;

	if (n_fds) {
		msg.msg_control = control.bytes;
		msg.msg_controllen = sizeof(control.bytes);
	}
	do
		n = recvmsg(sock, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if (n_fds) {
		got = collect_fds(&msg, fds, n_fds);
		if (got < 0)
			return got;
	}
	if (msg.msg_flags & MSG_TRUNC) {
		while (got)
			close(fds[--got]);
		return -EMSGSIZE;
	}
	if (ret_n_fds)
		*ret_n_fds = (size_t)got;
	return n;
}
