/* Texts of daemon/quantize/texts/ in the binary: English prose, a play, C, and Chinese. They stay as they are when the
 * pages that they were taken from change, so that a calibration gives the same file. */
#include "daemon/quantize/texts.h"

#include "base/check.h"

#define X(name)                                                                                \
    __asm__(".section .rodata\n"                                                               \
            "text_" #name ":\n"                                                                \
            ".incbin \"daemon/quantize/texts/" #name ".txt\"\n"                                \
            "text_" #name "_end:\n"                                                            \
            ".byte 0\n"                                                                        \
            ".previous\n");                                                                    \
    extern const char text_##name[] __attribute__((visibility("hidden")));                     \
    extern const char text_##name##_end[] __attribute__((visibility("hidden")));
#define TEXTS(X) X(prose) X(play) X(code) X(chinese)
TEXTS(X)
#undef X

str built_in_text(uint32_t i, const char **name) {
    static const struct {
        const char *name, *from, *to;
    } all[BUILT_IN_TEXTS] = {
#define X(name) {#name, text_##name, text_##name##_end},
        TEXTS(X)
#undef X
    };
    CHECK(i < BUILT_IN_TEXTS);
    *name = all[i].name;
    return (str){all[i].from, (size_t)(all[i].to - all[i].from)};
}
