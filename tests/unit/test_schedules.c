/* test_schedules.c - the shipped code of FIFO, channel and client under many thousand schedules, one atomic step at a time.
 *
 * Client and server are two coroutines in one thread. Every operation of fifo/atomic.h is a step, and so are send() and recv(): there a
 * scheduler that draws from a seed lets the same side go on, or the other. Stores wait in a store buffer, as on x86 (TSO), until the
 * scheduler lets the oldest arrive, or a fence or an exchange forces them; a bell waits there too, so that nothing more is assumed of
 * the kernel than that a bell comes after what was stored before it.
 *
 * When both sides sleep, all stores arrive, and still no bell is there, a wake-up was lost. When a side only rests, having nothing to do for
 * now, the other must not sleep on something that is there for it.
 *
 *   SEED=n         the first seed (default: from the clock); a failure prints the one to repeat it with
 *   SCHEDULES=n    for each test (default 5000)
 */
#define RSHM_SCHEDULE 1

#include <errno.h>
#include <pthread.h>
#include <sys/socket.h>
#include <ucontext.h>

#include "channel/channel.h"
#include "channel/clock.h"

/* What is not deterministic, or would stop the thread, is replaced by the scheduler's own. */
static ssize_t schedule_send(int fd, const void *p, size_t n, int flags);
static ssize_t schedule_recv(int fd, void *p, size_t n, int flags);
static uint64_t schedule_now(void);
#define send schedule_send
#define recv schedule_recv
#define rshm_ticks schedule_now
#define rshm_ticks_per_us() ((uint64_t)1)
#define rshm_now_ns schedule_now
#define rshm_cpu_relax rshm_yield_point

#include "../../src/fifo/charfifo.c"
#undef HEADER
#undef LINE
#include "../../src/channel/channel.c"
#define spin client_spin
#include "../../src/client/transport.c"
#undef spin

#include "../stress/traffic.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h> /* not before: it has a macro fail() */

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#ifdef WITH_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef RSHM_TSAN
#include <sanitizer/tsan_interface.h>
#endif

#define RING ((size_t)4096)
#define STACK_BYTES ((size_t)256 << 10)
#define BUFFER_MAX 12 /* stores; real ones hold some 50, but then every step would be one of waiting */
#define SOCKET_ROOM 3 /* bells */
#define STEPS_MAX 2000000

enum { SERVER, CLIENT, NOBODY };

struct store {
    void *p; /* NULL: a bell to the other side */
    uint32_t bytes;
    uint64_t v;
};

enum state { RUNS, SLEEPS, RESTS, OVER };

struct side {
    ucontext_t context;
    char *stack;
    void (*body)(struct side *);
    enum state state;
    struct store buffer[BUFFER_MAX];
    uint32_t stores;
    uint32_t bells; /* on its socket */
    bool ended;     /* its socket has closed */
    int result;
    struct traffic_side traffic;
#ifdef WITH_ASAN
    void *fake_stack;
#endif
#ifdef RSHM_TSAN
    void *fiber;
#endif
};

static struct {
    struct side sides[2];
    int turn; /* NOBODY: the scheduler itself, whose operations are no steps */
    ucontext_t scheduler;
    uint64_t seed, dice, steps;
    uint32_t switch_every, arrive_every; /* one step in so many, on average */
    uint32_t big_every;
    char *memory;
    size_t memory_bytes;
    struct rshm_map map;
    const char *failure;
#ifdef WITH_ASAN
    void *fake_stack;
    const void *own_stack;
    size_t own_stack_bytes;
#endif
#ifdef RSHM_TSAN
    void *fiber;
#endif
} world;

/* ---- the memory ---- */

static void arrive(struct side *s)
{
    struct store first = s->buffer[0];
    memmove(s->buffer, s->buffer + 1, --s->stores * sizeof s->buffer[0]);
    struct side *other = &world.sides[s == &world.sides[SERVER]];
    if (first.p == NULL)
        other->bells += other->bells < SOCKET_ROOM;
    else
        memcpy(first.p, &first.v, first.bytes); /* little-endian, as the protocol */
}

static void arrive_all(struct side *s)
{
    while (s->stores > 0)
        arrive(s);
}

static void buffer_store(struct side *s, struct store one)
{
    if (s->stores == BUFFER_MAX)
        arrive(s);
    s->buffer[s->stores++] = one;
}

static bool is_shared(const void *p)
{
    return (const char *)p >= world.memory && (const char *)p < world.memory + world.memory_bytes;
}

