// SPDX-License-Identifier: Apache-2.0
/*
 * The neighbours of sandbox-dnsd for its bench, fast enough not to be measured themselves.
 *
 *	dns_peer auth ADDRESS			a name server: one address for every name but "nx*", TTL 300
 *	dns_peer around RUN-DIRECTORY ADDRESS	the broker (opens nothing, says "done") and sandboxd (one sandbox with ADDRESS,
 *						which may ask for *.c.test and *.u.test)
 */
#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fdpass.h"
#include "base/num.h"
#include "netpolicy/egress_msg.h"
#include "runtime/broker/broker_msg.h"

#define BATCH 64

static _Noreturn void die(const char *what)
{
	perror(what);
	exit(1);
}

/* ---- the name server ---- */

static size_t answer(uint8_t *m, size_t n)
{
	static const uint8_t record[] = {0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 198, 51};
	uint32_t hash = 1;
	size_t at = 12;

	if (n < 17)
		return 0;
	while (at < n && m[at]) {
		for (size_t i = 0; i <= m[at] && at + i < n; i++)
			hash = hash * 31 + (m[at + i] | 0x20);
		at += m[at] + 1u;
	}
	at += 5;
	if (at > n)
		return 0;
	memcpy(m + 2, "\x81\x80\0\1\0\1\0\0\0\0", 10);
	if (m[at - 3] != 1) {
		m[7] = 0;
		return at;
	}
	memcpy(m + at, record, sizeof(record));
	m[at + 14] = (uint8_t)(64 + hash % 4);
	m[at + 15] = (uint8_t)(1 + (hash >> 8) % 250);
	return at + 16;
}

static void serve_names(const char *addr)
{
	static uint8_t data[BATCH][600];
	struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(53)}, from[BATCH];
	struct mmsghdr msg[BATCH] = {0};
	struct iovec iov[BATCH];
	int fd = socket(AF_INET, SOCK_DGRAM, 0), bytes = 1 << 22;

	inet_pton(AF_INET, addr, &own.sin_addr);
	if (fd < 0 || bind(fd, (struct sockaddr *)&own, sizeof(own)) < 0)
		die("bind");
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes));
	for (;;) {
		for (int i = 0; i < BATCH; i++) {
			iov[i] = (struct iovec){data[i], 512};
			msg[i].msg_hdr = (struct msghdr){.msg_name = &from[i], .msg_namelen = sizeof(from[i]), .msg_iov = &iov[i], .msg_iovlen = 1};
		}
		int n = recvmmsg(fd, msg, BATCH, MSG_WAITFORONE, NULL);

		for (int i = 0; i < n; i++)
			iov[i].iov_len = answer(data[i], msg[i].msg_len);
		if (n > 0)
			ignore_result(sendmmsg(fd, msg, (unsigned)n, 0) < 0);
	}
}

/* ---- broker and sandboxd ---- */

static int listen_at(const char *dir, const char *name)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s/%s", dir, name);
	unlink(a.sun_path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || chmod(a.sun_path, 0666) < 0 || listen(fd, 4) < 0)
		die(name);
	return fd;
}

static int listener(int type)
{
	struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(53), .sin_addr.s_addr = htonl(0xa9fe0101)};
	int fd = socket(AF_INET, type | SOCK_NONBLOCK, 0), one = 1, bytes = 1 << 22;

	setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes));
	if (bind(fd, (struct sockaddr *)&own, sizeof(own)) < 0 || (type == SOCK_STREAM && listen(fd, 16) < 0))
		die("listener");
	return fd;
}

