/* terminal.c - see terminal.h. */
#include "tools/terminal.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#define ENTER "\033[?1049h\033[?25l\033[H\033[2J"
#define LEAVE "\033[0m\033[?25h\033[?1049l"

static struct termios before;
static bool is_open;
static volatile sig_atomic_t stop_asked;

bool rshm_terminal_live(FILE *to)
{
    const char *term = getenv("TERM");
    return isatty(fileno(to)) && term != NULL && term[0] != '\0' && strcmp(term, "dumb") != 0;
}

bool rshm_terminal_colours(FILE *to)
{
    const char *no = getenv("NO_COLOR");
    return rshm_terminal_live(to) && (no == NULL || no[0] == '\0');
}

static void on_stop(int sig)
{
    (void)sig;
    stop_asked = 1;
}

static void on_resize(int sig)
{
    (void)sig; /* that poll() ends is all it is for */
}

int rshm_screen_open(void)
{
    static bool at_exit;
    struct sigaction stop = {.sa_handler = on_stop}, resize = {.sa_handler = on_resize};
    if (!rshm_terminal_live(stdout) || !isatty(STDIN_FILENO))
        return -ENOTTY;
    if (tcgetattr(STDIN_FILENO, &before) != 0)
        return -errno;
    struct termios raw = before;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    raw.c_cc[VMIN] = 0;
    raw.c_cc[VTIME] = 0;
    if (!at_exit)
        atexit(rshm_screen_close);
    at_exit = true;
    sigaction(SIGTSTP, &stop, NULL);
    sigaction(SIGWINCH, &resize, NULL);
    if (tcsetattr(STDIN_FILENO, TCSAFLUSH, &raw) != 0)
        return -errno;
    is_open = true;
    fputs(ENTER, stdout);
    fflush(stdout);
    return 0;
}

void rshm_screen_close(void)
{
    if (!is_open)
        return;
    is_open = false;
    fputs(LEAVE, stdout);
    fflush(stdout);
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
    signal(SIGTSTP, SIG_DFL);
    signal(SIGWINCH, SIG_DFL);
}

void rshm_screen_size(int *lines, int *columns)
{
    struct winsize w = {0};
    bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_row > 0 && w.ws_col > 0;
    *lines = known ? w.ws_row : 24;
    *columns = known ? w.ws_col : 80;
}

int rshm_screen_key(int timeout_ms)
{
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
    unsigned char key = 0;
    int n = stop_asked ? 0 : poll(&in, 1, timeout_ms);
    if (stop_asked) {
        stop_asked = 0;
        rshm_screen_close();
        raise(SIGSTOP); /* goes on here when the shell says so */
        return rshm_screen_open() < 0 ? -EIO : 0;
    }
    if (n < 0)
        return errno == EINTR ? 0 : -EIO;
    if (n == 0)
        return 0;
    ssize_t got = read(STDIN_FILENO, &key, 1);
    if (got == 1)
        return key;
    return got < 0 && (errno == EINTR || errno == EAGAIN) ? 0 : -EIO; /* nothing, though readable: hung up */
}
