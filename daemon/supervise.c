/* The pulse: one timer. Owns its handle. Loop thread. */
#include "daemon/supervise.h"

#include <stdio.h>
#include <string.h>

#include "daemon/notify.h"

enum { PULSE_MS = 5000 };

static void tell_status(supervisor *s, const char *why_not) {
    machine_stats st;
    char text[sizeof s->status];
    if (why_not) {
        snprintf(text, sizeof text, "%s", why_not);
    } else {
        s->port->ops->stats(s->port, &st);
        double used = st.kv.blocks ? 100.0 * (double)st.kv.used / (double)st.kv.blocks : 0;
        snprintf(text, sizeof text, "%u running, %u waiting, KV cache %.0f%% used",
                 st.n_running + st.n_preempted, st.n_waiting, used);
    }
    if (strcmp(text, s->status) == 0) return;
    snprintf(s->status, sizeof s->status, "%s", text);
    notify_send("STATUS=%s", text);
}

static void on_pulse(uv_timer_t *t) {
    supervisor *s = t->data;
    const char *why_not = s->port->ops->not_ready(s->port);
    bool loading = why_not && strcmp(why_not, "loading") == 0;
    bool stalled = why_not && strcmp(why_not, "stalled") == 0;
    /* Large models take long to read: as long as this loop turns, loading goes on. */
    if (loading) notify_send("EXTEND_TIMEOUT_USEC=%u", 4 * PULSE_MS * 1000);
    if (s->watchdog_us && !stalled) notify_send("WATCHDOG=1");
    tell_status(s, why_not);
}

void supervisor_start(supervisor *s, uv_loop_t *loop, port *p) {
    s->port = p;
    s->watchdog_us = notify_watchdog_us();
    s->status[0] = '\0';
    uint64_t every = PULSE_MS, half = s->watchdog_us / 2000;
    if (s->watchdog_us && half < every) every = half ? half : 1;
    uv_timer_init(loop, &s->timer);
    s->timer.data = s;
    uv_timer_start(&s->timer, on_pulse, 0, every);
    uv_unref((uv_handle_t *)&s->timer);
}

void supervisor_ready(supervisor *s) {
    notify_send("READY=1");
    tell_status(s, NULL);
}

void supervisor_stopping(supervisor *s) {
    if (!s->port) return;
    notify_send("STOPPING=1");
    tell_status(s, "draining");
}

void supervisor_close(supervisor *s) {
    if (!s->port) return;
    uv_close((uv_handle_t *)&s->timer, NULL);
    s->port = NULL;
}
