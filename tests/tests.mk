# Tests of the main Makefile.
#
#   make test-unit                  unit and (short) stress tests; STRICT=1: a skip is a failure; SEED=n repeats a random one
#   make test-model                 the model of sleep and wake, every state of it, and its mutants (Spin)
#   make stress-wake                10 million operations between two processes, with a sleep every few of them; a minute or two
#   make test-tsan test-asan        the same under sanitizers, in build trees of their own
#   make bench-fifo                 what the FIFO costs; $(O)/bench/fifo.json
#
# tests/unit/test_*.c (cmocka) and tests/stress/*.c (exit 0, 1, or 77: skipped) are found by themselves. A program links
# the FIFO, unless it says what else:      SRC_test_channel := $(CHANNEL)
#                                          LIBS_test_channel := -lm

UNIT_TESTS   := $(patsubst tests/%.c,$(O)/tests/%,$(wildcard tests/unit/test_*.c))
STRESS_TESTS := $(patsubst tests/%.c,$(O)/tests/%,$(wildcard tests/stress/*.c))
STRESS_WAKE_ARGS ?= 10000 3600
BENCHES      := $(O)/tests/bench/bench_fifo $(O)/tests/bench/bench_wait
STRESS_ARGS  ?= 64 3# MiB per ring, seconds at most
WAKE_ARGS    ?= 1000 3# thousand operations, seconds at most
SRC_test_schedules := src/channel/clock.c# what it tests it includes, compiled in its own way
$(O)/obj/tests/unit/test_schedules.o: CFLAGS_ALL += -Itests/unit
SRC_wake_processes := $(CHANNEL)
SRC_wake_threads   := $(CHANNEL)

SRC_test_channel := $(CHANNEL)
SRC_test_conformance := $(CHANNEL)
SRC_test_histogram := src/tools/histogram.c
LIBS_test_histogram := -lm
SRC_test_keys := src/tools/keys.c
LIBS_test_keys := -lm
BENCH_TOOLS := $(addprefix src/tools/,server.c common.c stop.c stats.c json.c host.c awake.c)
SRC_bench_wait := $(CLIENT) $(BENCH_TOOLS)
LIBS_bench_wait = $(HIREDIS_LINK) -lm

.SECONDEXPANSION:
$(UNIT_TESTS) $(STRESS_TESTS) $(BENCHES): $(O)/tests/%: $(O)/obj/tests/%.o $$(call obj,$$(or $$(SRC_$$(notdir $$*)),$$(FIFO)))
	@mkdir -p $(@D)
	$(if $(Q),@echo "  LD    $@")
	$(Q)$(CC) -o $@ $^ $(LDFLAGS_ALL) $(if $(filter $@,$(UNIT_TESTS)),-lcmocka) $(LIBS_$(notdir $*))

.PHONY: test-unit
test-unit: $(UNIT_TESTS) $(STRESS_TESTS)
	@tests/run.sh $(UNIT_TESTS) $(foreach t,$(STRESS_TESTS),'$t $(if $(findstring /wake_,$t),$(WAKE_ARGS),$(STRESS_ARGS))')

.PHONY: stress-wake
stress-wake: $(O)/tests/stress/wake_processes
	@$< $(STRESS_WAKE_ARGS)

.PHONY: test-model
test-model:
	@CC='$(CC)' TEST_TIMEOUT=$${TEST_TIMEOUT:-900} tests/run.sh tests/model/run.sh

.PHONY: test-tsan
test-tsan:
	@$(MAKE) --no-print-directory O=$(O)/tsan SAN=thread test-unit

.PHONY: test-asan
test-asan:
	@$(MAKE) --no-print-directory O=$(O)/asan SAN=address,undefined test-unit

.PHONY: bench-fifo
bench-fifo: $(O)/tests/bench/bench_fifo
	@mkdir -p $(O)/bench
	@$< --out $(O)/bench/fifo.json $(BENCH_FIFO_ARGS)

# Unix socket against shared memory, each mode, in every regime that waiting depends on: some four minutes.
.PHONY: bench-wait
bench-wait: $(O)/tests/bench/bench_wait $(O)/module-shm.so
	@mkdir -p $(O)/bench
	@$< --module $(O)/module-shm.so --out $(O)/bench/wait.json $(BENCH_WAIT_ARGS)

# Tests against a real redis-server (tests/server, pytest): Debian's python3-pytest and python3-redis, REDIS_SERVER=path for
# another server, PYTEST_ARGS='-k name' for some of them.
.PHONY: test-server
test-server: $(O)/module-shm.so $(O)/libhiredis_shm.so $(O)/redis-shm
	@RSHM_BUILD=$(abspath $(O)) RSHM_HIREDIS_LIBDIR=$(HIREDIS_LIBDIR) CC='$(CC)' PYTHONDONTWRITEBYTECODE=1 \
	    $(PYTHON) -m pytest -q -p no:cacheprovider tests/server $(PYTEST_ARGS)

# ---- the client library against a real server ----
#
#   make test-client                tests/client/test_*.c; REDIS_SERVER: the server to start, RSHM_BUILD: whose module it loads
#   make test-client-asan           the client and its tests under sanitizers, the server with the plain module
#   make examples                   $(O)/examples/*
#   make bench-beside bench-noload  what clients on plain sockets notice; $(O)/bench/beside.json, noload.json
#   make bench-async                one asynchronous client over libevent and libuv; $(O)/bench/async.json

CLIENT_TESTS := $(patsubst tests/%.c,$(O)/tests/%,$(wildcard tests/client/test_*.c))
HAVE_LIBEVENT := $(shell pkg-config --exists libevent 2>/dev/null && echo yes)
EXAMPLES     := $(patsubst examples/%.c,$(O)/examples/%,$(filter-out $(if $(HAVE_LIBEVENT),,examples/async.c),$(wildcard examples/*.c)))
HIREDIS_LINK  = $(HIREDIS_LIBS) $(if $(HIREDIS_LIBDIR),-Wl$(comma)-rpath$(comma)$(HIREDIS_LIBDIR))

$(O)/obj/tests/client/%.o: CFLAGS_ALL += -DRSHM_BUILD_DEFAULT='"$(abspath $(O))"' -DEXAMPLES_BUILD='"$(abspath $(O))"'
$(O)/obj/tests/bench/bench_beside.o: CFLAGS_ALL += -Itests
$(CLIENT_TESTS) $(O)/tests/bench/bench_beside: $(O)/tests/%: $(O)/obj/tests/%.o $(call obj,tests/client/harness.c tests/client/beside.c) $(O)/libhiredis_shm.a
	@mkdir -p $(@D)
	$(if $(Q),@echo "  LD    $@")
	$(Q)$(CC) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LDFLAGS_ALL) $(HIREDIS_LINK) $(LDLIBS_TEST) -lcmocka

# test_async runs over every event library that is there, with a channel.o that has the test hooks: it comes before the library, whose own
# is not taken then.
LOOP_LIBS     = $(foreach l,libevent libuv glib-2.0,$(shell pkg-config --exists $(l) 2>/dev/null && echo $(l)))
HAVE_LIBEV    = $(shell echo '\#include <ev.h>' | $(CC) -E -x c - >/dev/null 2>&1 && echo yes)
LOOP_CFLAGS   = $(patsubst -I%,-isystem%,$(if $(LOOP_LIBS),$(shell pkg-config --cflags $(LOOP_LIBS)))) \
                $(if $(filter libevent,$(LOOP_LIBS)),-DHAVE_LIBEVENT) $(if $(filter libuv,$(LOOP_LIBS)),-DHAVE_LIBUV) \
                $(if $(filter glib-2.0,$(LOOP_LIBS)),-DHAVE_GLIB) $(if $(HAVE_LIBEV),-DHAVE_LIBEV)
LOOP_LINK     = $(if $(LOOP_LIBS),$(shell pkg-config --libs $(LOOP_LIBS))) $(if $(HAVE_LIBEV),-lev)
LOOPS        := $(patsubst %.c,$(O)/obj/%.o,$(wildcard tests/client/loop*.c))
$(LOOPS): CFLAGS_ALL += $(LOOP_CFLAGS)
$(O)/obj/tests/client/test_examples.o: CFLAGS_ALL += $(if $(HAVE_LIBEVENT),-DHAVE_LIBEVENT)
$(O)/obj/tests/client/test_async.o: CFLAGS_ALL += -DRSHM_TEST_HOOKS
$(O)/obj/hooks/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(if $(Q),@echo "  CC    $< (hooks)")
	$(Q)$(CC) $(CFLAGS_ALL) -DRSHM_TEST_HOOKS -MMD -MP -c $< -o $@
$(O)/tests/client/test_async: $(O)/obj/hooks/src/channel/channel.o $(LOOPS)
$(O)/tests/client/test_async: LDLIBS_TEST = $(LOOP_LINK)

.PHONY: test-client
test-client: $(CLIENT_TESTS) examples $(if $(RSHM_BUILD),,$(O)/module-shm.so)
	@tests/run.sh $(CLIENT_TESTS)

.PHONY: test-client-asan
test-client-asan: $(O)/module-shm.so
	@RSHM_BUILD=$(abspath $(O)) $(MAKE) --no-print-directory O=$(O)/asan SAN=address,undefined test-client

.PHONY: bench-beside
bench-beside: $(O)/tests/bench/bench_beside $(O)/module-shm.so
	@mkdir -p $(O)/bench
	@RSHM_BUILD=$(O) $< --out $(O)/bench/beside.json $(BENCH_BESIDE_ARGS)

.PHONY: bench-async
bench-async: $(O)/tests/bench/bench_async $(O)/module-shm.so
	@mkdir -p $(O)/bench
	@$< --module $(O)/module-shm.so --out $(O)/bench/async.json $(BENCH_ASYNC_ARGS)
$(O)/obj/tests/bench/bench_async.o: CFLAGS_ALL += -Itests
$(O)/tests/bench/bench_async: $(O)/obj/tests/bench/bench_async.o $(LOOPS) $(call obj,$(BENCH_TOOLS)) $(O)/libhiredis_shm.a
	@mkdir -p $(@D)
	$(if $(Q),@echo "  LD    $@")
	$(Q)$(CC) -o $@ $^ $(LDFLAGS_ALL) $(HIREDIS_LINK) $(LOOP_LINK) -lm

.PHONY: bench-noload
bench-noload: $(O)/module-shm.so
	@mkdir -p $(O)/bench
	@RSHM_BUILD=$(abspath $(O)) PYTHONDONTWRITEBYTECODE=1 $(PYTHON) tests/bench/bench_noload.py --out $(O)/bench/noload.json $(BENCH_NOLOAD_ARGS)

.PHONY: examples
examples: $(EXAMPLES)
$(EXAMPLES): $(O)/examples/%: $(O)/obj/examples/%.o $(O)/libhiredis_shm.a
	@mkdir -p $(@D)
	$(if $(Q),@echo "  LD    $@")
	$(Q)$(CC) -o $@ $^ $(LDFLAGS_ALL) $(HIREDIS_LINK) $(LIBS_EXAMPLE)
$(O)/obj/examples/async.o: CFLAGS_ALL += $(patsubst -I%,-isystem%,$(shell pkg-config --cflags libevent 2>/dev/null))
$(O)/examples/async: LIBS_EXAMPLE = $(shell pkg-config --libs libevent)

# ---- hostile peers and faults ----
#
#   make villain                    tests/villain/test_*.c: clients that break every rule, against the real server
#   make villain-asan               the same with a module under AddressSanitizer and UndefinedBehaviorSanitizer

VILLAINS := $(patsubst tests/%.c,$(O)/tests/%,$(wildcard tests/villain/test_*.c))
$(O)/obj/tests/villain/%.o: CFLAGS_ALL += -Itests
$(VILLAINS): $(O)/tests/%: $(O)/obj/tests/%.o $(call obj,tests/villain/peer.c tests/villain/witness.c tests/client/harness.c) $(O)/libhiredis_shm.a
	@mkdir -p $(@D)
	$(if $(Q),@echo "  LD    $@")
	$(Q)$(CC) -o $@ $^ $(LDFLAGS_ALL) $(HIREDIS_LINK) -lcmocka

.PHONY: villain
villain: $(VILLAINS) $(if $(RSHM_BUILD),,$(O)/module-shm.so)
	@tests/run.sh $(VILLAINS)

# The villain is the plain one: only the server's side is under the sanitizers, and an error there ends it.
.PHONY: villain-asan
villain-asan: $(VILLAINS)
	@$(MAKE) --no-print-directory O=$(O)/asan SAN=address,undefined $(O)/asan/module-shm.so
	@RSHM_BUILD=$(abspath $(O))/asan RSHM_SERVER_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" \
	    ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=halt_on_error=1:abort_on_error=1 tests/run.sh $(VILLAINS)

# Each rule without its check, and the test that must fail then: tests/mutants/list.
.PHONY: mutants mutants-short mutants-tests
mutants:
	@tests/mutants/run.sh $(MUTANTS)
mutants-short: # of each kind of rule one, for make test
	@tests/mutants/run.sh 01-seals 02-own-positions 03-record-length 03-read-position 05-after-the-end 07-only-bells 09-end-of-socket 12-client-seals
mutants-tests: $(VILLAINS) $(addprefix $(O)/tests/unit/,test_charfifo_hostile test_channel test_schedules) $(O)/tests/stress/fifo_threads

#   make fuzz SECONDS=n             libFuzzer with AddressSanitizer and UBSan, n seconds a target (default 30), two at a time
#   make fuzz-replay                the kept cases, with any compiler

SECONDS ?= 30
FUZZERS := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
SRC_fuzz_segment   := $(CHANNEL)
SRC_fuzz_open_args := src/module/open_args.c
.PHONY: fuzz fuzz-targets fuzz-replay
fuzz:
	@if command -v clang >/dev/null && echo 'int LLVMFuzzerTestOneInput(const char *d, unsigned long n) { return d == 0 && n; }' | \
	        clang -x c -fsanitize=fuzzer,address - -o /dev/null 2>/dev/null; then \
	    $(MAKE) --no-print-directory O=$(O)/fuzz CC=clang SAN=fuzzer-no-link,address,undefined fuzz-targets && \
	    tests/fuzz/run.sh $(SECONDS) $(addprefix $(O)/fuzz/,$(FUZZERS)); \
	else \
	    echo 'skip  fuzz: no clang with libFuzzer here (Debian: clang, libclang-rt-dev)'; \
	    [ "$(STRICT)" = 1 ] && n='0 1 0' || n='0 0 1'; [ -z "$$RESULTS" ] || echo $$n >>"$$RESULTS"; [ "$$n" = '0 0 1' ]; \
	fi
fuzz-targets: $(addprefix $(O)/,$(FUZZERS))
$(O)/obj/tests/fuzz/%.o: CFLAGS_ALL += -Itests
$(addprefix $(O)/,$(FUZZERS)): $(O)/%: $(O)/obj/tests/fuzz/%.o $$(call obj,$$(or $$(SRC_$$(notdir $$*)),$$(FIFO)))
	$(if $(Q),@echo "  LD    $@")
	$(Q)$(CC) -o $@ $^ $(LDFLAGS_ALL) -fsanitize=fuzzer

REPLAYS := $(addprefix $(O)/tests/fuzz/,$(FUZZERS))
$(REPLAYS): $(O)/tests/fuzz/%: $(O)/obj/tests/fuzz/%.o $(O)/obj/tests/fuzz/replay.o $$(call obj,$$(or $$(SRC_$$(notdir $$*)),$$(FIFO)))
	@mkdir -p $(@D)
	$(if $(Q),@echo "  LD    $@")
	$(Q)$(CC) -o $@ $^ $(LDFLAGS_ALL)
fuzz-replay: $(REPLAYS)
	@tests/run.sh $(foreach t,$(FUZZERS),'$(O)/tests/fuzz/$(t) tests/fuzz/corpus/$(t:fuzz_%=%)')

#   make crash ROUNDS=n             SIGKILL of clients, server, both at random moments (default 30; SEED=m)
#   make soak MINUTES=n             writers with journals through kills and forks, then every acknowledged write is looked for (default 0.5)

ROUNDS  ?= 30
MINUTES ?= 0.5
$(O)/tests/crash/worker: $(O)/obj/tests/crash/worker.o $(O)/libhiredis_shm.a
	@mkdir -p $(@D)
	$(if $(Q),@echo "  LD    $@")
	$(Q)$(CC) -o $@ $^ $(LDFLAGS_ALL) $(HIREDIS_LINK)
.PHONY: crash soak
crash: $(O)/tests/crash/worker $(O)/module-shm.so
	@RSHM_BUILD=$(abspath $(O)) PYTHONDONTWRITEBYTECODE=1 $(PYTHON) tests/crash/crash.py $(ROUNDS)
soak: $(O)/tests/crash/worker $(O)/module-shm.so
	@RSHM_BUILD=$(abspath $(O)) PYTHONDONTWRITEBYTECODE=1 $(PYTHON) tests/crash/soak.py $(MINUTES)
