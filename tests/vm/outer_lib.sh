# SPDX-License-Identifier: Apache-2.0
# For the tests that run in a guest of tests/vm/vm.sh: paths that both sides see, one boot, its TAP lines renumbered.  Sourced.
top_builddir=$(readlink -f "${top_builddir:-$PWD}")
top_srcdir=$(readlink -f "${top_srcdir:-$(dirname "$0")/../..}")
case $top_builddir in
"$top_srcdir"/*) SBX_VM_SHARE=$top_srcdir ;;
# run-tests builds beside a copy of the sources: the guest needs both, also below /tmp, which it hides
"$(dirname "$top_srcdir")"/*) SBX_VM_SHARE=$(dirname "$top_srcdir") ;;
*) SBX_VM_SHARE=$top_builddir ;;
esac
export top_builddir top_srcdir SBX_VM_SHARE
outer_dir=$(mktemp -d /var/tmp/sandboxd-vm.XXXXXX)
trap 'rm -rf "$outer_dir"' EXIT
cd "$SBX_VM_SHARE" || exit 1

# guest VM-OPTIONS... COMMAND...: one boot; its output is added to $outer_dir/out.  Ends the test as skipped when there is no emulator.
guest() {
	"$top_srcdir/tests/vm/vm.sh" "$@" >>"$outer_dir/out" 2>"$outer_dir/err"
	code=$?
	if [ $code = 77 ]; then
		why=$(tail -n 1 "$outer_dir/err")
		[ -z "${REQUIRE_ALL:-}" ] || { echo "not ok 1 - $(basename "$0"): $why"; echo 1..1; exit 1; }
		echo "1..0 # SKIP $(basename "$0"): $why"
		exit 0
	fi
	sed 's/^/# /' "$outer_dir/err" | tail -n 30
}
# guest_done PLANS: every program that ran in the guest printed a plan of its own
guest_done() {
	awk -v code="$code" -v want="$1" '
		/^(not )?ok / { n++; sub(/ok [0-9]+/, "ok " n); print; if (/^not/) bad = 1; next }
		/^1\.\.[0-9]+/ { plans++; next }
		{ print "# " $0 }
		END {
			n++; print (code == 0 ? "ok " : "not ok ") n " - the guest ran all of them (exit code " code ")"
			n++; print (plans == want ? "ok " : "not ok ") n " - " want " programs came to their end (" plans + 0 ")"
			print "1.." n
			exit bad || code != 0 || plans != want
		}' "$outer_dir/out"
}
