/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: a world beside a broker of one's own, for the tests of the packet filter
 *
 * One network namespace stands for everything outside: 198.51.100.0/24, 203.0.113.0/24 and the private and reserved addresses that
 * must not be reached, all on one veth.  The test process holds sockets of all namespaces and speaks both sides itself, so that
 * nothing waits for a server; what arrives outside is seen by a packet socket.
 */
#ifndef TESTS_SYSTEM_EGRESS_WORLD_H
#define TESTS_SYSTEM_EGRESS_WORLD_H

#include "tests/system/broker_test_client.h"

#define A_OK	0xc633640au /* 198.51.100.10 */
#define A_OTH	0xc633640bu /* 198.51.100.11 */
#define A_MANY	0xcb007100u /* 203.0.113.0 */
#define A_PRIV	0x0a090005u /* 10.9.0.5 */
#define A_META	0xa9fea9feu /* 169.254.169.254 */
#define A_DOH	0x08080808u
#define A_HOST	0xc6336401u /* 198.51.100.1, the host's end */

struct world {
	struct btc *t;
	int home_fd, world_fd, router_fd; /* network namespaces */
	int packet_fd; /* everything that arrives outside */
	int listen_fd[8], udp_fd[8];
	int dnsd_fd; /* connection to the broker as sandbox-dnsd */
};

/*
 * What is waited for has this long: no more than a machine that stands still may need.  Nothing is checked to be fast; what is
 * to be refused or to arrive says so by an event, and only what is to be silent costs its time (the _quiet functions).
 */
#define WAIT_MS	 60000
#define QUIET_MS 400

struct box {
	struct broker_create_reply made;
	int fds[2];
	int net_fd; /* its network namespace */
};

/** world_start() - Start a broker for the test @name with @extra configuration and the world around it; Return: 0 or -1 */
int world_start(struct world *w, struct btc *t, const char *name, const char *extra);
/** world_dnsd() - Connect w->dnsd_fd anew, after a restart of the broker; Return: 0 or -1 */
int world_dnsd(struct world *w);
/** world_stop() - End it all; the log is shown when @show_log */
void world_stop(struct world *w, bool show_log);
/** world_sh() - Run the shell command @command in the namespace @net_fd; Return: its exit code */
int world_sh(int net_fd, const char *command);
/** world_run() - Standard output of @command run in @net_fd into @out; Return: its exit code */
int world_run(int net_fd, const char *command, char *out, size_t size);
/** sock_in() - A non-blocking socket of the namespace @net_fd; Return: descriptor, dies on failure */
int sock_in(const struct world *w, int net_fd, int family, int type, int protocol);

/** box_make() - Make a sandbox, as soon as a slot is free; @open: without a policy; Return: 0 or the broker's status */
int box_make(struct world *w, struct box *box, bool open);
/** box_end() - Kill @box and close what the test holds of it */
void box_end(struct world *w, struct box *box);

/** rule_v4() - An address rule: @flags of enum broker_rule_flags, @n ports of @port */
struct broker_ip_rule rule_v4(uint32_t addr, uint32_t prefix, uint32_t flags, uint32_t n, const uint16_t *port);
/** policy_set() - Send a policy in as many parts as it takes; Return: the broker's status; @ret_mark may be NULL */
int policy_set(struct world *w, const struct box *box, uint32_t flags, const struct broker_ip_rule *rule, size_t n, uint32_t *ret_mark);
/** pin_set() - PIN or UNPIN (@op) one address @addr of @box for @lease_ms, one @port or 0; Return: the broker's status */
int pin_set(struct world *w, const struct box *box, uint32_t op, uint32_t addr, uint16_t port, uint32_t lease_ms);

/** tcp_try() - Connect from @net_fd to @addr:@port; Return: 0 or the errno; the socket in @ret_fd (NULL: closed) */
int tcp_try(const struct world *w, int net_fd, uint32_t addr, uint16_t port, int *ret_fd);
/** tcp_quiet() - As tcp_try(), where nothing may answer: ETIMEDOUT after QUIET_MS */
int tcp_quiet(const struct world *w, int net_fd, uint32_t addr, uint16_t port);
/**
 * udp_try() - Send datagrams from @net_fd to @addr:@port, one a second, until one arrives or is refused
 *
 * Datagrams may be lost and the router tells of so many refusals a second: neither is an answer.
 *
 * Return: 0 (it arrived), the errno it was refused with, or ETIMEDOUT
 */
int udp_try(struct world *w, int net_fd, uint32_t addr, uint16_t port);
/** udp_quiet() - One datagram, where nothing may answer; Return: as udp_try(), ETIMEDOUT after QUIET_MS */
int udp_quiet(struct world *w, int net_fd, uint32_t addr, uint16_t port);
/** ping_try() - Send echo requests of @bytes, one a second; Return: as udp_try() */
int ping_try(struct world *w, int net_fd, uint32_t addr, size_t bytes);
/** ping_quiet() - One echo request of @bytes; Return: as udp_quiet() */
int ping_quiet(struct world *w, int net_fd, uint32_t addr, size_t bytes);
/** world_drain() - Forget the connections to @port that wait to be accepted */
void world_drain(struct world *w, uint16_t port);
/** world_accept() - The outside end of the next connection to @port; Return: descriptor or -1 */
int world_accept(struct world *w, uint16_t port);
/** world_seen() - Packets for @addr that arrived outside since the last call, after a moment; the rest is forgotten */
unsigned world_seen(struct world *w, uint32_t addr);
/** world_wait() - Wait until @n packets for @addr have arrived outside since the last call; Return: how many have, at the end of WAIT_MS less */
unsigned world_wait(struct world *w, uint32_t addr, unsigned n);
/** moves() - Whether bytes written to @from arrive at @to */
bool moves(int from, int to);

struct flow {
	int in, out; /* the sandbox's end, the world's */
};

/** flow_open() - A connection from @box to port 8080 of @addr over which bytes have passed both ways; Return: whether it is there */
bool flow_open(struct world *w, struct flow *f, const struct box *box, uint32_t addr);
/** flow_lives() - Whether bytes pass over @f, both ways */
bool flow_lives(const struct flow *f);
/** flow_close() - Close both ends of @f */
void flow_close(struct flow *f);
/** closes() - Wait until new connections from @box to @addr:@port are refused; Return: whether they are at last */
bool closes(const struct world *w, const struct box *box, uint32_t addr, uint16_t port);
/** opens() - Wait until a connection from @box to @addr:@port is made, silence included; Return: whether it was at last */
bool opens(const struct world *w, const struct box *box, uint32_t addr, uint16_t port);
/** wait_error() - Milliseconds until the socket @fd has an error or ends, at most @ms (0: WAIT_MS); -1: none; the errno in @ret */
int wait_error(int fd, int ms, int *ret);
/** now_ms() - Monotonic milliseconds */
long now_ms(void);

#endif
