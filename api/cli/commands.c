// SPDX-License-Identifier: Apache-2.0
#include "api/cli/cli.h"

#include <string.h>

#define END {0}

const struct cli_option cli_global_options[] = {
	{"output", 'o', "FORMAT", "table (default), json or yaml", 0},
	{"url", 0, "URL", "daemon, as http://HOST:PORT (default: its Unix socket; OPEN_SANDBOX_DOMAIN sets it too)", 0},
	{"key", 0, "KEY", "API key (default: OPEN_SANDBOX_API_KEY)", 0},
	{"socket", 0, "PATH", "Unix socket of the daemon (default: SANDBOXD_SOCKET, or /run/sandboxd/0/api.sock)", 0},
	{"help", 'h', NULL, "show help", 0},
	END,
};

/* What run and create share. */
#define SANDBOX_OPTIONS \
	{"image", 0, "IMAGE", "image to start from (default: host)", 0}, \
	{"pull", 0, "missing|always|never", "when to fetch the image (default: the daemon's images.pull_policy)", 0}, \
	{"memory", 'm', "SIZE", "memory limit, such as 512m or 2g (default: the daemon's limits.default_memory)", 0}, \
	{"cpu", 0, "N", "processors, such as 2, 0.5 or 500m (default: limits.default_cpu)", 0}, \
	{"disk", 0, "SIZE", "what it may write to disk, such as 512m or 2g (default: limits.default_disk)", 0}, \
	{"env", 'e', "NAME=VALUE", "environment; NAME alone takes the caller's value", CLI_REPEAT}, \
	{"volume", 'v', "SRC:DST[:OPTS]", "host path or volume name, at DST; OPTS: ro, sub=PATH", CLI_REPEAT}, \
	{"name", 0, "NAME", "name for ls and for other commands (metadata \"name\")", 0}, \
	{"metadata", 0, "KEY=VALUE", "metadata to list and filter by", CLI_REPEAT}, \
	{"egress", 0, "deny|allow", "what no --allow or --deny is about (default: deny with --allow)", 0}, \
	{"allow", 0, "TARGET", "name, *.name, address or range that may be reached; NAME:443 narrows", CLI_REPEAT}, \
	{"deny", 0, "TARGET", "likewise what may not be reached; goes before --allow", CLI_REPEAT}, \
	{"timeout", 0, "TIME", "end of life, such as 90s, 30m, 2h, never (default: never; of run, when its command ends)", 0}

static const struct cli_option volume_create_options[] = {
	{"size", 0, "SIZE", "what it may hold, such as 10g (default: storage.volume_default_size, or no bound)", 0},
	END,
};

static const struct cli_option run_options[] = {
	SANDBOX_OPTIONS,
	{"interactive", 'i', NULL, "pass stdin to the command", 0},
	{"tty", 't', NULL, "give the command a terminal", 0},
	{"workdir", 'w', "DIR", "start in this directory", 0},
	{"user", 'u', "UID[:GID]", "run the command as this user", 0},
	{"timings", 0, NULL, "say at the end how long each part took", 0},
	END,
};

static const struct cli_option create_options[] = {
	SANDBOX_OPTIONS,
	{"quiet", 'q', NULL, "print the whole id only", 0},
	END,
};

static const struct cli_option exec_options[] = {
	{"interactive", 'i', NULL, "pass stdin to the command", 0},
	{"tty", 't', NULL, "give the command a terminal", 0},
	{"env", 'e', "NAME=VALUE", "environment; NAME alone takes the caller's value", CLI_REPEAT},
	{"workdir", 'w', "DIR", "start in this directory", 0},
	{"user", 'u', "UID[:GID]", "run the command as this user", 0},
	{"detach", 'd', NULL, "start it in the background and print its id", 0},
	{"timeout", 0, "TIME", "kill the command after this time, such as 90s (default: never)", 0},
	END,
};

static const struct cli_option ls_options[] = {
	{"state", 's', "STATE", "only sandboxes in this state", CLI_REPEAT},
	{"metadata", 0, "KEY=VALUE", "only sandboxes with this metadata", CLI_REPEAT},
	{"quiet", 'q', NULL, "print whole ids only", 0},
	END,
};

