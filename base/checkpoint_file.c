#include "base/checkpoint_file.h"

#include <stddef.h>

const char *checkpoint_file_name(enum checkpoint_file file)
{
    static const char *const names[] = {
        [CHECKPOINT_CONFIG] = "config.json",
        [CHECKPOINT_GENERATION] = "generation_config.json",
        [CHECKPOINT_PROCESSOR] = "processor_config.json",
        [CHECKPOINT_PREPROCESSOR] = "preprocessor_config.json",
        [CHECKPOINT_TOKENIZER] = "tokenizer.json",
        [CHECKPOINT_TOKENIZER_CONFIG] = "tokenizer_config.json",
    };

    return (size_t)file < sizeof(names) / sizeof(names[0]) ? names[file] : NULL;
}
