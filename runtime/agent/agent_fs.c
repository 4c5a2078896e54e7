// SPDX-License-Identifier: Apache-2.0
#include "runtime/agent/agent_int.h"
void fs_start(struct service *s, struct stream *st) { service_end(s, st, AGENT_BUSY, 0, 0, ""); }
bool fs_produce(struct service *s, struct stream *st) { (void)s; (void)st; return false; }
int fs_input(struct service *s, struct stream *st, const uint8_t *data, uint32_t n) { (void)s; (void)st; (void)data; (void)n; return 0; }
void fs_push(struct service *s, struct stream *st) { (void)s; (void)st; }
void fs_cancel(struct service *s, struct stream *st) { (void)s; (void)st; }
bool fs_reaped(struct service *s, pid_t pid) { (void)s; (void)pid; return false; }
