/* One fake server for each test, f, and the usual ways to begin, ask and end it. All functions are
 * static. */
#ifndef VRAMD_TESTS_API_FAKE_ONE_H
#define VRAMD_TESTS_API_FAKE_ONE_H

#include "tests/api/fake_port.h"
#include "tests/api/parsed.h"

static fake f;

/* NULL: the fake's own. */
static FAKE_UNUSED void start_as(const char *chat_template, const char *says) {
    fake_init(&f);
    if (chat_template) f.chat_template = chat_template;
    if (says) f.says = says;
    fake_start(&f);
}

static FAKE_UNUSED void start(void) {
    start_as(NULL, NULL);
}

static FAKE_UNUSED void stop(void) {
    fake_stop(&f);
    parsed_free();
}

/* Posts, checks the status, and that the answer has each of the texts. */
static FAKE_UNUSED void expect(const char *path, const char *body, int status,
                               const char *const *texts) {
    reply r = fake_post(&f, path, body);
    ck_assert_msg(r.status == status, "%.200s: %d\n%.300s", body, r.status, r.body);
    for (; *texts; texts++) assert_has(r.body, *texts);
    reply_free(&r);
}
#define EXPECT(path, body, status, ...)                                                        \
    expect(path, body, status, (const char *const[]){__VA_ARGS__, NULL})
#define MESSAGES "\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]"

#endif
