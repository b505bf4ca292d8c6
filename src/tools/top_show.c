/* top_show.c - the table and the JSON of redis-shm top; see top.h. */
#include <inttypes.h>
#include <string.h>

#include "tools/json.h"
#include "tools/top.h"

struct page {
    FILE *to;
    int lines, columns; /* 0: any */
    int printed;
};

/* Prints a line as far as it fits. False: the page is full. */
static bool line(struct page *p, const char *text, bool bold)
{
    if (p->lines > 0 && p->printed >= p->lines)
        return false;
    int n = (int)strlen(text);
    if (p->columns > 0 && n > p->columns)
        n = p->columns;
    /* On a screen the last line has no newline: it would scroll. */
    const char *end = p->lines == 0 ? "\n" : p->printed + 1 < p->lines ? "\033[K\n" : "\033[K";
    fprintf(p->to, "%s%.*s%s%s", bold ? "\033[1m" : "", n, text, bold ? "\033[0m" : "", end);
    p->printed++;
    return true;
}

/* 999, 12.3k, 4.56M: six characters. */
static const char *amount(double v, char text[16])
{
    static const char units[] = " kMGT";
    int unit = 0;
    while (v >= 999.5 && unit < 4) {
        v /= 1000;
        unit++;
    }
    if (unit == 0)
        snprintf(text, 16, v > 0 && v < 9.95 ? "%.1f" : "%.0f", v);
    else
        snprintf(text, 16, "%.*f%c", v < 9.995 ? 2 : v < 99.95 ? 1 : 0, v, units[unit]);
    return text;
}

static uint64_t value_of(const struct rshm_top_look *look, const char *name)
{
    const struct rshm_top_figure *f = rshm_top_figure(look, name);
    return f != NULL ? f->value : 0;
}

static double rate_of(const struct rshm_top_look *look, const char *name)
{
    const struct rshm_top_figure *f = rshm_top_figure(look, name);
    return f != NULL ? f->per_s : 0;
}

static double fill_percent(uint64_t backlog_bytes, uint64_t ring_bytes)
{
    return ring_bytes > 0 ? 100.0 * (double)backlog_bytes / (double)ring_bytes : 0;
}

static void print_head(struct page *p, const struct rshm_top_look *look, const char *where, const char *version, bool bold)
{
    char text[256], a[6][16], cpus[32] = "";
    if (look->server_cpus >= 0)
        snprintf(cpus, sizeof cpus, ", %.0f %% of a CPU", look->server_cpus * 100);
    snprintf(text, sizeof text, "%s at %s%s", version, where, cpus);
    line(p, text, bold);
    snprintf(text, sizeof text, "sessions %" PRIu64 " (%" PRIu64 " hot), memory %.1f MiB, opened %" PRIu64 ", refused %" PRIu64,
             value_of(look, "sessions"), value_of(look, "sessions_hot"), (double)value_of(look, "memory_bytes") / (1 << 20),
             value_of(look, "sessions_opened"), value_of(look, "refused"));
    line(p, text, false);
    snprintf(text, sizeof text, "a second: requests %s, bytes in %s, out %s, doorbells in %s, out %s, spins in vain %s",
             amount(rate_of(look, "messages_in"), a[0]), amount(rate_of(look, "bytes_in"), a[1]), amount(rate_of(look, "bytes_out"), a[2]),
             amount(rate_of(look, "doorbells_received"), a[3]), amount(rate_of(look, "doorbells_sent"), a[4]),
             amount(rate_of(look, "spins_missed"), a[5]));
    line(p, text, false);
}

