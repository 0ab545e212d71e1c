/* Chat templates by family. Owns nothing; the loop thread. Each renderer restates what the
 * family's published template does; tests/golden/make_chat_golden.py renders those templates by
 * jinja2 and the tests compare. */
#include "text/chat_template.h"

#include <string.h>
#include <time.h>

static bool has(str s, const char *word) {
    return str_find(s, str_of(word), 0) != SIZE_MAX;
}

/* "<|im_start|>system\nTEXT<|im_end|>" written out in a template is the default system message.
 * Copies TEXT, with Jinja's escapes undone; anything but plain text ends the attempt. */
static bool literal_system(str src, size_t at, char *out, size_t cap) {
    size_t n = 0;
    for (size_t i = at; i < src.len && n + 1 < cap; i++) {
        str rest = {src.ptr + i, src.len - i};
        if (str_starts(rest, STR("<|im_end|>"))) {
            out[n] = '\0';
            return n > 0;
        }
        char c = src.ptr[i];
        if (c == '{' || c == '}' || c == '\'' || c == '"') return false;
        if (c == '\\' && i + 1 < src.len) {
            c = src.ptr[++i];
            c = c == 'n' ? '\n' : c;
        }
        out[n++] = c;
    }
    return false;
}

static void find_default_system(chat_template *t, str src) {
    static const char *const head[] = {"<|im_start|>system\\n", "<|im_start|>system\n"};
    for (int h = 0; h < 2; h++)
        for (size_t at = 0; (at = str_find(src, str_of(head[h]), at)) != SIZE_MAX;) {
            at += strlen(head[h]);
            if (literal_system(src, at, t->system, sizeof t->system)) return;
        }
    t->system[0] = '\0';
}

static void find_mistral_spaces(chat_template *t, str src) {
    t->inst = has(src, "[INST] ") ? "[INST] " : "[INST]";
    t->inst_end = has(src, " [/INST]") ? " [/INST]" : "[/INST]";
    t->before_answer = has(src, "' ' + message") || has(src, "\" \" + message") ? " " : "";
    t->after_eos = has(src, "eos_token + ' '") || has(src, "eos_token+' '") ? " " : "";
    t->takes_system = has(src, "system_message");
    t->no_empty_system = !has(src, "system_message is defined");
}

/* Phi-3's in its published forms: the roles are written out, each turn on a line of its own. The
 * first form knew no system messages and began the answer behind each question. */
static bool find_phi3(chat_template *t, str src) {
    if (!has(src, "<|user|>") || !has(src, "<|assistant|>") || !has(src, "<|end|>"))
        return false;
    if (has(src, "tools") || has(src, "strftime_now")) return false;
    t->takes_system = has(src, "<|system|>");
    t->no_empty_system = has(src, "'system' and message['content']");
    return true;
}

/* Templates of known markers that do more than their family: a guess would be another prompt. */
static bool is_more(str src) {
    static const char *const more[] = {"reasoning_mode", "[SYSTEM_PROMPT]",
                                       "assistant\\n<think>", "assistant\n<think>"};
    for (size_t i = 0; i < sizeof more / sizeof *more; i++)
        if (has(src, more[i])) return true;
    return false;
}

status chat_template_open(chat_template *t, str src, str bos, str eos, err *e) {
    *t = (chat_template){.bos = has(src, "bos_token") ? bos : STR(""), .eos = eos};
    if (is_more(src)) {
        t->family = CHAT_UNKNOWN;
    } else if (has(src, "<|im_sep|>")) {
        /* A system message of its own stands behind the separator: phi-4-reasoning. */
        if (has(src, "'<|im_start|>system<|im_sep|>' + ")) t->family = CHAT_PHI4;
    } else if (find_phi3(t, src)) {
        t->family = CHAT_PHI3;
    } else if (has(src, "<|im_start|>") && !has(src, "strftime_now")) {
        t->family = CHAT_CHATML;
        find_default_system(t, src);
    } else if (has(src, "<|start_header_id|>")) {
        t->family = CHAT_LLAMA3;
        t->dated = has(src, "Cutting Knowledge Date: December 2023");
        t->today = has(src, "strftime_now");
    } else if (has(src, "<start_of_turn>")) {
        t->family = CHAT_GEMMA;
        t->takes_system = has(src, "first_user_prefix");
    } else if (has(src, "[INST]") && has(src, "<<SYS>>")) {
        t->family = CHAT_LLAMA2;
    } else if (has(src, "[INST]")) {
        t->family = CHAT_MISTRAL;
        find_mistral_spaces(t, src);
    }
    if (t->family != CHAT_UNKNOWN) return OK;
    err_set(e, ERR_INVALID,
            src.len ? "the model's chat template is not one that this server recognises"
                    : "the model has no chat template");
    err_field(e, "chat_template");
    return err_hint(e, "use /v1/completions with a prompt in the model's own format");
}

