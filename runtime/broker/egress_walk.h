/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: egress work that takes too long for the broker's loop
 *
 * Two jobs, each in a child that sees the broker's tables as they were when it was forked and then ends: ending sockets whose
 * flows a new policy revoked (sockcut.h; sandboxes that come while it runs wait for the next child), and listing the addresses
 * that live connections lead to (one walk of the kernel's table, some 11 ms).
 */
#ifndef RUNTIME_EGRESS_WALK_H
#define RUNTIME_EGRESS_WALK_H

#include "base/err.h"

struct broker;
struct broker_asker;
struct slot;

/** egress_walk_init() - Make the state of @b; Return: 0 or -1 with @err set */
int egress_walk_init(struct broker *b, struct sbx_err *err) SBX_WUR;
/** egress_walk_cut() - Soon end the sockets of @s of @b that its policy does not allow any more */
void egress_walk_cut(struct broker *b, struct slot *s);
/**
 * egress_walk_list() - Find out for @asker which addresses have live connections; broker_flows_part() answers
 * @b:		The broker
 * @asker:	Copied
 * @err:	Filled on failure: LIMIT (somebody asks already), SYSTEM
 *
 * Return: 0, or -1 with @err set
 */
int egress_walk_list(struct broker *b, const struct broker_asker *asker, struct sbx_err *err) SBX_WUR;

#endif