static const struct cli_option logs_options[] = {
	{"tail", 'n', "LINES", "lines from the end (default: 100)", 0},
	{"since", 0, "TIME", "not older than this, such as 10m (default: all that is kept)", 0},
	{"command", 'c', "ID", "output of a command that exec -d started", 0},
	END,
};

static const struct cli_option endpoint_options[] = {
	{"proxy", 'p', NULL, "address behind the API port instead of the direct one", 0},
	END,
};

static const struct cli_option rm_options[] = {
	{"all", 'a', NULL, "remove every sandbox of this daemon", 0},
	END,
};

static const struct cli_option import_options[] = {
	{"env", 'e', "NAME=VALUE", "environment of every command", CLI_REPEAT},
	{"workdir", 'w', "DIR", "directory to start in", 0},
	{"user", 'u', "USER", "user to run as: name, uid or uid:gid", 0},
	{"cmd", 'c', "COMMAND", "command to run when none is given", 0},
	{"format", 'f', "tar|tar.gz|tar.zst", "how it is packed (default: by the content)", 0},
	{"kind", 'k', "rootfs|oci|docker", "what it is (default: by the content)", 0},
	{"ref", 'r', "NAME", "which image of an archive that has several", 0},
	{"quiet", 'q', NULL, "print the name only", 0},
	END,
};

static const struct cli_option export_options[] = {
	{"compression", 'c', "gzip|zstd|none", "pack all layers anew (default: keep)", 0},
	{"directory", 'd', NULL, "make a directory of this name instead of a tar", 0},
	{"quiet", 'q', NULL, "say nothing", 0},
	END,
};

static const struct cli_option pull_options[] = {
	{"missing", 0, NULL, "do nothing when an image with this name is here", 0},
	{"user", 'u', "USER", "log in as this user; the password is the first line of stdin", 0},
	{"quiet", 'q', NULL, "print the name only", 0},
	END,
};

static const struct cli_option image_ls_options[] = {
	{"quiet", 'q', NULL, "print names only", 0},
	END,
};

static const struct cli_option prune_options[] = {
	{"all", 'a', NULL, "also images that no sandbox uses", 0},
	END,
};

static const struct cli_option gc_options[] = {
	{"dry-run", 'n', NULL, "say what would be removed, remove nothing", 0},
	{"free", 'f', "SIZE", "free at least so much, such as 2g, however full the disk is", 0},
	END,
};

static const struct cli_option fsck_options[] = {
	{"repair", 0, NULL, "remove what cannot be right, mark images that lost something", 0},
	{"quick", 0, NULL, "read neither packed blobs nor the files of layers", 0},
	END,
};

static const struct cli_option doctor_options[] = {
	{"verify", 0, NULL, "check the store of images too, as image fsck does", 0},
	END,
};

static const struct cli_option commit_options[] = {
	{"message", 'm', "TEXT", "what it is, kept with the image", 0},
	{"author", 'a', "TEXT", "who made it", 0},
	{"change", 'c', "INSTRUCTION", "ENV, ENTRYPOINT, CMD, USER or WORKDIR as in a Dockerfile", CLI_REPEAT},
	{"env", 'e', "NAME=VALUE", "environment of every command; NAME alone takes the caller's value", CLI_REPEAT},
	{"entrypoint", 0, "COMMAND", "first program of a sandbox that names none", 0},
	{"cmd", 0, "COMMAND", "its arguments, or the command without an entrypoint", 0},
	{"workdir", 'w', "DIR", "directory to start in", 0},
	{"user", 'u', "USER", "user to run as: name, uid or uid:gid", 0},
	{"no-pause", 0, NULL, "do not stop the processes meanwhile: files may be half written", 0},
	{"flatten", 0, NULL, "make one layer of all instead of adding one", 0},
	END,
};

static const struct cli_option egress_set_options[] = {
	{"egress", 0, "deny|allow", "what no --allow or --deny is about (default: deny with --allow)", 0},
	{"allow", 0, "TARGET", "name, *.name, address or range that may be reached; NAME:443 narrows", CLI_REPEAT},
	{"deny", 0, "TARGET", "likewise what may not be reached; goes before --allow", CLI_REPEAT},
	END,
};

static const struct cli_option egress_allow_options[] = {
	{"port", 'p', "PORTS", "only these, such as 443 or 80,8000-8003 (default: all but 853)", 0},
	END,
};

