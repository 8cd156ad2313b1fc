/* Recipe files and templates of prompts: any bytes are refused or understood. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "recipe/recipe.h"
#include "proto/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct row_field field = {(const uint8_t *)"a", (const uint8_t *)"value", 1, 5};
    static const struct row_item item = {.key = (const uint8_t *)"k", .key_bytes = 1, .n_fields = 1, .fields = &field};
    static struct recipe r;
    struct template t;
    struct err err;
    struct buf text;
    uint32_t n;

    buf_init(&text, 0);
    if (recipe_parse((const char *)data, size, "fuzz", "fuzz", &r, &err) == 0) {
        if (recipe_print(&r, &text) < 0)
            abort();
        for (uint32_t i = 0; i < r.n_prompts; i++)
            if (template_parse(r.prompts[i].text, &t, &err) == 0 && template_count(&t, &item, &n, &err) == 0 &&
                template_render(&t, &item, n - 1, &text, &err) < 0)
                abort(); /* a prompt of one short field fits */
    }
    buf_release(&text);
    return 0;
}
