/* outfile.c - see outfile.h. */
#include "tools/outfile.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/tools.h"

static int fail(struct rshm_outfile *f, const char *path, int error)
{
    rshm_complain("cannot write %s: %s", path, strerror(error));
    rshm_outfile_drop(f);
    return -error;
}

/* A draft has mode 0600; the file gets what open() would have given it. */
static mode_t wanted_mode(const char *path)
{
    struct stat st;
    mode_t mask = umask(022);
    umask(mask);
    return stat(path, &st) == 0 ? st.st_mode & 0777 : 0666 & ~mask;
}

int rshm_outfile_open(struct rshm_outfile *f, const char *path)
{
    struct stat st;
    *f = (struct rshm_outfile){.path = path};
    if (strcmp(path, "-") == 0) {
        f->to = stdout;
        return 0;
    }
    bool there = stat(path, &st) == 0;
    if (there && S_ISDIR(st.st_mode))
        return fail(f, path, EISDIR);
    if (there && !S_ISREG(st.st_mode)) {
        f->to = fopen(path, "we");
        return f->to != NULL ? 0 : fail(f, path, errno);
    }
    if (there && access(path, W_OK) != 0)
        return fail(f, path, errno);
    if ((size_t)snprintf(f->draft, sizeof f->draft, "%s.XXXXXX", path) >= sizeof f->draft) {
        f->draft[0] = '\0';
        return fail(f, path, ENAMETOOLONG);
    }
    int fd = mkstemp(f->draft);
    if (fd < 0) {
        int error = errno;
        f->draft[0] = '\0';
        return fail(f, path, error);
    }
    if (fchmod(fd, wanted_mode(path)) != 0 || (f->to = fdopen(fd, "w")) == NULL) {
        int error = errno;
        close(fd);
        return fail(f, path, error);
    }
    return 0;
}

int rshm_outfile_commit(struct rshm_outfile *f)
{
    FILE *to = f->to;
    int error = ferror(to) || fflush(to) != 0 ? (errno != 0 ? errno : EIO) : 0;
    f->to = NULL;
    if (to != stdout && fclose(to) != 0 && error == 0)
        error = errno;
    if (error == 0 && f->draft[0] != '\0' && rename(f->draft, f->path) != 0)
        error = errno;
    if (error != 0)
        return fail(f, f->path, error);
    f->draft[0] = '\0';
    f->path = NULL;
    return 0;
}

void rshm_outfile_drop(struct rshm_outfile *f)
{
    if (f->to != NULL && f->to != stdout)
        fclose(f->to);
    if (f->draft[0] != '\0')
        unlink(f->draft);
    *f = (struct rshm_outfile){0};
}
