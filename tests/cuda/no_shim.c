/* Stands for the shim where a test is linked for a device: those of its cases that ask
 * something of the shim are not run there. */
#include "tests/cushim/cushim_ctl.h"

#include "base/check.h"

#define NO_SHIM CHECK(!"there is no shim here")

cushim_counts cushim_count(void) {
    NO_SHIM;
    return (cushim_counts){0};
}
int cushim_get_order(void) { /* whose tests are all there are */
    return 3;
}
void cushim_fail_alloc(long n) {
    (void)n;
    NO_SHIM;
}
void cushim_set_memory(size_t bytes) {
    (void)bytes;
    NO_SHIM;
}
void cushim_set_driver(int version) {
    (void)version;
    NO_SHIM;
}
void cushim_set_devices(int n) {
    (void)n;
    NO_SHIM;
}
void cushim_set_library(bool there) {
    (void)there;
    NO_SHIM;
}
void cushim_set_capability(int capability) {
    (void)capability;
    NO_SHIM;
}
void cushim_break(const char *text) {
    (void)text;
    NO_SHIM;
}
void cushim_reset(void) {
    NO_SHIM;
}
