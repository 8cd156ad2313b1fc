#include "base/generation.h"

struct generation_options generation_options_default(void)
{
    return (struct generation_options){.max_new_tokens = 20,
                                       .n_beams = 1,
                                       .n_return = 1,
                                       .length_penalty = 1,
                                       .repetition_penalty = 1,
                                       .temperature = 1,
                                       .top_p = 1};
}

const char *early_stopping_name(enum early_stopping e)
{
    switch (e) {
    case EARLY_STOPPING_FALSE:
        return "false";
    case EARLY_STOPPING_TRUE:
        return "true";
    case EARLY_STOPPING_NEVER:
        return "never";
    }
    return "?";
}
