/* bench_options.c - the command line of redis-shm bench. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "hiredis_shm.h"
#include "tools/bench.h"
#include "tools/tools.h"

#define DEFAULT_SECONDS 5
#define DEFAULT_ROUNDS 5
#define DEFAULT_WARMUP_S 0.2
#define DEFAULT_VALUE_BYTES 32
#define DEFAULT_SPIN_US 50
#define SYNC_CLIENTS_MAX 1000 /* a thread each */
#define ASYNC_CLIENTS_MAX 50000

static const char *const mode_names[] = {
    [REDIS_SHM_WAIT_ADAPTIVE] = "adaptive",
    [REDIS_SHM_WAIT_POLL] = "poll",
    [REDIS_SHM_WAIT_BLOCK] = "block",
};
#define MODES (sizeof mode_names / sizeof mode_names[0])

const char *rshm_bench_mode_name(int mode)
{
    return mode_names[mode];
}

static void help(void)
{
    printf("Usage: redis-shm bench [OPTION]...\n"
           "\n"
           "Measures a server over TCP, Unix socket and shared memory, in turns within one run: latency percentiles, throughput, CPU time and\n"
           "context switches. LIST: several values with commas between them; each combination is a row of the table.\n"
           "\n"
           "Which server:\n"
           RSHM_ENDPOINT_HELP
           "      --start           a private server instead, with the module, ended afterwards\n"
           "      --server PATH     its program (default: redis-server, else valkey-server, from PATH)\n"
           "      --module PATH     its module-shm.so (default: beside this program, else ../lib/redis/modules)\n"
           "\n"
           "How:\n"
           "      --transport LIST  tcp, unix, shm (default: all; what is not to be had becomes a row that says why). One may be there twice\n"
           "      --mode LIST       how shared memory waits: adaptive, poll, block (default adaptive). A server of --start is set alike\n"
           "  -c, --clients LIST    connections (default 1)\n"
           "      --client KIND     sync: each connection has a thread that waits for its replies (default); async: libevent\n"
           "      --threads N       asynchronous: connections are spread over so many threads (default 1)\n"
           "      --spin-us US      asynchronous: how long a loop waits in shared memory before it sleeps (default %d; 0: not)\n"
           "  -P, --pipeline LIST   requests in flight on each connection (default 1)\n"
           "  -r, --rate LIST       open loop: requests a second of all connections together, sent when they are due, however long replies\n"
           "                        take; latencies count from when they were due\n"
           "      --think-us LIST   pause of a connection between a reply and its next request, microseconds\n"
           "\n"
           "What:\n"
           "      --command TEXT    get (default), set, mixed, or any command, with __key__ and __data__ in it\n"
           "      --ratio S:G       mixed: parts of SETs and GETs (default 1:10)\n"
           "  -d, --value-bytes LIST  size of values; MIN:MAX is drawn for each request; KiB and MiB (default %d)\n"
           "  -k, --keys N          how many keys (default 1)\n"
           "      --key-choice HOW  uniform (default), sequential, gaussian, zipf or zipf:EXPONENT (0.99)\n"
           "      --seed N          of what is drawn (default 1)\n"
           "      --verify          check every reply: GET, SET, PING, ECHO __data__\n"
           "\n"
           "How long, for each row:\n"
           "      --seconds S       measure for so long, all rounds together (default %d)\n"
           "  -R, --requests N      or so many requests\n"
           "      --warmup S        before each round, not counted (default %g)\n"
           "      --rounds N        rounds: median and spread are over these (default %d)\n"
           "\n"
           "Output:\n"
           "      --json FILE  --csv FILE   '-': to standard output, instead of the table\n"
           "      --hdr-log FILE    HdrHistogram log, a line a round\n"
           "      --plot FILE       chart, .png or .svg by its name (needs gnuplot); may be given more than once\n"
           "      --spectrum        the full percentile spectrum of each row\n"
           "  -q, --quiet           no progress\n"
           "      --help            this text\n"
           "\n"
           "Examples:\n"
           "  redis-shm bench --start\n"
           "  redis-shm bench -s /run/redis/redis.sock --command mixed --keys 100000 --key-choice zipf --value-bytes 100:2000 --verify\n"
           "  redis-shm bench --start --clients 1,10,50 --client async --json out.json --plot out.png\n"
           "  redis-shm bench --start --transport unix,shm --rate 1000,10000,50000 --seconds 10\n"
           "  redis-shm bench --start --transport shm,shm                    how much two equal rows differ here\n"
           "  redis-shm bench --command 'HSET __key__ field __data__' -d 16,1KiB -P 1,16\n"
           "\n"
           "Exit status: 0 measured, 1 failed or a reply was wrong, 2 wrong usage.\n",
           DEFAULT_SPIN_US, DEFAULT_VALUE_BYTES, DEFAULT_SECONDS, DEFAULT_WARMUP_S, DEFAULT_ROUNDS);
}

