/* settings.c - the endpoints, and whether an address is one of them; see settings.h. */
#include "preload/settings.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>

struct rshm_preload_settings rshm_preload_settings;

static int parse_ports(struct rshm_named *e, const char *p)
{
    char *end;
    if (*p < '0' || *p > '9')
        return -EINVAL;
    unsigned long first = strtoul(p, &end, 10), last = first;
    if (*end == '-') {
        if (end[1] < '0' || end[1] > '9')
            return -EINVAL;
        last = strtoul(end + 1, &end, 10);
    }
    if (*end != '\0' || first == 0 || last < first || last > 65535)
        return -EINVAL;
    e->port_first = (unsigned)first;
    e->port_last = (unsigned)last;
    return 0;
}

int rshm_named_parse(struct rshm_named *e, const char *text, size_t n)
{
    char host[RSHM_NAMED_TEXT];

    memset(e, 0, sizeof *e);
    if (n == 0 || n >= sizeof e->text || memchr(text, ',', n) != NULL)
        return -EINVAL;
    memcpy(e->text, text, n);
    if (e->text[0] == '/' || e->text[0] == '@') {
        e->family = AF_UNIX;
        return n < sizeof ((struct sockaddr_un *)0)->sun_path ? 0 : -EINVAL;
    }
    const char *colon = strrchr(e->text, ':');
    if (colon == NULL)
        return -EINVAL;
    size_t host_bytes = (size_t)(colon - e->text);
    memcpy(host, e->text, host_bytes);
    host[host_bytes] = '\0';
    if (host[0] == '[' && host_bytes > 2 && host[host_bytes - 1] == ']') {
        host[host_bytes - 1] = '\0';
        e->family = AF_INET6;
    } else {
        e->family = AF_INET;
    }
    if (inet_pton(e->family, e->family == AF_INET6 ? host + 1 : host, e->address) != 1)
        return -EINVAL;
    return parse_ports(e, colon + 1);
}

static int find_tcp(int family, const void *address, unsigned port)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    const uint8_t *bytes = address;
    if (family == AF_INET6 && memcmp(bytes, mapped, sizeof mapped) == 0) { /* an IPv4 address in IPv6's clothes, as Java has them */
        family = AF_INET;
        bytes += sizeof mapped;
    }
    for (int i = 0; i < rshm_preload_settings.count; i++) {
        const struct rshm_named *e = &rshm_preload_settings.named[i];
        if (e->family == family && port >= e->port_first && port <= e->port_last &&
            memcmp(e->address, bytes, family == AF_INET ? 4 : 16) == 0)
            return i;
    }
    return -1;
}

static bool same_file(const char *a, const char *b)
{
    struct stat sa, sb;
    return stat(a, &sa) == 0 && stat(b, &sb) == 0 && sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

static int find_unix(const struct sockaddr_un *u, socklen_t n)
{
    char path[sizeof u->sun_path + 1] = "";
    if (n <= offsetof(struct sockaddr_un, sun_path))
        return -1;
    size_t bytes = n - offsetof(struct sockaddr_un, sun_path);
    memcpy(path, u->sun_path, bytes < sizeof u->sun_path ? bytes : sizeof u->sun_path);
    if (path[0] == '\0')
        path[0] = '@';
    for (int i = 0; i < rshm_preload_settings.count; i++) {
        const struct rshm_named *e = &rshm_preload_settings.named[i];
        if (e->family == AF_UNIX && (strcmp(e->text, path) == 0 || (path[0] != '@' && e->text[0] == '/' && same_file(e->text, path))))
            return i;
    }
    return -1;
}

int rshm_named_find(const struct sockaddr *address, socklen_t n)
{
    if (rshm_preload_settings.count == 0 || address == NULL || n < sizeof address->sa_family)
        return -1;
    if (address->sa_family == AF_INET && n >= sizeof(struct sockaddr_in)) {
        struct sockaddr_in in;
        memcpy(&in, address, sizeof in);
        return find_tcp(AF_INET, &in.sin_addr, ntohs(in.sin_port));
    }
    if (address->sa_family == AF_INET6 && n >= sizeof(struct sockaddr_in6)) {
        struct sockaddr_in6 in6;
        memcpy(&in6, address, sizeof in6);
        return find_tcp(AF_INET6, &in6.sin6_addr, ntohs(in6.sin6_port));
    }
    if (address->sa_family == AF_UNIX)
        return find_unix((const struct sockaddr_un *)address, n);
    return -1;
}

/* Before every other constructor. Endpoints that cannot be parsed are left out: `redis-shm run` has checked them, and this library must not write anything. */
__attribute__((constructor(101))) static void read_environment(void)
{
    struct rshm_preload_settings *s = &rshm_preload_settings;
    const char *p = getenv(RSHM_ENV_ENDPOINTS), *mode = getenv(RSHM_ENV_MODE), *require = getenv(RSHM_ENV_REQUIRE);
    while (p != NULL && *p != '\0' && s->count < RSHM_NAMED_MAX) {
        size_t n = strcspn(p, ",");
        if (rshm_named_parse(&s->named[s->count], p, n) == 0)
            s->count++;
        p += n + (p[n] == ',');
    }
    if (mode != NULL)
        s->mode = strcmp(mode, "poll") == 0 ? RSHM_MODE_POLL : strcmp(mode, "block") == 0 ? RSHM_MODE_BLOCK : RSHM_MODE_ADAPTIVE;
    s->require = require != NULL && strcmp(require, "1") == 0;
    s->report = getenv(RSHM_ENV_REPORT);
}
