/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: frames between the host and sandbox-agent, pid 1 inside
 *
 * Three pairs of FIFOs a sandbox, made by the broker before the clone; no descriptor ever comes out of a sandbox.
 *
 *   control  sandboxd -> agent: frames (START, QUERY, STOP);  agent -> sandboxd: struct agent_status, fixed size
 *   exec     gateway  -> agent: frames of at most AGENT_IN_FRAME bytes, each written by one write(2): a FIFO write of
 *            PIPE_BUF bytes or less is whole or not at all, so a gateway that is killed leaves no half frame behind
 *            agent -> gateway: frames of at most AGENT_OUT_FRAME bytes
 *   bulk     content of uploads and downloads, nothing else: a third pair of FIFOs without any framing.  What is written
 *            there means nothing until a BULK frame on the exec channel says whose it is, and that frame is sent behind the
 *            bytes: a gateway that is killed leaves at worst bytes that nobody was told of.  At ATTACH the agent, who holds
 *            both ends of both, empties them before it answers ATTACHED, and before that neither side writes to them.
 *
 * A gateway that starts (or starts again) sends ATTACH with a fresh random nonce and skips whatever it reads until the
 * ATTACHED frame with that nonce; the agent drops all streams of the gateway before (their commands go on and write to
 * the spool).  A stream is a number that the gateway chooses for one request; it is free again after END, or after EXIT.
 *
 * Flow control, both ways: at most the granted credit of payload bytes of STDOUT, STDERR, DATA and BULK may be under way
 * on a stream.  It starts at AGENT_WINDOW and grows by CREDIT frames, so a slow reader stalls its own stream only.  Who takes
 * much content, and no other stream's at that time, may grant AGENT_WIDE_WINDOW: half of a bulk FIFO, once it is enlarged.
 *
 * Host byte order: both ends are the same machine.  Everything from the agent is hostile input to the reader.
 * This header is included by host processes and by the static agent: no dependency but <stdint.h>.
 */
#ifndef RUNTIME_AGENT_MSG_H
#define RUNTIME_AGENT_MSG_H

#include <stdint.h>

#define AGENT_VERSION	  1u
#define AGENT_IN_FRAME	  4096u /* PIPE_BUF */
#define AGENT_OUT_FRAME	  (32u * 1024 + 16)
#define AGENT_WINDOW	  (256u * 1024)
#define AGENT_WIDE_WINDOW (512u * 1024)
#define AGENT_ID_BYTES	  16u
#define AGENT_NONCE_BYTES 16u
#define AGENT_CHANNEL_FDS 4u /* the gateway's ends: exec write, exec read, bulk write, bulk read */

/* What the sandbox may read about what was denied to it: at most AGENT_DENIED_BYTES, the oldest lines go first. */
#define AGENT_DENIED_LOG   "/run/sandbox/denied.jsonl"
#define AGENT_DENIED_BYTES (64u * 1024)

struct agent_frame {
	uint32_t size; /* payload bytes behind this head */
	uint16_t type; /* enum agent_type */
	uint16_t zero;
	uint32_t stream;
	uint32_t value; /* meaning depends on the type */
};

