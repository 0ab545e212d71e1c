/* attention_unfused.h for any processor. */
#define UNFUSED attention_unfused_plain
#include "engine/cpu/attention_unfused.h"
