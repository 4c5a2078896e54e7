/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: commands, streams and the loop that serves them
 *
 * Every descriptor in the loop is edge-triggered and has a struct agent_source whose `ready` stays set until a read said
 * EAGAIN.  A command that may not go on (no credit, gateway not reading) is simply not read; no event is lost or repeated.
 *
 * A command: SPAWNED (report open) -> STARTED or FAILED -> ENDED (reaped); its stream, if it still has one, gets what the
 * pipes held at that moment and EXIT.  Its pipes stay open as long as somebody inside holds the other end.
 */
#ifndef RUNTIME_AGENT_AGENT_INT_H
#define RUNTIME_AGENT_AGENT_INT_H

#include "runtime/agent/agent.h"
#include "runtime/agent/agent_spawn.h"
#include "runtime/agent/agent_spool.h"

#include "base/limits.h"

#include <stdbool.h>

#define INT_IN_BYTES	  (64u * 1024)
#define INT_OUT_BYTES	  (2u * AGENT_OUT_FRAME)
#define INT_SCRATCH_BYTES (32u * 1024)
#define INT_DATA_BYTES	  (AGENT_OUT_FRAME - (uint32_t)sizeof(struct agent_frame))
#define INT_TEXT_BYTES	  4096u /* of a command that are kept for STATUS: 1024 of them fit the agent's memory limit */
#define INT_RUNNING_MAX	  1024u
#define INT_ASSEMBLY_BYTES (4u * 1024 * 1024) /* of half-received requests, all streams together */
#define INT_INPUT_BYTES	  (6u * 1024 * 1024) /* of uploads and standard input not taken yet, all streams together */
#define INT_END_TEXT	  200u
#define INT_TOLD_BYTES	  (256u * 1024) /* of an environment that is told: twice the largest that exec takes by default */
#define INT_FIFO_MAX	  (8u * 1024 * 1024) /* no FIFO holds more */
#define INT_CONTENT_BYTES (2u * AGENT_WIDE_WINDOW) /* of the pipe between the agent and the child of a large transfer */
#define INT_INTERRUPT_USEC 3000000
#define INT_PTY_DRAIN_USEC 500000
/*
 * For the output of processes that outlive their shell, such as `tee` in a process substitution: FIRST and three times as long each
 * further time it is looked whether any of them has something to do, and twice none ends the wait.  One that a pipe feeds is a filter
 * behind the shell, whose input has ended: it is waited for while it sleeps, too, and longer.  All are waited for until they close
 * their end of the output, which the kernel tells, and no longer than this.
 */
#define INT_TAIL_USEC	   100000
#define INT_TAIL_FIRST_USEC 4000
#define INT_TAIL_BYTES	   (64u * 1024)
#define INT_FED_USEC	   500000
#define INT_FED_BYTES	   (1024u * 1024)
#define INT_SPARE_USEC	   5000000 /* how long an unused launcher waits */
/*
 * STARTED waits so long for company: most commands are over by then, and their beginning and end are one message, one wake-up
 * of the gateway and one of the client.  Output goes at once and takes it along.  Where many commands are under way at once, or
 * the host is busy, the end comes later, and so does STARTED: so much for each of them, and at most MAX.
 */
#define INT_STARTED_USEC     2000
#define INT_STARTED_MAX_USEC 40000
#define INT_STILL_USEC	     20000 /* who waits for the launcher looks so often whether it stands still */
#define INT_LAUNCH_USEC	   1000000 /* an order that was not taken by then is not going to be */

struct stream;

enum cmd_state { CMD_SPAWNED = 1, CMD_STARTED, CMD_ENDED };