uint64_t schedule_load(const void *p, size_t bytes)
{
    uint64_t v = 0;
    if (world.turn != NOBODY && is_shared(p)) {
        rshm_yield_point();
        const struct side *s = &world.sides[world.turn];
        for (uint32_t i = s->stores; i-- > 0;)
            if (s->buffer[i].p == p)
                return s->buffer[i].v;
    }
    memcpy(&v, p, bytes);
    return v;
}

void schedule_store(void *p, size_t bytes, uint64_t v)
{
    if (world.turn == NOBODY || !is_shared(p)) {
        memcpy(p, &v, bytes);
        return;
    }
    rshm_yield_point();
    buffer_store(&world.sides[world.turn], (struct store){p, (uint32_t)bytes, v});
}

void schedule_fence(void)
{
    if (world.turn == NOBODY)
        return;
    rshm_yield_point();
    arrive_all(&world.sides[world.turn]);
}

uint64_t schedule_exchange(void *p, size_t bytes, uint64_t v)
{
    uint64_t was = 0;
    schedule_fence();
    memcpy(&was, p, bytes);
    memcpy(p, &v, bytes);
    return was;
}

uint64_t schedule_compare_exchange(void *p, size_t bytes, uint64_t was, uint64_t v)
{
    uint64_t is = 0;
    schedule_fence();
    memcpy(&is, p, bytes);
    if (is == was)
        memcpy(p, &v, bytes);
    return is;
}

static uint64_t schedule_now(void)
{
    return world.steps;
}

/* ---- who goes on ---- */

static void enter(int turn)
{
    struct side *s = &world.sides[turn];
    world.turn = turn;
#ifdef WITH_ASAN
    __sanitizer_start_switch_fiber(&world.fake_stack, s->stack, STACK_BYTES);
#endif
#ifdef RSHM_TSAN
    __tsan_switch_to_fiber(s->fiber, 0);
#endif
    swapcontext(&world.scheduler, &s->context);
#ifdef WITH_ASAN
    __sanitizer_finish_switch_fiber(world.fake_stack, NULL, NULL);
#endif
    world.turn = NOBODY;
}

static void leave(struct side *s)
{
#ifdef WITH_ASAN
    __sanitizer_start_switch_fiber(s->state == OVER ? NULL : &s->fake_stack, world.own_stack, world.own_stack_bytes);
#endif
#ifdef RSHM_TSAN
    __tsan_switch_to_fiber(world.fiber, 0);
#endif
    swapcontext(&s->context, &world.scheduler);
#ifdef WITH_ASAN
    __sanitizer_finish_switch_fiber(s->fake_stack, NULL, NULL);
#endif
}

static bool one_in(uint32_t n)
{
    return stress_random(&world.dice) % n == 0;
}

void rshm_yield_point(void)
{
    if (world.turn == NOBODY)
        return;
    world.steps++;
    for (int i = 0; i < 2; i++)
        if (world.sides[i].stores > 0 && one_in(world.arrive_every))
            arrive(&world.sides[i]);
    if (one_in(world.switch_every) || world.steps > STEPS_MAX)
        leave(&world.sides[world.turn]);
}

/* Until the scheduler finds a reason to go on. */
static void stop(enum state state)
{
    struct side *s = &world.sides[world.turn];
    s->state = state;
    leave(s);
}

static ssize_t schedule_send(int fd, const void *p, size_t n, int flags)
{
    (void)flags;
    assert_int_equal(*(const char *)p, RSHM_BELL);
    assert_int_equal(fd, world.turn);
    rshm_yield_point();
    buffer_store(&world.sides[world.turn], (struct store){NULL, 0, 0});
    return (ssize_t)n;
}

static ssize_t schedule_recv(int fd, void *p, size_t n, int flags)
{
    struct side *s = &world.sides[fd];
    assert_int_equal(fd, world.turn);
    rshm_yield_point();
    while (s->bells == 0 && !s->ended) {
        if (flags & MSG_DONTWAIT) {
            errno = EAGAIN;
            return -1;
        }
        stop(SLEEPS);
    }
    if (n > s->bells)
        n = s->bells;
    memset(p, RSHM_BELL, n);
    s->bells -= (uint32_t)n;
    return (ssize_t)n;
}

/* poll() for the socket. */
static void wait_for_socket(struct side *s)
{
    rshm_yield_point();
    while (s->bells == 0 && !s->ended)
        stop(SLEEPS);
}

