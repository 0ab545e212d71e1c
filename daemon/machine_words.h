/* What of a model stays in memory when it is unloaded, so that it is there again sooner: tokenizer, chat
 * templates, index of the vocabulary. Of a machine that is a part of several; its ledger is under the
 * shared one, as long as the process lives. One thread at a time; what is in it is read by any. */
#ifndef VRAMD_DAEMON_MACHINE_WORDS_H
#define VRAMD_DAEMON_MACHINE_WORDS_H

#include <sys/stat.h>

#include "daemon/kv/kv_file.h"
#include "daemon/machine.h"
#include "text/tokenizer/vocab_index.h"

typedef struct machine_words {
    plan plan;
    ledger *ledger; /* NULL until a load needs it */
    chunks src;
    struct stat file; /* the model that it is of */
    uint64_t hash;    /* of the templates' sources and the pre-tokenizer's name */
    bool whole;       /* tokenizer and templates are there */
    bool has_family;  /* of kv_disk: its name needs all weights */
    unsigned char family[KV_FILE_FAMILY];
    tokenizer *tok;
    chat_templates chat; /* must not move */
    void *index_mem;
    vocab_index *index; /* NULL: not yet */
} machine_words;

/* Its plan, by the headers of a planned machine. Errors: ERR_NO_MEMORY. In any case
 * machine_words_free. */
status machine_words_plan(machine_words *, const machine *, err *);
/* Before a load, of a machine that is planned: opens its ledger under the shared one, where that is not
 * done, and forgets what is of another file than the machine's. Errors: ERR_BUDGET. */
status machine_words_open(machine_words *, const machine *, ledger *shared, err *);
/* The index of the vocabulary: as it was kept, or made now. Errors: ERR_BUDGET. */
status machine_words_index(machine_words *, uint32_t n_vocab, err *);
void machine_words_free(machine_words *);

#endif
