/* module: daemon */
/* Fuzzes what `vramd top` reads of a server, and draws it: the first two bytes are the
 * terminal's size, the rest is the answer of /v1/memory up to a line "%", then that of
 * /metrics. No line may be too long or hold a control character. One thread. */
#include "base/check.h"
#include "daemon/top/top_draw.h"

static void check_frame(str text, uint32_t columns, uint32_t lines) {
    uint32_t column = 0, line = 1;
    for (size_t i = 0; i < text.len; i++) {
        const char c = text.ptr[i];
        CHECK(c == '\n' || (c >= 0x20 && c < 0x7f));
        column = c == '\n' ? 0 : column + 1;
        line += c == '\n' && i + 1 < text.len;
        CHECK(column <= columns);
    }
    CHECK(line <= lines || text.len == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static top_sample s[2];
    arena mem;
    buf b;
    err e;
    if (n < 2) return 0;
    const uint32_t columns = 1 + data[0] % 200, lines = 1 + data[1] % 60;
    str all = {(const char *)data + 2, n - 2};
    const size_t cut = str_find(all, STR("%\n"), 0);
    str account = {all.ptr, cut == SIZE_MAX ? all.len : cut};
    str metrics = {all.ptr + account.len, all.len - account.len};
    arena_init(&mem, chunks_heap(), 0);
    buf_init(&b, &mem);
    s[1] = s[0];
    s[1].at_us = 1;
    s[0].at_us = 1000001;
    const bool ok = top_read_memory(&s[0], &mem, account, &e) == OK;
    CHECK(ok || e.text[0]);
    top_read_metrics(&s[0], metrics);
    const top_rates r = top_rates_between(&s[1], &s[0]);
    const top_view v = {
        .url = "http://x", .now = &s[0], .rates = &r, .columns = columns, .lines = lines};
    top_draw(&b, &v);
    CHECK(!b.failed);
    check_frame(buf_str(&b), columns, lines);
    arena_clear(&mem);
    return 0;
}
