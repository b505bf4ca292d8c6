/* bench_round.c - one round of one row: starts the threads that make load, sets their clock, and takes the figures of both processes. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <hiredis.h>

#include "tools/bench_load.h"
#include "tools/hdrlog.h"
#include "tools/stop.h"
#include "tools/tools.h"

#define PROGRESS_EVERY_NS UINT64_C(250000000)
#define PROGRESS_ELSEWHERE_NS UINT64_C(4000000000) /* not on a terminal: a line now and then */
#define START_NS UINT64_C(2000000)  /* from the word that all are connected to the beginning: threads wake up meanwhile */
#define STOP_PATIENCE_NS UINT64_C(300000000)
#define END_PATIENCE_NS (UINT64_C(1000000000) * (RSHM_LOAD_REPLY_TIMEOUT_S + 5))
#define STACK_BYTES (512 * 1024)

void rshm_load_fail(struct rshm_load_worker *w, int result, const char *why)
{
    if (w->result != 0)
        return;
    snprintf(w->why, sizeof w->why, "%s", why);
    w->result = result;
    atomic_store(&w->load->stop, true);
}

void rshm_load_judge(struct rshm_load_worker *w, const struct rshm_generator *g, const struct rshm_expected *e, const redisReply *reply)
{
    enum rshm_verdict v = rshm_reply_judge(g, e, reply, w->load->bench->options->verify);
    if (__builtin_expect(v == RSHM_REPLY_RIGHT, 1))
        return;
    if (w->error_replies + w->wrong_replies == 0)
        rshm_reply_explain(e, reply, w->first_error, sizeof w->first_error);
    if (v == RSHM_REPLY_ERROR)
        w->error_replies++;
    else
        w->wrong_replies++;
}

/* ---- figures of processes ---- */

struct usage {
    uint64_t client_cpu_ns, server_cpu_ns, client_switches, server_switches;
};

static void take_usage(const struct rshm_bench *b, struct usage *u)
{
    struct rusage own;
    *u = (struct usage){.client_cpu_ns = rshm_process_cpu_ns(0)};
    if (getrusage(RUSAGE_SELF, &own) == 0)
        u->client_switches = (uint64_t)own.ru_nvcsw + (uint64_t)own.ru_nivcsw;
    if (b->server_pid > 0) {
        u->server_cpu_ns = rshm_process_cpu_ns((pid_t)b->server_pid);
        u->server_switches = rshm_process_switches((pid_t)b->server_pid);
    }
}

/* ---- threads ---- */

static const struct rshm_load_driver *driver_of(const struct rshm_load *l)
{
    return l->bench->options->async ? &rshm_load_async : &rshm_load_sync;
}

static void wait_for(sem_t *s, size_t times)
{
    while (times > 0)
        if (sem_wait(s) == 0)
            times--; /* else a signal: connecting takes a bounded time */
}

static void *work(void *arg)
{
    struct rshm_load_worker *w = arg;
    struct rshm_load *l = w->load;
    rshm_histogram_reset(&w->latency); /* touches its pages, so that no request waits for one */
    w->result = driver_of(l)->connect(w);
    sem_post(&l->connected);
    wait_for(&l->go, 1);
    const struct timespec begin = {.tv_sec = (time_t)(l->warm_ns / 1000000000u), .tv_nsec = (long)(l->warm_ns % 1000000000u)};
    if (!l->cancelled) {
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &begin, NULL); /* all at once; and without a warm-up every request counts */
        driver_of(l)->load(w);
    }
    if (atomic_fetch_sub(&l->running, 1) == 1)
        sem_post(&l->ended);
    return NULL;
}

/* Signals are the main thread's: it is the one that can end the others. Returns how many have started; all or an error is told. */
static size_t start_threads(struct rshm_load_worker *workers, size_t count)
{
    sigset_t all, before;
    pthread_attr_t attributes;
    size_t started = 0;
    int error = 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    while (started < count && (error = pthread_create(&workers[started].thread, &attributes, work, &workers[started])) == 0)
        started++;
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0)
        rshm_complain("cannot start a thread for each client: %s; use fewer, or --client async", strerror(error));
    return started;
}

/* ---- progress ---- */