enum agent_type {
	AGENT_NONE = 0,
	/* control channel, from sandboxd */
	AGENT_START, /* spec of the entrypoint; value: bytes of the whole spec; continued by MORE */
	AGENT_QUERY, /* send the current status again */
	AGENT_STOP,  /* value: signal for the entrypoint's process group */
	AGENT_DENIED, /* payload: one line with its newline for AGENT_DENIED_LOG */
	/* exec channel, from the gateway */
	AGENT_ATTACH = 16, /* payload: struct agent_attach */
	AGENT_MORE,	   /* continues the START, EXEC or FS of the same stream */
	AGENT_EXEC,	   /* payload: struct agent_exec, then a spec; value: bytes of both; continued by MORE */
	AGENT_FS,	   /* payload: struct agent_fs and strings; value: bytes of all; continued by MORE */
	AGENT_STDIN,	   /* bytes for the process's standard input or terminal (credit applies) */
	AGENT_STDIN_EOF,
	AGENT_RESIZE,	 /* value: rows << 16 | columns */
	AGENT_DETACH,	 /* the client is gone: commands go on, file operations are cancelled; no more frames on it */
	AGENT_SIGNAL,	 /* payload: command id; value: signal for its process group */
	AGENT_INTERRUPT, /* payload: command id; TERM, KILL after 3 s; END when the group is gone */
	AGENT_STATUS,	 /* payload: command id; answered by STATUS_REPLY or END */
	AGENT_LOGS,	 /* payload: struct agent_logs; answered by DATA..., END (value: next offset) */
	/* both ways */
	AGENT_DATA = 48, /* bytes of a file operation, or what a driver tells; credit applies */
	AGENT_EOF,	 /* gateway: the upload is complete */
	AGENT_CREDIT,	 /* value: bytes granted in addition */
	AGENT_BULK,	 /* value: so many bytes, the next ones in the bulk FIFO of this direction, are DATA of the stream */
	/* exec channel, from the agent */
	AGENT_ATTACHED = 64, /* payload: struct agent_attach, the same nonce */
	AGENT_STARTED,	     /* payload: struct agent_started */
	AGENT_STDOUT,
	AGENT_STDERR,
	AGENT_EXIT,	    /* payload: struct agent_exit; last frame of an EXEC stream that was STARTED */
	AGENT_STATUS_REPLY, /* payload: struct agent_command_status and the command's text; last frame of its stream */
	AGENT_END,	    /* payload: struct agent_end and a text; last frame of its stream */
};

struct agent_attach {
	uint8_t nonce[AGENT_NONCE_BYTES];
	uint32_t version;
	uint32_t flags; /* enum agent_attach_flags: what the sender can do */
};

enum agent_attach_flags { AGENT_ATTACH_BULK = 1u << 0 }; /* BULK may be used when both said so */

/* ---- control channel ---- */

#define AGENT_STATUS_MAGIC 0x53544147u

enum agent_state {
	AGENT_STATE_WAITING = 1, /* no START yet */
	AGENT_STATE_RUNNING,	 /* the entrypoint was executed */
	AGENT_STATE_START_FAILED, /* sys says why; the agent waits to be killed */
	AGENT_STATE_ENDED,	 /* the entrypoint ended, all other processes were killed; the agent waits to be killed */
};

struct agent_status { /* 48 bytes, always written and read whole */
	uint32_t magic;
	uint32_t state;
	int32_t exit_code; /* ENDED: of the entrypoint; -1 when it was killed */
	int32_t exit_signal; /* ENDED: 0 when it exited */
	int32_t sys;	   /* START_FAILED: errno */
	uint32_t stage;	   /* START_FAILED: enum agent_stage */
	int64_t started_wall_usec;
	int64_t ended_wall_usec;
	uint64_t zero;
};

/* ---- starting a process ---- */

enum agent_stage { /* where a start failed */
	AGENT_STAGE_NONE = 0,
	AGENT_STAGE_SPEC,  /* the request itself */
	AGENT_STAGE_FORK,
	AGENT_STAGE_CGROUP,
	AGENT_STAGE_USER, /* no such user in the image */
	AGENT_STAGE_CWD,
	AGENT_STAGE_IDENTITY,
	AGENT_STAGE_FILTER,
	AGENT_STAGE_EXEC,
};

enum agent_spec_flags {
	AGENT_SPEC_UID = 1u << 0,	 /* uid is set; else the sandbox's default user */
	AGENT_SPEC_GID = 1u << 1,	 /* gid is set (needs UID) */
	AGENT_SPEC_SHELL = 1u << 2,	 /* the one argument is run by bash -c, else sh -c */
	AGENT_SPEC_BACKGROUND = 1u << 3, /* stream ends with STARTED and END; output goes to the spool only */
	AGENT_SPEC_PTY = 1u << 4,	 /* a terminal of its own; rows and columns below */
	AGENT_SPEC_STDIN = 1u << 5,	 /* a pipe for STDIN frames; else /dev/null */
	AGENT_SPEC_HAS_USER = 1u << 6,	 /* START: `user` below is the sandbox's default user */
	AGENT_SPEC_MERGE = 1u << 7,	 /* standard error goes where standard output goes */
	AGENT_SPEC_DRIVER = 1u << 8,	 /* see below */
	AGENT_SPEC_BARE_ENV = 1u << 9,	 /* the environment is EXEC's own, not laid over the sandbox's */
	AGENT_SPEC_TELLS_ENV = 1u << 10, /* START: see AGENT_ENV_FD */
};

