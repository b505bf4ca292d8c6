/* bench_async.c - asynchronous clients: a thread has several connections in a libevent loop, each with some requests in flight. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include <event2/event.h>
#include <hiredis.h>
#include <async.h>
#include <adapters/libevent.h>

#include "hiredis_shm.h"
#include "tools/bench_load.h"

#define LOOK_UP_NS UINT64_C(20000000)         /* how long the loop may sleep before it sees whether to stop */
#define SPIN_BEFORE_DUE_NS UINT64_C(100000)   /* open loop: as bench_sync.c has it */
#define CONNECT_TIMEOUT_NS (UINT64_C(1000000000) * RSHM_ENDPOINT_TIMEOUT_S)

struct slot {
    uint64_t since_ns;
    struct rshm_expected expected;
};

struct client {
    redisAsyncContext *ac; /* NULL once hiredis has freed it */
    int fd;
    struct loop *loop;
    size_t number;
    struct rshm_generator generator;
    struct slot *slots;     /* a ring of `pipeline`: replies come in the order of the requests */
    size_t next, in_flight;
    uint64_t *ready_ns;     /* with pauses: when each place in the pipeline may be used again, a ring in order of time */
    size_t ready_first;
    uint64_t sent;          /* open loop: how many were due and sent */
    uint64_t idle_since_ns; /* open loop: since when it could have sent */
    bool greeted;
};

struct loop {
    struct rshm_load_worker *worker;
    struct event_base *base;
    struct event *wake;
    struct client *clients;
    size_t count, greeted, in_flight;
    uint64_t counted; /* sent, of the quota */
    bool ending, paced;
};

/* ---- connecting ---- */

static void fail(struct client *s, const char *what, const char *detail)
{
    char why[256];
    snprintf(why, sizeof why, "%s%s%s", what, detail[0] != '\0' ? ": " : "", detail);
    rshm_load_fail(s->loop->worker, -EIO, why);
}

static void on_end(const redisAsyncContext *ac, int status)
{
    struct client *s = ac->data;
    s->ac = NULL;
    if (status != REDIS_OK)
        fail(s, "the connection is lost", ac->errstr);
}

static void on_connect(const redisAsyncContext *ac, int status)
{
    struct client *s = ac->data;
    if (status == REDIS_OK)
        return;
    s->ac = NULL;
    fail(s, "cannot connect", ac->errstr);
}

/* Of whatever comes last in the greeting; what was refused before it has failed the run already. */
static void on_greeted(redisAsyncContext *ac, void *r, void *last)
{
    struct client *s = ac->data;
    redisReply *reply = r;
    if (reply == NULL)
        return;
    /* As in rshm_endpoint_connect(), which has let the same through: a user may be kept from PING, and a password by the environment is
     * for servers that want one. */
    bool harmless = reply->type == REDIS_REPLY_ERROR &&
                    (strncmp(reply->str, "NOPERM", 6) == 0 || strstr(reply->str, "without any password") != NULL);
    if (reply->type == REDIS_REPLY_ERROR && !harmless) {
        fail(s, "the server refuses", reply->str);
    } else if (last != NULL && !s->greeted) {
        s->greeted = true;
        s->loop->greeted++;
    }
}

static void on_memory(redisAsyncContext *ac, void *r, void *last)
{
    struct client *s = ac->data;
    redisReply *reply = r;
    if (reply != NULL && reply->type == REDIS_REPLY_ERROR) {
        fail(s, "no shared memory", reply->str);
        return;
    }
    on_greeted(ac, r, last);
    if (s->greeted && redisSetSharedMemoryWaiting(&ac->c, s->loop->worker->load->row->mode) != REDIS_OK)
        fail(s, "no shared memory", "");
}

static int greet(struct client *s, const struct rshm_endpoint *e, enum rshm_transport t)
{
    redisAsyncContext *ac = s->ac;
    bool password = e->password != NULL;
    void *last = t == RSHM_MEMORY ? NULL : s;
    char db[16];
    int r = REDIS_OK;
    snprintf(db, sizeof db, "%d", e->db);
    if (e->resp == 3)
        r = password ? redisAsyncCommand(ac, on_greeted, NULL, "HELLO 3 AUTH %s %s", e->user != NULL ? e->user : "default", e->password)
                     : redisAsyncCommand(ac, on_greeted, NULL, "HELLO 3");
    else if (password && e->user != NULL)
        r = redisAsyncCommand(ac, on_greeted, NULL, "AUTH %s %s", e->user, e->password);
    else if (password)
        r = redisAsyncCommand(ac, on_greeted, NULL, "AUTH %s", e->password);
    if (r == REDIS_OK)
        r = e->db != 0 ? redisAsyncCommand(ac, on_greeted, last, "SELECT %s", db) : redisAsyncCommand(ac, on_greeted, last, "PING");
    return r;
}