/* ---- lists ---- */

/* Calls take() for each element. 0 or -EINVAL after a complaint. */
static int each(const char *option, const char *text, int (*take)(const char *option, const char *element, struct rshm_bench_options *o),
                struct rshm_bench_options *o)
{
    char *copy = strdup(text), *rest = copy;
    size_t count = 0;
    int r = copy == NULL ? -ENOMEM : 0;
    for (char *element; r == 0 && (element = strsep(&rest, ",")) != NULL;) {
        if (++count > RSHM_BENCH_LIST_MAX) {
            rshm_complain("%s takes at most %d values", option, RSHM_BENCH_LIST_MAX);
            r = -EINVAL;
        } else {
            r = take(option, element, o);
        }
    }
    free(copy);
    return r;
}

static int numbers(const char *option, const char *text, double min, double max, bool whole, struct rshm_bench_list *list)
{
    char *copy = strdup(text), *rest = copy;
    int r = copy == NULL ? -ENOMEM : 0;
    list->count = 0;
    for (char *element; r == 0 && (element = strsep(&rest, ",")) != NULL;) {
        double v;
        if (list->count == RSHM_BENCH_LIST_MAX) {
            rshm_complain("%s takes at most %d values", option, RSHM_BENCH_LIST_MAX);
            r = -EINVAL;
        } else if ((r = rshm_parse_number(option, element, min, max, &v)) == 0) {
            if (whole && v != floor(v)) {
                rshm_complain("%s must be a whole number, not '%s'", option, element);
                r = -EINVAL;
            }
            list->value[list->count++] = v;
        }
    }
    free(copy);
    return r;
}

static int take_transport(const char *option, const char *element, struct rshm_bench_options *o)
{
    return rshm_transport_parse(option, element, &o->transports[o->transport_count++]);
}

static int take_mode(const char *option, const char *element, struct rshm_bench_options *o)
{
    for (size_t i = 0; i < MODES; i++)
        if (strcmp(element, mode_names[i]) == 0) {
            o->modes[o->mode_count++] = (int)i;
            return 0;
        }
    rshm_complain("%s must be adaptive, poll or block, not '%s'", option, element);
    return -EINVAL;
}

/* A number of bytes. *end: behind it. */
static bool parse_bytes(const char *text, const char **end, size_t *bytes)
{
    static const struct { const char *unit; size_t factor; } units[] = {{"KiB", 1024}, {"MiB", 1024 * 1024}, {"kb", 1024}, {"mb", 1024 * 1024}};
    char *after;
    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    unsigned long n = strtoul(text, &after, 10);
    size_t factor = 1;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
        if (strncasecmp(after, units[i].unit, strlen(units[i].unit)) == 0) {
            factor = units[i].factor;
            after += strlen(units[i].unit);
            break;
        }
    *end = after;
    return errno == 0 && !__builtin_mul_overflow(n, factor, bytes);
}

