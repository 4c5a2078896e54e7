/* SPDX-License-Identifier: Apache-2.0 */
/* sandboxd's end of policy.sock, against a dnsd that does as it should and one that does not. */
#include "config.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fdpass.h"
#include "netpolicy/policy_link.h"
#include "netpolicy/policy_wire.h"
#include "tests/tap.h"

#define STALL_MS 8100u /* longer than an answer may take */

static struct loop *loop;
static struct policy_link *link_;
static struct sockaddr_un addr = {.sun_family = AF_UNIX};
static unsigned hellos, losses, events, dones;
static struct sbx_err last;

static void on_hello(void *arg)
{
	(void)arg;
	hellos++;
}

static void on_lost(void *arg)
{
	(void)arg;
	losses++;
}

static void on_event(void *arg, const struct egress_event *event)
{
	(void)arg, (void)event;
	events++;
}

static void on_done(void *arg, const union egress_any *reply, const struct sbx_err *err)
{
	(void)arg, (void)reply;
	dones++;
	last = *err;
}

static void spin(void)
{
	for (int i = 0; i < 20; i++)
		loop_once(loop, 1);
}

static int dial(void)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0)
		printf("# connect failed\n");
	return fd;
}

static void say(int fd, void *message, uint32_t kind, uint64_t tag, size_t size)
{
	const struct egress_head head = {.magic = EGRESS_MAGIC, .kind = kind, .tag = tag, .size = (uint32_t)size};

	memcpy(message, &head, sizeof(head));
	if (send(fd, message, size, MSG_NOSIGNAL) < 0)
		printf("# send failed\n");
	spin();
}

static void greet(int fd)
{
	struct egress_hello hello = {.version = EGRESS_VERSION};

	say(fd, &hello, EGRESS_HELLO, 0, sizeof(hello));
}

static ssize_t hear(int fd, union egress_any *m, int *ret_fd)
{
	size_t n = 0;

	return fdpass_recv(fd, m, sizeof(*m), ret_fd, 1, &n);
}

static struct policy *some_policy(void)
{
	struct policy *p = policy_new(false);
	struct policy_rule rule;
	struct sbx_err err;
	struct target t;

	if (!p || target_parse("*.a.test", &t, &err))
		return NULL;
	policy_rule_set(&rule, &t, "*.a.test", EGRESS_RULE_ALLOW);
	return policy_add(p, &rule, &err) || policy_seal(p, &err) ? NULL : p;
}

static const struct policy_link_target target = {.ref = {3, 7}, .sandbox_id = {1}, .addr = 0x0ad50003, .policy_generation = 5};

