/* What the lanes of a warp compute together: reductions, mma.sync, ldmatrix. Contracts:
 * engine/cuda/cu.h. */
#include "cushim.h"
#include "halves.h"

namespace {

/* Rows of A, and rows of k of B, as the lanes hold them. */
struct halves {
    uint16_t a[16][16], b[16][8];
};

void gather(halves *t, const void *const in[32]) {
    for (int l = 0; l < 32; l++) {
        const cushim_fragments *f = (const cushim_fragments *)in[l];
        int g = l >> 2, c = (l & 3) * 2;
        for (int r = 0; r < 4; r++)
            memcpy(&t->a[g + (r & 1) * 8][c + (r >> 1) * 8], &f->a[r], 4);
        for (int r = 0; r < 2; r++) {
            t->b[c + r * 8][g] = (uint16_t)f->b[r];
            t->b[c + r * 8 + 1][g] = (uint16_t)(f->b[r] >> 16);
        }
    }
}

template <class T, int K>
void multiply(const T a[16][K], const T b[K][8], T sum[16][8]) { /* k ascending */
    for (int i = 0; i < 16; i++) {
        T s[8] = {};
        for (int k = 0; k < K; k++)
            for (int j = 0; j < 8; j++) s[j] += a[i][k] * b[k][j];
        memcpy(sum[i], s, sizeof s);
    }
}

/* Sums of k in ascending order, in float, then added to d: hardware sums in another order and
 * truncates, so results agree within a few units of the last place of the largest product. */
template <float (*CONVERT)(uint32_t)>
void mma_16bit(const void *const in[32], void *const out[32]) {
    halves t;
    gather(&t, in);
    float a[16][16], b[16][8], sum[16][8];
    for (int i = 0; i < 256; i++) a[i / 16][i % 16] = CONVERT(t.a[i / 16][i % 16]);
    for (int i = 0; i < 128; i++) b[i / 8][i % 8] = CONVERT(t.b[i / 8][i % 8]);
    multiply<float, 16>(a, b, sum);
    for (int l = 0; l < 32; l++) {
        float *d = (float *)out[l];
        for (int i = 0; i < 4; i++) d[i] += sum[(l >> 2) + (i >> 1) * 8][(l & 3) * 2 + (i & 1)];
    }
}

void ldmatrix(int n, bool trans, const void *const in[32], void *const out[32]) {
    for (int l = 0; l < n * 8; l++)
        if ((uintptr_t)in[l] & 15) cushim_fault("ldmatrix: %p is not 16-byte aligned", in[l]);
    for (int l = 0; l < 32; l++)
        for (int m = 0; m < n; m++) {
            int g = l >> 2, c = (l & 3) * 2;
            uint16_t lo, hi;
            if (trans) {
                lo = ((const uint16_t *)in[m * 8 + c])[g];
                hi = ((const uint16_t *)in[m * 8 + c + 1])[g];
            } else {
                lo = ((const uint16_t *)in[m * 8 + g])[c];
                hi = ((const uint16_t *)in[m * 8 + g])[c + 1];
            }
            ((uint32_t *)out[l])[m] = lo | (uint32_t)hi << 16;
        }
}

template <class OP> void butterfly(const void *const in[32], void *const out[32], OP op) {
    float a[32], b[32];
    for (int l = 0; l < 32; l++) a[l] = *(const float *)in[l];
    for (int m = 16; m; m >>= 1) {
        for (int l = 0; l < 32; l++) b[l] = op(a[l], a[l ^ m]);
        memcpy(a, b, sizeof a);
    }
    for (int l = 0; l < 32; l++) *(float *)out[l] = a[l];
}

} // namespace

void cushim_sum_f32(uint32_t, const void *const in[32], void *const out[32]) {
    butterfly(in, out, [](float x, float y) { return x + y; });
}
void cushim_max_f32(uint32_t, const void *const in[32], void *const out[32]) {
    butterfly(in, out, [](float x, float y) { return fmaxf(x, y); });
}

void cushim_mma_f16(uint32_t, const void *const in[32], void *const out[32]) {
    mma_16bit<from_f16>(in, out);
}
void cushim_mma_bf16(uint32_t, const void *const in[32], void *const out[32]) {
    mma_16bit<from_bf16>(in, out);
}

void cushim_mma_s8(uint32_t, const void *const in[32], void *const out[32]) {
    int32_t a[16][32], b[32][8], sum[16][8];
    for (int l = 0; l < 32; l++) {
        const cushim_fragments *f = (const cushim_fragments *)in[l];
        int g = l >> 2, c = (l & 3) * 4;
        for (int r = 0; r < 4; r++)
            for (int i = 0; i < 4; i++)
                a[g + (r & 1) * 8][c + (r >> 1) * 16 + i] = (int8_t)(f->a[r] >> 8 * i);
        for (int r = 0; r < 2; r++)
            for (int i = 0; i < 4; i++) b[c + r * 16 + i][g] = (int8_t)(f->b[r] >> 8 * i);
    }
    multiply<int32_t, 32>(a, b, sum);
    for (int l = 0; l < 32; l++) {
        int32_t *d = (int32_t *)out[l];
        for (int i = 0; i < 4; i++) {
            int32_t s = sum[(l >> 2) + (i >> 1) * 8][(l & 3) * 2 + (i & 1)];
            d[i] = (int32_t)((uint32_t)d[i] + (uint32_t)s);
        }
    }
}

void cushim_ldmatrix_x4(uint32_t, const void *const in[32], void *const out[32]) {
    ldmatrix(4, false, in, out);
}
void cushim_ldmatrix_x4_trans(uint32_t, const void *const in[32], void *const out[32]) {
    ldmatrix(4, true, in, out);
}
void cushim_ldmatrix_x2(uint32_t, const void *const in[32], void *const out[32]) {
    ldmatrix(2, false, in, out);
}
void cushim_ldmatrix_x2_trans(uint32_t, const void *const in[32], void *const out[32]) {
    ldmatrix(2, true, in, out);
}
