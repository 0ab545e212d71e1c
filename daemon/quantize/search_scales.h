/* The search of the scales of inputs, by all threads of a method. */
#ifndef VRAMD_DAEMON_QUANTIZE_SEARCH_SCALES_H
#define VRAMD_DAEMON_QUANTIZE_SEARCH_SCALES_H

#include "daemon/quantize/method.h"

/* Bytes of scratch of one thread. */
uint64_t search_scales_bytes(uint32_t n);
/* Fills fold and scale of all inputs that can be divided. AWQ: of 21 powers the one whose rounded weights change the
 * outputs least, tr(E H E^T), by up to 256 rows of each matrix; SmoothQuant: by formula. Errors: those of
 * calibration_need; ERR_IO. */
status search_scales(method *, err *);

#endif
