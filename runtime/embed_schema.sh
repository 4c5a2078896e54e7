#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Writes the schema files given as arguments as a C array, in order, on stdout.
echo '/* Made from runtime/schema by runtime/embed_schema.sh. */'
echo 'static const char *const state_schema[] = {'
for file in "$@"; do
	sed -e 's/--.*$//' -e 's/[[:space:]]*$//' -e '/^$/d' -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/^/	"/' -e 's/$/\\n"/' "$file" || exit 1
	echo '	,'
done
echo '};'