static int take_size(const char *option, const char *element, struct rshm_bench_options *o)
{
    struct rshm_value_size *s = &o->sizes[o->size_count++];
    const char *end;
    bool good = parse_bytes(element, &end, &s->min_bytes);
    s->max_bytes = s->min_bytes;
    if (good && *end == ':')
        good = parse_bytes(end + 1, &end, &s->max_bytes);
    if (good && *end == '\0' && s->min_bytes <= s->max_bytes && s->max_bytes <= RSHM_VALUE_BYTES_MAX)
        return 0;
    rshm_complain("%s must be a size or a range MIN:MAX, from 0 to %u MiB, not '%s'", option, RSHM_VALUE_BYTES_MAX >> 20, element);
    return -EINVAL;
}

static int parse_ratio(const char *text, struct rshm_bench_options *o)
{
    int end = 0;
    if (sscanf(text, "%lf:%lf%n", &o->sets, &o->gets, &end) == 2 && text[end] == '\0' && o->sets >= 0 && o->gets >= 0 &&
        o->sets + o->gets > 0 && isfinite(o->sets + o->gets))
        return 0;
    rshm_complain("--ratio must be SETS:GETS, for instance 1:10, not '%s'", text);
    return -EINVAL;
}

static int parse_key_choice(const char *text, struct rshm_bench_options *o)
{
    static const char *const names[] = {"uniform", "sequential", "gaussian", "zipf"};
    o->exponent = 0.99;
    if (strncmp(text, "zipf:", 5) == 0) {
        o->key_choice = RSHM_KEYS_ZIPF;
        return rshm_parse_number("--key-choice zipf:", text + 5, 0.01, 10, &o->exponent);
    }
    for (int i = RSHM_KEYS_UNIFORM; i <= RSHM_KEYS_ZIPF; i++)
        if (strcmp(text, names[i]) == 0) {
            o->key_choice = (enum rshm_keys)i;
            return 0;
        }
    rshm_complain("--key-choice must be uniform, sequential, gaussian, zipf or zipf:EXPONENT, not '%s'", text);
    return -EINVAL;
}

static int parse_client(const char *text, struct rshm_bench_options *o)
{
    o->async = strcmp(text, "async") == 0;
    if (o->async || strcmp(text, "sync") == 0)
        return 0;
    rshm_complain("--client must be sync or async, not '%s'", text);
    return -EINVAL;
}

static int take_plot(const char *text, struct rshm_bench_options *o)
{
    size_t n = strlen(text);
    if (n < 5 || (strcmp(text + n - 4, ".png") != 0 && strcmp(text + n - 4, ".svg") != 0)) {
        rshm_complain("--plot must be a file that ends in .png or .svg, not '%s'", text);
        return -EINVAL;
    }
    if (o->plot_count == RSHM_BENCH_FILES_MAX) {
        rshm_complain("--plot can be given %d times at most", RSHM_BENCH_FILES_MAX);
        return -EINVAL;
    }
    o->plots[o->plot_count++] = text;
    return 0;
}

static int whole(const char *option, const char *text, long long min, long long max, double *value)
{
    long long n;
    int r = rshm_parse_integer(option, text, min, max, &n);
    if (r == 0)
        *value = (double)n;
    return r;
}

/* ---- what does not go together ---- */

static bool has(const struct rshm_bench_options *o, enum rshm_transport t)
{
    for (size_t i = 0; i < o->transport_count; i++)
        if (o->transports[i] == t)
            return true;
    return false;
}

static double largest(const struct rshm_bench_list *l)
{
    double v = 0;
    for (size_t i = 0; i < l->count; i++)
        v = fmax(v, l->value[i]);
    return v;
}

