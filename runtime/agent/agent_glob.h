/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: patterns of file searches
 *
 * `*` and `?` do not cross "/"; [a-z], [!x] and [^x]; {a,b} nested; `\` takes the next character as it is; a segment `**` is
 * any number of segments; !(…) is true where what stands in it does not match.  Alternatives are written out when the
 * pattern is compiled, at most GLOB_ALTERNATIVES; matching then needs no recursion and at most (pattern x text) steps for
 * each of them, so no pattern can keep a process busy.
 */
#ifndef RUNTIME_AGENT_AGENT_GLOB_H
#define RUNTIME_AGENT_AGENT_GLOB_H

#include <stdbool.h>
#include <stddef.h>

#define GLOB_ALTERNATIVES  256u
#define GLOB_PATTERN_BYTES 4096u

struct glob {
	char *alt[GLOB_ALTERNATIVES]; /* owned */
	size_t n;
	bool negate;
	bool base_only; /* matched against the last component, not against the path */
};

/** glob_compile() - Check and prepare @pattern; Return: 0, -EINVAL (syntax), -E2BIG (alternatives) or -ENOMEM */
int glob_compile(const char *pattern, struct glob *ret);
/** glob_match() - Whether @path (relative, "a/b") matches */
bool glob_match(const struct glob *g, const char *path);
/** glob_clear() - Free what @g owns */
void glob_clear(struct glob *g);

#endif