struct cmd {
	struct cmd *next; /* towards the newer */
	struct cmd *live_next, *hash_next;
	bool live; /* in the list of those that the loop has to look at */
	uint8_t id[AGENT_ID_BYTES];
	enum cmd_state state;
	bool entrypoint, background, pty, driver;
	bool interrupted; /* an INTERRUPT is under way */
	uint32_t exit_flags;
	pid_t pid; /* also its group and, with a terminal, its session; 0 once it is reaped */
	pid_t group;
	uint64_t tag;
	struct launched {
		int slot; /* of the launcher's orders; -1: it did not start this one, or that is over */
		uint32_t serial;
		uint8_t *bytes; /* owned: AGENT_EXEC as it came, for a second start without the launcher */
		uint32_t n;
		int64_t sent_mono_usec;
		int64_t look_mono_usec; /* when to ask what became of it; 0: never */
		bool lost; /* the launcher ended while it was on its way */
		uint64_t due; /* signals that have still to be sent to it: 1 << (number - 1) */
	} launched;
	int32_t code, signal;
	int64_t started_wall_usec, ended_wall_usec;
	int64_t deadline_mono_usec; /* 0: none */
	int64_t kill_mono_usec;	    /* INTERRUPT: when to go from TERM to KILL */
	int64_t drain_mono_usec;    /* when to stop waiting for its last bytes */
	int64_t tail_mono_usec;	    /* when to look whether any are still to come; 0: it is not looked */
	int64_t tail_step_usec;
	bool tail_quiet; /* the look before found nobody at work */
	bool tail_fed;	 /* a look has found a filter */
	struct agent_source report, out[2], in, watch; /* watch: pidfd of a member of an interrupted group */
	uint64_t drain_bytes[2]; /* ENDED: what the pipe held then and still has to be sent */
	struct agent_source tells; /* driver: what it tells */
	uint64_t tells_left;	   /* of it, seen and not sent yet */
	uint64_t before_left[2];   /* output that was there when it was seen: sent before it */
	uint8_t *in_bytes;	 /* owned; STDIN not yet taken */
	uint32_t in_have, in_sent;
	bool in_eof;
	struct spool spool;
	char *text; /* owned */
	struct stream *stream; /* borrowed; NULL: detached */
	uint32_t fail_stage; /* enum agent_stage; 0: it was started */
	int32_t fail_sys;
};

enum stream_kind {
	STREAM_FREE = 0,
	STREAM_ASSEMBLING, /* EXEC or FS, more of it to come */
	STREAM_COMMAND,
	STREAM_FILES,
	STREAM_LOGS,
	STREAM_INTERRUPT,
	STREAM_END,    /* only END is left to send */
	STREAM_STATUS, /* only STATUS_REPLY is left to send */
};

struct stream {
	enum stream_kind kind;
	uint32_t id;
	uint16_t type; /* ASSEMBLING: AGENT_EXEC or AGENT_FS */
	bool started_sent;
	uint8_t *bytes; /* owned: ASSEMBLING: the request; FILES: upload not yet taken by the child */
	uint32_t size, have, sent;
	int64_t credit; /* payload bytes that we may still send */
	uint32_t grant; /* credit to give back to the gateway */
	uint32_t window; /* payload bytes that the gateway may still send */
	struct cmd *cmd; /* COMMAND, LOGS, INTERRUPT, STATUS; borrowed */
	uint64_t offset, end_offset; /* LOGS */
	struct agent_source files; /* FILES: our end of the child's socket */
	struct agent_source content; /* FILES: our end of the pipe for a file's content, to the child or from it */
	pid_t files_pid;
	bool takes_content; /* WRITE, APPEND: until the upload is complete */
	bool upload_eof;
	bool has_record; /* READ: the record has been passed on, content may follow */
	bool ending;	 /* READ: END is in `end` and `text`, and waits for the rest of the content */
	bool enlarged;	 /* the pipe */
	bool wide;	 /* WRITE: it has been granted AGENT_WIDE_WINDOW */
	uint64_t taken;	 /* WRITE: bytes that went into the pipe */
	struct agent_end end;
	char text[INT_END_TEXT];
};

/* Announced content that stands first in bulk.in and waits for its child. */
struct front {
	struct stream *stream; /* borrowed */
	uint32_t left;
};

struct spare { /* the entrypoint's, see agent_spawn.h; pid 0: none */
	pid_t pid;
	int order_fd, report_fd, out_fd, err_fd;
};

/* The launcher, see agent_spawn.h; pid 0: none. */
struct launcher {
	pid_t pid;
	struct agent_source sock;
	struct spawn_board *board; /* shared with it; NULL: not needed so far */
	uint32_t serial; /* of the last order */
	uint8_t use[SPAWN_SLOTS]; /* enum launch_use */
	bool ending; /* it was killed: what it did not start is started again once it is reaped */
	int64_t until_mono_usec;
	int64_t still_mono_usec; /* when it was last looked whether it stands still */
	pid_t still;		 /* which child it stood still with then; 0: none */
};

/* The next command's record and outputs, watched already: made while the one before runs, so that its order does not wait for them. */
struct ahead {
	struct cmd *cmd; /* owned; NULL: there is none */
	int end[2];	 /* the child's ends of standard output and error */
};

#define INT_HASH 256u

