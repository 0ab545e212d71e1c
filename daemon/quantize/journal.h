/* The journal of an unfinished file: OUT.part has the header and those units (runs of rows of a tensor) that were
 * written, OUT.part.journal a line for each, with its hash. A process that died at any point is continued by the same
 * command; what the hashes do not confirm is written again. One thread opens and closes; units are noted
 * from any. */
#ifndef VRAMD_DAEMON_QUANTIZE_JOURNAL_H
#define VRAMD_DAEMON_QUANTIZE_JOURNAL_H

#include "base/err.h"
#include "quant/job.h"

typedef struct journal {
    const char *out;
    char *part, *notes;  /* OUT.part, OUT.part.journal */
    int fd, notes_fd;    /* -1: not open */
    unsigned char *done; /* [n_units]: 1: written and confirmed */
    uint64_t n_units, n_resumed;
} journal;

/* A unit's place in the file. */
typedef void journal_place(const void *arg, uint64_t unit, uint64_t *offset, uint64_t *bytes);

/* Opens or makes both files and reserves file_bytes on the disk. identity: of everything that the bytes depend on;
 * files of another one are begun again. Errors: ERR_INVALID (OUT exists, and not force), ERR_BUSY (another process
 * writes it), ERR_IO (no space: how much is missing; a folder that cannot be written), ERR_NO_MEMORY. */
status journal_open(journal *, const char *out, bool force, const uint64_t identity[2],
                    uint64_t file_bytes, uint64_t n_units, journal_place *, const void *arg,
                    err *);
/* Whether there is space for bytes in the folder of out, beside what an unfinished file has already. Errors:
 * ERR_IO. */
status journal_check_space(const char *out, uint64_t bytes, err *);
/* ERR_INVALID where out exists and force is not given. */
status journal_check_out(const char *out, bool force, err *);
/* Writes at an offset. Errors: ERR_IO. */
status journal_write(const journal *, uint64_t offset, const void *, size_t n, err *);
/* The unit's bytes are in the file. Errors: ERR_IO. */
status journal_note(journal *, uint64_t unit, const void *bytes, size_t n, err *);
/* Everything is written: to the disk, and OUT.part becomes OUT. Errors: ERR_IO. */
status journal_finish(journal *, err *);
void journal_close(journal *); /* what is unfinished stays */

#endif