static int open_client(struct client *s)
{
    const struct rshm_load *l = s->loop->worker->load;
    const enum rshm_transport t = l->row->transport;
    const struct rshm_endpoint *e = &l->bench->endpoints[t];
    redisOptions options = {0};
    if (e->path != NULL && t != RSHM_TCP)
        REDIS_OPTIONS_SET_UNIX(&options, e->path);
    else
        REDIS_OPTIONS_SET_TCP(&options, e->host, e->port);
    s->ac = redisAsyncConnectWithOptions(&options);
    if (s->ac == NULL)
        return -ENOMEM;
    s->ac->data = s;
    if (s->ac->err != 0) {
        snprintf(s->loop->worker->why, sizeof s->loop->worker->why, "cannot connect: %s", s->ac->errstr);
        redisAsyncFree(s->ac);
        s->ac = NULL;
        return -ECONNREFUSED;
    }
    s->fd = s->ac->c.fd;
    if (redisLibeventAttach(s->ac, s->loop->base) != REDIS_OK || redisAsyncSetConnectCallback(s->ac, on_connect) != REDIS_OK ||
        redisAsyncSetDisconnectCallback(s->ac, on_end) != REDIS_OK || greet(s, e, t) != REDIS_OK)
        return -ENOMEM;
    return 0;
}

/* Shared memory is asked for when every reply before has come. */
static void ask_for_memory(struct loop *o)
{
    for (size_t i = 0; i < o->count; i++)
        if (o->clients[i].ac != NULL && redisAsyncUseSharedMemory(o->clients[i].ac, on_memory, &o->clients[i]) != REDIS_OK)
            fail(&o->clients[i], "no shared memory", o->clients[i].ac->errstr);
}

static int wait_greeted(struct loop *o, uint64_t deadline_ns)
{
    struct rshm_load_worker *w = o->worker;
    const struct timeval tick = {.tv_usec = 20000};
    while (o->greeted < o->count && w->result == 0) {
        if (rshm_now_ns() > deadline_ns) {
            snprintf(w->why, sizeof w->why, "no answer within %d s", RSHM_ENDPOINT_TIMEOUT_S);
            return -ETIMEDOUT;
        }
        event_add(o->wake, &tick);
        event_base_loop(o->base, EVLOOP_ONCE);
    }
    return w->result;
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what, (void)arg;
}

/* Timers end up to a millisecond late, or exact at the price of a system call each. */
static struct event_base *new_base(bool exact)
{
    struct event_config *c = event_config_new();
    struct event_base *base = NULL;
    if (c != NULL && (!exact || event_config_set_flag(c, EVENT_BASE_FLAG_PRECISE_TIMER) == 0))
        base = event_base_new_with_config(c);
    if (c != NULL)
        event_config_free(c);
    return base;
}

static int connect_clients(struct rshm_load_worker *w)
{
    const struct rshm_load *l = w->load;
    const size_t depth = l->row->pipeline;
    struct loop *o = calloc(1, sizeof *o);
    w->driver = o;
    if (o == NULL)
        return -ENOMEM;
    o->worker = w;
    o->paced = l->row->rate > 0 || l->think_ns > 0;
    o->base = new_base(o->paced);
    o->wake = o->base != NULL ? event_new(o->base, -1, EV_PERSIST, on_wake, NULL) : NULL;
    o->clients = calloc(w->clients, sizeof *o->clients);
    if (o->wake == NULL || o->clients == NULL)
        return -ENOMEM;
    prctl(PR_SET_TIMERSLACK, 1ul);
    for (; o->count < w->clients; o->count++) {
        struct client *s = &o->clients[o->count];
        s->loop = o;
        s->fd = -1;
        s->number = w->first_client + o->count;
        s->slots = calloc(depth, sizeof *s->slots);
        s->ready_ns = calloc(depth, sizeof *s->ready_ns);
        if (s->slots == NULL || s->ready_ns == NULL ||
            rshm_generator_init(&s->generator, &l->bench->workload, &l->row->size, s->number, l->row->clients) < 0)
            return o->count++, -ENOMEM;
        int r = open_client(s);
        if (r < 0)
            return o->count++, r;
    }
    uint64_t deadline_ns = rshm_now_ns() + CONNECT_TIMEOUT_NS;
    if (l->row->transport != RSHM_MEMORY)
        return wait_greeted(o, deadline_ns);
    /* Nothing is `last` yet: the loop runs until nothing is unanswered. */
    for (size_t i = 0; i < o->count; i++)
        while (o->clients[i].ac != NULL && o->clients[i].ac->replies.head != NULL && w->result == 0 && rshm_now_ns() < deadline_ns) {
            const struct timeval tick = {.tv_usec = 20000};
            event_add(o->wake, &tick);
            event_base_loop(o->base, EVLOOP_ONCE);
        }
    if (w->result == 0)
        ask_for_memory(o);
    return wait_greeted(o, deadline_ns);
}

