#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Writes the drivers given as arguments as C arrays on stdout: python.py becomes code_driver_python.
echo '/* Made from api/execd/code_drivers by embed.sh. */'
for file in "$@"; do
	name=${file##*/}
	echo "static const unsigned char code_driver_${name%.*}[] = {"
	od -An -v -tu1 "$file" | sed 's/ *\([0-9][0-9]*\)/\1,/g' || exit 1
	echo '};'
done