void rshm_top_print(const struct rshm_top_look *look, const char *where, const char *version, int lines, int columns, bool bold, FILE *to)
{
    struct page p = {.to = to, .lines = lines, .columns = columns};
    char text[320], a[5][16];
    print_head(&p, look, where, version, bold);
    line(&p, "", false);
    snprintf(text, sizeof text, "%7s %-8s %6s %6s %6s %6s %6s %5s %5s  %-16s %-21s %s", "ID", "STATE", "REQ/S", "IN/S", "OUT/S", "BELLIN", "BELOUT",
             "REQ%", "REP%", "NAME", "ADDRESS", "COMMAND");
    line(&p, text, bold);
    for (size_t i = 0; i < look->session_count; i++) {
        const struct rshm_top_session *s = &look->sessions[i];
        snprintf(text, sizeof text, "%7" PRIu64 " %-8.8s %6s %6s %6s %6s %6s %5.1f %5.1f  %-16.16s %-21.21s %s", s->id, s->state,
                 amount(s->requests_s, a[0]), amount(s->in_s, a[1]), amount(s->out_s, a[2]), amount(s->bells_in_s, a[3]), amount(s->bells_out_s, a[4]),
                 fill_percent(s->request_backlog_bytes, s->ring_bytes), fill_percent(s->reply_backlog_bytes, s->ring_bytes),
                 s->name[0] != '\0' ? s->name : "-", !s->described ? "-" : s->address[0] == '/' ? "unix" : s->address,
                 s->command[0] != '\0' ? s->command : "-");
        if (!line(&p, text, false))
            break;
    }
    if (look->session_count == 0)
        line(&p, "no session: no client uses shared memory now", false);
    if (lines > 0)
        fputs("\033[J", to); /* what an earlier page left below */
}

void rshm_top_json(const struct rshm_top_look *look, const char *where, const char *version, FILE *to)
{
    struct rshm_json j = {.to = to};
    rshm_json_open(&j, NULL, '{');
    rshm_json_string(&j, "server", where);
    rshm_json_string(&j, "version", version);
    rshm_json_number(&j, "seconds", look->seconds, 3);
    if (look->server_cpus >= 0)
        rshm_json_number(&j, "server_cpus", look->server_cpus, 3);
    rshm_json_open(&j, "stats", '{');
    for (size_t i = 0; i < look->figure_count; i++)
        rshm_json_integer(&j, look->figures[i].name, look->figures[i].value);
    rshm_json_close(&j, '}');
    rshm_json_open(&j, "per_second", '{');
    static const char *const rates[] = {"messages_in", "messages_out", "bytes_in", "bytes_out", "doorbells_sent", "doorbells_received",
                                        "spins_hit", "spins_missed", "sessions_opened", "refused"};
    for (size_t i = 0; i < sizeof rates / sizeof rates[0]; i++)
        rshm_json_number(&j, rates[i], rate_of(look, rates[i]), 1);
    rshm_json_close(&j, '}');
    rshm_json_open(&j, "sessions", '[');
    for (size_t i = 0; i < look->session_count; i++) {
        const struct rshm_top_session *s = &look->sessions[i];
        rshm_json_open(&j, NULL, '{');
        rshm_json_integer(&j, "id", s->id);
        rshm_json_integer(&j, "fd", s->fd);
        rshm_json_string(&j, "state", s->state);
        if (s->described) {
            rshm_json_string(&j, "address", s->address);
            rshm_json_string(&j, "name", s->name);
            rshm_json_string(&j, "command", s->command);
        }
        rshm_json_number(&j, "requests_per_second", s->requests_s, 1);
        rshm_json_number(&j, "bytes_in_per_second", s->in_s, 1);
        rshm_json_number(&j, "bytes_out_per_second", s->out_s, 1);
        rshm_json_number(&j, "doorbells_received_per_second", s->bells_in_s, 1);
        rshm_json_number(&j, "doorbells_sent_per_second", s->bells_out_s, 1);
        rshm_json_integer(&j, "ring_bytes", s->ring_bytes);
        rshm_json_number(&j, "request_fill_percent", fill_percent(s->request_backlog_bytes, s->ring_bytes), 1);
        rshm_json_number(&j, "reply_fill_percent", fill_percent(s->reply_backlog_bytes, s->ring_bytes), 1);
        rshm_json_integer(&j, "messages_in", s->messages_in);
        rshm_json_integer(&j, "messages_out", s->messages_out);
        rshm_json_integer(&j, "bytes_in", s->bytes_in);
        rshm_json_integer(&j, "bytes_out", s->bytes_out);
        rshm_json_integer(&j, "doorbells_received", s->doorbells_received);
        rshm_json_integer(&j, "doorbells_sent", s->doorbells_sent);
        rshm_json_close(&j, '}');
    }
    rshm_json_close(&j, ']');
    rshm_json_close(&j, '}');
}
