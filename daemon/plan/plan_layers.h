/* Layers on the host beside a device: what they cost, as text and as JSON. Owns nothing; any thread but for the
 * text. */
#ifndef VRAMD_DAEMON_PLAN_LAYERS_H
#define VRAMD_DAEMON_PLAN_LAYERS_H

#include "base/buf.h"
#include "daemon/plan/plan_speed.h"

/* What a step copies and how many tokens per second that allows, predicted; nothing where all layers are on
 * the device. */
void plan_layers_print(const machine *, const plan_bandwidth *);
/* As a member of the plan's JSON object, with a comma in front. */
void plan_layers_json(buf *, const machine *, const plan_bandwidth *);

#endif
