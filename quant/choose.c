/* Types for a number of bytes. Pure. */
#include "quant/choose.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"

typedef struct step {
    double per_byte; /* loss saved */
    uint32_t item, from, to;
} step;

static int by_bytes(const void *a, const void *b) {
    const choose_option *x = a, *y = b;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
    return (x->loss > y->loss) - (x->loss < y->loss);
}
/* The best step first; equal ones in the order of items, so that the result is always the same. */
static int by_gain(const void *a, const void *b) {
    const step *x = a, *y = b;
    if (x->per_byte != y->per_byte) return x->per_byte > y->per_byte ? -1 : 1;
    if (x->item != y->item) return x->item < y->item ? -1 : 1;
    return (x->from > y->from) - (x->from < y->from);
}

/* The lower convex hull of (bytes, loss) from the least bytes on: slopes fall. Returns its length. */
static uint32_t hull_of(const choose_item *it, uint32_t hull[CHOOSE_MAX_OPTIONS]) {
    uint32_t n = 1, at = 0;
    hull[0] = 0;
    for (;;) {
        double best = 0;
        uint32_t next = at;
        for (uint32_t k = at + 1; k < it->n; k++) {
            if (it->v[k].bytes == it->v[at].bytes) continue;
            const double gain =
                (it->v[at].loss - it->v[k].loss) / (double)(it->v[k].bytes - it->v[at].bytes);
            if (gain > best || (gain == best && gain > 0)) best = gain, next = k;
        }
        if (next == at) return n;
        hull[n++] = at = next;
    }
}

static size_t list_steps(const choose_item *it, size_t n, step *out) {
    uint32_t hull[CHOOSE_MAX_OPTIONS];
    size_t n_steps = 0;
    for (size_t i = 0; i < n; i++) {
        const uint32_t len = hull_of(&it[i], hull);
        for (uint32_t k = 1; k < len; k++) {
            const choose_option *a = &it[i].v[hull[k - 1]], *b = &it[i].v[hull[k]];
            out[n_steps++] = (step){(a->loss - b->loss) / (double)(b->bytes - a->bytes),
                                    (uint32_t)i, hull[k - 1], hull[k]};
        }
    }
    qsort(out, n_steps, sizeof *out, by_gain);
    return n_steps;
}

typedef struct further {
    double saved;
    uint32_t item, to;
    bool any;
} further;

/* The single step, along no hull, that saves most in so many bytes. */
static further best_further(const choose_item *it, size_t n, uint64_t left) {
    further best = {0};
    for (size_t i = 0; i < n; i++) {
        const choose_option *now = &it[i].v[it[i].picked];
        for (uint32_t k = 0; k < it[i].n; k++) {
            const choose_option *o = &it[i].v[k];
            if (o->bytes > now->bytes && o->bytes - now->bytes > left) break;
            if (now->loss - o->loss > best.saved)
                best = (further){now->loss - o->loss, (uint32_t)i, k, true};
        }
    }
    return best;
}

uint64_t choose_bytes(const choose_item *it, size_t n) {
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++) sum += it[i].v[it[i].picked].bytes;
    return sum;
}
double choose_loss(const choose_item *it, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += it[i].v[it[i].picked].loss;
    return sum;
}
uint64_t choose_least(const choose_item *it, size_t n) {
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t least = UINT64_MAX;
        for (uint32_t k = 0; k < it[i].n; k++)
            if (it[i].v[k].bytes < least) least = it[i].v[k].bytes;
        sum += least;
    }
    return sum;
}

/* Takes the first n_taken steps from the least choice. */
static void take(choose_item *it, size_t n, const step *s, size_t n_taken) {
    for (size_t i = 0; i < n; i++) it[i].picked = 0;
    for (size_t k = 0; k < n_taken; k++) it[s[k].item].picked = s[k].to;
}

bool choose(choose_item *it, size_t n, uint64_t budget, bool *no_memory) {
    size_t room = 1, at = 0;
    *no_memory = false;
    for (size_t i = 0; i < n; i++) {
        CHECK(it[i].n >= 1 && it[i].n <= CHOOSE_MAX_OPTIONS);
        qsort(it[i].v, it[i].n, sizeof *it[i].v, by_bytes);
        it[i].picked = 0;
        room += it[i].n;
    }
    uint64_t bytes = choose_bytes(it, n);
    if (bytes > budget) return false;
    step *s = malloc(room * sizeof *s);
    if (!s) {
        *no_memory = true;
        return false;
    }
    const size_t n_steps = list_steps(it, n, s);
    double loss = choose_loss(it, n), least = 0;
    size_t best_at = 0;
    further best = {0};
    for (bool first = true;; first = false) {
        const further f = best_further(it, n, budget - bytes);
        if (first || loss - f.saved < least) best = f, best_at = at, least = loss - f.saved;
        if (at == n_steps) break;
        const choose_option *from = &it[s[at].item].v[s[at].from],
                            *to = &it[s[at].item].v[s[at].to];
        if (to->bytes - from->bytes > budget - bytes) break;
        bytes += to->bytes - from->bytes;
        it[s[at].item].picked = s[at].to;
        at++;
        loss = choose_loss(it, n);
    }
    take(it, n, s, best_at);
    if (best.any) it[best.item].picked = best.to;
    free(s);
    return true;
}