static void body(void)
{
    struct side *s = &world.sides[world.turn];
#ifdef WITH_ASAN
    __sanitizer_finish_switch_fiber(NULL, &world.own_stack, &world.own_stack_bytes);
#endif
    s->body(s);
    charfifo_close_writer(&s->traffic.ch.out);
    charfifo_close_reader(&s->traffic.ch.in);
    arrive_all(s);
    world.sides[s == &world.sides[SERVER]].ended = true;
    s->state = OVER;
    leave(s);
}

static bool can_run(const struct side *s)
{
    return s->state == RUNS || (s->state != OVER && (s->bells > 0 || s->ended));
}

/* Nobody can run: NULL if that is only because somebody rests, or what is wrong. */
static const char *standstill(void)
{
    bool resting = false;
    for (int i = 0; i < 2; i++) {
        struct side *s = &world.sides[i];
        uint32_t want = rshm_load_relaxed(&s->traffic.waits_for);
        if (s->state == SLEEPS && rshm_channel_ready(&s->traffic.ch, (int)want))
            return i == CLIENT ? "the client sleeps on something that is there for it" : "the server sleeps on something that is there for it";
        if (s->state == RESTS) {
            s->state = RUNS;
            resting = true;
        }
    }
    return resting ? NULL : "both sides sleep";
}

static void run_world(void)
{
    while (world.failure == NULL && (world.sides[SERVER].state != OVER || world.sides[CLIENT].state != OVER)) {
        int first = one_in(2) ? SERVER : CLIENT, turn = can_run(&world.sides[first]) ? first : !first;
        if (can_run(&world.sides[turn])) {
            world.sides[turn].state = RUNS;
            enter(turn);
            if (world.steps > STEPS_MAX)
                world.failure = "it goes on and on";
            continue;
        }
        arrive_all(&world.sides[SERVER]);
        arrive_all(&world.sides[CLIENT]);
        if (!can_run(&world.sides[SERVER]) && !can_run(&world.sides[CLIENT]))
            world.failure = standstill();
    }
}

/* ---- what the code under test calls ---- */

uint32_t rshm_cpu_tag(void)
{
    return (uint32_t)world.turn + 1;
}

uint32_t rshm_pace(uint64_t ticks)
{
    return (uint32_t)(ticks & 0xff);
}

uint64_t rshm_waiting_budget(struct rshm_waiting *w, uint32_t peer_tag, uint64_t extra, bool streams)
{
    (void)peer_tag;
    (void)extra;
    (void)streams;
    return stress_random(&world.dice) % 8 != 0 ? 0 : w->limit; /* seldom: four sleeps in a row make a request a standing one */
}

void rshm_waiting_hit(struct rshm_waiting *w)
{
    (void)w;
}

void rshm_waiting_missed(struct rshm_waiting *w)
{
    (void)w;
}

void rshm_yield_to(uint32_t peer_tag)
{
    (void)peer_tag;
}

void rshm_segment_unmap(struct rshm_map *map)
{
    (void)map;
}

void rshm_client_free(struct rshm_client *s)
{
    (void)s;
}

ssize_t rshm_client_opening_read(redisContext *c, char *buf, size_t cap)
{
    (void)c;
    (void)buf;
    (void)cap;
    return -1;
}

void rshm_async_read(struct redisAsyncContext *ac)
{
    (void)ac;
}

void rshm_async_write(struct redisAsyncContext *ac)
{
    (void)ac;
}

/* ---- the sides ---- */

static void traffic_relax(void)
{
    rshm_yield_point();
}

static bool traffic_in_time(struct traffic_side *s)
{
    (void)s;
    return true;
}

/* The server as the poller has it (poller.c): park() arms, the kernel's epoll brings the bell, attend() takes it off the socket and
 * answers it. Now and then it asks the kernel although it does not sleep. */
static int park(struct side *s, int want)
{
    struct rshm_channel *ch = &s->traffic.ch;
    bool stays = rshm_channel_arm(ch, want);
    if (stays && !one_in(4))
        return 0;
    if (!stays)
        wait_for_socket(s);
    int r = rshm_channel_drain(ch, MSG_DONTWAIT);
    if (r > 0)
        rshm_channel_answer_bell(ch);
    rshm_channel_disarm(ch); /* make_hot() */
    return r == -EPROTO || (r == -EPIPE && !rshm_channel_ready(ch, want)) ? r : 0;
}

static bool server_is_a_poller;

