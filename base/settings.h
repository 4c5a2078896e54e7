/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the configuration, one table
 *
 * settings.def names every key once: its section and key, its C field, type, default, bounds, unit, effect and meaning.  The
 * struct below, the reader, `sandboxd init-config`, `--print-config-reference` and sandboxd.toml(5) come from it.
 * Nothing is mandatory.  An unknown key is one warning with file, line and the nearest known key; a bad value or a
 * duplicate is an error with file and line.
 *
 * The monitor reads the operator's file once, adds what the command line says, works out what follows from the instance
 * number and hands each child the effective settings as a sealed file (--config /proc/self/fd/N), without the API key
 * where the child has no use for it.  A child therefore needs no argument but --config.
 */
#ifndef BASE_SETTINGS_H
#define BASE_SETTINGS_H

#include "base/err.h"

#include <stdbool.h>
#include "base/ip6.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct settings_texts {
	char **item; /* owned, each owned */
	size_t n;
};

#define SETTINGS_C_TEXT	  char * /* owned, never NULL */
#define SETTINGS_C_COUNT  int64_t
#define SETTINGS_C_REAL	  double
#define SETTINGS_C_SWITCH bool
#define SETTINGS_C_TEXTS  struct settings_texts
#define SETTINGS_C_ANY	  bool /* whether it was given; its content is not looked at */

struct settings {
#define SETTING(section, key, field, type, def, min, max, unit, effect, text) SETTINGS_C_##type field;
#include "base/settings.def"
#undef SETTING
	char *path; /* owned; the file that was read, "" when there was none */
	/* Worked out by settings_load() from the fields above; host byte order. */
	uint32_t subnet_addr;
	uint32_t subnet_prefix; /* bits */
	struct ip6_prefix subnet6; /* network.subnet_v6; the low 32 bits of a sandbox's address are its IPv4 address */
	uint32_t gateway_addr;	/* router and name server as a sandbox sees it: 169.254.1.1 */
	uint32_t n_warnings;	/* lines logged while reading */
	uint32_t derived;	/* private: which fields follow from the instance number */
};

/* Who may not learn the API key gets a copy without it. */
enum settings_write_flags { SETTINGS_WITHOUT_KEY = 1u << 0 };

/**
 * settings_load() - Read the configuration and check every value
 * @path:	The file; NULL looks at SANDBOX_CONFIG_PATH, then ~/.sandbox.toml, and takes the defaults when neither
 *		exists.  A file that was named must exist
 * @ret:	Filled on success; settings_free() releases what it owns
 * @err:	Filled on failure: INVALID_REQUEST with "file:line: ..." for the operator, SYSTEM, NO_MEMORY
 *
 * OPENSANDBOX_SERVER_API_KEY and PENDING_FAILURE_TTL of the environment override the file.  Warnings go to the log.
 *
 * Return: 0, or -1 with @err set
 */
int settings_load(const char *path, struct settings *ret, struct sbx_err *err) SBX_WUR;

/** settings_defaults() - Like settings_load() of an empty file and an empty environment, into @ret; for tests and tools */
int settings_defaults(struct settings *ret, struct sbx_err *err) SBX_WUR;

/** settings_free() - Release what @s owns and zero it; NULL and a zeroed struct are fine */
void settings_free(struct settings *s);

/**
 * settings_set() - Override one key, as the command line does, and work out again what depends on it
 * @s:		Loaded settings
 * @name:	"section.key", or "key" for one outside of any section
 * @value:	As in the file, but a text without its quotes
 * @err:	Filled on failure: INVALID_REQUEST (no such key, bad value), NO_MEMORY
 *
 * Return: 0, or -1 with @err set
 */
int settings_set(struct settings *s, const char *name, const char *value, struct sbx_err *err) SBX_WUR;

/** settings_write() - Write @s to @out as a file that settings_load() reads back equal; @flags: enum settings_write_flags */
void settings_write(const struct settings *s, FILE *out, unsigned flags);

/** settings_print_reference() - Every key with type, default, bounds, effect and meaning to @out, for people */
void settings_print_reference(FILE *out);

/** settings_print_example() - What `init-config` writes to @out: all used keys, commented out, with their defaults */
void settings_print_example(FILE *out);

/** settings_lack_allowed() - Whether limits.allow_missing of @s names the host lack @name ("memory", "swap", "cpu", "pids") */
bool settings_lack_allowed(const struct settings *s, const char *name);

static inline void cleanup_settings(struct settings *s)
{
	settings_free(s);
}
#define auto_settings __attribute__((cleanup(cleanup_settings))) struct settings

#endif
