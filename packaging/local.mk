# packaging/: what an installed daemon needs from the system.
systemdsystemunitdir = $(prefix)/lib/systemd/system
sysusersdir = $(prefix)/lib/sysusers.d
tmpfilesdir = $(prefix)/lib/tmpfiles.d
bashcompletiondir = $(datadir)/bash-completion/completions
dist_sysusers_DATA = packaging/sandboxd.sysusers.conf
dist_tmpfiles_DATA = packaging/sandboxd.tmpfiles.conf
systemdsystemunit_DATA = packaging/sandboxd.service
bashcompletion_DATA = packaging/sandboxctl
EXTRA_DIST += packaging/sandboxd.service.in examples/sandboxd.toml examples/quickstart.sh examples/egress.sh
CLEANFILES += packaging/sandboxd.service packaging/sandboxctl
packaging/sandboxd.service: packaging/sandboxd.service.in Makefile
	$(AM_V_GEN)$(MKDIR_P) packaging && $(SED) -e 's|@sbindir[@]|$(sbindir)|; s|@sysconfdir[@]|$(sysconfdir)|' \
		$(srcdir)/packaging/sandboxd.service.in >$@.tmp && mv $@.tmp $@
packaging/sandboxctl: sandboxctl
	$(AM_V_GEN)$(MKDIR_P) packaging && ./sandboxctl completion bash >$@.tmp && mv $@.tmp $@

# A configuration that somebody changed is neither overwritten nor removed.
install-data-local:
	$(MKDIR_P) $(DESTDIR)$(sysconfdir)
	test -e $(DESTDIR)$(sysconfdir)/sandboxd.toml || \
		$(INSTALL_DATA) $(srcdir)/examples/sandboxd.toml $(DESTDIR)$(sysconfdir)/sandboxd.toml
uninstall-local:
	! cmp -s $(srcdir)/examples/sandboxd.toml $(DESTDIR)$(sysconfdir)/sandboxd.toml || \
		rm -f $(DESTDIR)$(sysconfdir)/sandboxd.toml