/*
 * With TELLS_ENV the entrypoint is a shell that first runs a script of the client's.  It finds this descriptor (one digit:
 * small shells take no more), writes its environment there, each entry with a NUL behind it, and closes it: that is then
 * what later commands start from, in place of START's.  Until it is closed they wait; nothing written changes nothing.
 */
#define AGENT_ENV_FD 9

/*
 * Followed by NUL-terminated strings: cwd ("" = the sandbox's), user ("name", "uid", "name:group"; START only), the
 * arguments, then the environment as NAME=value.  START's environment becomes the base of every later command; an EXEC's
 * is laid over it and over the file that EXECD_ENVS names.
 */
struct agent_spec {
	uint32_t n_args; /* START: 0 for no entrypoint, the sandbox lives until it is deleted */
	uint32_t n_env;
	uint32_t flags; /* enum agent_spec_flags */
	uint32_t uid;
	uint32_t gid;
	uint32_t timeout_ms; /* 0: none; at its end the whole process tree is killed */
	uint16_t rows;
	uint16_t cols;
	uint32_t string_bytes; /* of all strings with their NULs */
};

/*
 * A driver is a process that lives as long as its stream: DETACH, and the ATTACH of another gateway, end its whole tree.
 * It has a session of its own and three descriptors more: its text (what follows the strings in the payload), in a memory
 * file that is sealed against any change; what it is told (STDIN frames); and what it tells (DATA frames, whose credit is
 * that of the output).  What it wrote to standard output and error before it told something is sent before that.  No
 * output is kept for LOGS.  The first argument names alternatives, one a line, of which the first that is there is
 * executed; one that begins with '$' is looked up in the environment.
 */
#define AGENT_DRIVER_TEXT_FD 197
#define AGENT_DRIVER_IN_FD   198
#define AGENT_DRIVER_OUT_FD  199
#define AGENT_DRIVER_TEXT_MAX (2u * 1024 * 1024) /* a shell's state, and a command of 1 MiB with quotes */

struct agent_exec {
	uint8_t id[AGENT_ID_BYTES]; /* of the command; random, chosen by the gateway */
};

struct agent_started {
	uint32_t pid; /* inside */
	uint32_t zero;
	int64_t started_wall_usec;
};

enum agent_exit_flags { AGENT_EXIT_TIMEOUT = 1u << 0, AGENT_EXIT_INTERRUPTED = 1u << 1 };

struct agent_exit {
	int32_t code;	/* -1 when killed by a signal */
	int32_t signal; /* 0 when it exited */
	uint32_t flags;
	uint32_t zero;
	int64_t started_wall_usec;
	int64_t ended_wall_usec;
};

struct agent_command_status {
	uint32_t running;
	int32_t code;
	int32_t signal;
	uint32_t flags;
	uint32_t background;
	uint32_t text_bytes; /* of the command text that follows, cut to what fits in one frame */
	int64_t started_wall_usec;
	int64_t ended_wall_usec;
	uint64_t output_bytes; /* written so far, also what the spool no longer holds */
};

struct agent_logs {
	uint8_t id[AGENT_ID_BYTES]; /* all zero: the entrypoint */
	uint64_t offset;
	uint64_t max_bytes; /* 0: to the current end */
};

/* END: how a request on a stream ended. */
enum agent_reason {
	AGENT_OK = 0,
	AGENT_FAILED_SYS,	/* sys is the errno; the text names the path as the client gave it */
	AGENT_FAILED_START,	/* value: enum agent_stage, sys: errno */
	AGENT_NO_SUCH_COMMAND,
	AGENT_NOT_RUNNING,
	AGENT_BUSY,		/* a bound of the agent is reached */
	AGENT_BAD_REQUEST,	/* text says what */
	AGENT_ENDED,		/* the sandbox has ended */
};

