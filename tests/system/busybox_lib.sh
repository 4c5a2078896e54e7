# SPDX-License-Identifier: Apache-2.0
# The smallest tree that a sandbox can be made of: one static program and names for it.  Sourced by bash.

# busybox_tree DIR APPLET...: DIR/bin with busybox and a link for each applet; false where there is no busybox
busybox_tree() {
	local dir=$1 applet busybox
	busybox=$(command -v busybox) || return 1
	shift
	mkdir -p "$dir/bin" && cp "$busybox" "$dir/bin/busybox" || return 1
	for applet in "$@"; do
		ln -sf busybox "$dir/bin/$applet" || return 1
	done
}
