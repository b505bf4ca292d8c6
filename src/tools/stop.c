/* stop.c - see stop.h. */
#include "tools/stop.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const int stop_signals[] = {SIGINT, SIGTERM, SIGHUP};
#define STOP_SIGNALS (sizeof stop_signals / sizeof stop_signals[0])

static volatile sig_atomic_t caught;

static void catch(int sig)
{
    caught = sig;
}

void rshm_stop_catch(void)
{
    struct sigaction flag = {.sa_handler = catch}, ignore = {.sa_handler = SIG_IGN}, before;
    sigemptyset(&flag.sa_mask);
    for (size_t i = 0; i < STOP_SIGNALS; i++)
        if (stop_signals[i] != SIGHUP || (sigaction(SIGHUP, NULL, &before) == 0 && before.sa_handler != SIG_IGN))
            sigaction(stop_signals[i], &flag, NULL);
    sigaction(SIGPIPE, &ignore, NULL);
}

int rshm_stop_signal(void)
{
    return caught;
}

void rshm_stop_die(void)
{
    if (caught == 0)
        return;
    signal(caught, SIG_DFL);
    raise(caught);
}

void rshm_stop_child(pid_t parent)
{
    sigset_t none;
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) /* it died before prctl() */
        _exit(1);
    for (size_t i = 0; i < STOP_SIGNALS; i++)
        signal(stop_signals[i], SIG_DFL);
    signal(SIGPIPE, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

void rshm_sleep_ms(int ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
    nanosleep(&t, NULL); /* shorter when a signal comes: every caller is a loop that asks why */
}

void rshm_stop_end_child(pid_t pid, int patience_ms)
{
    const int step_ms = 5;
    kill(pid, SIGTERM);
    for (int waited_ms = 0; waited_ms < patience_ms; waited_ms += step_ms) {
        pid_t r = waitpid(pid, NULL, WNOHANG);
        if (r == pid || (r < 0 && errno == ECHILD))
            return;
        rshm_sleep_ms(step_ms);
    }
    kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
}
