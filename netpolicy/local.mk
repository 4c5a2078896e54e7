# netpolicy/: what a sandbox may reach by name: codec, forwarder, sandbox-dnsd.
noinst_LIBRARIES += libnetpolicy.a
libnetpolicy_a_SOURCES = netpolicy/dns_msg.c netpolicy/dns_msg.h netpolicy/dns_upstream.c netpolicy/dns_upstream.h \
	netpolicy/dns_proxy.c netpolicy/dns_proxy.h

pkglibexec_PROGRAMS += sandbox-dnsd
sandbox_dnsd_SOURCES = netpolicy/dnsd_main.c
sandbox_dnsd_LDADD = libnetpolicy.a libbase.a