static const char *conflict(const struct rshm_bench_options *o, bool threads_given, bool spin_given, bool server_given, bool endpoint_given)
{
    size_t plain = 0, rows;
    if (threads_given && !o->async)
        return "--threads is for --client async: a synchronous client has a thread for each connection";
    if (spin_given && !o->async)
        return "--spin-us is for --client async; how a synchronous client waits, --mode says";
    if (!o->async && largest(&o->clients) > SYNC_CLIENTS_MAX)
        return "more than 1000 synchronous clients would be as many threads: use --client async";
    if (largest(&o->rate) > 0 && largest(&o->think_us) > 0)
        return "--rate says when requests are sent, --think-us too: give one of them";
    if (o->modes_given && !has(o, RSHM_MEMORY))
        return "--mode is for shared memory, and --transport has no shm";
    if (server_given && !o->start)
        return "--server and --module are for --start";
    if (o->start && endpoint_given)
        return "--start brings up a server of its own: leave out -h, -p, -s, -a and --user";
    if (o->json != NULL && o->csv != NULL && strcmp(o->json, "-") == 0 && strcmp(o->csv, "-") == 0)
        return "--json and --csv cannot both go to standard output";
    for (size_t i = 0; i < o->transport_count; i++)
        plain += o->transports[i] == RSHM_MEMORY ? o->mode_count : 1;
    rows = plain * o->clients.count * o->pipeline.count * o->think_us.count * o->rate.count * o->size_count;
    return rows > RSHM_BENCH_ROWS_MAX ? "the lists make more than 256 rows" : NULL;
}

