/* Terminal modes and signals. The handlers call what a handler may call (POSIX, "Signal
 * Concepts"): write, tcsetattr, sigaction, raise. Owns the state of the terminal that is
 * to be restored. Main thread. */
#include "daemon/top/top_terminal.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "base/clock.h"

static const char enter[] = "\033[?1049h\033[?25l\033[2J\033[H";
static const char leave[] = "\033[0m\033[?25h\033[?1049l";

/* Read by handlers: set before the handlers are installed. */
static struct termios before, during;
static volatile sig_atomic_t opened, has_keys;

static void say(const char *s, size_t n) {
    if (write(STDOUT_FILENO, s, n) < 0) return; /* the terminal is gone */
}

static void restore(void) {
    if (!opened) return;
    opened = 0;
    if (has_keys) tcsetattr(STDIN_FILENO, TCSANOW, &before);
    say(leave, sizeof leave - 1); /* last: who reads it finds the terminal as it was */
}

static void change(void) {
    opened = 1; /* before anything is changed: a signal may come in between */
    if (has_keys) tcsetattr(STDIN_FILENO, TCSANOW, &during);
    say(enter, sizeof enter - 1);
}

/* SA_RESETHAND has put the default back: the signal does what it would have done. */
static void on_end(int number) {
    restore();
    raise(number);
}

static void on_nothing(int number) {
    (void)number;
}

static void on_stop(int number) {
    const int kept = errno;
    (void)number;
    restore();
    raise(SIGSTOP);
    change();
    errno = kept;
}

static void handle(int number, void (*handler)(int), int flags) {
    struct sigaction a = {.sa_handler = handler, .sa_flags = flags};
    sigemptyset(&a.sa_mask);
    sigaction(number, &a, NULL);
}

bool top_terminal_open(void) {
    static const int ends[] = {SIGINT,  SIGTERM, SIGHUP, SIGQUIT, SIGPIPE,
                               SIGABRT, SIGSEGV, SIGBUS, SIGFPE,  SIGILL};
    if (!isatty(STDOUT_FILENO)) return false;
    has_keys = tcgetattr(STDIN_FILENO, &before) == 0;
    during = before;
    during.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    during.c_cc[VMIN] = 1;
    during.c_cc[VTIME] = 0;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        handle(ends[i], on_end, SA_RESETHAND | SA_NODEFER);
    handle(SIGTSTP, on_stop, SA_RESTART);
    handle(SIGWINCH, on_nothing, 0);
    handle(SIGCONT, on_nothing, 0);
    sigset_t s; /* seen by top_terminal_wait alone */
    sigemptyset(&s);
    sigaddset(&s, SIGWINCH);
    sigaddset(&s, SIGCONT);
    sigprocmask(SIG_BLOCK, &s, NULL);
    change();
    return true;
}

void top_terminal_close(void) {
    restore();
}

void top_terminal_size(uint32_t *columns, uint32_t *lines) {
    struct winsize w;
    *columns = 80;
    *lines = 24;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) != 0 || w.ws_col == 0 || w.ws_row == 0) return;
    *columns = w.ws_col;
    *lines = w.ws_row;
}

int top_terminal_wait(uint64_t until_us) {
    const uint64_t now = clock_us();
    const uint64_t left = until_us > now ? until_us - now : 0;
    const struct timespec t = {.tv_sec = (time_t)(left / 1000000),
                               .tv_nsec = (long)(left % 1000000) * 1000};
    struct pollfd p = {.fd = has_keys ? STDIN_FILENO : -1, .events = POLLIN};
    sigset_t s;
    char key = 0;
    sigprocmask(SIG_BLOCK, NULL, &s);
    sigdelset(&s, SIGWINCH);
    sigdelset(&s, SIGCONT);
    if (ppoll(&p, 1, &t, &s) <= 0 || !p.revents) return 0;
    const ssize_t n = read(STDIN_FILENO, &key, 1);
    if (n <= 0) has_keys = 0; /* at its end: it would be ready for ever */
    return n == 1 ? (unsigned char)key : 0;
}