struct service {
	struct agent *agent;
	struct agent_source signals, control_in, control_out, exec_in, exec_out, bulk_out;
	int epoll_fd;
	bool attached;
	bool attach_reply;
	bool bulk; /* the gateway can use the bulk channel */
	struct front front;
	bool cmd_events; /* some command's source is ready: walk them */
	bool status_due;
	bool dead;	 /* the entrypoint has ended */
	struct agent_attach attach;
	struct agent_status status;
	uint8_t *in, *out, *scratch; /* one mapping; its pages are given back when nothing is going on */
	size_t mapped_bytes;
	uint32_t in_have, out_have, out_sent;
	uint32_t in_high, out_high;
	uint8_t *start; /* owned; START being received */
	struct agent_source told_env; /* what the entrypoint's shell tells of its environment; not open: nothing is waited for */
	char *told;	/* owned; of it so far */
	uint32_t told_have;
	uint32_t start_size, start_have;
	uint32_t assembly_bytes;
	uint32_t input_bytes; /* room taken by uploads and standard input */
	uint32_t serial;
	struct cmd *oldest, *newest, *entry;
	struct cmd *live; /* not yet over in every respect: a thousand finished ones are not walked at each event */
	struct cmd *hash[INT_HASH]; /* by id */
	struct spare spare;
	struct launcher launcher;
	bool launcher_due; /* make one when there is nothing else to do */
	bool ahead_due;	   /* likewise, make `ahead` */
	struct ahead ahead;
	uint32_t n_running, n_finished;
	uint32_t next_stream; /* round robin */
	uint32_t streams_top; /* those from here on are free: who walks them all walks few */
	struct stream *streams; /* LIMIT_STREAMS of them, in the same mapping: all zero is free */
};

/* agent_service.c */

/** service_watch() - Put @src into the loop; @events: EPOLLIN, EPOLLOUT or both; Return: 0 or -errno */
int service_watch(struct service *s, struct agent_source *src, int fd, uint32_t events);
/** service_unwatch() - Take @src out of the loop and close it; fine when it is not open */
void service_unwatch(struct service *s, struct agent_source *src);
/** service_frame() - Append one whole frame to the output; the caller has made sure that it fits */
void service_frame(struct service *s, uint16_t type, uint32_t stream, uint32_t value, const void *a, uint32_t a_n,
		   const void *b, uint32_t b_n);
/** service_room() - Where the payload of a frame of @n bytes can be put before service_commit(), NULL when it does not fit */
uint8_t *service_room(struct service *s, uint32_t n);
/** service_commit() - Make a frame of the @n bytes put at service_room() */
void service_commit(struct service *s, uint16_t type, uint32_t stream, uint32_t n);
/** service_end() - Leave @st with nothing but an END to send */
void service_end(struct service *s, struct stream *st, enum agent_reason reason, int sys, uint64_t value, const char *text);
/** service_free_stream() - The stream's number may be used again */
void service_free_stream(struct service *s, struct stream *st);

/* agent_launch.c */

/** launch_make() - Have a launcher wait for commands, unless one does or the sandbox is not running */
void launch_make(struct service *s);
/** launch_drop() - End it: it is too old, or knows an environment that is no longer true; fine when there is none */
void launch_drop(struct service *s);
/** launch_reaped() - Process @pid has ended; Return: true when it was the launcher: cmd_relaunch() is next */
bool launch_reaped(struct service *s, pid_t pid);
/**
 * launch_order() - Have the launcher start @c
 * @bytes:	struct agent_spec and its strings
 * @out_fd:	The command's ends; @err_fd -1: standard error is standard output
 *
 * Return: 0 with @c->launched, or a negative errno: it has to be started without
 */
int launch_order(struct service *s, struct cmd *c, const uint8_t *bytes, uint32_t n, int out_fd, int err_fd);
/** launch_learn() - Take over what the launcher has said of @c: its number, to which due signals go; Return: whether there is one */
bool launch_learn(struct service *s, struct cmd *c);
/** launch_take_back() - The launcher is gone: take the order of @c back, or mark it as lost; Return: whether nobody has it now */
bool launch_take_back(struct service *s, struct cmd *c);
/** launch_signal() - Have @c, which has no number yet, signalled as soon as it has one */
void launch_signal(struct cmd *c, int sig);
/** launch_wake() - Have the launcher, and who waits for its next order, go on where a tenant has stopped them */
void launch_wake(const struct service *s);
/** launch_stands_still() - Whether the child that the launcher waits for waits itself, for something else than a processor; wakes it */
bool launch_stands_still(struct service *s, int64_t now_usec);
/** launch_failure() - What @c, which has not started yet, failed with; Return: enum agent_stage, 0 for nothing */
uint32_t launch_failure(const struct service *s, const struct cmd *c, int32_t *ret_sys);
/** launch_executed() - Whether the launcher has seen @c execute; of what runs in the background it then tells */
bool launch_executed(const struct service *s, const struct cmd *c);
/** launch_over() - @c has been started, or has failed: its order is done with */
void launch_over(struct service *s, struct cmd *c);
/** launch_read() - Hear what the launcher has to tell */
void launch_read(struct service *s);

