/* intrinsic.c - how steady this machine is without any server; see latency.h. */
#include "channel/clock.h"
#include "tools/latency.h"
#include "tools/stop.h"

#define THRESHOLD_NS 1000 /* two reads of the clock are 20 to 50 ns apart, an interrupt takes microseconds */
#define CALIBRATION_READS 1000

int rshm_intrinsic_measure(struct rshm_intrinsic *i, double seconds)
{
    *i = (struct rshm_intrinsic){0};
    int r = rshm_histogram_init(&i->absences);
    if (r < 0)
        return r;
    uint64_t nearest_ns = UINT64_MAX, away_ns = 0, begin_ns, last_ns = rshm_now_ns(), now_ns;
    for (int n = 0; n < CALIBRATION_READS; n++) {
        now_ns = rshm_now_ns();
        if (now_ns - last_ns < nearest_ns)
            nearest_ns = now_ns - last_ns;
        last_ns = now_ns;
    }
    i->threshold_ns = 10 * nearest_ns > THRESHOLD_NS ? 10 * nearest_ns : THRESHOLD_NS; /* a clock may be slow in a virtual machine */
    uint64_t end_ns = last_ns + (uint64_t)(seconds * 1e9);
    begin_ns = last_ns;
    do {
        now_ns = rshm_now_ns();
        i->reads++;
        if (now_ns - last_ns >= i->threshold_ns) {
            rshm_histogram_record(&i->absences, now_ns - last_ns);
            away_ns += now_ns - last_ns;
        }
        last_ns = now_ns;
    } while (now_ns < end_ns && rshm_stop_signal() == 0);
    i->seconds = (double)(last_ns - begin_ns) / 1e9;
    i->away_share = i->seconds > 0 ? (double)away_ns / (i->seconds * 1e9) : 0;
    return 0;
}

void rshm_intrinsic_free(struct rshm_intrinsic *i)
{
    rshm_histogram_free(&i->absences);
    *i = (struct rshm_intrinsic){0};
}
