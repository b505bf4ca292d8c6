/* report.c - counts; see report.h. */
#include "preload/report.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "preload/conn.h"
#include "preload/real.h"

static struct rshm_report *report;

static void map_report(void)
{
    if (rshm_preload_settings.report == NULL)
        return;
    int fd = open(rshm_preload_settings.report, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return; /* `redis-shm run` has ended, or this process may not look at it: nobody to count for */
    void *p = mmap(NULL, sizeof *report, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    rshm_real()->close(fd);
    if (p != MAP_FAILED)
        report = p;
}

static struct rshm_report *mapped(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, map_report);
    return report;
}

/* Only for whoever waits for the figures: else nothing happens at start. */
__attribute__((constructor)) static void tell_that_it_is_loaded(void)
{
    struct rshm_report *r = rshm_preload_settings.report == NULL ? NULL : mapped();
    if (r != NULL)
        atomic_fetch_add(&r->loaded, 1);
}

void rshm_report_upgraded(int endpoint)
{
    struct rshm_report *r = mapped();
    if (r != NULL)
        atomic_fetch_add(&r->endpoints[endpoint].upgraded, 1);
}

void rshm_report_passed_on(void)
{
    struct rshm_report *r = mapped();
    if (r != NULL)
        atomic_fetch_add(&r->passed_on, 1);
}

void rshm_report_refused(int endpoint, const char *why)
{
    struct rshm_report *r = mapped();
    if (r == NULL)
        return;
    atomic_fetch_add(&r->endpoints[endpoint].not_upgraded, 1);
    while (rshm_exchange(&r->lock, 1u) != 0)
        usleep(10);
    uint32_t i = 0;
    while (i < r->reasons && (r->reason[i].endpoint != endpoint || strncmp(r->reason[i].text, why, RSHM_REASON_TEXT - 1) != 0))
        i++;
    if (i >= RSHM_REASONS_MAX)
        i = RSHM_REASONS_MAX - 1;
    if (i >= r->reasons) {
        r->reasons = i + 1;
        r->reason[i].endpoint = endpoint;
        snprintf(r->reason[i].text, RSHM_REASON_TEXT, "%s", i == RSHM_REASONS_MAX - 1 ? "other reasons" : why);
    }
    r->reason[i].count++;
    rshm_store_release(&r->lock, 0u); /* pairs with the exchange above */
}

void rshm_report_moved(struct rshm_conn *c)
{
    struct rshm_report *r = report;
    if (r == NULL)
        return;
    struct rshm_report_endpoint *e = &r->endpoints[c->endpoint];
    const struct rshm_channel_stats *now = &c->ch.stats;
    struct rshm_channel_stats *told = &c->told;
#define ADD(what) \
    do { \
        uint64_t v = rshm_load_relaxed(&now->what), was = rshm_load_relaxed(&told->what); /* of one thread at a time: the lock */ \
        if (v != was) { \
            atomic_fetch_add(&e->what, v - was); \
            rshm_store_relaxed(&told->what, v); \
        } \
    } while (0)
    ADD(bytes_in);
    ADD(bytes_out);
    ADD(messages_in);
    ADD(messages_out);
    ADD(bells_sent);
    ADD(bells_received);
    ADD(spin_hits);
    ADD(spin_misses);
#undef ADD
}
