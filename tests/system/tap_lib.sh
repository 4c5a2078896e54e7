# SPDX-License-Identifier: Apache-2.0
# What the shell tests begin with: where things are, root or nothing, and checks that print TAP.  Sourced.
: "${top_builddir:=$PWD}" "${top_srcdir:=.}"
PATH=$PATH:/usr/sbin:/sbin
if [ "$(id -u)" != 0 ]; then
	echo "1..0 # SKIP needs root"
	exit 0
fi
tests=0 failed=0

ok() { # ok CODE NAME: CODE 0 is good
	tests=$((tests + 1))
	if [ "$1" = 0 ]; then
		echo "ok $tests - $2"
	else
		echo "not ok $tests - $2"
		failed=$((failed + 1))
	fi
}
is() {
	[ "$1" = "$2" ]
	ok $? "$3"
	[ "$1" = "$2" ] || printf '#   got: %s\n#  want: %s\n' "$1" "$2"
}
done_testing() {
	echo "1..$tests"
	[ $failed = 0 ]
	exit
}