static void show(const struct rshm_load *l, const struct rshm_load_worker *workers, size_t count, struct rshm_bench_progress *p)
{
    const struct rshm_bench_row *row = l->row;
    uint64_t now_ns = rshm_now_ns(), done = 0;
    if (p->quiet || now_ns - p->last_ns < (p->terminal ? PROGRESS_EVERY_NS : PROGRESS_ELSEWHERE_NS))
        return;
    p->last_ns = now_ns;
    for (size_t i = 0; i < count; i++)
        done += atomic_load_explicit(&workers[i].done, memory_order_relaxed);
    double rate = now_ns > l->begin_ns ? (double)done * 1e9 / (double)(now_ns - l->begin_ns) : 0, left_s;
    if (l->end_ns != UINT64_MAX)
        left_s = (double)(l->end_ns > now_ns ? l->end_ns - now_ns : 0) / 1e9;
    else
        left_s = rate > 0 ? fmax(0, (double)workers[0].quota * (double)count - (double)done) / rate : 0;
    fprintf(stderr, "%sround %zu of %.0f, row %zu of %zu: %s, %zu client%s, %.0f requests/s, about %.0f s left%s", p->terminal ? "\r\033[K" : "",
            p->round + 1, l->bench->options->rounds, p->row + 1, l->bench->row_count, rshm_transport_id(row->transport), row->clients,
            row->clients == 1 ? "" : "s", rate, left_s + p->rounds_left_s, p->terminal ? "" : "\n");
    fflush(stderr);
}

/* ---- the round ---- */

/* Until the worker threads have ended, or `until_ns`. Returns true if they have. */
static bool wait_ended(struct rshm_load *l, uint64_t until_ns)
{
    const struct timespec t = {.tv_sec = (time_t)(until_ns / 1000000000u), .tv_nsec = (long)(until_ns % 1000000000u)};
    return sem_clockwait(&l->ended, CLOCK_MONOTONIC, &t) == 0;
}

/* The clock runs: until the end, whatever brings it about. */
static void watch(struct rshm_load *l, struct rshm_load_worker *workers, size_t count, struct usage *before, struct usage *after,
                  struct rshm_bench_progress *progress)
{
    uint64_t stop_at_ns = 0;
    bool ended = false, aborted = false, begun = false;
    while (!ended) {
        uint64_t now_ns = rshm_now_ns(), until_ns = now_ns + PROGRESS_EVERY_NS;
        if (!begun && now_ns >= l->begin_ns) {
            take_usage(l->bench, before);
            begun = true;
        }
        if (!begun && l->begin_ns < until_ns)
            until_ns = l->begin_ns;
        if (stop_at_ns == 0 && (rshm_stop_signal() != 0 || atomic_load(&l->stop))) {
            atomic_store(&l->stop, true);
            stop_at_ns = now_ns;
        }
        if (!aborted && ((stop_at_ns != 0 && now_ns > stop_at_ns + STOP_PATIENCE_NS) ||
                         (l->end_ns != UINT64_MAX && now_ns > l->end_ns + END_PATIENCE_NS))) {
            for (size_t i = 0; i < count; i++)
                driver_of(l)->abort(&workers[i]);
            aborted = true;
        }
        if (begun)
            show(l, workers, count, progress);
        ended = wait_ended(l, stop_at_ns != 0 && !aborted ? now_ns + STOP_PATIENCE_NS + 1 : until_ns);
    }
    if (!begun)
        take_usage(l->bench, before);
    take_usage(l->bench, after);
}

static int keep_round(struct rshm_bench *b, struct rshm_bench_row *row, const struct rshm_load *l, const struct rshm_load_worker *workers,
                      size_t count, const struct usage *before, const struct usage *after)
{
    struct rshm_histogram sum;
    struct rshm_bench_round round = {
        .partial = rshm_stop_signal() != 0,
        .begin_s = (double)(l->begin_ns - b->start_ns) / 1e9,
        .client_cpu_ns = after->client_cpu_ns - before->client_cpu_ns, .server_cpu_ns = after->server_cpu_ns - before->server_cpu_ns,
        .client_switches = after->client_switches - before->client_switches,
        .server_switches = after->server_switches - before->server_switches,
    };
    uint64_t last_ns = l->begin_ns;
    int r = rshm_histogram_init(&sum);
    if (r < 0)
        return r;
    for (size_t i = 0; i < count; i++) {
        const struct rshm_load_worker *w = &workers[i];
        rshm_histogram_merge(&sum, &w->latency);
        last_ns = w->last_ns > last_ns ? w->last_ns : last_ns;
        round.unsent += w->unsent;
        round.late_ns += w->late_ns;
        round.late_max_ns = w->late_max_ns > round.late_max_ns ? w->late_max_ns : round.late_max_ns;
        if (row->error_replies + row->wrong_replies == 0)
            memcpy(row->first_error, w->first_error, sizeof row->first_error);
        row->error_replies += w->error_replies;
        row->wrong_replies += w->wrong_replies;
    }
    round.requests = rshm_histogram_count(&sum);
    /* Nobody was at work in the rest of the time, in a pause or until the next request was due: it counts all the same. */
    if (!round.partial && l->end_ns != UINT64_MAX && last_ns < l->end_ns)
        last_ns = l->end_ns;
    round.elapsed_ns = last_ns - l->begin_ns;
    if (round.requests > 0 && round.elapsed_ns > 0) {
        round.p50_ns = rshm_histogram_percentile_ns(&sum, 0.5);
        round.p99_ns = rshm_histogram_percentile_ns(&sum, 0.99);
        round.max_ns = rshm_histogram_max(&sum);
        rshm_histogram_merge(&row->latency, &sum);
        if (b->options->hdr_log != NULL)
            r = rshm_hdrlog_encode(&sum, &round.encoded);
        if (r == 0)
            row->rounds[row->round_count++] = round;
    } else if (rshm_stop_signal() == 0) {
        rshm_complain("no request was answered within a round of %s: a longer --seconds, or a higher --rate, makes some", rshm_transport_name(row->transport));
        r = -ETIMEDOUT;
    }
    rshm_histogram_free(&sum);
    return r;
}