static const struct cli_option egress_watch_options[] = {
	{"new", 'n', NULL, "only what happens from now on", 0},
	END,
};

static const struct cli_option no_options[] = {END};

const struct cli_command cli_commands[] = {
	{NULL, "run", "[--] COMMAND [ARG]...", "run a command in a throw-away sandbox",
	 "The sandbox is made, runs the command, passes on its output and exit code, and\n"
	 "is removed, also on Ctrl-C.  Without a command the image's own is run, or a\n"
	 "shell; with a terminal on stdin it gets a terminal of its own.\n"
	 "\n"
	 "  sandboxctl run -- python3 -c 'print(6*7)'\n"
	 "  sandboxctl run -m 64m --timeout 10m -v \"$PWD\":/work -w /work -- make test\n"
	 "  sandboxctl run --egress deny --allow pypi.org -- pip download six\n"
	 "  sandboxctl run -it\n",
	 run_options, 0, 0, -1, cmd_run},
	{NULL, "create", "[--] [COMMAND [ARG]...]", "make a sandbox and leave it running",
	 "The command is the sandbox's first process: the sandbox ends with it.  Without\n"
	 "one the image's own is taken, or one that only waits.\n"
	 "\n"
	 "  id=$(sandboxctl create -q --timeout 1h)\n"
	 "  sandboxctl exec \"$id\" -- uname -a\n",
	 create_options, 0, 0, -1, cmd_create},
	{NULL, "ls", "", "list sandboxes", "  sandboxctl ls -s running --metadata team=core\n", ls_options, -1, 0, 0, cmd_ls},
	{NULL, "inspect", "ID", "show everything about a sandbox",
	 "ID may be the beginning of an id, or a name.\n"
	 "\n"
	 "  sandboxctl inspect 7f3a -o json\n",
	 no_options, -1, 1, 1, cmd_inspect},
	{NULL, "exec", "ID [--] COMMAND [ARG]...", "run a command in a sandbox",
	 "  sandboxctl exec 7f3a -- sh -c 'echo $HOME'\n"
	 "  sandboxctl exec -it 7f3a bash\n"
	 "  sandboxctl exec -d 7f3a -- make          prints the command's id\n",
	 exec_options, 1, 2, -1, cmd_exec},
	{NULL, "cp", "SRC DST", "copy files in or out",
	 "One of SRC and DST is ID:PATH.  Directories are copied with what is in them; a\n"
	 "DST that is a directory gets the file or directory into it.\n"
	 "\n"
	 "  sandboxctl cp ./src 7f3a:/work\n"
	 "  sandboxctl cp 7f3a:/work/out.txt .\n",
	 no_options, -1, 2, 2, cmd_cp},
	{NULL, "logs", "ID", "show what a sandbox or a command printed",
	 "  sandboxctl logs 7f3a -n 20\n"
	 "  sandboxctl logs 7f3a -c 0f3c9a71d2e84b6f9a1b7c5d3e2f1a00\n",
	 logs_options, -1, 1, 1, cmd_logs},
	{NULL, "pause", "ID...", "stop all processes of a sandbox where they are", "  sandboxctl pause 7f3a\n", no_options, -1, 1, -1,
	 cmd_pause},
	{NULL, "resume", "ID...", "let a paused sandbox go on", "  sandboxctl resume 7f3a\n", no_options, -1, 1, -1, cmd_resume},
	{NULL, "renew", "ID TIME", "set the end of life of a sandbox, from now",
	 "Shorter than before is fine.\n"
	 "\n"
	 "  sandboxctl renew 7f3a 30m\n",
	 no_options, -1, 2, 2, cmd_renew},
	{NULL, "endpoint", "ID PORT", "print where a port of a sandbox is reached",
	 "  curl \"http://$(sandboxctl endpoint 7f3a 8000)/\"\n", endpoint_options, -1, 2, 2, cmd_endpoint},
	{NULL, "rm", "ID...", "remove sandboxes", "  sandboxctl rm 7f3a 91c4\n  sandboxctl rm --all\n", rm_options, -1, 0, -1, cmd_rm},
	{NULL, "commit", "ID IMAGE", "make an image of a sandbox",
	 "The image has what the sandbox was made from and what it has written since, but\n"
	 "no volumes, no /proc, /dev or /run/sandbox, and neither the variables nor the\n"
	 "command that the sandbox was made with.  An image with this name is replaced.\n"
	 "\n"
	 "  sandboxctl commit 7f3a tools:2 -m 'with jq' -e LANG=C.UTF-8\n"
	 "  sandboxctl commit 7f3a tools:3 -c 'ENTRYPOINT [\"/app/run\"]' -c 'USER 1000'\n",
	 commit_options, -1, 2, 2, cmd_commit},
	{NULL, "pull", "IMAGE", "fetch an image from its registry",
	 "IMAGE is [REGISTRY/]NAME[:TAG][@DIGEST]; without a registry it is docker.io's.\n"
	 "Credentials come from images.auth_file of the daemon, or from -u.\n"
	 "\n"
	 "  sandboxctl pull debian:12\n"
	 "  sandboxctl pull -u me registry.example:5000/team/app:1 < password\n",
	 pull_options, -1, 1, 1, cmd_pull},
	{"image", "ls", "", "list images", "  sandboxctl image ls\n", image_ls_options, -1, 0, 0, cmd_image_ls},
	{"image", "pull", "IMAGE", "fetch an image from its registry", "  sandboxctl image pull debian:12       is sandboxctl pull debian:12\n",
	 pull_options, -1, 1, 1, cmd_pull},
	{"image", "inspect", "NAME", "show everything about an image", "  sandboxctl image inspect debian:12 -o yaml\n", no_options, -1, 1, 1,
	 cmd_image_inspect},
	{"image", "commit", "ID IMAGE", "make an image of a sandbox", "  sandboxctl image commit 7f3a tools:2        is sandboxctl commit 7f3a tools:2\n",
	 commit_options, -1, 2, 2, cmd_commit},
	{"image", "tag", "NAME NEW", "give an image a further name", "  sandboxctl image tag debian:12 base:1\n", no_options, -1, 2, 2,
	 cmd_image_tag},
	{"image", "prune", "", "remove what no image is made of",
	 "Packed layers of images that are gone and what broken-off pulls left.  With\n"
	 "--all also the images that no sandbox uses.\n"
	 "\n"
	 "  sandboxctl image prune --all\n",
	 prune_options, -1, 0, 0, cmd_image_prune},
	{"image", "gc", "", "collect images and layers as the daemon does by itself",
	 "Takes what the images.gc_ settings say: what no image is made of, and images\n"
	 "that a registry has and nobody uses, when they are too old or the disk is too\n"
	 "full.  Imported and committed images stay.\n"
	 "\n"
	 "  sandboxctl image gc --dry-run\n"
	 "  sandboxctl image gc --free 2g\n",
	 gc_options, -1, 0, 0, cmd_image_gc},
	{"image", "fsck", "", "check the store of images",
	 "Every packed blob is compared with its digest, and every file of a layer with\n"
	 "what was unpacked.  The daemon goes on meanwhile.  With --repair an image that\n"
	 "lost something, or of which a layer was altered, is pulled again by its next\n"
	 "use; what a sandbox uses is named and stays.  The exit code is 1 while errors\n"
	 "are left.\n"
	 "\n"
	 "  sandboxctl image fsck --repair\n",
	 fsck_options, -1, 0, 0, cmd_image_fsck},
	{"image", "df", "", "show what images take on the disk", "  sandboxctl image df\n", no_options, -1, 0, 0, cmd_image_df},
	{"image", "import", "FILE|DIRECTORY|- [NAME]", "make an image from an archive or a tree",
	 "FILE is a tar, plain or packed with gzip or zstd; - is stdin.  A DIRECTORY is\n"
	 "packed with tar on the way.  An OCI layout and what docker save wrote bring\n"
	 "configuration and name; anything else is a root file system, which -e, -w, -u\n"
	 "and -c are for.\n"
	 "\n"
	 "  debootstrap stable root && sandboxctl image import root debian:12\n"
	 "  docker export \"$container\" | sandboxctl image import - mine:1\n"
	 "  docker save mine:2 | sandboxctl image import -\n"
	 "  skopeo copy docker://debian:12 oci:layout:12\n"
	 "  sandboxctl image import layout debian:12\n",
	 import_options, -1, 1, 2, cmd_image_import},
	{"image", "export", "NAME FILE|-", "write an image as an OCI layout",
	 "FILE becomes a tar that skopeo (oci-archive:), buildah, podman, docker load and\n"
	 "sandboxctl image import take; - is stdout.  Layers leave as they came, with the\n"
	 "digests of their registry, unless a compression is asked for.\n"
	 "\n"
	 "  sandboxctl image export mine:1 mine.tar\n"
	 "  skopeo copy oci-archive:mine.tar docker://registry.example/mine:1\n",
	 export_options, -1, 2, 2, cmd_image_export},
	{"image", "rm", "NAME...", "remove images", "  sandboxctl image rm debian:12\n", no_options, -1, 1, -1, cmd_image_rm},
	{"egress", "get", "ID", "show what a sandbox may reach", "  sandboxctl egress get 7f3a\n", no_options, -1, 1, 1, cmd_egress_get},
	{"egress", "set", "ID [FILE|-]", "replace the whole policy of a sandbox",
	 "FILE holds it as JSON, as the API takes it; or the options say it.\n"
	 "\n"
	 "  sandboxctl egress set 7f3a --egress deny --allow '*.github.com:443'\n"
	 "  sandboxctl egress set 7f3a policy.json\n",
	 egress_set_options, -1, 1, 2, cmd_egress_set},
	{"egress", "allow", "ID TARGET...", "let a sandbox reach more",
	 "TARGET is a name, *.name, an address or a range; the rule goes before the old\n"
	 "ones and takes the place of one with the same target.\n"
	 "\n"
	 "  sandboxctl egress allow 7f3a pypi.org files.pythonhosted.org --port 443\n",
	 egress_allow_options, -1, 2, -1, cmd_egress_allow},
	{"egress", "deny", "ID TARGET...", "let a sandbox reach less", "  sandboxctl egress deny 7f3a gist.github.com\n", no_options, -1, 2, -1,
	 cmd_egress_deny},
	{"egress", "rm", "ID TARGET...", "remove the rules for these targets", "  sandboxctl egress rm 7f3a pypi.org\n", no_options, -1, 2, -1,
	 cmd_egress_rm},
	{"egress", "watch", "ID", "show what is allowed and denied as it happens",
	 "Begins with what is remembered.  With -o json one document a line.\n"
	 "\n"
	 "  sandboxctl egress watch 7f3a\n",
	 egress_watch_options, -1, 1, 1, cmd_egress_watch},
	{"egress", "explain", "ID NAME[:PORT]", "say whether it would be reached, and by which rule",
	 "The exit code is 1 when it would not.\n"
	 "\n"
	 "  sandboxctl egress explain 7f3a api.github.com:22\n"
	 "  sandboxctl egress explain 7f3a 10.0.0.8:5432\n",
	 no_options, -1, 2, 2, cmd_egress_explain},
	{"volume", "ls", "", "list the named volumes that sandboxes have", "  sandboxctl volume ls\n", no_options, -1, 0, 0, cmd_volume_ls},
	{"volume", "create", "NAME", "make a named volume", "  sandboxctl volume create --size 10g models\n", volume_create_options, -1, 1, 1,
	 cmd_volume_create},
	{"volume", "rm", "NAME...", "remove named volumes and what is in them", "  sandboxctl volume rm models\n", no_options, -1, 1,
	 -1, cmd_volume_rm},
	{NULL, "doctor", "", "show what this host can enforce, and what its lacks cost",
	 "The exit code is 1 when something is missing that sandboxes need, or when\n"
	 "--verify finds an error in the store.\n"
	 "\n"
	 "  sandboxctl doctor\n"
	 "  sandboxctl doctor --verify\n",
	 doctor_options, -1, 0, 0, cmd_doctor},
	{NULL, "config", "", "show which daemon is asked, and how", "  sandboxctl config\n", no_options, -1, 0, 0, cmd_config},
	{NULL, "version", "", "show the versions of this program and of the daemon", "  sandboxctl version\n", no_options, -1, 0, 0,
	 cmd_version},
	{NULL, "completion", "bash", "print a completion script",
	 "  sandboxctl completion bash > /etc/bash_completion.d/sandboxctl\n", no_options, -1, 1, 1, cmd_completion},
	{0},
};

bool cli_group_is_first(const struct cli_command *c)
{
	for (const struct cli_command *p = cli_commands; c->group && p < c; p++)
		if (p->group && !strcmp(p->group, c->group))
			return false;
	return c->group;
}
