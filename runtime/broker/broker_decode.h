/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: what makes bytes a request
 *
 * A pure function over the bytes of one message, so that a fuzzer can own it: size, magic, strings that end within their field
 * with nothing behind, counts within their arrays, zero where zero belongs.  What a request means in a slot's state is
 * the business of broker_ops.c.
 */
#ifndef RUNTIME_BROKER_DECODE_H
#define RUNTIME_BROKER_DECODE_H

#include "base/err.h"
#include "runtime/broker/broker_msg.h"

#include <stddef.h>

/**
 * broker_decode() - Check one received message
 * @any:	Its bytes, copied into a zeroed union
 * @len:	How many were received
 * @n_fds:	Descriptors that came with it
 * @err:	Filled on failure: PROTOCOL
 *
 * Return: 0 (any->head.op is a known request of exactly this size), or -1 with @err set
 */
int broker_decode(const union broker_any *any, size_t len, size_t n_fds, struct sbx_err *err) SBX_WUR;

#endif
