# libvalkey_shm: the functions of libhiredis_shm for libvalkey, from the same source with other names.
#
#   make valkey          $(O)/libvalkey_shm.so, .a and valkey_shm.h; needs libvalkey: pkg-config valkey, or that of the next line
#   make libvalkey       builds libvalkey in build/libvalkey from the source in the Python package of that name; for tests, where none is packaged
#   make test-valkey     a program against a server; skips without libvalkey
#
# `make install` takes what is there.

VALKEY_DIR    := $(CURDIR)/build/libvalkey
VALKEY_PKG     = PKG_CONFIG_PATH=$${PKG_CONFIG_PATH:+$$PKG_CONFIG_PATH:}$(VALKEY_DIR)/lib/pkgconfig pkg-config
VALKEY_CFLAGS  = $(patsubst -I%,-isystem%,$(shell $(VALKEY_PKG) --cflags-only-I --keep-system-cflags valkey 2>/dev/null))
VALKEY_LIBS    = $(shell $(VALKEY_PKG) --libs valkey 2>/dev/null)
VALKEY_OBJ     = $(patsubst src/client/%.c,$(O)/obj/valkey/%.o,$(filter src/client/%,$(CLIENT))) $(call obj,$(CHANNEL))
VALKEY_NAMES  := s/redis\([A-Z][A-Za-z]*SharedMemory\|Append\|Async\|Context\|Reply\|Connect\|Command\|Reconnect\|Free\|Set\|Get\|Libevent\|Use\|Is\)/valkey\1/g; \
                 s/struct redis/struct valkey/g; s/enum redis/enum valkey/g; s/REDIS_/VALKEY_/g; s/HIVALKEY_/VALKEY_/g; s/HIREDIS/VALKEY/g; \
                 s/hiredis_shm/valkey_shm/g; s/\([^-]\)hiredis/\1libvalkey/g; s/-lhiredis/-lvalkey/g; s/libvalkey 1\.0 or later/libvalkey/; s/liblibvalkey/libvalkey/g

.PHONY: valkey
valkey: $(O)/libvalkey_shm.so.$(SOVERSION) $(O)/libvalkey_shm.a $(O)/include/valkey_shm.h
	@ln -sf libvalkey_shm.so.$(SOVERSION) $(O)/libvalkey_shm.so

$(O)/obj/valkey/%.o: src/client/%.c Makefile packaging/valkey.mk
	@mkdir -p $(@D)
	@$(VALKEY_PKG) --exists valkey || { echo "libvalkey is not here: pkg-config finds no valkey; make libvalkey" >&2; exit 1; }
	$(if $(Q),@echo "  CC    $< (libvalkey)")
	$(Q)$(CC) $(CFLAGS_ALL) -include src/client/valkey/names.h -Isrc/client/valkey $(VALKEY_CFLAGS) -MMD -MP -c $< -o $@

$(O)/libvalkey_shm.map: src/client/libhiredis_shm.map packaging/valkey.mk
	$(Q)sed '$(VALKEY_NAMES)' $< >$@

$(O)/include/valkey_shm.h: include/hiredis_shm.h packaging/valkey.mk
	@mkdir -p $(@D)
	$(Q)sed '$(VALKEY_NAMES)' $< >$@

$(O)/libvalkey_shm.a: $$(VALKEY_OBJ)
	$(if $(Q),@echo "  AR    $@")
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(O)/libvalkey_shm.so.$(SOVERSION): $$(VALKEY_OBJ) $(O)/libvalkey_shm.map
	$(if $(Q),@echo "  LD    $@")
	$(Q)$(CC) -shared -Wl,-soname,libvalkey_shm.so.$(SOVERSION) -Wl,--version-script=$(O)/libvalkey_shm.map -Wl,-z,relro,-z,now \
	    -o $@ $(VALKEY_OBJ) $(LDFLAGS_ALL) $(VALKEY_LIBS)

.PHONY: libvalkey
libvalkey:
	@CC='$(CC)' PYTHON='$(PYTHON)' scripts/libvalkey.sh '$(VALKEY_DIR)'

.PHONY: test-valkey
test-valkey: all
	@if $(VALKEY_PKG) --exists valkey; then $(MAKE) --no-print-directory valkey; else echo "libvalkey is not here: the tests of libvalkey_shm will skip"; fi
	@RSHM_BUILD=$(abspath $(O)) CC='$(CC)' PYTHONDONTWRITEBYTECODE=1 \
	    $(PYTHON) -m pytest -q -p no:cacheprovider -c tests/install/pytest.ini --rootdir=. tests/valkey $(PYTEST_ARGS)
