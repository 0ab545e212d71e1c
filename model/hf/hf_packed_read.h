/* Rows of matrices that are stored as codes, zero points and scales (hf_packed.h). */
#ifndef VRAMD_MODEL_HF_PACKED_READ_H
#define VRAMD_MODEL_HF_PACKED_READ_H

#include "model/hf/hf_packed.h"

/* Outputs of a matrix that is stored transposed, each with its codes one after the other. */
typedef struct hf_slab hf_slab;
uint64_t hf_slab_bytes(const hf_packed *); /* 0: it needs none */
/* mem: as many bytes as the largest of the matrices needs, 16-byte aligned. */
hf_slab *hf_slab_init(void *mem);
void hf_slab_clear(hf_slab *);

/* Where a file has what is number i within the heads of head_dim rows: the file has the first halves of all pairs,
 * then the second ones; read, those of a pair are neighbours. */
static inline uint64_t hf_stored_place(uint32_t head_dim, uint64_t i) {
    const uint64_t d = head_dim, at = i % d;
    return i - at + (at % 2) * (d / 2) + at / 2;
}

/* Rows [first, first + n) of the matrix, one behind the other, as blocks of its type. head_dim: pairs of the rows of a
 * head are to become neighbours; 0: rows are read as stored. Any thread. Errors: ERR_IO, ERR_UNSUPPORTED (a
 * zero point with which a number does not fit; field: the tensor), ERR_NO_MEMORY. */
status hf_packed_read(const hf_packed *, hf_slab *, uint32_t head_dim, uint64_t first,
                      uint64_t n, void *dst, err *);

#endif
