/* What vramd quantize says: the plan before it begins, and the result. Stateless. */
#ifndef VRAMD_DAEMON_QUANTIZE_REPORT_H
#define VRAMD_DAEMON_QUANTIZE_REPORT_H

#include "base/buf.h"
#include "daemon/quantize/convert.h"

/* Where it goes, how large, by types; memory by what holds it. */
void quantize_plan_text(buf *, const conversion *);
void quantize_done_text(buf *, const conversion *);
/* One object: input, output, tensors with type and bytes before and after, memory; done: with the time. */
void quantize_json(buf *, const conversion *, bool done);

#endif
