/* The texts that a calibration runs on where the user names none. */
#ifndef VRAMD_DAEMON_QUANTIZE_TEXTS_H
#define VRAMD_DAEMON_QUANTIZE_TEXTS_H

#include <stdint.h>

#include "base/str.h"

enum { BUILT_IN_TEXTS = 4 };

/* i < BUILT_IN_TEXTS. name: "prose", ... */
str built_in_text(uint32_t i, const char **name);

#endif
