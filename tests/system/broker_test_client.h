/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: a broker of one's own for a test, and a client that speaks to it
 *
 * btc_start() makes a network namespace, a state and a run directory below a fresh temporary directory and starts
 * sandbox-broker on them with an instance, id range and subnet of its own, so that it runs beside an installed one.
 * btc_connect() connects as any user id (the broker decides by it).  Calls are synchronous with a time limit.  BTC_SLOTS in the
 * environment is the number of slots, 64 otherwise.
 */
#ifndef TESTS_SYSTEM_BROKER_TEST_CLIENT_H
#define TESTS_SYSTEM_BROKER_TEST_CLIENT_H

#include "runtime/agent_msg.h"
#include "runtime/broker/broker_msg.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct btc {
	char dir[64]; /* holds state/ run/ config broker.log */
	char instance[24];
	char build_dir[512];
	uint32_t id_base;
	uint32_t sandboxd_uid, dnsd_uid;
	pid_t pid;
	int fd; /* connection as sandboxd */
	struct broker_hello_reply hello;
	uint64_t tag;
};

/** btc_start() - Start a broker for the test @name with @extra lines of configuration (may be ""); Return: 0, or -1 with a TAP comment */
int btc_start(struct btc *t, const char *name, const char *extra);
/** btc_keep_netns() - btc_start() stays in the network namespace that the caller made */
void btc_keep_netns(void);
/** btc_restart() - Kill the broker with SIGKILL and start it again on the same directories; Return: 0 or -1 */
int btc_restart(struct btc *t);
/** btc_spawn() - Start only the process, with environment variable @env (NAME=value, may be NULL); Return: 0 or -1 */
int btc_spawn(struct btc *t, const char *env);
/** btc_wait_end() - Wait up to 10 s until the broker process ends; Return: its wait status, or -1 */
int btc_wait_end(struct btc *t);
/** btc_stop() - End all sandboxes, the broker, and remove everything; prints broker.log when @show_log */
void btc_stop(struct btc *t, bool show_log);
/** btc_connect() - Connect as @uid, without HELLO; Return: descriptor or -errno */
int btc_connect(const struct btc *t, uint32_t uid);
/** btc_hello() - Connect t->fd as sandboxd and say HELLO; waits up to 20 s for the broker; Return: 0 or -1 */
int btc_hello(struct btc *t);
/** btc_send() - Fill the head of @msg (@size bytes, @op) and send it on @fd with descriptor @pass (-1: none); Return: tag, 0 on failure */
uint64_t btc_send(struct btc *t, int fd, void *msg, size_t size, uint32_t op, int pass);
/** btc_recv() - Receive one message within @timeout_ms; @fds gets up to 2 descriptors (-1 when absent); Return: bytes, 0 closed, -errno */
ssize_t btc_recv(int fd, union broker_any *out, int fds[2], int timeout_ms);
/** btc_call() - btc_send() on t->fd and the answer with its tag (events are skipped); Return: bytes, 0 closed, -errno */
ssize_t btc_call(struct btc *t, void *msg, size_t size, uint32_t op, int pass, union broker_any *out, int fds[2]);
/** btc_slot_call() - A struct broker_slot_req; Return: status of the reply, or -errno */
int btc_slot_call(struct btc *t, uint32_t op, struct broker_slot_ref ref, uint32_t arg, union broker_any *out, int fds[2]);
/** btc_host_create() - Fill @c for the host image with a random id */
void btc_host_create(const struct btc *t, struct broker_create *c);
/** btc_create() - Create a sandbox by @c; @fds: control {write, read}; Return: status */
int btc_create(struct btc *t, struct broker_create *c, struct broker_create_reply *ret, int fds[2]);
/** btc_run() - Run @argv (NULL-terminated) as START's entrypoint over control @fds; waits for ENDED at most 20 s; Return: 0 or -1 */
int btc_run(const int fds[2], const char *const *argv, struct agent_status *ret);
/** btc_run_begin() - The first half of btc_run(): send START with @argv over control @fds; Return: 0 or -1 */
int btc_run_begin(const int fds[2], const char *const *argv);
/** btc_run_end() - The second half: wait for ENDED on @fds; Return: 0 or -1 */
int btc_run_end(const int fds[2], struct agent_status *ret);
/** btc_root() - Directory descriptor of the root of the sandbox whose pid 1 is @pid, for reading files that a test left */
int btc_root(uint32_t pid);
/** btc_count_leftovers() - Mounts, groups, links, sandbox directories and processes of this broker that are still there */
int btc_count_leftovers(const struct btc *t, char *text, size_t size);

#endif
