/* The inside of the tokenizer, shared by text/tokenizer/tokenizer*.c only.
 *
 * Everything lives in one block whose parts are laid out by tok_layout: the same arithmetic
 * gives tokenizer_plan_bytes and the allocation, so that they agree to the byte. After open
 * nothing changes but the bitmap `whole`, which only remembers what encoding found out. */
#ifndef VRAMD_TEXT_TOKENIZER_IN_H
#define VRAMD_TEXT_TOKENIZER_IN_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdatomic.h>

#include "base/check.h"
#include "text/tokenizer/tokenizer.h"

enum {
    TOK_MAX_EOG = 32,
    TOK_MAX_IDS = 1 << 24,       /* tokens, and merges: leaves 7 bits of tag in a slot */
    TOK_MAX_SPECIAL_BYTES = 256, /* longer special texts are never parsed */
    TOK_PRE_BYTES = 32 << 10,    /* PCRE2's compiled patterns and contexts */
    TOK_PRE_STAGES = 6,
    TOK_JOINS_BYTES = 65536 / 8,
    TOK_WORD_CHARS = 1000 /* of a word that WordPiece cuts, at most */
};

/* What GGUF calls tokenizer.ggml.model: "gpt2" (BPE over bytes), "llama" (SentencePiece), "bert". */
typedef enum tok_kind { TOK_BPE, TOK_SPM, TOK_WORDPIECE } tok_kind;

/* What GGUF calls tokenizer.ggml.token_type. */
typedef enum tok_type {
    TOK_NORMAL = 1,
    TOK_UNKNOWN = 2,
    TOK_CONTROL = 3,
    TOK_USER = 4, /* parsed in every text, and shown */
    TOK_UNUSED = 5,
    TOK_BYTE = 6
} tok_type;

/* A set of ids or ranks found by hash. A slot holds the index in its low index_bits and bits of
 * the hash above, so that most misses never touch the keys. */
typedef struct tok_table {
    uint32_t *slot; /* [n_slots]; SLOT_EMPTY */
    uint32_t n_slots;
    uint32_t index_bits; /* n < 2^index_bits - 1: no slot in use equals SLOT_EMPTY */
} tok_table;
#define SLOT_EMPTY 0xffffffffu

typedef struct tok_merge {
    uint32_t left, right, result;
} tok_merge;

/* One row for all values of tokenizer.ggml.pre that mean the same. */
typedef struct tok_pre {
    const char *names; /* apart by one blank each */
    /* The first cuts the text into what it matches and what lies between, the second each of
     * those parts as if it stood alone, and so on; what the last leaves are the words. */
    const char *stage[TOK_PRE_STAGES];
    bool ascii_words;   /* " ?[A-Za-z]+" before other ASCII or the end is always one word */
    bool ignore_merges; /* a word that is a token needs no merges to be one */
    bool adds_bos;      /* unless tokenizer.ggml.add_bos_token says otherwise */
} tok_pre;

/* Where the parts of the block begin. */
typedef struct tok_layout {
    uint32_t n_vocab, n_merges, n_special;
    const str *tokens, *merges; /* as in the file */
    const int32_t *types;       /* NULL: all normal */
    const float *scores;        /* SentencePiece only */
    tok_kind kind;
    uint64_t offset, pieces, type, slot, merge, merge_slot, whole, special, score, joins, pre;
    uint64_t bytes;
} tok_layout;

typedef struct tok_words tok_words;

struct tokenizer {
    const chunks *src;
    size_t got;
    uint64_t bytes, seed;
    tok_kind kind;

    uint32_t n_vocab, n_merges, n_special;
    const uint32_t *offset; /* [n_vocab + 1] into pieces */
    const char *pieces;     /* the bytes of every token */
    uint8_t *type;          /* [n_vocab] tok_type */
    tok_table by_piece;     /* ids of all but control and unknown tokens */
    tok_merge *merges;      /* [n_merges] by rank */
    tok_table by_pair;      /* ranks */
    int32_t byte_id[256];   /* -1: the vocabulary has no token for that byte */
    /* SentencePiece: the rank of each token's score, [n_vocab]; a bit for each pair of bytes
     * (first << 8 | second) that are neighbours in a token, TOK_JOINS_BYTES; the length of the
     * longest token that merges make; whether a text begins with a space that is not written,
     * also after special tokens; whether spaces are single. */
    uint32_t *score_rank;
    uint8_t *joins;
    uint32_t longest;
    bool space_prefix, single_spaces;
    struct {
        uint32_t most_chars; /* of a word; a longer one is unknown */
        bool clean, split_han, strip_accents, lowercase;
    } wordpiece; /* what BERT calls them, for TOK_WORDPIECE */
    /* [ceil(n_vocab / 32)]: bit set when merging the token's own bytes was seen to give it. */
    _Atomic uint32_t *whole;

    uint32_t *special;                        /* [n_special] ids sorted by text, then id */
    uint64_t first_control[4], first_user[4]; /* bytes that special texts begin with */