/* ---- load ---- */

static void on_reply(redisAsyncContext *ac, void *reply, void *privdata);

static void send_one(struct client *s, uint64_t since_ns)
{
    struct loop *o = s->loop;
    const char *bytes;
    struct slot *slot = &s->slots[s->next];
    size_t n = rshm_generator_next(&s->generator, &bytes, &slot->expected);
    slot->since_ns = since_ns;
    if (n == 0 || redisAsyncFormattedCommand(s->ac, on_reply, s, bytes, n) != REDIS_OK) {
        fail(s, "cannot send", n == 0 ? "out of memory" : s->ac->errstr);
        return;
    }
    s->next = s->next + 1 < o->worker->load->row->pipeline ? s->next + 1 : 0;
    s->in_flight++;
    o->in_flight++;
    o->counted += since_ns >= o->worker->load->begin_ns;
}

/* When this connection's next request may go; UINT64_MAX: not before a reply comes, or never. */
static uint64_t next_due_ns(const struct client *s)
{
    const struct rshm_load *l = s->loop->worker->load;
    if (s->ac == NULL || s->in_flight >= l->row->pipeline || s->loop->ending)
        return UINT64_MAX;
    if (l->interval_ns > 0) {
        uint64_t due_ns = rshm_load_due_ns(l, s->number, s->sent);
        return due_ns < l->end_ns ? due_ns : UINT64_MAX;
    }
    return l->think_ns > 0 ? s->ready_ns[s->ready_first] : 0;
}

static void send_due(struct client *s, uint64_t now_ns)
{
    struct loop *o = s->loop;
    struct rshm_load_worker *w = o->worker;
    const struct rshm_load *l = w->load;
    for (uint64_t due_ns; w->result == 0 && (due_ns = next_due_ns(s)) <= now_ns;) {
        if (o->counted >= w->quota) {
            o->ending = true;
            return;
        }
        if (l->interval_ns > 0) {
            if (due_ns >= l->begin_ns && due_ns >= s->idle_since_ns) { /* nothing but this loop has kept it */
                w->late_ns += now_ns - due_ns;
                w->late_max_ns = now_ns - due_ns > w->late_max_ns ? now_ns - due_ns : w->late_max_ns;
            }
            s->sent++;
            send_one(s, due_ns);
        } else {
            s->ready_first = s->ready_first + 1 < l->row->pipeline ? s->ready_first + 1 : 0;
            send_one(s, rshm_now_ns());
        }
    }
}

static void on_reply(redisAsyncContext *ac, void *r, void *privdata)
{
    const uint64_t now_ns = rshm_now_ns();
    struct client *s = privdata;
    struct loop *o = s->loop;
    struct rshm_load_worker *w = o->worker;
    const struct rshm_load *l = w->load;
    const size_t depth = l->row->pipeline;
    struct slot *slot = &s->slots[(s->next + depth - s->in_flight) % depth];
    (void)ac;
    if (r == NULL) /* the connection ends: on_end() tells */
        return;
    if (s->in_flight == depth)
        s->idle_since_ns = now_ns;
    if (slot->since_ns >= l->begin_ns) {
        rshm_load_record(w, slot->since_ns, now_ns);
        rshm_load_judge(w, &s->generator, &slot->expected, r);
    }
    s->ready_ns[(s->ready_first + depth - s->in_flight) % depth] = now_ns + l->think_ns;
    s->in_flight--;
    o->in_flight--;
    if (now_ns >= l->end_ns && l->interval_ns == 0)
        o->ending = true;
    if (atomic_load_explicit(&l->stop, memory_order_relaxed))
        o->ending = true;
    if (!o->paced && !o->ending)
        send_due(s, now_ns);
}

/* Lets each connection's reply come for its part of the time. */
static bool spin(struct loop *o)
{
    const struct rshm_load *l = o->worker->load;
    unsigned us = (unsigned)l->bench->options->spin_us;
    bool ran = false;
    if (l->row->transport != RSHM_MEMORY || us == 0)
        return false;
    us = us / o->count > 0 ? (unsigned)(us / o->count) : 1;
    for (size_t i = 0; i < o->count && o->worker->result == 0; i++)
        if (o->clients[i].ac != NULL && o->clients[i].in_flight > 0)
            ran |= redisAsyncSharedMemorySpin(o->clients[i].ac, us) == 1;
    return ran;
}

