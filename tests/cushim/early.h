/* Kernels that begin while those before them still run (CU_LAUNCH_EARLY), in the orders 3, 4, ...
 *
 * Between the last copy, or the last time that the host waited, and a kernel's cu_grid_wait nothing promises
 * that a kernel before it has ended, or has written anything yet. So until all threads of a block wait, bytes
 * that kernels wrote since then are hidden: they are 0xff, NaN as a number. Device memory is
 * read-only meanwhile; the block's first write to it ends the process (or the launch), with a line that says so.
 *
 * What kernels write is found by pages that fault at their first write. Not under ASan. */
#ifndef VRAMD_TESTS_CUSHIM_EARLY_H
#define VRAMD_TESTS_CUSHIM_EARLY_H

namespace cushim {

/* A kernel begins; early: by CU_LAUNCH_EARLY, else all before it has ended. True: its blocks are to be hidden
 * from. */
bool early_begin(bool early);
/* Around a block's part before cu_grid_wait. first: the launch's first block, of which all writes are found. */
void early_hide(bool first);
void early_show();
/* All that kernels wrote is there now: a copy begins, or the host has waited. */
void early_settle();

/* Device memory was made accessible, or inaccessible (device_access). */
void early_opened();
void early_closed();
/* A write to protected memory at p; true: it may be tried again. */
bool early_faulted(void *p);

} // namespace cushim

#endif
