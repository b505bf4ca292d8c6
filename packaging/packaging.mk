# Installing and packing.
#
#   make install PREFIX=/usr/local DESTDIR=    make uninstall, with the same variables
#   make dist                                  $(O)/redis-shm-$(VERSION).tar.gz of what is committed
#   make deb                                   Debian packages for this release, in $(O)/deb
#   make test-deb                              builds them for Debian 12 and 13 in fresh roots, and installs, tries and removes them
#   make test-install                          an installed copy as its users see it: tests/install
#   make abi-check                             the library against the last release, or TAG=
#   make test-architecture                     includes against the order of the layers, versions, the length of files

DESTDIR    ?=
PREFIX     ?= /usr/local
BINDIR     ?= $(PREFIX)/bin
LIBDIR     ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
DATADIR    ?= $(PREFIX)/share
MANDIR     ?= $(DATADIR)/man
DOCDIR     ?= $(DATADIR)/doc/redis-shm
ZSHDIR     ?= $(DATADIR)/zsh/site-functions
MODULEDIR  ?= $(PREFIX)/lib/redis/modules# where redis-shm looks for it
PRELOADDIR ?= $(PREFIX)/lib/redis-shm
OPTIONAL_LIBS := libredis_shm_preload.so
INSTALL_ENV = VERSION='$(VERSION)' SOVERSION='$(SOVERSION)' $(foreach v,DESTDIR PREFIX BINDIR LIBDIR INCLUDEDIR DATADIR MANDIR DOCDIR ZSHDIR \
              MODULEDIR PRELOADDIR OPTIONAL_LIBS,$(v)='$($(v))')

.PHONY: install uninstall
install: all
	@$(INSTALL_ENV) packaging/install.sh install '$(O)'
uninstall:
	@$(INSTALL_ENV) packaging/install.sh uninstall '$(O)'

# The same bytes for the same commit: git's times, no time in the compressed file.
.PHONY: dist
dist:
	@mkdir -p $(O)
	@git archive --prefix=redis-shm-$(VERSION)/ HEAD | gzip -n9 >$(O)/redis-shm-$(VERSION).tar.gz.new
	@mv $(O)/redis-shm-$(VERSION).tar.gz.new $(O)/redis-shm-$(VERSION).tar.gz
	@echo $(O)/redis-shm-$(VERSION).tar.gz

.PHONY: deb test-deb
deb:
	@VERSION='$(VERSION)' SOVERSION='$(SOVERSION)' packaging/deb.sh '$(O)/deb'
test-deb:
	@scripts/deb-roots.sh $(SUITES_DEB)

.PHONY: abi-check
abi-check:
	@scripts/abi-check.sh $(TAG)

.PHONY: test-install
test-install: all
	@RSHM_BUILD=$(abspath $(O)) RSHM_O=$(O) RSHM_HIREDIS_LIBDIR=$(HIREDIS_LIBDIR) CC='$(CC)' PYTHONDONTWRITEBYTECODE=1 \
	    $(PYTHON) -m pytest -q -p no:cacheprovider -c tests/install/pytest.ini --rootdir=. tests/install $(PYTEST_ARGS)

.PHONY: test-architecture
test-architecture:
	@tests/run.sh tests/architecture.sh
