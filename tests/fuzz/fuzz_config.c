/* Any bytes, cut at NULs into the four configuration files, give numbers within their limits or a reason. */
#include "model/config.h"
#include "model/weights.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char *const names[CONFIG_N_FILES] = {"config.json", "generation_config.json", "processor_config.json",
                                                      "preprocessor_config.json"};
    struct config_text files[CONFIG_N_FILES] = {{0}};
    struct config c;
    struct weights w;
    struct err err = {""};

    for (int i = 0; i < CONFIG_N_FILES; i++) {
        const uint8_t *end = n ? memchr(data, 0, n) : NULL;
        size_t k = end ? (size_t)(end - data) : n;

        files[i] = (struct config_text){names[i], data, k};
        data += k + (end != NULL);
        n -= k + (end != NULL);
        if (n == 0)
            break;
    }
    if (config_parse(files, &c, &err) < 0) {
        if (!err.text[0])
            abort();
        return 0;
    }
    if (c.vision.width != c.vision.n_heads * c.vision.head_dim || c.n_eos > CONFIG_MAX_EOS || c.n_queries < 1)
        abort();
    if (c.vision.n_layers + c.qformer.n_layers + c.opt.n_layers + c.t5.n_encoder_layers < 100) {
        if (weights_init(&w, &c) < 0)
            abort();
        weights_release(&w);
    }
    return 0;
}
