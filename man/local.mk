# man/: the pages are kept in the tree, made from *.in and from what the programs print; `make man` renews them and a lint
# test fails when they are behind.
dist_man_MANS += man/sandboxctl.1 man/sandboxd.8 man/sandboxd.toml.5
EXTRA_DIST += man/sandboxctl.1.in man/sandboxd.8.in man/sandboxd.toml.5.in man/generate
man: sandboxctl sandboxd
	for page in sandboxctl.1 sandboxd.8 sandboxd.toml.5; do \
		$(srcdir)/man/generate $(srcdir)/man/$$page.in ./sandboxctl ./sandboxd >$(srcdir)/man/$$page || exit 1; \
	done
.PHONY: man
LINT_TESTS += tests/lint/manual
