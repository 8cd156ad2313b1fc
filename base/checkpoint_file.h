/* checkpoint_file.h - the files of a checkpoint besides its weights: all that plans and prompts are checked with.
 *
 * Who may call: anyone. Units, memory, errors: none. */
#ifndef BLIPLINE_BASE_CHECKPOINT_FILE_H
#define BLIPLINE_BASE_CHECKPOINT_FILE_H

/* wire.proto and store.proto use the same numbers: never renumber. 0 means "not given". */
enum checkpoint_file {
    CHECKPOINT_CONFIG = 1,
    CHECKPOINT_GENERATION,
    CHECKPOINT_PROCESSOR,
    CHECKPOINT_PREPROCESSOR,
    CHECKPOINT_TOKENIZER,
    CHECKPOINT_TOKENIZER_CONFIG,
};

enum { CHECKPOINT_N_FILES = CHECKPOINT_TOKENIZER_CONFIG };

/* "config.json", "generation_config.json", ...; NULL: there is no such file. */
const char *checkpoint_file_name(enum checkpoint_file file);

#endif