static void broker_says(int fd, const union broker_any *m)
{
	union broker_any r = {.head = {.magic = BROKER_MAGIC, .op = m->head.op, .tag = m->head.tag}};
	int fds[2] = {-1, -1};
	size_t n_fds = 0;

	r.head.size = sizeof(r.reply);
	if (m->head.op == BROKER_OP_HELLO) {
		r.head.size = sizeof(r.hello_reply);
		r.hello_reply.version = BROKER_VERSION;
	} else if (m->head.op == BROKER_OP_DNS_SOCKETS) {
		fds[0] = listener(SOCK_DGRAM);
		fds[1] = listener(SOCK_STREAM);
		n_fds = 2;
	} else if (m->head.op == BROKER_OP_LOG_SOCKET) {
		r.reply.status = 1;
	}
	struct iovec iov = {&r, r.head.size};

	while (fdpass_send(fd, &iov, 1, fds, n_fds) == -EAGAIN)
		;
	close_keep_errno(fds[0]);
	close_keep_errno(fds[1]);
}

static size_t put_wildcard(uint8_t *out, const char *name)
{
	size_t n = strlen(name), at = 0;

	out[at++] = EGRESS_RULE_WILDCARD;
	out[at++] = EGRESS_RULE_ALLOW;
	out[at++] = 0;
	out[at++] = 0;
	out[at++] = (uint8_t)n;
	memcpy(out + at, name, n);
	at += n;
	out[at++] = 0;
	return at;
}

static void sandboxd_says(int fd, const char *addr)
{
	struct egress_hello hello = {.head = {.magic = EGRESS_MAGIC, .kind = EGRESS_HELLO_REPLY, .size = sizeof(hello)}, .version = EGRESS_VERSION};
	struct egress_set set = {.head = {.magic = EGRESS_MAGIC, .kind = EGRESS_SET, .size = sizeof(set)}, .ref = {1, 1}, .n_rules = 2, .policy_generation = 1};
	struct egress_plain synced = {.head = {.magic = EGRESS_MAGIC, .kind = EGRESS_SYNCED, .size = sizeof(synced)}};
	struct iovec iov[3] = {{&hello, sizeof(hello)}, {&set, sizeof(set)}, {&synced, sizeof(synced)}};
	int body = memfd_create("rules", MFD_ALLOW_SEALING);
	uint8_t rules[64];
	size_t n = put_wildcard(rules, "c.test");
	struct in_addr a;

	n += put_wildcard(rules + n, "u.test");
	inet_pton(AF_INET, addr, &a);
	set.addr = ntohl(a.s_addr);
	set.body_bytes = (uint32_t)n;
	if (write(body, rules, n) != (ssize_t)n || fcntl(body, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0)
		die("rules");
	if (fdpass_send(fd, &iov[0], 1, NULL, 0) || fdpass_send(fd, &iov[1], 1, &body, 1) || fdpass_send(fd, &iov[2], 1, NULL, 0))
		die("send");
	close(body);
}

static void stand_around(const char *dir, const char *addr)
{
	static union {
		union broker_any broker;
		union egress_any egress;
	} m;
	struct pollfd p[4] = {{listen_at(dir, "broker.sock"), POLLIN, 0}, {listen_at(dir, "policy.sock"), POLLIN, 0}, {-1, POLLIN, 0}, {-1, POLLIN, 0}};

	for (;;) {
		if (poll(p, 4, -1) < 0)
			die("poll");
		for (int i = 0; i < 2; i++)
			if (p[i].revents)
				replace_fd(&p[i + 2].fd, accept(p[i].fd, NULL, NULL));
		for (int i = 2; i < 4; i++) {
			for (int k = 0; k < BATCH && p[i].fd >= 0 && p[i].revents; k++) {
				ssize_t n = recv(p[i].fd, &m, sizeof(m), MSG_DONTWAIT);

				if (n < 0)
					break;
				if (n == 0)
					replace_fd(&p[i].fd, -1);
				else if (i == 2)
					broker_says(p[2].fd, &m.broker);
				else if (m.egress.head.kind == EGRESS_HELLO)
					sandboxd_says(p[3].fd, addr);
			}
		}
	}
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "auth"))
		serve_names(argv[2]);
	if (argc == 4 && !strcmp(argv[1], "around"))
		stand_around(argv[2], argv[3]);
	fprintf(stderr, "usage: dns_peer auth ADDRESS | dns_peer around RUN-DIRECTORY ADDRESS\n");
	return 2;
}
