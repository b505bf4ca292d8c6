# redis-shm: the one build system. GNU make.
#
#   make            everything into build/
#   make demo       the main job: a private server, three transports, one table and a chart
#   make install    PREFIX=/usr/local DESTDIR=; uninstall, dist, deb: packaging/packaging.mk
#   make test       all tests          make deps        what both need (DEPS=no: only report)
#   make villain villain-asan mutants fuzz crash soak       hostile peers and faults (SECURITY.md, docs/reliability.md)
#   make bench-fifo bench-wait bench-beside bench-noload    figures, also as JSON in build/bench
#
# Variants live beside the default build:  make O=build/tsan SAN=thread test-unit    (SAN: thread, address, undefined)
#                                          make O=build/clang CC=clang
#                                          make O=build/arm64 CROSS=aarch64-linux-gnu- all-nohiredis

# The one place of the version: the module, library, tool, pkg-config and CMake files and packages take it from here.
VERSION := 0.1.0
VERSION_NUMBER := $(shell echo $(VERSION) | awk -F. '{ print $$1 * 10000 + $$2 * 100 + $$3 }')# as MODULE LIST shows it
SOVERSION := $(firstword $(subst ., ,$(VERSION)))
O       ?= build
CROSS   ?=
ifeq ($(origin CC),default)
CC      := $(CROSS)gcc
endif
ifeq ($(origin AR),default)
AR      := $(CROSS)ar
endif
PYTHON  ?= /usr/bin/python3
SAN     ?=
DEPS    ?= yes
V       ?= 0

# The same for a redis-server >= 6.2.
export PATH := $(CURDIR)/build/deps/redis/bin:$(PATH)

# hiredis >= 1.0: the system's, or the one that `make deps` built into build/deps (docs/design.md, "hiredis").
HIREDIS_PKG = PKG_CONFIG_PATH=$${PKG_CONFIG_PATH:+$$PKG_CONFIG_PATH:}$(CURDIR)/build/deps/hiredis/lib/pkgconfig pkg-config
HIREDIS_CFLAGS = $(patsubst -I%,-isystem%,$(shell $(HIREDIS_PKG) --cflags "hiredis >= 1.0" 2>/dev/null))
HIREDIS_LIBS   = $(shell $(HIREDIS_PKG) --libs "hiredis >= 1.0" 2>/dev/null)
HIREDIS_LIBDIR = $(shell $(HIREDIS_PKG) --variable=libdir "hiredis >= 1.0" 2>/dev/null)
# The tool outlives the build directory: from there it takes the static library. Elsewhere a path is put into it where ld.so does not look.
HIREDIS_TOOL   = $(if $(findstring /build/deps/hiredis/lib,$(HIREDIS_LIBDIR)),$(HIREDIS_LIBDIR)/libhiredis.a,$(HIREDIS_LIBS) $(addprefix \
                 -Wl$(comma)-rpath$(comma),$(if $(RPATH),$(filter-out /usr/lib% /lib%,$(HIREDIS_LIBDIR)))))
RPATH   ?= yes
TOOLS_CFLAGS   = $(patsubst -I%,-isystem%,$(shell pkg-config --cflags libevent_core zlib 2>/dev/null))
TOOLS_LIBS     = $(or $(shell pkg-config --libs libevent_core zlib 2>/dev/null),-levent_core -lz) -lm

WARN    := -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wpointer-arith -Wstrict-prototypes -Wmissing-prototypes
CFLAGS  ?= -O2 -g
# Hardening, as distributions do it; a FORTIFY_SOURCE of the caller's own wins, and it needs optimisation.
HARDEN     = $(if $(SAN),,-fstack-protector-strong $(if $(findstring FORTIFY,$(CFLAGS) $(CPPFLAGS)),,$(if \
             $(filter-out -O0,$(filter -O%,$(CFLAGS))),-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)))
CFLAGS_ALL = -std=c11 -D_GNU_SOURCE $(HARDEN) -fPIC -fvisibility=hidden -pthread $(WARN) -Iinclude -Isrc \
             -DRSHM_VERSION_NUMBER=$(VERSION_NUMBER) -DRSHM_VERSION='"$(VERSION)"' $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer) $(CPPFLAGS) $(CFLAGS)
LDFLAGS_ALL = -pthread -Wl,-z,relro,-z,now,-z,noexecstack $(if $(SAN),-fsanitize=$(SAN)) $(LDFLAGS)
Q := $(if $(filter 0,$(V)),@,)

