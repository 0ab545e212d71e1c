/* Steps: one copy brings the tables of a slot to the device, a graph or the program runs, one
 * copy brings what was drawn back, an event tells when. All on one stream, so that the next
 * step may be submitted at once: it reads on the device what this one drew. Engine thread. */
#include "engine/cuda/cuda.h"

#include <string.h>

/* From now on nothing works any more; said once in the log. */
static status give_up(cuda_engine *e, status s, err *er) {
    if (s == OK) return OK;
    if (!e->broken) e->host->log(0, er->text);
    e->broken = true;
    e->error = *er;
    return s;
}

static status broken(const cuda_engine *e, err *er) {
    *er = e->error;
    return e->error.code;
}

static cudaError_t copy_tables(cuda_engine *e, const cuda_slot *slot, uint64_t bytes) {
    return cudaMemcpyAsync(cuda_at(e, e->l->tables), slot->tables, bytes,
                           cudaMemcpyHostToDevice, e->stream);
}

static cudaError_t copy_results(cuda_engine *e, cuda_slot *slot, const batch *b) {
    const sampled *token = (const sampled *)cuda_at(e, e->l->results),
                  *scored = token + e->opt.max_seqs;
    cudaError_t ce = cudaMemcpyAsync(slot->token, token, sizeof *token * b->n_seqs,
                                     cudaMemcpyDeviceToHost, e->stream);
    if (ce == cudaSuccess && slot->n_scores)
        ce = cudaMemcpyAsync(slot->scored, scored, sizeof *scored * slot->n_scores,
                             cudaMemcpyDeviceToHost, e->stream);
    if (ce == cudaSuccess && e->kept && b->n_logit_rows)
        ce = cudaMemcpyAsync(slot->logits, e->kept,
                             sizeof(float) * e->p->config.n_vocab * b->n_logit_rows,
                             cudaMemcpyDeviceToHost, e->stream);
    return ce;
}

static cudaError_t submit_step(cuda_engine *e, const batch *b, cuda_slot *slot) {
    cuda_run run;
    cudaError_t ce = cudaSetDevice(e->device);
    const uint64_t bytes = cuda_fill(e, b, slot, &run);
    e->stager.waits = slot->waits;
    e->calls = slot->calls;
    if (ce == cudaSuccess) ce = copy_tables(e, slot, bytes);
    if (ce == cudaSuccess)
        ce = run.graph ? cudaGraphLaunch(cuda_graph_of(e, &run), e->stream)
                       : cuda_run_program(e, &run);
    if (ce == cudaSuccess) ce = copy_results(e, slot, b);
    if (ce == cudaSuccess) ce = cudaEventRecord(slot->done, e->stream);
    return ce;
}

status cuda_submit(cuda_engine *e, const batch *b, err *er) {
    if (e->broken) return broken(e, er);
    if (e->n_in_flight == CUDA_DEPTH)
        return cuda_fail(e->host, er, ERR_INVALID, "%d steps are in flight already",
                         CUDA_DEPTH);
    cuda_slot *slot = &e->slot[(e->first + e->n_in_flight) % CUDA_DEPTH];
    status s = cuda_check(e->host, submit_step(e, b, slot), "submitting a step", er);
    if (s != OK) return give_up(e, s, er);
    e->n_in_flight++;
    return OK;
}

/* Scores come one after the other and belong to rows further on. */
static void spread_scores(cuda_slot *slot) {
    for (uint32_t i = slot->n_scores; i-- > 0;)
        memmove(&slot->scored[slot->scores[i].logit_row], &slot->scored[i],
                sizeof *slot->scored);
}

status cuda_collect(cuda_engine *e, step_result *out, err *er) {
    if (e->n_in_flight == 0)
        return e->broken ? broken(e, er)
                         : cuda_fail(e->host, er, ERR_INVALID, "no step is submitted");
    cuda_slot *slot = &e->slot[e->first];
    e->first = (e->first + 1) % CUDA_DEPTH;
    e->n_in_flight--;
    if (e->broken) return broken(e, er);
    cudaError_t ce = cudaSetDevice(e->device);
    if (e->ranks && ce == cudaSuccess) {
        const status s = cuda_ranks_wait(e, slot->done, er);
        if (s != OK) return give_up(e, s, er);
    }
    if (ce == cudaSuccess) ce = cudaEventSynchronize(slot->done);
    if (ce == cudaSuccess) ce = cuda_stage_count(e, slot);
    status s = cuda_check(e->host, ce, "a step on the device", er);
    if (s != OK) return give_up(e, s, er);
    spread_scores(slot);
    out->token = slot->token;
    out->n_tokens = NULL;
    out->max_run = 1;
    out->scored = slot->scored;
    out->logits = e->kept ? slot->logits : NULL;
    return OK;
}

/* ---- warming up ---- */

static cudaError_t run_blank(cuda_engine *e, const cuda_run *run) {
    cuda_slot *slot = &e->slot[0];
    const uint64_t bytes = cuda_fill_blank(e, slot, run);
    cudaError_t ce = copy_tables(e, slot, bytes);
    if (ce == cudaSuccess) ce = cuda_run_program(e, run);
    return ce == cudaSuccess ? cudaStreamSynchronize(e->stream) : ce;
}

/* A step of n rows with everything in it that a step can have. */
static cuda_run blank_of(const cuda_engine *e, uint32_t n) {
    const uint32_t n_seqs = n < e->opt.max_seqs ? n : e->opt.max_seqs;
    cuda_run run = cuda_graph_run(e, n_seqs, e->opt.max_model_len);
    run.shape.n_rows = n;
    run.shape.n_seqs = run.shape.n_tiles = n_seqs;
    run.shape.n_logit_rows = n < e->opt.max_logit_rows ? n : e->opt.max_logit_rows;
    run.shape.n_scores = 1;
    run.shape.n_copies = e->l->n_groups + (e->l->n_states > 0);
    run.copies[ENGINE_COPY_STATE] = e->l->n_states > 0;
    for (uint32_t g = 0; g < e->l->n_groups; g++) run.copies[g] = 1;
    return run;
}

/* Kernels are loaded when they are first launched, and which are depends on the number of rows:
 * so each is launched once, for rows that do not exist, before the first request, and the
 * device's memory does not move afterwards. */
status cuda_warm_up(cuda_engine *e, err *er) {
    cudaError_t ce = cudaSuccess;
    const uint32_t most = e->opt.max_rows;
    e->idle = true;
    for (uint32_t n = 1; ce == cudaSuccess; n = n <= CU_FEW_ROWS ? n + 1 : 2 * n - 1) {
        const cuda_run run = blank_of(e, n < most ? n : most);
        ce = run_blank(e, &run);
        if (n >= most) break;
    }
    e->idle = false;
    return cuda_check(e->host, ce, "warming up", er);
}
