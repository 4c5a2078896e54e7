/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: peers: programs that make a sandbox and run `true` in it, timed from spawn to exit
 */
#ifndef TESTS_BENCH_PEER_H
#define TESTS_BENCH_PEER_H

enum bench_peer { BENCH_PEER_BWRAP = 0, BENCH_PEER_CRUN, BENCH_PEER_RUNC, BENCH_PEER_PODMAN, BENCH_PEER_DOCKER, BENCH_PEER_COUNT };

/** bench_peer_name() - What is run, for the table */
const char *bench_peer_name(enum bench_peer peer);
/** bench_peer_run() - Run `true` once in a fresh sandbox of @peer; Return: milliseconds, or -1 when it cannot run here */
double bench_peer_run(enum bench_peer peer);
/** bench_peer_why_not() - After a -1: why */
const char *bench_peer_why_not(enum bench_peer peer);

#endif
