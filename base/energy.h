/* Energy that the machine's processor packages have used, as Linux counts it (RAPL, by the powercap class of sysfs:
 * Intel from 2011 on, AMD Zen). It is the whole package's, other processes and idling included. Since Linux 5.10 only
 * root may read the counters unless the administrator allows it (docs/operations.md); where none can be read there are no
 * packages, and nothing is reported. Any thread, but for open and close. */
#ifndef VRAMD_BASE_ENERGY_H
#define VRAMD_BASE_ENERGY_H

#include <stdint.h>

enum { ENERGY_PACKAGES = 16 };
#define ENERGY_ROOT "/sys/class/powercap"

typedef struct energy_package {
    char name[16]; /* "0", or "0-die-1" where a package has several counters */
    double joules; /* since energy_open */
} energy_package;

/* Begins to count the packages below root (ENERGY_ROOT) whose counters can be read; returns how many these are. Once,
 * or again after energy_close. */
uint32_t energy_open(const char *root);
uint32_t energy_count(void); /* of packages */
/* What they have used; returns how many there are. A counter goes round after some minutes of full load (262 kJ on
 * most), so one of the next two must be called more often than that. */
uint32_t energy_read(energy_package out[ENERGY_PACKAGES]);
/* The sum of all packages; 0 without any. Takes some microseconds a package. */
double energy_joules(void);
void energy_close(void);

#endif