/* agent_cmd.c */

/** cmd_relaunch() - The launcher is gone: start what it was told and did not start */
void cmd_relaunch(struct service *s);
/**
 * cmd_start() - Start a process and keep its record
 * @id:		All zero for the entrypoint
 * @ret_stage:	On failure, where
 *
 * Return: 0 with *@ret, or a negative errno
 */
int cmd_start(struct service *s, const uint8_t id[AGENT_ID_BYTES], const struct spec_view *view, bool entrypoint,
	      struct cmd **ret, enum agent_stage *ret_stage);
/** cmd_find() - The command of @id; Return: it or NULL */
struct cmd *cmd_find(const struct service *s, const uint8_t id[AGENT_ID_BYTES]);
/** cmd_make_spare() - Have the entrypoint's child wait in advance */
void cmd_make_spare(struct service *s);
/** cmd_make_ahead() - Have what the launcher's next command needs; fine when it is there already */
void cmd_make_ahead(struct service *s);
/** cmd_drop_ahead() - It will hardly be needed; fine when there is none */
void cmd_drop_ahead(struct service *s);
/** cmd_drop_spare() - It has died or is of no use; fine when there is none */
void cmd_drop_spare(struct service *s, bool reaped);
/** cmd_reaped() - Process @pid has ended; Return: true when it was a command's */
bool cmd_reaped(struct service *s, pid_t pid, int wait_status);
/** cmd_walk() - Serve the sources of all commands: reports, detached output, standard input, interrupts */
void cmd_walk(struct service *s);
/** cmd_produce() - Append at most one frame of the command of @st; Return: true when one was appended */
bool cmd_produce(struct service *s, struct stream *st);
/** cmd_timers() - Do what is due at @now_usec; Return: when the next is due, or INT64_MAX */
int64_t cmd_timers(struct service *s, int64_t now_usec);
/** cmd_detached() - The stream of @c is over before its command: a driver ends with it */
void cmd_detached(struct service *s, struct cmd *c);
/** cmd_interrupt() - TERM now, KILL in three seconds; the streams that wait are told when the group is gone */
void cmd_interrupt(struct service *s, struct cmd *c);
/** cmd_signal() - Signal the group, or with a terminal its foreground group; Return: 0 or -errno */
int cmd_signal(struct service *s, struct cmd *c, int sig);
/** cmd_input() - Queue bytes for standard input; Return: 0, or -EPROTO when the window is exceeded */
int cmd_input(struct service *s, struct cmd *c, const uint8_t *data, uint32_t n);
/** cmd_input_eof() - Close standard input behind what is queued */
void cmd_input_eof(struct service *s, struct cmd *c);
/** cmd_resize() - Set the size of the terminal; nothing without one */
void cmd_resize(const struct cmd *c, uint32_t rows_cols);

/* agent_fs.c */

/** fs_start() - Begin the file operation in @st->bytes; @st becomes FILES or END */
void fs_start(struct service *s, struct stream *st);
/** fs_produce() - Append at most one frame of the operation of @st; Return: true when one was appended */
bool fs_produce(struct service *s, struct stream *st);
/** fs_input() - Upload bytes; Return: 0, -EPROTO or -ENOMEM */
int fs_input(struct service *s, struct stream *st, const uint8_t *data, uint32_t n);
/** fs_bulk() - Upload bytes, the next @n of the bulk FIFO, are announced; Return: 0, or -EPROTO when they are not there */
int fs_bulk(struct service *s, struct stream *st, uint32_t n);
/** fs_skip() - Throw away the next @n bytes of the bulk FIFO; Return: 0, or -EPROTO when they are not there */
int fs_skip(struct service *s, uint32_t n);
/** fs_front_drop() - @st is over: what stands in the bulk FIFO for it goes; fine when nothing does */
void fs_front_drop(struct service *s, const struct stream *st);
/** fs_push() - Hand queued upload bytes to the child as far as it takes them */
void fs_push(struct service *s, struct stream *st);
/** fs_cancel() - The client is gone: kill the child */
void fs_cancel(struct service *s, struct stream *st);
/** fs_reaped() - Process @pid has ended; Return: true when it was a file operation's */
bool fs_reaped(struct service *s, pid_t pid);

#endif