status chat_template_of(chat_template *out, const tokenizer *tok, err *e) {
    int32_t bos = tokenizer_bos(tok), eos = tokenizer_eos(tok);
    return chat_template_open(out, tokenizer_chat_template(tok),
                              bos >= 0 ? tokenizer_piece(tok, bos, true) : STR(""),
                              eos >= 0 ? tokenizer_piece(tok, eos, true) : STR(""), e);
}

/* ---- rendering ---- */

static bool is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}
static str trim(str s) {
    while (s.len && is_space(s.ptr[0])) s.ptr++, s.len--;
    while (s.len && is_space(s.ptr[s.len - 1])) s.len--;
    return s;
}

static void add3(buf *b, const char *before, str s, const char *after) {
    buf_add(b, str_of(before));
    buf_add(b, s);
    buf_add(b, str_of(after));
}

static void render_chatml(const chat_template *t, const chat_message *m, size_t n, buf *b) {
    buf_add(b, t->bos);
    if (t->system[0] && !str_eqz(m[0].role, "system"))
        add3(b, "<|im_start|>system\n", str_of(t->system), "<|im_end|>\n");
    for (size_t i = 0; i < n; i++) {
        add3(b, "<|im_start|>", m[i].role, "\n");
        add3(b, "", m[i].content, "<|im_end|>\n");
    }
}

static void render_llama3(const chat_template *t, const chat_message *m, size_t n, buf *b) {
    buf_add(b, t->bos);
    size_t i = 0;
    if (t->dated) {
        bool given = str_eqz(m[0].role, "system");
        char date[32] = "26 Jul 2024";
        time_t now = time(NULL);
        struct tm day;
        if (t->today && localtime_r(&now, &day)) strftime(date, sizeof date, "%d %b %Y", &day);
        add3(b, "<|start_header_id|>system<|end_header_id|>\n\n",
             STR("Cutting Knowledge Date: December 2023\nToday Date: "), date);
        buf_add(b, STR("\n\n"));
        add3(b, "", given ? trim(m[0].content) : STR(""), "<|eot_id|>");
        i = given;
    }
    for (; i < n; i++) {
        add3(b, "<|start_header_id|>", m[i].role, "<|end_header_id|>\n\n");
        add3(b, "", trim(m[i].content), "<|eot_id|>");
    }
}

static void render_gemma(const chat_template *t, const chat_message *m, size_t n, buf *b) {
    bool system = str_eqz(m[0].role, "system");
    buf_add(b, t->bos);
    for (size_t i = system; i < n; i++) {
        bool answer = str_eqz(m[i].role, "assistant");
        add3(b, "<start_of_turn>", answer ? STR("model") : m[i].role, "\n");
        if (system && i == 1) add3(b, "", m[0].content, "\n\n");
        add3(b, "", trim(m[i].content), "<end_of_turn>\n");
    }
}

static void render_phi3(const chat_template *t, const chat_message *m, size_t n, bool answer,
                        buf *b) {
    buf_add(b, t->bos);
    for (size_t i = 0; i < n; i++) {
        bool system = str_eqz(m[i].role, "system");
        if (system && (!t->takes_system || (t->no_empty_system && !m[i].content.len))) continue;
        /* The first form has the head of an answer behind the question before it. */
        if (t->takes_system || !str_eqz(m[i].role, "assistant"))
            add3(b, "<|", m[i].role, "|>\n");
        add3(b, "", m[i].content, "<|end|>\n");
        if (!t->takes_system && str_eqz(m[i].role, "user")) buf_add(b, STR("<|assistant|>\n"));
    }
    if (t->takes_system && !answer) buf_add(b, t->eos);
}

static void render_phi4(const chat_message *m, size_t n, buf *b) {
    for (size_t i = 0; i < n; i++) {
        add3(b, "<|im_start|>", m[i].role, "<|im_sep|>");
        add3(b, "", m[i].content, "<|im_end|>");
    }
}