FIFO     := src/fifo/charfifo.c
CHANNEL  := $(FIFO) $(wildcard src/channel/*.c)
REDIRECT := $(CHANNEL) $(wildcard src/redirect/*.c)
MODULE   := $(REDIRECT) $(wildcard src/module/*.c)
PRELOAD  := $(CHANNEL) $(wildcard src/preload/*.c)
CLIENT   := $(CHANNEL) $(wildcard src/client/*.c)
TOOLS    := $(wildcard src/tools/*.c)
obj       = $(patsubst %.c,$(O)/obj/%.o,$(1))

LIBS     := $(O)/libcharfifo.a $(O)/module-shm.so $(O)/libhiredis_shm.so $(O)/libhiredis_shm.a $(O)/libredis_shm_preload.so
PROGRAMS := $(O)/redis-shm

.PHONY: all
all: $(LIBS) $(PROGRAMS)

-include tests/tests.mk
include packaging/packaging.mk
include packaging/valkey.mk

# What needs no hiredis, for cross builds.
.PHONY: all-nohiredis
all-nohiredis: $(O)/libcharfifo.a $(O)/module-shm.so

$(O)/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(if $(Q),@echo "  CC    $<")
	$(Q)$(CC) $(CFLAGS_ALL) $(if $(filter src/client/% src/tools/% examples/% tests/%,$<),$(HIREDIS_CFLAGS)) $(if $(filter src/tools/%,$<),$(TOOLS_CFLAGS)) -MMD -MP -c $< -o $@

$(O)/libcharfifo.a: $(call obj,$(FIFO))
	$(if $(Q),@echo "  AR    $@")
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(O)/libhiredis_shm.a: $(call obj,$(CLIENT))
	$(if $(Q),@echo "  AR    $@")
	$(Q)rm -f $@ && $(AR) rcs $@ $^

# nodelete: after MODULE UNLOAD a thread of the server may still be on its way out of a function of ours.
$(O)/module-shm.so: $(call obj,$(MODULE)) src/module/module-shm.map
	$(if $(Q),@echo "  LD    $@")
	$(Q)$(CC) -shared -Wl,--version-script=src/module/module-shm.map -Wl,-z,nodelete -Wl,-z,relro,-z,now \
	    $(if $(SAN),,-Wl,-z,defs) -o $@ $(call obj,$(MODULE)) $(LDFLAGS_ALL) -ldl

$(O)/libhiredis_shm.so.$(SOVERSION): $(call obj,$(CLIENT)) src/client/libhiredis_shm.map
	$(if $(Q),@echo "  LD    $@")
	$(Q)$(CC) -shared -Wl,-soname,libhiredis_shm.so.$(SOVERSION) -Wl,--version-script=src/client/libhiredis_shm.map -Wl,-z,relro,-z,now \
	    -o $@ $(call obj,$(CLIENT)) $(LDFLAGS_ALL) $(HIREDIS_LIBS)

$(O)/libhiredis_shm.so: $(O)/libhiredis_shm.so.$(SOVERSION)
	$(Q)ln -sf libhiredis_shm.so.$(SOVERSION) $@

# Its objects are its own: below it, calls on the socket must not come back to the functions it exports (src/channel/libc.h). Never unloaded.
$(O)/obj/preload/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(if $(Q),@echo "  CC    $< (preload)")
	$(Q)$(CC) $(CFLAGS_ALL) -U_FORTIFY_SOURCE -DRSHM_PRELOAD -MMD -MP -c $< -o $@

$(O)/libredis_shm_preload.so: $(patsubst %.c,$(O)/obj/preload/%.o,$(PRELOAD)) src/preload/libredis_shm_preload.map
	$(if $(Q),@echo "  LD    $@")
	$(Q)$(CC) -shared -Wl,-soname,libredis_shm_preload.so -Wl,--version-script=src/preload/libredis_shm_preload.map \
	    -Wl,-z,nodelete -Wl,-z,relro,-z,now -o $@ $(patsubst %.c,$(O)/obj/preload/%.o,$(PRELOAD)) $(LDFLAGS_ALL) -ldl

# `redis-shm run` checks its options with what the preload library reads them with.
$(O)/redis-shm: $(call obj,$(TOOLS) src/preload/settings.c) $(O)/libhiredis_shm.a
	$(if $(Q),@echo "  LD    $@")
	$(Q)$(CC) -pie -o $@ $(call obj,$(TOOLS) src/preload/settings.c) $(O)/libhiredis_shm.a $(LDFLAGS_ALL) $(HIREDIS_TOOL) $(TOOLS_LIBS)
comma := ,

.PHONY: deps
deps:
	@DEPS=$(DEPS) scripts/deps.sh

# A sub-make, so that what deps installed is seen by the pkg-config look-ups above.
.PHONY: demo
demo: deps
	@$(MAKE) --no-print-directory all
	@$(O)/redis-shm demo --module $(O)/module-shm.so --out $(O)/demo

SUITES := test-architecture test-unit test-model test-client test-server test-install test-asan test-client-asan test-tsan \
          villain villain-asan fuzz-replay fuzz crash soak mutants-short

.PHONY: test test-all
test: deps
	@$(MAKE) --no-print-directory test-all

# Every suite runs, whatever the one before it said; the sum is the last line. A suite that ends without a result has failed.
test-all: all
	@mkdir -p $(O)/tests && rm -f $(O)/tests/results
	@for suite in $(SUITES); do \
	    echo "== $$suite"; \
	    before=$$(cat $(O)/tests/results 2>/dev/null | wc -l); \
	    RESULTS=$(abspath $(O))/tests/results $(MAKE) --no-print-directory $$suite; \
	    [ "$$(cat $(O)/tests/results 2>/dev/null | wc -l)" -gt "$$before" ] || echo "0 1 0" >>$(O)/tests/results; \
	done; \
	awk '{ p += $$1; f += $$2; s += $$3 } END { printf "%d passed, %d failed, %d skipped\n", p, f, s; exit f > 0 || p == 0 }' \
	    $(O)/tests/results

.PHONY: clean
clean:
	rm -rf $(O)/obj $(O)/tests $(O)/bench $(O)/demo $(O)/examples $(LIBS) $(O)/libhiredis_shm.so.$(SOVERSION) $(PROGRAMS) \
	    $(O)/libvalkey_shm.* $(O)/include $(O)/deb $(O)/redis-shm-$(VERSION).tar.gz

-include $(shell test -d $(O)/obj && find $(O)/obj -name '*.d' 2>/dev/null)