static int traffic_wait(struct traffic_side *t, int want)
{
    struct side *s = &world.sides[world.turn];
    if (world.turn == SERVER && server_is_a_poller)
        return park(s, want);
    return rshm_channel_wait(&t->ch, want, &t->waiting, 0);
}

static void server_of_requests(struct side *s)
{
    s->result = traffic_server(&s->traffic);
}

static void client_of_replies(struct side *s)
{
    s->result = traffic_client(&s->traffic);
}

/* Pushes messages when it likes, and rests in between; what a subscriber sees. */
static void server_that_pushes(struct side *s)
{
    struct traffic_side *t = &s->traffic;
    char bell;
    wait_for_socket(s); /* rshm_session_settle() */
    recv(SERVER, &bell, 1, 0);
    while (rshm_load_relaxed(&t->sent) < t->operations) {
        ssize_t n = traffic_write(t);
        int r = n < 0 ? (int)n : 0;
        t->waits_for = n == 0 ? RSHM_WANT_WRITE | RSHM_WANT_READ : RSHM_WANT_READ;
        if (n == 0)
            r = park(s, RSHM_WANT_WRITE | RSHM_WANT_READ);
        else if (one_in(3) && rshm_channel_drain(&t->ch, MSG_DONTWAIT) > 0)
            rshm_channel_answer_bell(&t->ch);
        if (r < 0) {
            s->result = r;
            return;
        }
        if (!one_in(3))
            continue;
        /* Nothing to say for now: parked, and the bells that come are answered, until nobody moves any more. */
        if (rshm_channel_arm(&t->ch, RSHM_WANT_READ))
            continue;
        do {
            if (rshm_channel_drain(&t->ch, MSG_DONTWAIT) > 0)
                rshm_channel_answer_bell(&t->ch);
            if (s->bells == 0)
                stop(RESTS);
        } while (s->bells > 0);
    }
}

/* An application with an event loop. It reads some of what is there when its socket is readable, and sometimes when it is not. */
static void client_with_an_event_loop(struct side *s)
{
    struct traffic_side *t = &s->traffic;
    redisContext context = {.flags = REDIS_CONNECTED};
    struct rshm_client client = {.context = &context};
    const char bell = RSHM_BELL;
    char chunk[3000];

    context.privctx = &client;
    context.funcs = (redisContextFuncs *)(uintptr_t)&rshm_client_funcs;
    client.channel = t->ch;
    send(CLIENT, &bell, 1, 0); /* attach() in handshake.c */
    rshm_client_opened(&client);
    for (;;) {
        t->waits_for = RSHM_WANT_READ;
        t->ch = client.channel; /* for standstill() */
        if (!one_in(4))
            wait_for_socket(s);
        t->waits_for = 0;
        do {
            ssize_t n = rshm_client_funcs.read(&context, chunk, one_in(2) ? sizeof chunk : 50);
            if (n < 0) {
                s->result = context.err == REDIS_ERR_EOF ? 0 : -EIO;
                t->ch = client.channel;
                return;
            }
            s->result = traffic_came(t, (const uint8_t *)chunk, (size_t)n);
            if (s->result < 0)
                return;
        } while (one_in(2));
    }
}

/* ---- the schedules ---- */

static void begin_side(int which, void (*program)(struct side *))
{
    struct side *s = &world.sides[which];
    struct traffic_side *t = &s->traffic;
    struct rshm_map map = world.map;
    char *stack = s->stack != NULL ? s->stack : malloc(STACK_BYTES);
    enum rshm_side side = which == SERVER ? RSHM_SERVER : RSHM_CLIENT;

    s->stack = stack;
    s->body = program;
    s->state = RUNS;
    s->stores = s->bells = 0;
    s->ended = false;
    s->result = 0;
    memset(t, 0, offsetof(struct traffic_side, out_chunk));
    traffic_begin(t, side, world.seed);
    t->operations = 12;
    t->sleep_every = 3;
    t->size_max = 6000; /* bytes: more than the ring has */
    t->big_every = world.big_every;
    t->looks = 30;
    t->waiting.limit = 12; /* steps */
    assert_int_equal(rshm_channel_init(&t->ch, side, &map, which), 0);
    assert_int_equal(getcontext(&s->context), 0);
    s->context.uc_stack.ss_sp = stack;
    s->context.uc_stack.ss_size = STACK_BYTES;
    makecontext(&s->context, body, 0);
#ifdef RSHM_TSAN
    s->fiber = __tsan_create_fiber(0);
#endif
}

