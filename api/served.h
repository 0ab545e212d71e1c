/* One model as the endpoints see it. A request is for one of them (http_request.served), which
 * routes_run finds by its member "model". Where the server has several, not all of them are in
 * memory: requests for one that is closed are held, before their endpoint sees them, until the
 * owner opens it or refuses them. A model's port is valid from served_open until the owner has
 * seen n_users at 0 after served_close. Loop thread. */
#ifndef VRAMD_API_SERVED_H
#define VRAMD_API_SERVED_H

#include "api/grammars.h"
#include "api/http.h"
#include "api/port.h"
#include "text/reply/reply.h"

typedef struct served served;
typedef struct held_request held_request;

/* Of a model, for /v1/models and /v1/memory. */
typedef struct served_view {
    const char *state;  /* "absent", "loading", "ready", "draining", "failed" */
    const char *why;    /* why it failed, or "" */
    uint64_t bytes;     /* what it takes while it is loaded */
    uint64_t bytes_now; /* of its ledger; 0: not loaded */
    uint64_t last_used; /* Unix time; 0: never */
    uint64_t n_loads;   /* since the start */
    double load_s;      /* of the latest load; 0: none yet */
    bool pinned;
} served_view;

/* The owner's, in daemon/. */
typedef struct served_ops {
    /* A request is held, or none is held any more, or the last user has gone. May be called from
     * within any function of api/: the owner acts later. */
    void (*changed)(served *);
    void (*view)(const served *, served_view *);
    /* Of an operator: as if a request came for it; and gives its memory back once it has no
     * requests. Errors: ERR_BUSY (requests are waiting for it, or it is pinned). */
    void (*load)(served *);
    status (*unload)(served *, err *);
} served_ops;

struct served {
    port *port;            /* never NULL; while the model is closed one that refuses */
    reply_plan replies[2]; /* of port->chat's two templates, once known */
    bool reply_known[2];
    grammars grammars; /* compiled, for all requests */
    /* Of one model among several; all zero where there is only one, which is never closed: */
    const served_ops *ops;
    void *owner;         /* the ops' own */
    const char *tenants; /* names of the keys that may use it, separated by commas; "": all */
    bool open, embeds;   /* embeds: it gives vectors alone */
    uint64_t used_us;    /* when the latest request came */
    uint32_t n_users;    /* requests that have entered and are not freed */
    uint32_t n_held, max_held;
    held_request *first, *last; /* held ones, the oldest first */
};

struct app;
typedef void endpoint(struct app *, http_request *);

/* NULL: there is none of this name. */
served *served_by_name(const struct app *, str name);
/* The model that a request names, by its body or its query; the first where it names none.
 * Sets rq->json where there is a body. Errors: ERR_INVALID, ERR_NOT_FOUND, ERR_NO_MEMORY. */
status served_find(struct app *, http_request *, served **out, err *);
/* True: the request goes on now. Else it is held, and run is called once the model is open; or was
 * refused: 429 where too many are held. */
bool served_enter(struct app *, http_request *, served *, endpoint *run);
/* The request is freed. */
void served_leave(http_request *);
/* The client of a request that may be held has left, or the server is shutting down: with f it is
 * refused. False: it was not held. */
bool served_forget(http_request *, const failure *f);

/* The owner's. Runs what is held. */
void served_open(served *, port *);
/* New requests are held from now on. */
void served_close(served *);
/* After served_close, when n_users is 0: forgets what was learned of the model; refusing: the port
 * until it is opened again. */
void served_drop(served *, port *refusing);
/* Refuses all that are held. */
void served_refuse(served *, const failure *);
/* Refuses those that are held for longer than limit_s, and those whose own deadline has passed. Returns
 * when the next one is due; UINT64_MAX: none is held. */
uint64_t served_expire(served *, uint64_t now_us, uint32_t limit_s);
uint64_t served_oldest_us(const served *); /* when the oldest held one came; 0: none is held */

#endif