int rshm_bench_parse(int argc, char **argv, struct rshm_bench_options *o)
{
    enum { TRANSPORT = 256, MODE, CLIENT, THREADS, SPIN, THINK, COMMAND, RATIO, KEY_CHOICE, SEED, VERIFY, SECONDS, WARMUP, ROUNDS, JSON,
           CSV, HDR_LOG, PLOT, SPECTRUM, START, SERVER, MODULE, HELP };
    static const struct option known[] = {
        RSHM_ENDPOINT_LONG,
        {"transport", required_argument, NULL, TRANSPORT}, {"mode", required_argument, NULL, MODE},
        {"clients", required_argument, NULL, 'c'},         {"client", required_argument, NULL, CLIENT},
        {"threads", required_argument, NULL, THREADS},     {"spin-us", required_argument, NULL, SPIN},
        {"pipeline", required_argument, NULL, 'P'},        {"rate", required_argument, NULL, 'r'},
        {"think-us", required_argument, NULL, THINK},      {"command", required_argument, NULL, COMMAND},
        {"ratio", required_argument, NULL, RATIO},         {"value-bytes", required_argument, NULL, 'd'},
        {"keys", required_argument, NULL, 'k'},            {"key-choice", required_argument, NULL, KEY_CHOICE},
        {"seed", required_argument, NULL, SEED},           {"verify", no_argument, NULL, VERIFY},
        {"seconds", required_argument, NULL, SECONDS},     {"requests", required_argument, NULL, 'R'},
        {"warmup", required_argument, NULL, WARMUP},       {"rounds", required_argument, NULL, ROUNDS},
        {"json", required_argument, NULL, JSON},           {"csv", required_argument, NULL, CSV},
        {"hdr-log", required_argument, NULL, HDR_LOG},     {"plot", required_argument, NULL, PLOT},
        {"spectrum", no_argument, NULL, SPECTRUM},         {"quiet", no_argument, NULL, 'q'},
        {"start", no_argument, NULL, START},               {"server", required_argument, NULL, SERVER},
        {"module", required_argument, NULL, MODULE},       {"help", no_argument, NULL, HELP},
        {0},
    };
    static char name[] = "redis-shm bench"; /* what getopt begins its messages with */
    bool threads_given = false, spin_given = false, server_given = false, endpoint_given = false;
    argv[0] = name;
    *o = (struct rshm_bench_options){
        .transports = {RSHM_TCP, RSHM_UNIX, RSHM_MEMORY}, .transport_count = RSHM_TRANSPORTS,
        .modes = {REDIS_SHM_WAIT_ADAPTIVE}, .mode_count = 1,
        .clients = {{1}, 1}, .pipeline = {{1}, 1}, .think_us = {{0}, 1}, .rate = {{0}, 1},
        .sizes = {{DEFAULT_VALUE_BYTES, DEFAULT_VALUE_BYTES}}, .size_count = 1,
        .threads = 1, .seconds = DEFAULT_SECONDS, .warmup_s = DEFAULT_WARMUP_S, .rounds = DEFAULT_ROUNDS, .spin_us = DEFAULT_SPIN_US,
        .seed = 1, .command = "get", .sets = 1, .gets = 10, .keys = 1, .exponent = 0.99,
    };
    rshm_endpoint_init(&o->endpoint);
    for (int c; (c = getopt_long(argc, argv, RSHM_ENDPOINT_SHORT "c:P:r:d:k:R:q", known, NULL)) != -1;) {
        int bad = rshm_endpoint_option(&o->endpoint, c, optarg);
        if (bad == 1) {
            endpoint_given |= c != 'n' && c != '3';
            continue;
        }
        if (bad == 0)
            switch (c) {
            case TRANSPORT: o->transport_count = 0; o->transports_given = true; bad = each("--transport", optarg, take_transport, o); break;
            case MODE: o->mode_count = 0; o->modes_given = true; bad = each("--mode", optarg, take_mode, o); break;
            case 'c': bad = numbers("--clients", optarg, 1, ASYNC_CLIENTS_MAX, true, &o->clients); break;
            case CLIENT: bad = parse_client(optarg, o); break;
            case THREADS: threads_given = true; bad = whole("--threads", optarg, 1, 1000, &o->threads); break;
            case SPIN: spin_given = true; bad = whole("--spin-us", optarg, 0, 1000000, &o->spin_us); break;
            case 'P': bad = numbers("--pipeline", optarg, 1, 100000, true, &o->pipeline); break;
            case 'r': bad = numbers("--rate", optarg, 0.1, 1e8, false, &o->rate); break;
            case THINK: bad = numbers("--think-us", optarg, 0, 1e7, false, &o->think_us); break;
            case COMMAND: o->command = optarg; break;
            case RATIO: bad = parse_ratio(optarg, o); break;
            case 'd': o->size_count = 0; bad = each("--value-bytes", optarg, take_size, o); break;
            case 'k': bad = whole("--keys", optarg, 1, 999999999999, &o->keys); break;
            case KEY_CHOICE: bad = parse_key_choice(optarg, o); break;
            case SEED: bad = whole("--seed", optarg, 0, 1000000000000, &o->seed); break;
            case VERIFY: o->verify = true; break;
            case SECONDS: bad = rshm_parse_number("--seconds", optarg, 0.01, 86400, &o->seconds); break;
            case 'R': bad = whole("--requests", optarg, 1, 1000000000000, &o->requests); break;
            case WARMUP: bad = rshm_parse_number("--warmup", optarg, 0, 3600, &o->warmup_s); break;
            case ROUNDS: bad = whole("--rounds", optarg, 1, 1000, &o->rounds); break;
            case JSON: o->json = optarg; break;
            case CSV: o->csv = optarg; break;
            case HDR_LOG: o->hdr_log = optarg; break;
            case PLOT: bad = take_plot(optarg, o); break;
            case SPECTRUM: o->spectrum = true; break;
            case 'q': o->quiet = true; break;
            case START: o->start = true; break;
            case SERVER: o->server = optarg; server_given = true; break;
            case MODULE: o->module = optarg; server_given = true; break;
            case HELP: help(); return RSHM_EXIT_OK;
            default: bad = -EINVAL; break; /* getopt has said what */
            }
        if (bad < 0) {
            rshm_complain("'redis-shm bench --help' lists the options");
            return RSHM_EXIT_USAGE;
        }
    }
    const char *why = optind < argc ? "" : conflict(o, threads_given, spin_given, server_given, endpoint_given);
    if (optind < argc)
        rshm_complain("'%s' is not an option; 'redis-shm bench --help' lists them", argv[optind]);
    else if (why != NULL)
        rshm_complain("%s", why);
    return why != NULL ? RSHM_EXIT_USAGE : -1;
}
