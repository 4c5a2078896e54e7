/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: doctor's questions, without stopping the broker
 *
 * Some probes make namespaces, mounts and rule sets and take tens of milliseconds.  So a child of the broker asks them all at
 * once when somebody asks for row 0, sends what it saw through a pipe and ends; who asks meanwhile waits for it, and the rows
 * behind are answered from what it sent.
 */
#ifndef RUNTIME_HOST_PROBE_H
#define RUNTIME_HOST_PROBE_H

#include "base/err.h"
#include "runtime/broker/broker_int.h"

#include <stdbool.h>
#include <stdint.h>

/**
 * host_probe_ask() - Answer one row now or later, by broker_host_row_done()
 * @b:		The broker
 * @number:	Row; 0 asks this host anew
 * @asker:	Who waits
 * @err:	Filled: PROTOCOL (no such row), LIMIT (too many wait), SYSTEM
 *
 * Return: 0, or -1 with @err set and nothing to come
 */
int host_probe_ask(struct broker *b, uint32_t number, const struct broker_asker *asker, struct sbx_err *err) SBX_WUR;

#endif