static int report_failure(const struct rshm_load *l, const struct rshm_load_worker *workers, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (workers[i].result < 0) {
            rshm_complain("%s: %s", rshm_transport_name(l->row->transport), workers[i].why[0] != '\0' ? workers[i].why : strerror(-workers[i].result));
            return workers[i].result;
        }
    return 0;
}

static int run_threads(struct rshm_bench *b, struct rshm_bench_row *row, struct rshm_load *l, struct rshm_load_worker *workers, size_t count,
                       double round_s, struct rshm_bench_progress *progress)
{
    struct usage before, after;
    const size_t started = start_threads(workers, count);
    wait_for(&l->connected, started);
    int r = started < count ? -EAGAIN : report_failure(l, workers, count);
    const bool cancelled = r < 0 || rshm_stop_signal() != 0;
    l->cancelled = cancelled;
    l->warm_ns = rshm_now_ns() + START_NS;
    l->begin_ns = l->warm_ns + (uint64_t)(b->options->warmup_s * 1e9);
    l->end_ns = round_s > 0 ? l->begin_ns + (uint64_t)(round_s * 1e9) : UINT64_MAX;
    for (size_t i = 0; i < started; i++)
        sem_post(&l->go);
    if (!cancelled)
        watch(l, workers, count, &before, &after, progress);
    for (size_t i = 0; i < started; i++)
        pthread_join(workers[i].thread, NULL);
    if (cancelled)
        return r;
    if (rshm_stop_signal() == 0)
        r = report_failure(l, workers, count);
    return r < 0 ? r : keep_round(b, row, l, workers, count, &before, &after);
}

int rshm_bench_round_run(struct rshm_bench *b, struct rshm_bench_row *row, double round_s, uint64_t round_requests,
                         struct rshm_bench_progress *progress)
{
    const size_t count = row->threads;
    struct rshm_load l = {
        .bench = b, .row = row, .running = count, .think_ns = (uint64_t)(row->think_us * 1e3),
        .interval_ns = row->rate > 0 ? (double)row->clients * 1e9 / row->rate : 0,
    };
    struct rshm_load_worker *workers = aligned_alloc(_Alignof(struct rshm_load_worker), count * sizeof *workers);
    int r = workers == NULL ? -ENOMEM : 0;
    if (r == 0)
        memset(workers, 0, count * sizeof *workers);
    for (size_t i = 0, next = 0; r == 0 && i < count; i++) {
        struct rshm_load_worker *w = &workers[i];
        w->load = &l;
        w->index = i;
        w->first_client = next;
        w->clients = row->clients / count + (i < row->clients % count);
        w->quota = round_requests == 0 ? UINT64_MAX : round_requests / count + (i < round_requests % count);
        next += w->clients;
        r = rshm_histogram_init(&w->latency);
    }
    if (r == 0) {
        sem_init(&l.connected, 0, 0);
        sem_init(&l.go, 0, 0);
        sem_init(&l.ended, 0, 0);
        r = run_threads(b, row, &l, workers, count, round_s, progress);
        sem_destroy(&l.ended);
        sem_destroy(&l.go);
        sem_destroy(&l.connected);
    } else {
        rshm_complain("no memory for %zu clients", row->clients);
    }
    for (size_t i = 0; workers != NULL && i < count; i++) {
        driver_of(&l)->close(&workers[i]);
        rshm_histogram_free(&workers[i].latency);
    }
    free(workers);
    return r;
}
