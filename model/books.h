/* Books of IQ1, IQ2 and IQ3 (ggml's grids): what the indices in blocks stand for. Byte b of an entry has the number of
 * input b in its low nibble and that of input 4 + b in its high one (IQ3: only the low ones), each by its place among
 * the values that the type has. */
#ifndef VRAMD_MODEL_BOOKS_H
#define VRAMD_MODEL_BOOKS_H

#include <stdint.h>

extern const uint32_t book_iq1[2048], book_iq2_xxs[256], book_iq2_xs[512], book_iq2_s[1024],
    book_iq3_xxs[256], book_iq3_s[512];

#endif
