/* gnuplot.c - see gnuplot.h. */
#include "tools/gnuplot.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/stop.h"

int rshm_gnuplot_run(const char *dir, const char *script, int out_fd)
{
    pid_t parent = getpid(), pid = fork();
    int status;
    if (pid < 0)
        return -errno;
    if (pid == 0) {
        rshm_stop_child(parent);
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (null < 0 || dup2(null, 0) < 0 || dup2(out_fd >= 0 ? out_fd : null, 1) < 0 || chdir(dir) != 0)
            _exit(1);
        execlp("gnuplot", "gnuplot", script, (char *)NULL);
        _exit(errno == ENOENT ? RSHM_NO_GNUPLOT : 1);
    }
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR)
            return -errno;
        if (rshm_stop_signal() != 0) {
            rshm_stop_end_child(pid, 500);
            return -EINTR;
        }
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -ECHILD;
}
