/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: messages with descriptors over SOCK_SEQPACKET
 *
 * One message is one struct (and an optional tail) with at most FDPASS_MAX descriptors.  Only sockets between our own
 * host processes and the broker's launch socket (towards the sandbox) carry descriptors; nothing is ever received with a
 * control buffer from a process that runs in a sandbox.
 */
#ifndef BASE_FDPASS_H
#define BASE_FDPASS_H

#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

#define FDPASS_MAX 64

/**
 * fdpass_send() - Send one message, never blocking
 * @sock:	A SOCK_SEQPACKET socket
 * @iov:	Pieces of the message
 * @n_iov:	Their number
 * @fds:	Descriptors to send; stay the caller's
 * @n_fds:	At most FDPASS_MAX
 *
 * Return: 0, or -errno (-EAGAIN: the peer is behind; -EPIPE: it is gone)
 */
int fdpass_send(int sock, const struct iovec *iov, size_t n_iov, const int *fds, size_t n_fds);

/**
 * fdpass_recv() - Receive one message, never blocking
 * @sock:	A SOCK_SEQPACKET socket
 * @data:	Where it goes
 * @size:	Room; a longer message is refused whole
 * @fds:	Where descriptors go (CLOEXEC, the caller's to close); NULL with @n_fds 0 receives without a control buffer
 * @n_fds:	Room for descriptors; more than that are closed and the message is refused
 * @ret_n_fds:	Number received; may be NULL when @n_fds is 0
 *
 * Return: bytes received (0: the peer closed), or -errno (-EAGAIN: none, -EMSGSIZE: too long, -EPROTO: too many fds)
 */
ssize_t fdpass_recv(int sock, void *data, size_t size, int *fds, size_t n_fds, size_t *ret_n_fds);

#endif
