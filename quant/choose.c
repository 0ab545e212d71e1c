/* Types for a number of bytes. Pure. */
#include "quant/choose.h"

#include <math.h>
#include <stdlib.h>

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

/* From the least choice the first `taken` steps; then `more` of those behind, passing over the next one, those whose
 * predecessor was passed over, and those with which they would take more than the next one does. What they add
 * and save, and while they fit into `left`: so the choices that are looked at do not depend on the
 * budget. */
typedef struct fill {
    uint64_t bytes;
    double saved;
    size_t more;
} fill;

static uint64_t step_bytes(const choose_item *it, const step *s) {
    return it[s->item].v[s->to].bytes - it[s->item].v[s->from].bytes;
}
static fill fill_behind(choose_item *it, const step *s, size_t n_steps, size_t taken,
                        uint64_t left, size_t most) {
    fill f = {0};
    if (taken >= n_steps) return f;
    const uint64_t cap = step_bytes(it, &s[taken]);
    for (size_t k = taken + 1; k < n_steps && f.more < most; k++) {
        const uint64_t bytes = step_bytes(it, &s[k]);
        if (it[s[k].item].picked != s[k].from || f.bytes + bytes > cap) continue;
        if (f.bytes + bytes > left) break;
        f.bytes += bytes;
        f.saved += it[s[k].item].v[s[k].from].loss - it[s[k].item].v[s[k].to].loss;
        f.more++;
        it[s[k].item].picked = s[k].to;
    }
    return f;
}

static void take(choose_item *it, size_t n, const step *s, size_t taken) {
    for (size_t i = 0; i < n; i++) it[i].picked = 0;
    for (size_t k = 0; k < taken; k++) it[s[k].item].picked = s[k].to;
}

/* The best choice of no more bytes: of the steps' own, of each with one further step, of each filled. */
static void best_choice(choose_item *it, size_t n, const step *s, size_t n_steps,
                        uint64_t budget) {
    double least = INFINITY;
    size_t best_at = 0, best_more = 0;
    further best = {0};
    for (size_t at = 0; at <= n_steps; at++) {
        take(it, n, s, at);
        const uint64_t bytes = choose_bytes(it, n);
        if (bytes > budget) break;
        const double loss = choose_loss(it, n);
        const further one = best_further(it, n, budget - bytes);
        if (loss - one.saved < least)
            least = loss - one.saved, best = one, best_at = at, best_more = 0;
        const fill f = fill_behind(it, s, n_steps, at, budget - bytes, SIZE_MAX);
        if (loss - f.saved < least)
            least = loss - f.saved, best.any = false, best_at = at, best_more = f.more;
    }
    take(it, n, s, best_at);
    if (best.any)
        it[best.item].picked = best.to;
    else
        fill_behind(it, s, n_steps, best_at, UINT64_MAX, best_more);
}

bool choose(choose_item *it, size_t n, uint64_t budget, bool *no_memory) {
    size_t most = 1;
    *no_memory = false;
    for (size_t i = 0; i < n; i++) {
        CHECK(it[i].n >= 1 && it[i].n <= CHOOSE_MAX_OPTIONS);
        qsort(it[i].v, it[i].n, sizeof *it[i].v, by_bytes);
        it[i].picked = 0;
        most += it[i].n;
    }
    if (choose_bytes(it, n) > budget) return false;
    step *s = malloc(most * sizeof *s);
    *no_memory = !s;
    if (!s) return false;
    best_choice(it, n, s, list_steps(it, n, s), budget);
    free(s);
    return true;
}
