-- State of one sandboxd.  A row is committed before its kernel effect starts and after it ends (synchronous=NORMAL: it
-- must survive the daemon; a power cut ends the sandboxes anyway).
CREATE TABLE meta (
	key TEXT PRIMARY KEY,
	value TEXT NOT NULL
) STRICT;

CREATE TABLE sandbox (
	id TEXT PRIMARY KEY,			-- lower-case UUID
	state TEXT NOT NULL,			-- as published: Pending ... Failed
	reason TEXT NOT NULL,
	message TEXT NOT NULL,
	boot_id TEXT NOT NULL,			-- of the boot in which its processes live
	slot INTEGER NOT NULL,			-- -1: none
	generation INTEGER NOT NULL,
	addr INTEGER NOT NULL,			-- IPv4, host byte order; 0: none
	created_wall_usec INTEGER NOT NULL,
	transition_wall_usec INTEGER NOT NULL,
	expires_wall_usec INTEGER NOT NULL,	-- 0: never
	spec TEXT NOT NULL,			-- JSON of the validated request: image, entrypoint, env, limits, volumes
	metadata TEXT NOT NULL,			-- JSON object of strings
	execd_token TEXT NOT NULL,		-- given out in endpoint headers, so kept as it is; the file is 0600
	egress_token TEXT NOT NULL,
	deleting INTEGER NOT NULL DEFAULT 0	-- 1: DELETE was accepted; finish it at start
) STRICT;

CREATE INDEX sandbox_by_created ON sandbox (created_wall_usec DESC, id DESC);
