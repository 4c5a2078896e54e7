/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the smallest honest HTTP client for the bench
 *
 * Blocking, one connection, one write a request; reads exactly one answer (Content-Length or chunked) and notes when the
 * first stdout event arrived.  Not used by any product program.
 */
#ifndef TESTS_BENCH_HTTP_H
#define TESTS_BENCH_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bench_target {
	const char *host; /* IPv4 address */
	uint16_t port;
	const char *key; /* "" for none */
};

struct bench_answer {
	int status;
	double first_output_ms; /* from the request's write to the first stdout event; 0 when there was none */
	bool completed;		/* an execution_complete event came */
	const char *body;	/* borrowed from the connection until its next request; NUL-terminated */
	size_t body_bytes;
};

struct bench_memory {
	uint64_t agents_pss_kb, daemons_pss_kb, available_kb;
	uint32_t n_agents; /* processes: pid 1 of each sandbox, and children of it that wait */
};

struct bench_conn;

/** bench_connect() - Connect to @target; Return: connection, or NULL with errno set */
struct bench_conn *bench_connect(const struct bench_target *target);
/** bench_close() - Close and release @c; NULL is fine */
void bench_close(struct bench_conn *c);
/** bench_send() - Write one request of @method and @path with the JSON @body (or NULL); Return: 0 or -errno */
int bench_send(struct bench_conn *c, const char *method, const char *path, const char *body);
/** bench_receive() - Read one whole answer into @ret; Return: 0 or -errno */
int bench_receive(struct bench_conn *c, struct bench_answer *ret);
/** bench_request() - bench_send() and bench_receive() */
int bench_request(struct bench_conn *c, const char *method, const char *path, const char *body, struct bench_answer *ret);
/** bench_json_string() - Copy the top-level string @key of the JSON body of @a into @out of @size bytes; Return: 0 or -errno */
int bench_json_string(const struct bench_answer *a, const char *key, char *out, size_t size);
/**
 * bench_memory_read() - PSS of all sandbox-agent processes, of the processes @pids ("1,2,3"), and MemAvailable
 * @pids:	Our daemons
 * @ret:	Filled; a process that is gone counts as 0
 */
void bench_memory_read(const char *pids, struct bench_memory *ret);
/**
 * bench_memory_group_kb() - What one empty memory group costs on this kernel as it is now
 *
 * A group has a table of all that can be reclaimed, which is as long as the most file systems that were mounted at once since
 * the boot: the same sandbox costs more where a thousand of them ran before.
 *
 * Return: kB of slab and per-processor memory, or a negative number where no group can be made
 */
double bench_memory_group_kb(void);

#endif
