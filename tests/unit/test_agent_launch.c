// SPDX-License-Identifier: Apache-2.0
/* The agent's books about its launcher, beside processes that only stand for one and for its children. */
#include "tests/tap.h"

#include "base/cleanup.h"
#include "runtime/agent/agent_int.h"
#include "runtime/agent/agent_proc.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>

int service_watch(struct service *s, struct agent_source *src, int fd, uint32_t events)
{
	(void)s;
	(void)events;
	*src = (struct agent_source){.fd = fd};
	return 0;
}

void service_unwatch(struct service *s, struct agent_source *src)
{
	(void)s;
	if (src->fd >= 0)
		close(src->fd);
	src->fd = -1;
}

void cmd_drop_ahead(struct service *s)
{
	(void)s;
}

/* A process that has not executed, and waits. */
static pid_t still_child(void)
{
	pid_t pid = fork();

	if (pid == 0)
		for (;;)
			pause();
	return pid;
}

pid_t spawn_launcher(const struct agent *a, int sock, struct spawn_board *board)
{
	(void)a;
	(void)sock;
	(void)board;
	return still_child();
}

static void launcher_dies(struct service *s)
{
	pid_t pid = s->launcher.pid;

	launch_drop(s);
	is_int(waitpid(pid, NULL, 0), pid, "the launcher is dead");
	ok(launch_reaped(s, pid), "and known to be");
}

static struct spawn_slot *slot_of(const struct service *s, const struct cmd *c)
{
	return &s->launcher.board->slots[c->launched.slot];
}

static void order(struct service *s, struct cmd *c, const char *what)
{
	static const uint8_t spec[64];
	int null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);

	*c = (struct cmd){.launched.slot = -1};
	is_int(launch_order(s, c, spec, sizeof(spec), null_fd, -1), 0, "%s", what);
	close(null_fd);
}

static void asleep(const struct service *s, pid_t pid)
{
	struct proc_look look = {0};

	for (int i = 0; i < 60000 && look.state != 'S'; i++) {
		if (proc_look(s->agent, pid, &look) < 0)
			break;
		poll(NULL, 0, 1);
	}
	is_int(look.state, 'S', "a child stands still on its way to its exec");
}

int main(void)
{
	struct agent a = {.proc_fd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC)};
	struct service s = {.agent = &a, .launcher.sock.fd = -1, .status.state = AGENT_STATE_RUNNING};
	struct cmd first, second;
	int64_t now = INT_STILL_USEC * 10;
	uint64_t late;

	launch_make(&s);
	ok(s.launcher.pid > 0, "there is a launcher");
	order(&s, &first, "it is told of a command");
	pid_t child = still_child();
	asleep(&s, child);
	slot_of(&s, &first)->taken = SPAWN_TAKEN(first.launched.serial, child);
	ok(!launch_stands_still(&s, now += 2 * INT_STILL_USEC), "seen once, it may be slow");
	ok(launch_stands_still(&s, now += 2 * INT_STILL_USEC), "seen twice, it keeps its launcher");
	launcher_dies(&s);
	ok(!launch_take_back(&s, &first), "its order cannot be taken back any more");
	ok(first.launched.lost && launch_learn(&s, &first) && first.pid == child, "nobody tells of it, but its number is known");

	launch_make(&s);
	ok(s.launcher.pid > 0 && !s.launcher.ending, "there is another launcher");
	order(&s, &second, "it is told of the next command");
	ok(second.launched.slot != first.launched.slot, "in a slot of its own");
	ok(!launch_stands_still(&s, now += 2 * INT_STILL_USEC) && !launch_stands_still(&s, now += 2 * INT_STILL_USEC),
	   "what the earlier launcher had begun is not laid to this one");
	launch_over(&s, &first);
	is_int(s.launcher.use[0], 0, "the slot of a lost command is free when that is over: nobody else writes it");
	late = SPAWN_TAKEN(second.launched.serial, 0);
	launcher_dies(&s);
	ok(launch_take_back(&s, &second), "an order that nobody took is taken back");
	ok(!atomic_compare_exchange_strong(&slot_of(&s, &second)->taken, &late, SPAWN_TAKEN(second.launched.serial, child)),
	   "who then comes to it does not get it");
	launch_over(&s, &second);

	launch_make(&s);
	order(&s, &first, "the slot is used again");
	late = SPAWN_TAKEN(second.launched.serial, 0);
	ok(!atomic_compare_exchange_strong(&slot_of(&s, &first)->taken, &late, SPAWN_TAKEN(second.launched.serial, child)),
	   "who comes as late as that does not get the next one's");
	launcher_dies(&s);
	kill(child, SIGKILL);
	is_int(waitpid(child, NULL, 0), child, "all are gone");
	return tap_done();
}