static void test_good(void)
{
	struct policy *p = some_policy();
	union egress_any m;
	int body_fd = -1;
	struct sbx_err err = {0};
	char body[256];

	ok(!policy_link_up(link_) && policy_link_set(link_, &target, p, on_done, NULL, &err) < 0 && err.code == SBX_E_PEER_GONE,
	   "nobody is there: refused at once");
	auto_fd fd = dial();
	greet(fd);
	ok(hellos == 1 && policy_link_up(link_) && hear(fd, &m, &body_fd) == sizeof(m.hello) && m.head.kind == EGRESS_HELLO_REPLY, "hello is answered");
	ok(!policy_link_set(link_, &target, p, on_done, NULL, &err) && hear(fd, &m, &body_fd) == sizeof(m.set) && m.head.kind == EGRESS_SET &&
		   m.set.n_rules == 1 && m.set.policy_generation == 5 && m.set.ref.generation == 7,
	   "a policy is sent");
	uint64_t tag = m.head.tag;
	ok(body_fd >= 0 && (fcntl(body_fd, F_GET_SEALS) & F_SEAL_WRITE), "its rules in a sealed file");
	ssize_t n = pread(body_fd, body, sizeof(body), 0);
	struct policy *again = n > 0 ? policy_wire_read(body, (size_t)n, 1, false, &err) : NULL;
	ok(again && n == (ssize_t)m.set.body_bytes && policy_decide_name(again, "x.a.test", 8).allow, "which reads as it was");
	policy_free(again);
	close(body_fd);
	struct egress_ack ack = {0};
	say(fd, &ack, EGRESS_ACK, tag, sizeof(ack));
	ok(dones == 1 && !last.code, "its ACK is told");
	ok(!policy_link_set(link_, &target, p, on_done, NULL, &err) && hear(fd, &m, &body_fd) > 0, "another");
	close(body_fd);
	ack = (struct egress_ack){.status = SBX_E_LIMIT, .text = "no room"};
	say(fd, &ack, EGRESS_ACK, m.head.tag, sizeof(ack));
	ok(dones == 2 && last.code == SBX_E_LIMIT && strstr(last.msg, "no room"), "a refusal too");
	struct egress_event e = {.kind = EGRESS_EVENT_DNS_DENIED, .count = 1, .name = "x.test"};
	say(fd, &e, EGRESS_EVENT, 0, sizeof(e));
	is_int(events, 1, "an event");
	ok(!policy_link_set(link_, &target, p, on_done, NULL, &err), "a third, which is never answered");
	close(take_fd(&fd));
	spin();
	ok(losses == 1 && dones == 3 && last.code == SBX_E_PEER_GONE && !policy_link_up(link_), "it ends with the connection");
	policy_free(p);
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* It is not dnsd's fault when this process did not run: the answer stands in the socket, and the timer is due before it. */
static void test_stall(void)
{
	struct policy *p = some_policy();
	unsigned lost_before, dones_before = dones;
	struct egress_ack ack = {.head = {.magic = EGRESS_MAGIC, .kind = EGRESS_ACK, .size = sizeof(ack)}};
	auto_fd fd = dial();
	struct sbx_err err;
	union egress_any m;
	int body_fd = -1;

	greet(fd);
	lost_before = losses;
	(void)hear(fd, &m, &body_fd);
	ok(!policy_link_set(link_, &target, p, on_done, NULL, &err) && hear(fd, &m, &body_fd) > 0, "a policy before a stall");
	close(body_fd);
	spin();
	for (uint64_t end = now_ms() + STALL_MS; now_ms() < end;) {
		const struct timespec rest = {.tv_sec = (time_t)((end - now_ms()) / 1000), .tv_nsec = 1000000};

		nanosleep(&rest, NULL);
	}
	/* the timer alone is due, then the answer comes */
	loop_once(loop, 1);
	ack.head.tag = m.head.tag;
	ok(send(fd, &ack, sizeof(ack), MSG_NOSIGNAL) == sizeof(ack), "answered, and we were late");
	spin();
	ok(policy_link_up(link_) && losses == lost_before && dones == dones_before + 1 && !last.code, "the answer is read before dnsd is blamed");
	ok(!policy_link_set(link_, &target, p, on_done, NULL, &err), "a policy that is never answered");
	for (uint64_t end = now_ms() + 10 * STALL_MS; policy_link_up(link_) && now_ms() < end;)
		loop_once(loop, 1000);
	ok(!policy_link_up(link_) && losses == lost_before + 1, "ends the connection");
	spin();
	is_int(dones, dones_before + 2, "and is told");
	policy_free(p);
}

static void test_replaced(void)
{
	auto_fd first = dial();
	greet(first);
	auto_fd second = dial();
	greet(second);
	union egress_any m;
	ok(policy_link_up(link_) && hellos == 3, "a new dnsd takes the place of the old one");
	while (recv(first, &m, sizeof(m), 0) > 0)
		;
	ok(recv(first, &m, sizeof(m), 0) == 0, "whose connection ends");
}

/* Each of these ends the connection and nothing else. */
static void test_hostile(void)
{
	static const struct {
		const char *why;
		uint32_t kind;
		size_t size;
		bool ungreeted;
	} cases[] = {
		{"an event before the greeting", EGRESS_EVENT, sizeof(struct egress_event), true},
		{"an event of another size", EGRESS_EVENT, sizeof(struct egress_event) - 8, false},
		{"an event of no kind", EGRESS_EVENT, sizeof(struct egress_event), false},
		{"a second greeting", EGRESS_HELLO, sizeof(struct egress_hello), false},
		{"an answer to nothing", EGRESS_ACK, sizeof(struct egress_ack), false},
		{"an unknown kind", 99, sizeof(struct egress_head), false},
		{"a SET from the wrong side", EGRESS_SET, sizeof(struct egress_set), false},
		{"half a head", EGRESS_HELLO, 8, false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		union egress_any m = {0};
		auto_fd fd = dial();

		if (!cases[i].ungreeted)
			greet(fd);
		spin();
		if (cases[i].size < sizeof(struct egress_head)) {
			if (send(fd, &m, cases[i].size, MSG_NOSIGNAL) < 0)
				printf("# send failed\n");
			spin();
		} else {
			say(fd, &m, cases[i].kind, 12345, cases[i].size);
		}
		ok(!policy_link_up(link_), "hostile: %s", cases[i].why);
	}
	struct egress_event e = {.kind = EGRESS_EVENT_DNS_DENIED, .count = 1, .name = "x\033[2J.test"};
	auto_fd fd = dial();
	unsigned before = events;

	greet(fd);
	say(fd, &e, EGRESS_EVENT, 0, sizeof(e));
	ok(events == before && !policy_link_up(link_), "hostile: a name with control characters reaches nobody");
	auto_fd again = dial();
	greet(again);
	memset(e.name, 'a', sizeof(e.name));
	say(again, &e, EGRESS_EVENT, 0, sizeof(e));
	ok(events == before && !policy_link_up(link_), "hostile: nor does one without an end");
}

int main(void)
{
	const struct policy_link_hooks hooks = {.hello = on_hello, .lost = on_lost, .event = on_event};
	char dir[] = "/tmp/policy-link.XXXXXX";
	struct sbx_err err = {0};

	if (!mkdtemp(dir))
		return 1;
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/sock", dir);
	auto_fd listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	loop = loop_new(&err);
	if (bind(listen_fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(listen_fd, 8) < 0 || !loop)
		return 1;
	link_ = policy_link_new(loop, listen_fd, 12345678, &hooks, &err);
	test_good();
	test_replaced();
	spin();
	test_hostile();
	test_stall();
	policy_link_free(link_);
	loop_free(loop);
	unlink(addr.sun_path);
	rmdir(dir);
	return tap_done();
}
