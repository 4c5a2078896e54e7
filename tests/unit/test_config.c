// SPDX-License-Identifier: Apache-2.0
#include "tests/tap.h"

#include "base/cleanup.h"
#include "base/config_file.h"
#include "base/log.h"
#include "base/settings.h"

#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>

/* ---- the reader ---- */

static void test_refused(void)
{
	static const struct {
		const char *why, *text, *where;
	} cases[] = {
		{"duplicate key", "a = 1\na = 2\n", "f:2:"},
		{"duplicate key, quoted", "a = 1\n\"a\" = 2\n", "f:2:"},
		{"duplicate table", "[a]\n[a]\n", "f:2:"},
		{"table over a key", "a = 1\n[a]\n", "f:2:"},
		{"key over a dotted table", "a.b = 1\na = 2\n", "f:2:"},
		{"dotted key into a header's table", "[a.b]\nx = 1\n[a]\nb.y = 2\n", "f:4:"},
		{"dotted key into an inline table", "a = {b = 1}\na.c = 2\n", "f:2:"},
		{"header into an inline table", "a = {b = 1}\n[a.c]\n", "f:2:"},
		{"array of tables over a table", "[a]\n[[a]]\n", "f:2:"},
		{"table over an array of tables", "[[a]]\n[a]\n", "f:2:"},
		{"array of tables over an array", "a = []\n[[a]]\n", "f:2:"},
		{"no value", "a =\n", "f:1:"},
		{"no key", "= 1\n", "f:1:"},
		{"no equals sign", "a\n", "f:1:"},
		{"two values on a line", "a = 1 2\n", "f:1:"},
		{"bare word", "a = hello\n", "f:1:"},
		{"open string", "a = \"x\nb = 1\n", "f:1:"},
		{"open array", "a = [1,\n2\n", "f:3:"},
		{"array without comma", "a = [1 2]\n", "f:1:"},
		{"open inline table", "a = {b = 1\n", "f:1:"},
		{"inline table over lines", "a = {b = 1,\nc = 2}\n", "f:1:"},
		{"trailing comma in an inline table", "a = {b = 1,}\n", "f:1:"},
		{"open header", "[a\n", "f:1:"},
		{"empty header", "[]\n", "f:1:"},
		{"half closed list header", "[[a]\n", "f:1:"},
		{"unknown escape", "a = \"\\q\"\n", "f:1:"},
		{"NUL escape", "a = \"\\u0000\"\n", "f:1:"},
		{"surrogate escape", "a = \"\\ud800\"\n", "f:1:"},
		{"escape past the last character", "a = \"\\U00110000\"\n", "f:1:"},
		{"short escape", "a = \"\\u12\"\n", "f:1:"},
		{"invalid UTF-8", "a = \"\xff\"\n", "f:1:"},
		{"overlong UTF-8", "a = \"\xc0\xaf\"\n", "f:1:"},
		{"UTF-8 surrogate", "a = \"\xed\xa0\x80\"\n", "f:1:"},
		{"control character in a string", "a = \"\x01\"\n", "f:1:"},
		{"control character in a comment", "# \x01\n", "f:1:"},
		{"several-line string", "a = \"\"\"x\"\"\"\n", "f:1:"},
		{"leading zero", "a = 012\n", "f:1:"},
		{"hexadecimal", "a = 0x10\n", "f:1:"},
		{"date", "a = 2020-01-01\n", "f:1:"},
		{"number too large", "a = 9223372036854775808\n", "f:1:"},
		{"float too large", "a = 1e999\n", "f:1:"},
		{"infinity", "a = inf\n", "f:1:"},
		{"underscore at the end", "a = 1_\n", "f:1:"},
		{"two underscores", "a = 1__2\n", "f:1:"},
		{"float without digits behind the point", "a = 1.\n", "f:1:"},
		{"float without digits before the point", "a = .5\n", "f:1:"},
		{"capital boolean", "a = True\n", "f:1:"},
		{"too deep", "a = [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]\n", "f:1:"},
		{"too many key parts", "a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q = 1\n", "f:1:"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct sbx_err err = {0};
		auto_config tree = config_parse("f", cases[i].text, strlen(cases[i].text), &err);

		if (!ok(!tree && err.code == SBX_E_INVALID_REQUEST && !strncmp(err.msg, cases[i].where, strlen(cases[i].where)),
			"refused: %s", cases[i].why))
			printf("#   got: %s\n", err.msg);
	}
}

static void test_read(void)
{
	static const char text[] = "\xef\xbb\xbf# comment \xc3\xa4\r\n"
				   "t = 'lit\\eral'  # c\r\n"
				   "e = \"\\\"\\t\\u00e4\\U0001F600\"\n"
				   "n = -1_000\nplus = +7\nf = 1.5e3\nyes = true\nno = false\n"
				   "list = [ # c\n  1,\n\n  2, # d\n]\nempty = []\n"
				   "in = { a = 1, b.c = 'x', d = [1, {e = 2}] }\nnone = {}\n"
				   "[s]\nk = 1\nd.e = 2\nd.f = 3\n[s.sub]\nk = 4\n"
				   "[\"quoted key\"]\n'x' = 5\n"
				   "[[row]]\na = 1\n[[row]]\na = 2\n[row.sub]\nb = 3";
	struct sbx_err err = {0};
	auto_config r = config_parse("f", text, sizeof(text) - 1, &err);

	if (!ok(r != NULL, "a file with everything is read: %s", err.msg))
		return;
	is_str(config_get(r, "t")->text, "lit\\eral", "a literal string keeps its backslash");
	is_str(config_get(r, "e")->text, "\"\t\xc3\xa4\xf0\x9f\x98\x80", "escapes");
	is_int(config_get(r, "n")->integer, -1000, "a negative integer with an underscore");
	is_int(config_get(r, "plus")->integer, 7, "a plus sign");
	ok(config_get(r, "f")->type == CONFIG_FLOAT && config_get(r, "f")->real == 1500.0, "a float");
	ok(config_get(r, "yes")->boolean && !config_get(r, "no")->boolean, "booleans");
	const struct config_value *list = config_get(r, "list");
	ok(list->n_members == 2 && list->member[1]->integer == 2 && list->line == 9, "an array over lines, with a trailing comma");
	is_int(config_get(r, "empty")->n_members, 0, "an empty array");
	const struct config_value *in = config_get(r, "in");
	is_str(config_get(config_get(in, "b"), "c")->text, "x", "a dotted key in an inline table");
	is_int(config_get(config_get(in, "d")->member[1], "e")->integer, 2, "a table in an array in a table");
	const struct config_value *s = config_get(r, "s");
	is_int(config_get(config_get(s, "d"), "f")->integer, 3, "two dotted keys share a table");
	is_int(config_get(config_get(s, "sub"), "k")->integer, 4, "a sub-table");
	is_int(config_get(config_get(r, "quoted key"), "x")->integer, 5, "quoted keys");
	const struct config_value *row = config_get(r, "row");
	ok(row->n_members == 2 && config_get(row->member[1], "a")->integer == 2, "an array of tables");
	is_int(config_get(config_get(row->member[1], "sub"), "b")->integer, 3, "a sub-table of the newest member");
	ok(!config_get(r, "absent") && !config_get(NULL, "x"), "what is absent is NULL");
}

/* ---- settings ---- */

static char file_path[64];

/* A file whose path lives as long as this process. */
static const char *file_with(const char *text)
{
	static int fd = -1;

	replace_fd(&fd, memfd_create("toml", MFD_CLOEXEC));
	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		abort();
	snprintf(file_path, sizeof(file_path), "/proc/self/fd/%d", fd);
	return file_path;
}

static void test_settings_refused(void)
{
	static const struct {
		const char *why, *text, *part;
	} cases[] = {
		{"wrong type", "[server]\nport = \"80\"\n", ":2: server.port needs an integer, not a string"},
		{"boolean for a list", "[dns]\nupstreams = true\n", ":2: dns.upstreams needs an array"},
		{"out of range", "\n[server]\nport = 70000\n", ":3: server.port is 70000"},
		{"duplicate", "[server]\nport = 1\nport = 2\n", ":3: "},
		{"log level", "[log]\nlevel = \"loud\"\n", ":2: log.level"},
		{"Kubernetes", "[runtime]\ntype = \"kubernetes\"\n", ":2: runtime.type"},
		{"gVisor is not silently less", "[secure_runtime]\ntype = \"gvisor\"\n", ":2: secure_runtime.type"},
		{"gateway ingress", "[ingress]\nmode = \"gateway\"\n", ":2: ingress.mode"},
		{"a backend that is none", "[code]\nbackend = \"kernel\"\n", ":2: code.backend"},
		{"store", "[store]\ntype = \"redis\"\n", ":2: store.type"},
		{"subnet with host bits", "[network]\nsubnet = \"10.1.2.3/16\"\n", ":2: network.subnet"},
		{"subnet too small for the slots", "[network]\nsubnet = \"10.1.0.0/24\"\n", "fewer addresses"},
		{"private range", "[network]\nallow_private = [\n\"10.0.0.8\",\n\"10.0.0.300\"]\n", ":4: network.allow_private member 2"},
		{"IPv6 range with host bits", "[network]\nsubnet_v6 = \"fd00:1::1/64\"\n", ":2: network.subnet_v6"},
		{"IPv6 range that has no room for IPv4 addresses", "[network]\nsubnet_v6 = \"fd00:1::/112\"\n", ":2: network.subnet_v6"},
		{"link-local range for sandboxes", "[network]\nsubnet_v6 = \"fe80::/64\"\n", ":2: network.subnet_v6"},
		{"upstream", "[dns]\nupstreams = [\"dns.example\"]\n", ":2: dns.upstreams"},
		{"relative host path", "[storage]\nallowed_host_paths = [\"data\"]\n", ":2: storage.allowed_host_paths"},
		{"host path that is no string", "[storage]\nallowed_host_paths = [1]\n", ":2: storage.allowed_host_paths"},
		{"id base between ranges", "[isolation]\nid_base = 1000000001\n", ":2: isolation.id_base"},
		{"id base that is too low", "[isolation]\nid_base = 65536\n", ":2: isolation.id_base"},
		{"ids past the end", "[isolation]\nid_base = 4293918720\nslots = 2000\n", "passes 2^32"},
		{"equal ids", "[isolation]\nsandboxd_uid = 5\ngateway_uid = 5\n", "must differ"},
		{"timeout bound", "[server]\nmax_sandbox_timeout_seconds = 30\n", ":2: server.max_sandbox_timeout_seconds"},
		{"lack", "[limits]\nallow_missing = [\"all\"]\n", ":2: limits.allow_missing"},
		{"insecure beyond loopback", "[server]\nhost = \"0.0.0.0\"\ninsecure = true\n", "loopback"},
		{"listen name", "[server]\nhost = \"example.org\"\n", ":2: server.host"},
		{"key with a line end", "[server]\napi_key = \"a\\nb\"\n", ":2: server.api_key"},
		{"instance", "instance = 13\n", ":1: instance"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct settings s = {0};
		struct sbx_err err = {0};
		int r = settings_load(file_with(cases[i].text), &s, &err);

		if (!ok(r < 0 && err.code == SBX_E_INVALID_REQUEST && strstr(err.msg, cases[i].part), "no start: %s", cases[i].why))
			printf("#   got: %s\n", err.msg);
		if (!r)
			settings_free(&s);
	}
}

/* Every key of the published configuration, with values as its examples and test set-ups have them. */
static const char published[] =
	"[server]\nhost = \"127.0.0.1\"\nport = 8080\nlog_level = \"INFO\"\napi_key = \"secret\"\neip = \"203.0.113.9\"\n"
	"max_sandbox_timeout_seconds = 86400\ntimeout_keep_alive = 30\nlimit_concurrency = 1024\nbacklog = 2048\n"
	"thread_pool_size = 200\nloop = \"auto\"\nhttp = \"auto\"\n"
	"[log]\nlevel = \"DEBUG\"\nfile_enabled = false\nfile_path = \"/var/log/x.log\"\naccess_file_path = \"/var/log/y.log\"\n"
	"file_max_bytes = 104857600\nfile_backup_count = 5\n"
	"[runtime]\ntype = \"docker\"\nexecd_image = \"registry.example/execd:v1\"\n"
	"[docker]\nnetwork_mode = \"host\"\napi_timeout = 180\nhost_ip = \"10.0.0.1\"\n"
	"drop_capabilities = [\"AUDIT_WRITE\", \"MKNOD\", \"NET_ADMIN\",\n \"NET_RAW\", \"SYS_ADMIN\"]\n"
	"apparmor_profile = \"\"\nseccomp_profile = \"\"\nno_new_privileges = true\npids_limit = 512\n"
	"[storage]\nallowed_host_paths = [\"/data\", \"/tmp/x\"]\nvolume_default_size = \"1Gi\"\nossfs_mount_root = \"/mnt/ossfs\"\n"
	"[store]\ntype = \"sqlite\"\npath = \"~/.opensandbox/opensandbox.db\"\n"
	"[egress]\nimage = \"registry.example/egress:v1\"\nmode = \"dns+nft\"\ndisable_ipv6 = true\n"
	"[ingress]\nmode = \"direct\"\ngateway.address = \"\"\ngateway.route.mode = \"header\"\n"
	"[ingress.secure_access]\nactive_key = \"a\"\nkeys = [{key_id = \"a\", key = \"AAAA\"}]\n"
	"[secure_runtime]\ntype = \"\"\ndocker_runtime = \"\"\nk8s_runtime_class = \"\"\n"
	"[renew_intent]\nenabled = true\nmin_interval_seconds = 30\nredis.enabled = false\nredis.queue_key = \"q\"\n"
	"[kubernetes]\nnamespace = \"x\"\nsandbox_create_poll_interval_seconds = 1.0\nexecd_init_resources = {limits = {cpu = \"1\"}}\n"
	"[agent_sandbox]\nshutdown_policy = \"Delete\"\n";

static void test_published(void)
{
	struct sbx_err err = {0};
	auto_settings s = {0};

	if (!ok(settings_load(file_with(published), &s, &err) == 0, "the published keys load unchanged: %s", err.msg))
		return;
	is_int(s.n_warnings, 3, "network_mode = \"host\", kubernetes and agent_sandbox are one warning each");
	is_str(s.server_api_key, "secret", "server.api_key");
	is_str(s.log_level, "DEBUG", "log.level wins over server.log_level");
	is_int(s.docker_pids_limit, 512, "docker.pids_limit");
	ok(s.storage_allowed_host_paths.n == 2 && !strcmp(s.storage_allowed_host_paths.item[1], "/tmp/x"), "allowed_host_paths");
	ok(s.renew_intent_enabled && s.renew_intent_min_interval_seconds == 30, "renew_intent");
	ok(s.kubernetes && s.agent_sandbox && s.ingress_secure_access_keys, "sections that are read over");
	ok(!s.server_insecure, "a key means that one is required");
}

static void test_derived(void)
{
	struct sbx_err err = {0};
	auto_settings s = {0};
	auto_settings again = {0};

	ok(settings_load(file_with(""), &s, &err) == 0 && !s.n_warnings, "an empty file is valid");
	ok(s.instance == 0 && !strcmp(s.run_dir, "/run/sandboxd/0") && s.isolation_id_base == 0x78000000, "instance 0");
	is_int(s.server_endpoint_port, 8081, "the endpoint port follows the port");
	ok(settings_set(&s, "instance", "3", &err) == 0, "another instance");
	is_str(s.run_dir, "/run/sandboxd/3", "its run directory");
	is_str(s.network_subnet, "10.216.0.0/16", "its subnet");
	ok(s.subnet_addr == 0x0ad80000 && s.subnet_prefix == 16, "the subnet as numbers");
	ok(s.subnet6.addr.hi == UINT64_C(0xfd534258000000d8) && !s.subnet6.addr.lo && s.subnet6.prefix == 64, "and that of IPv6: %s", s.network_subnet_v6);
	is_int(s.isolation_id_base, 0x78000000 - 3 * 0x8000000, "its ids");
	is_int(s.isolation_gateway_uid, s.isolation_id_base - 0x3ffff, "its gateway's id");
	ok(settings_set(&s, "run_dir", "/run/x", &err) == 0 && settings_set(&s, "instance", "4", &err) == 0, "set by hand");
	is_str(s.run_dir, "/run/x", "what was set by hand does not follow the instance");
	ok(settings_set(&s, "server.prot", "1", &err) < 0, "no such key");
	ok(settings_set(&s, "server.port", "1\n[x]", &err) < 0, "a value is one value");

	char text[8192] = "";
	FILE *out = fmemopen(text, sizeof(text) - 1, "w");
	ok(settings_set(&s, "server.api_key", "k\"\\e", &err) == 0, "a key with quote and backslash");
	settings_write(&s, out, 0);
	fclose(out);
	ok(settings_load(file_with(text), &again, &err) == 0 && !again.n_warnings, "what is written can be read: %s", err.msg);
	ok(again.instance == 4 && !strcmp(again.run_dir, "/run/x") && !strcmp(again.server_api_key, "k\"\\e") &&
		   again.isolation_id_base == s.isolation_id_base && again.isolation_dnsd_uid == s.isolation_dnsd_uid,
	   "and is equal");
	memset(text, 0, sizeof(text));
	out = fmemopen(text, sizeof(text) - 1, "w");
	settings_write(&s, out, SETTINGS_WITHOUT_KEY);
	fclose(out);
	ok(!strstr(text, "api_key"), "the key is left out when asked");
}

static void test_keyless(void)
{
	static const struct {
		const char *why, *text;
		bool insecure;
	} cases[] = {
		{"no key said", "", false},
		{"an empty key written down, loopback by default", "[server]\napi_key = \"\"\n", true},
		{"an empty key written down, loopback", "[server]\nhost = \"127.0.0.1\"\napi_key = \"\"\n", true},
		{"an empty key written down, all addresses", "[server]\nhost = \"0.0.0.0\"\napi_key = \"\"\n", false},
		{"insecure", "[server]\ninsecure = true\n", true},
		{"insecure, but a key", "[server]\ninsecure = true\napi_key = \"k\"\n", false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		auto_settings s = {0};
		ok(settings_load(file_with(cases[i].text), &s, NULL) == 0 && s.server_insecure == cases[i].insecure, "keyless: %s",
		   cases[i].why);
	}
}

static void test_environment(void)
{
	auto_settings s = {0};
	auto_settings t = {0};
	struct sbx_err err = {0};

	setenv("OPENSANDBOX_SERVER_API_KEY", "from-env", 1);
	setenv("PENDING_FAILURE_TTL", "7", 1);
	setenv("SANDBOX_CONFIG_PATH", file_with("[server]\nport = 99\napi_key = \"file\"\n"), 1);
	ok(settings_load(NULL, &s, &err) == 0, "SANDBOX_CONFIG_PATH is read");
	is_int(s.server_port, 99, "its port");
	is_str(s.server_api_key, "from-env", "OPENSANDBOX_SERVER_API_KEY wins");
	is_int(s.lifecycle_failure_ttl_seconds, 7, "PENDING_FAILURE_TTL");
	setenv("PENDING_FAILURE_TTL", "soon", 1);
	ok(settings_load(NULL, &t, &err) < 0 && strstr(err.msg, "PENDING_FAILURE_TTL"), "a bad value there is no start");
	unsetenv("PENDING_FAILURE_TTL");
	setenv("SANDBOX_CONFIG_PATH", "/nonexistent/file", 1);
	ok(settings_load(NULL, &t, &err) < 0 && err.sys == ENOENT, "a named file must be there");
	unsetenv("SANDBOX_CONFIG_PATH");
	setenv("HOME", "/nonexistent", 1);
	ok(settings_load(NULL, &t, &err) == 0, "the file in the home directory need not be there");
	unsetenv("OPENSANDBOX_SERVER_API_KEY");
}

static void test_unknown(void)
{
	auto_settings s = {0};
	char line[512] = "";
	int pipes[2];

	if (pipe(pipes) < 0)
		abort();
	int saved = dup(2);
	dup2(pipes[1], 2);
	int r = settings_load(file_with("[server]\nprt = 1\n[sevrer]\nport = 2\n"), &s, NULL);
	dup2(saved, 2);
	close(saved);
	ssize_t n = read(pipes[0], line, sizeof(line) - 1);
	ok(r == 0 && s.n_warnings == 2 && n > 0, "unknown keys are warnings");
	ok(strstr(line, ":2: unknown key server.prt is ignored; did you mean server.port?") != NULL, "file, line, nearest key");
	ok(strstr(line, ":4: ") || strstr(line, ":3: "), "an unknown section has its line");
	close(pipes[0]);
	close(pipes[1]);
}

int main(void)
{
	log_init("test", LOG_LEVEL_ERROR);
	test_refused();
	test_read();
	test_settings_refused();
	test_published();
	test_derived();
	test_keyless();
	test_environment();
	log_init("test", LOG_LEVEL_WARN);
	test_unknown();
	return tap_done();
}
