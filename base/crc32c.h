/* CRC-32C (Castagnoli: iSCSI, RFC 3720 appendix B.4), with the instruction of SSE 4.2 where the
 * CPU has it. Finds what went wrong by accident, not by intent. Pure; any thread. */
#ifndef VRAMD_BASE_CRC32C_H
#define VRAMD_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

uint32_t crc32c(const void *, size_t n);
/* Of the three thirds of p: n / 24 * 8 bytes, as many again, and the rest. One core computes the
 * three side by side about four times as fast as one after the other. */
void crc32c_thirds(const void *p, size_t n, uint32_t out[3]);

#endif
