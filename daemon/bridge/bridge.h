/* The bridge between the loop thread (sockets, JSON) and the engine thread (scheduler, device).
 *
 * Two hand-overs, each moving ownership:
 *   inbox   loop -> engine: generations with an operation pending, linked through themselves
 *   outbox  engine -> loop: records in a buffer that the two sides swap; one uv_async_send a
 *           step
 *
 * A generation belongs to the loop thread; of its fields the engine thread touches only those
 * marked so in bridge_parts.h. It is free for reuse when the loop has seen its ENDED record:
 * none follows. */
#ifndef VRAMD_DAEMON_BRIDGE_H
#define VRAMD_DAEMON_BRIDGE_H

#include <uv.h>

#include "api/port.h"
#include "daemon/machine.h"

struct pressure;
typedef struct bridge bridge;

/* Lists the generations and the outbox. */
void bridge_terms(const machine *, terms *);

/* Takes its memory from the machine's ledger. flushed is called on the loop thread after each
 * batch of events; loaded once, on the loop thread, when loading ended (OK or not). */
status bridge_open(bridge **out, uv_loop_t *, machine *, void (*flushed)(void *),
                   void (*loaded)(void *, status, const err *), void *arg, err *);
/* Starts the engine thread, which loads the model first. */
status bridge_start(bridge *, err *);
port *bridge_port(bridge *);
/* Before bridge_start, of one of several models: its steps take turns with those of others. */
struct turns;
void bridge_take_turns(bridge *, struct turns *, uint32_t who);
/* Gives cached KV blocks back while the kernel reports memory pressure there; borrowed until
 * bridge_free. Errors: ERR_IO (field memory_pressure). */
status bridge_watch(bridge *, const struct pressure *, err *);
/* New submissions are refused from now on. */
void bridge_drain(bridge *);
/* Ends the engine thread, which stores first what kv_disk is to have: any thread, before bridge_stop. All
 * generations must have ended. */
void bridge_join(bridge *);
/* Stops and joins the engine thread. All generations must have ended. Run the loop once more
 * before bridge_free: its handle closes there. */
void bridge_stop(bridge *);
void bridge_free(bridge *);

#endif