    int32_t bos, eos, unknown;
    bool add_bos, add_eos;
    bool nfc;                 /* text is brought into normal form C first */
    bool strip_after_special; /* white space after control and user-defined tokens is dropped */
    int32_t eog[TOK_MAX_EOG];
    uint32_t n_eog;

    /* Appends the ids of a run of text that holds no special token. */
    status (*encode_run)(const tokenizer *, tok_words *, str);
    const tok_pre *pre;
    pcre2_code *code[TOK_PRE_STAGES];
    uint32_t n_stages;
    pcre2_match_context *limits;
    bool jit;
    char *pre_at, *pre_end; /* what is left of TOK_PRE_BYTES */
    bool pre_compiles;      /* PCRE2 is compiling a pattern */
};

/* What one call of tokenizer_encode needs: the output, and memory that goes back at its end
 * (from the output's arena's source, so that it is counted with the request, or the heap). */
struct tok_words {
    vec_i32 *out;
    arena scratch;
    pcre2_match_data *match;
    bool after_special; /* the run begins the text, or follows a special token */
    str raw;            /* what is left of text that is not UTF-8; ptr NULL: it is */
    char *plain;        /* [plain_cap] in scratch */
    size_t plain_cap;
    err *err;
};

static inline str tok_piece(const tokenizer *t, uint32_t id) {
    return (str){t->pieces + t->offset[id], t->offset[id + 1] - t->offset[id]};
}

/* Whether merging the token's own bytes was seen to give it. */
static inline bool tok_is_whole(const tokenizer *t, int32_t id) {
    return atomic_load_explicit(&t->whole[id >> 5], memory_order_relaxed) >> (id & 31) & 1;
}
static inline void tok_set_whole(const tokenizer *t, int32_t id) {
    atomic_fetch_or_explicit(&t->whole[id >> 5], 1u << (id & 31), memory_order_relaxed);
}

/* tokenizer_vocab.c. kind is set by the caller. */
status tok_layout_of(tok_layout *, const checkpoint *, err *);
status tok_vocab_build(tokenizer *, const tok_layout *, err *);

/* tokenizer_table.c. The slots of a table of n entries; an empty table in so many slots. */
uint32_t tok_table_slots(uint32_t n);
void tok_table_init(tok_table *, uint32_t *slots, uint32_t n);
/* Adds a token under its bytes. Of equal texts an ordinary token goes before a user-defined
 * one, and among those the last: as the reference tokenizers' dictionaries have it. */
void tok_add_piece(tokenizer *, uint32_t id);
/* Adds the merge of that rank under its pair; of equal pairs the first stays. */
void tok_add_merge(tokenizer *, uint32_t rank);
/* The token with these bytes, or -1. */
int32_t tok_find_piece(const tokenizer *, str);
/* Rank of the pair, or UINT32_MAX. */
uint32_t tok_find_merge(const tokenizer *, uint32_t left, uint32_t right);

/* tokenizer_special.c */
status tok_special_build(tokenizer *, const checkpoint *, err *);
/* The first special token in text at or after from, the longest at its place. Returns its
 * position (SIZE_MAX: none) and sets *id. Control tokens only when wanted. */
size_t tok_special_next(const tokenizer *, str text, size_t from, bool control, uint32_t *id);

/* Length of the White_Space character (Unicode) at the beginning of s; 0: another. */
size_t tok_space_len(str s);

/* tokenizer_pre_table.c: the rows, in the order in which they are listed to people. */
const tok_pre *tok_pre_rows(size_t *n);

/* tokenizer_pre.c */
/* What a file asks for: a row, and the patterns, which are the row's or those of the file (fact
 * tokenizer.pre.stages, FACT_STR) and are borrowed from it. */
typedef struct tok_pre_choice {
    const tok_pre *row;
    const char *stage[TOK_PRE_STAGES]; /* NULL: no more */
} tok_pre_choice;
/* wish: the name in place of the file's; "": the file's. */
status tok_pre_find(tok_pre_choice *out, const checkpoint *, str wish, err *);
status tok_pre_build(tokenizer *, const tok_pre_choice *, err *);
void tok_pre_clear(tokenizer *);
/* Appends the ids of a run of text, word by word. */
status tok_pre_run(const tokenizer *, tok_words *, str text);

/* tokenizer_nfc.c: *text in normal form C, in w->scratch where it is another; what is no UTF-8 stays. */
status tok_nfc(tok_words *w, str *text);

/* tokenizer_bpe.c: appends the ids of one word. */
status tok_bpe_word(const tokenizer *, tok_words *, str word);

/* tokenizer_spm.c: the bytes that a token's text stands for (never more than its own; out may
 * be NULL), what encoding needs to know of the tokens, and encoding itself. */
size_t tok_spm_bytes(str text, int32_t type, char *out);
void tok_spm_build(tokenizer *, const tok_layout *);
status tok_spm_run(const tokenizer *, tok_words *, str text);

/* tokenizer_wordpiece.c: the same. */
size_t tok_wordpiece_bytes(str text, char *out);
status tok_wordpiece_build(tokenizer *, const checkpoint *, err *);
status tok_wordpiece_run(const tokenizer *, tok_words *, str text);

#endif