/* The earliest time at which something is to be sent. */
static uint64_t send_all_due(struct loop *o)
{
    uint64_t first_ns = UINT64_MAX, now_ns = rshm_now_ns();
    for (size_t i = 0; i < o->count; i++) {
        send_due(&o->clients[i], now_ns);
        uint64_t due_ns = next_due_ns(&o->clients[i]);
        first_ns = due_ns < first_ns ? due_ns : first_ns;
    }
    return first_ns;
}

static bool is_over(struct loop *o)
{
    struct rshm_load_worker *w = o->worker;
    const struct rshm_load *l = w->load;
    if (w->result != 0 || atomic_load_explicit(&l->stop, memory_order_relaxed))
        return true;
    if (o->ending)
        return o->in_flight == 0;
    const uint64_t now_ns = rshm_now_ns();
    if (now_ns < l->end_ns)
        return false;
    if (l->interval_ns == 0 || now_ns > l->end_ns + RSHM_LOAD_GRACE_NS) {
        o->ending = true;
    } else {
        for (size_t i = 0; i < o->count; i++) /* until what was due is sent */
            if (rshm_load_due_ns(l, o->clients[i].number, o->clients[i].sent) < l->end_ns)
                return false;
        o->ending = true;
    }
    return o->in_flight == 0;
}

static void set_wake(struct loop *o, uint64_t ns)
{
    const struct timeval t = {.tv_sec = (time_t)(ns / 1000000000u), .tv_usec = (suseconds_t)(ns % 1000000000u / 1000 + 1)};
    event_add(o->wake, &t);
}

/* How long the loop may sleep when the next request is due at due_ns. */
static uint64_t sleep_until_due_ns(const struct loop *o, uint64_t due_ns)
{
    const struct rshm_load *l = o->worker->load;
    const uint64_t now_ns = rshm_now_ns(), awake_ns = l->interval_ns > 0 ? SPIN_BEFORE_DUE_NS : 0;
    uint64_t ns = LOOK_UP_NS;
    if (!o->ending && l->end_ns > now_ns && l->end_ns - now_ns < ns)
        ns = l->end_ns - now_ns;
    if (due_ns <= now_ns + awake_ns)
        return 0;
    return due_ns - now_ns - awake_ns < ns ? due_ns - now_ns - awake_ns : ns;
}

static void load_clients(struct rshm_load_worker *w)
{
    struct loop *o = w->driver;
    const struct rshm_load *l = w->load;
    if (!o->paced)
        set_wake(o, LOOK_UP_NS); /* again and again; replies come all the time, and the end is seen with them */
    send_all_due(o);
    while (!is_over(o)) {
        uint64_t due_ns = o->paced ? send_all_due(o) : UINT64_MAX, sleep_ns = LOOK_UP_NS;
        if (spin(o)) {
            event_base_loop(o->base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
            continue;
        }
        if (o->paced && (sleep_ns = sleep_until_due_ns(o, due_ns)) > 0)
            set_wake(o, sleep_ns);
        event_base_loop(o->base, EVLOOP_ONCE | (sleep_ns == 0 ? EVLOOP_NONBLOCK : 0));
    }
    for (size_t i = 0; i < o->count && l->interval_ns > 0 && w->result == 0; i++)
        for (uint64_t n = o->clients[i].sent; l->end_ns != UINT64_MAX && rshm_load_due_ns(l, o->clients[i].number, n) < l->end_ns; n++)
            w->unsent++;
}

static void abort_clients(struct rshm_load_worker *w)
{
    struct loop *o = w->driver;
    for (size_t i = 0; o != NULL && i < o->count; i++)
        if (o->clients[i].fd >= 0)
            shutdown(o->clients[i].fd, SHUT_RDWR);
}

static void close_clients(struct rshm_load_worker *w)
{
    struct loop *o = w->driver;
    if (o == NULL)
        return;
    for (size_t i = 0; i < o->count; i++) {
        struct client *s = &o->clients[i];
        if (s->ac != NULL) {
            s->ac->onDisconnect = NULL; /* it is meant to end */
            s->ac->onConnect = NULL;
            redisAsyncFree(s->ac);
        }
        rshm_generator_free(&s->generator);
        free(s->slots);
        free(s->ready_ns);
    }
    if (o->wake != NULL)
        event_free(o->wake);
    if (o->base != NULL)
        event_base_free(o->base);
    free(o->clients);
    free(o);
}

const struct rshm_load_driver rshm_load_async = {connect_clients, load_clients, abort_clients, close_clients};