struct agent_end {
	uint32_t reason;
	int32_t sys;
	uint64_t value;
	uint32_t text_bytes;
	uint32_t zero;
};

/* ---- files ---- */

enum agent_fs_op {
	AGENT_FS_NONE = 0,
	AGENT_FS_INFO,	  /* strings: paths -> a record each */
	AGENT_FS_LIST,	  /* path; depth -> records, pre-order, names in byte order */
	AGENT_FS_SEARCH,  /* path, pattern -> records */
	AGENT_FS_READ,	  /* path; offset, length (or LINES: first line, count) -> one record, then bytes */
	AGENT_FS_WRITE,	  /* path, owner, group; mode, length; then DATA..., EOF from the gateway */
	AGENT_FS_APPEND,  /* path; as WRITE, at the end, created 0644 */
	AGENT_FS_MKDIR,	  /* path, owner, group; mode */
	AGENT_FS_UNLINK,  /* paths; a missing one is fine, a directory is EISDIR */
	AGENT_FS_RMTREE,  /* paths; a missing one is fine */
	AGENT_FS_MOVE,	  /* src, dest; parents of dest are made; EEXIST when dest is there */
	AGENT_FS_CHMOD,	  /* path, owner, group; mode */
	AGENT_FS_REPLACE, /* DATA..., EOF from the gateway: a struct agent_fs_replace each -> DATA: a uint64_t of replacements each, as
			   * far as it came; END value: their sum; the first that fails ends it, the text names its path */
	AGENT_FS_OP_COUNT
};

enum agent_fs_flags {
	AGENT_FS_HAS_MODE = 1u << 0,
	AGENT_FS_LINES = 1u << 1,     /* READ: offset is a 1-based line, length a line count (0: all) */
	AGENT_FS_TAIL = 1u << 2,      /* READ: the last `length` bytes */
	AGENT_FS_UID = 1u << 3,	      /* act as `uid`; else the sandbox's default user */
	AGENT_FS_STAT_ONLY = 1u << 4, /* READ: the record alone */
	/*
	 * WRITE: without strings; where the content goes is said behind it: the payload of a WRITE as it would have been, and
	 * its bytes as a uint32_t.  Until then nothing is in any place; EOF comes behind that.
	 */
	AGENT_FS_TARGET_LAST = 1u << 5,
};

#define AGENT_FS_TARGET_MAX (16u * 1024)

struct agent_fs {
	uint32_t op;
	uint32_t flags;
	uint32_t mode; /* permission bits with setuid, setgid and sticky */
	uint32_t depth;
	uint64_t offset;
	uint64_t length; /* READ: 0 to the end; WRITE: no more than this will come, 0: not known */
	uint32_t uid;
	uint32_t n_strings;
	uint32_t string_bytes; /* NUL-terminated strings behind the struct */
	uint32_t zero[3];
};

/* One file of REPLACE, followed by the path and the two texts, which may hold any byte. */
struct agent_fs_replace {
	uint32_t path_bytes; /* with its NUL */
	uint32_t old_bytes;  /* not 0 */
	uint32_t new_bytes;
	uint32_t zero;
};

enum agent_file_kind { AGENT_FILE_REGULAR = 1, AGENT_FILE_DIRECTORY, AGENT_FILE_SYMLINK, AGENT_FILE_OTHER };

/* In DATA frames, never split over two frames: the struct, then path, owner and group, each NUL-terminated. */
struct agent_file_record {
	uint32_t record_bytes; /* struct and strings */
	uint32_t kind;
	uint32_t mode;
	uint32_t index; /* INFO: of the asked path */
	uint64_t size_bytes;
	int64_t modified_wall_usec;
	int64_t created_wall_usec;
	uint32_t uid;
	uint32_t gid;
	uint32_t path_bytes; /* each with its NUL */
	uint16_t owner_bytes;
	uint16_t group_bytes;
};

#endif