static void render_llama2(const chat_template *t, const chat_message *m, size_t n, buf *b) {
    bool system = str_eqz(m[0].role, "system");
    for (size_t i = system; i < n; i++) {
        if (str_eqz(m[i].role, "assistant")) {
            add3(b, " ", trim(m[i].content), " ");
            buf_add(b, t->eos);
            continue;
        }
        buf_add(b, t->bos);
        buf_add(b, STR("[INST] "));
        if (i == 1 && system) {
            /* The whole is stripped; what begins with a tag can lose only at its end. */
            add3(b, "<<SYS>>\n", m[0].content, "\n<</SYS>>\n\n");
            size_t from = b->len;
            buf_add(b, m[i].content);
            while (!b->failed && b->len > from && is_space(b->ptr[b->len - 1])) b->len--;
            while (!b->failed && b->len == from && is_space(b->ptr[b->len - 1]))
                b->len--, from--;
        } else {
            buf_add(b, trim(m[i].content));
        }
        buf_add(b, STR(" [/INST]"));
    }
}

static void render_mistral(const chat_template *t, const chat_message *m, size_t n, buf *b) {
    bool system = str_eqz(m[0].role, "system");
    buf_add(b, t->bos);
    for (size_t i = system; i < n; i++) {
        if (str_eqz(m[i].role, "assistant")) {
            bool strip = t->before_answer[0] != '\0';
            add3(b, t->before_answer, strip ? trim(m[i].content) : m[i].content, "");
            add3(b, "", t->eos, t->after_eos);
            continue;
        }
        buf_add(b, str_of(t->inst));
        if (system && i + 1 == n && (m[0].content.len || !t->no_empty_system))
            add3(b, "", m[0].content, "\n\n");
        add3(b, "", m[i].content, t->inst_end);
    }
}

/* Families whose templates raise an exception unless user and assistant alternate. */
static status check_roles(const chat_template *t, const chat_message *m, size_t n, err *e) {
    bool system_ok = t->family == CHAT_LLAMA2 || t->takes_system;
    bool system = str_eqz(m[0].role, "system");
    if (system && !system_ok) {
        err_set(e, ERR_INVALID, "the model's chat template does not support the system role");
        return err_field(e, "messages");
    }
    for (size_t i = system; i < n; i++)
        if (!str_eqz(m[i].role, (i - system) % 2 ? "assistant" : "user")) {
            err_set(e, ERR_INVALID,
                    "the roles must alternate user, assistant, user, ... in this model's chat "
                    "template; messages[%zu] is not in turn",
                    i);
            return err_field(e, "messages");
        }
    return OK;
}

/* What begins an answer; the others have nothing for it. */
static const char *answer_head(const chat_template *t) {
    switch (t->family) {
    case CHAT_PHI3: return t->takes_system ? "<|assistant|>\n" : "";
    case CHAT_PHI4: return "<|im_start|>assistant<|im_sep|>";
    case CHAT_CHATML: return "<|im_start|>assistant\n";
    case CHAT_LLAMA3: return "<|start_header_id|>assistant<|end_header_id|>\n\n";
    case CHAT_GEMMA: return "<start_of_turn>model\n";
    default: return "";
    }
}

status chat_template_render(const chat_template *t, const chat_message *m, size_t n,
                            bool answer, buf *b, err *e) {
    if (n == 0) {
        err_set(e, ERR_INVALID, "messages is empty");
        return err_field(e, "messages");
    }
    if (t->family == CHAT_LLAMA2 || t->family == CHAT_MISTRAL || t->family == CHAT_GEMMA) {
        status s = check_roles(t, m, n, e);
        if (s != OK) return s;
    }
    switch (t->family) {
    case CHAT_CHATML: render_chatml(t, m, n, b); break;
    case CHAT_LLAMA3: render_llama3(t, m, n, b); break;
    case CHAT_GEMMA: render_gemma(t, m, n, b); break;
    case CHAT_LLAMA2: render_llama2(t, m, n, b); break;
    case CHAT_MISTRAL: render_mistral(t, m, n, b); break;
    case CHAT_PHI3: render_phi3(t, m, n, answer, b); break;
    case CHAT_PHI4: render_phi4(m, n, b); break;
    case CHAT_UNKNOWN: return err_set(e, ERR_INVALID, "no chat template");
    }
    if (answer) buf_add(b, str_of(answer_head(t)));
    return b->failed ? err_set(e, ERR_NO_MEMORY, "no memory for the prompt") : OK;
}