static void begin_world(uint64_t seed)
{
    static const uint32_t chances[] = {2, 3, 6, 20, 100};
    const size_t fifo_bytes = (charfifo_memory_bytes(RING) + RSHM_PAGE - 1) & ~(size_t)(RSHM_PAGE - 1);

    world.seed = seed;
    world.dice = seed * 2 + 1;
    world.steps = 0;
    world.failure = NULL;
    world.turn = NOBODY;
    world.switch_every = chances[stress_random(&world.dice) % 5];
    world.arrive_every = chances[stress_random(&world.dice) % 5];
    world.big_every = chances[stress_random(&world.dice) % 5];
    world.memory_bytes = RSHM_PAGE + 2 * fifo_bytes;
    if (world.memory == NULL)
        world.memory = aligned_alloc(RSHM_PAGE, world.memory_bytes);
    memset(world.memory, 0x55, world.memory_bytes);
    memset(world.memory, 0, RSHM_PAGE);
    world.map = (struct rshm_map){.base = (void *)world.memory,
                                  .bytes = world.memory_bytes,
                                  .ring_bytes = RING,
                                  .request_off = RSHM_PAGE,
                                  .reply_off = RSHM_PAGE + fifo_bytes};
    charfifo_init(world.memory + world.map.request_off, fifo_bytes, RING, 0);
    charfifo_init(world.memory + world.map.reply_off, fifo_bytes, RING, (uint64_t)0 - 4 * RING); /* passes the wrap */
}

static void run_schedules(void (*server)(struct side *), void (*client)(struct side *), int server_result)
{
    const char *given = getenv("SEED"), *count = getenv("SCHEDULES");
    uint64_t seed = given != NULL ? strtoull(given, NULL, 0) : (uint64_t)time(NULL) << 20 ^ (uint64_t)getpid();
    uint64_t schedules = count != NULL ? strtoull(count, NULL, 0) : 5000, steps = 0;
    double start = stress_now_s();
#ifdef RSHM_TSAN
    world.fiber = __tsan_get_current_fiber();
    schedules /= 10;
#endif
    for (uint64_t i = 0; i < schedules; i++) {
        begin_world(seed + i);
        server_is_a_poller = one_in(2);
        begin_side(SERVER, server);
        begin_side(CLIENT, client);
        run_world();
        world.turn = NOBODY;
        struct side *s = &world.sides[SERVER], *c = &world.sides[CLIENT];
        if (world.failure == NULL && (s->result != server_result || c->result != 0))
            world.failure = "a side ended with an error";
        if (world.failure == NULL && (s->traffic.out_pos != c->traffic.in_pos || c->traffic.out_pos != s->traffic.in_pos))
            world.failure = "bytes are missing";
        if (world.failure != NULL)
            fail_msg("SEED=%" PRIu64 " SCHEDULES=1: %s (step %" PRIu64 "; server %d, client %d; %" PRIu64 " bytes out of %" PRIu64
                     " read by the client, %" PRIu64 " out of %" PRIu64 " by the server; flags %u %u, %u %u)",
                     seed + i, world.failure, world.steps, s->result, c->result, c->traffic.in_pos, s->traffic.out_pos, s->traffic.in_pos,
                     c->traffic.out_pos, rshm_load_relaxed(&world.map.base->request_wait.reader_waits),
                     rshm_load_relaxed(&world.map.base->request_wait.writer_waits),
                     rshm_load_relaxed(&world.map.base->reply_wait.reader_waits), rshm_load_relaxed(&world.map.base->reply_wait.writer_waits));
        steps += world.steps;
#ifdef RSHM_TSAN
        __tsan_destroy_fiber(s->fiber);
        __tsan_destroy_fiber(c->fiber);
#endif
    }
    double seconds = stress_now_s() - start;
    print_message("%" PRIu64 " schedules from SEED=%" PRIu64 ", %.0f a second, %" PRIu64 " steps each\n", schedules, seed,
                  (double)schedules / seconds, schedules == 0 ? 0 : steps / schedules);
}

static void a_client_and_a_server_that_sleep_always_wake_each_other(void **state)
{
    (void)state;
    run_schedules(server_of_requests, client_of_replies, -EPIPE);
}

static void a_reader_under_an_event_loop_is_told_of_every_message(void **state)
{
    (void)state;
    run_schedules(server_that_pushes, client_with_an_event_loop, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_client_and_a_server_that_sleep_always_wake_each_other),
        cmocka_unit_test(a_reader_under_an_event_loop_is_told_of_every_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
