#include "qformer_worker/texts.h"

#include "base/grow.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct unit_text *add(struct unit_texts *u, uint32_t row, const struct row_caption *caption)
{
    if (grow_array(&u->texts, &u->capacity, u->n, sizeof(*u->texts), 64) < 0)
        return NULL;
    u->texts[u->n] = (struct unit_text){.row = row, .caption = *caption};
    return &u->texts[u->n++];
}

static void complain(struct unit_texts *u, uint32_t row, const char *code, const char *what, const uint8_t *text,
                     uint32_t n)
{
    item_error_set(&u->errors[row], code, "%s: \"%.*s\"", what, (int)(n < 80 ? n : 80), (const char *)text);
}

static bool all_known(const struct token_ids *ids, size_t first, int n_words)
{
    for (size_t i = first; i < ids->n; i++)
        if (ids->ids[i] < 0 || ids->ids[i] >= n_words)
            return false;
    return true;
}

/* Encodes a text. If it has no tokens, too many, or one that the model lacks, the item fails if its list gave the
 * text; a generated caption stays unscored. */
static int encode(struct unit_texts *u, struct unit_text *text, const struct tokenizer *t, int max_text, int n_words,
                  struct err *err)
{
    const struct row_caption *c = &text->caption;
    const char *bytes = c->text_bytes ? (const char *)c->text : "";
    const size_t first = u->ids.n;
    int rc = tokenizer_encode(t, bytes, c->text_bytes, false, &u->ids, err);
    const bool empty = rc == 0 && u->ids.n == first;
    bool known;

    u->ids.n = first;
    if (rc == 0 && !empty)
        rc = tokenizer_encode(t, bytes, c->text_bytes, true, &u->ids, err);
    if (rc == -ENOMEM)
        return rc;
    known = all_known(&u->ids, first, n_words);
    if (rc < 0 || empty || !known || u->ids.n - first > (size_t)max_text) {
        u->ids.n = first;
        if (!c->given)
            return 0;
        if (rc < 0)
            complain(u, text->row, "bad_text", "a text is not UTF-8", c->text, c->text_bytes);
        else if (empty)
            complain(u, text->row, "empty_text", "a text has no tokens", c->text, c->text_bytes);
        else if (!known)
            complain(u, text->row, "unknown_token", "the model has no embedding for a token of a text", c->text,
                     c->text_bytes);
        else
            complain(u, text->row, "long_text", "a text is longer than the model's limit", c->text, c->text_bytes);
        return 0;
    }
    text->has_ids = true;
    text->first_id = first;
    text->n_ids = u->ids.n - first;
    return 0;
}

static bool has_name(const struct row_field *f, const char *name)
{
    return f->name_bytes == strlen(name) && memcmp(f->name, name, f->name_bytes) == 0;
}

/* Adds all texts of one item, without ids. */
static int add_item(struct unit_texts *u, const struct worker_work *work, uint32_t row)
{
    const struct row_item *item = &work->items[row];
    const size_t before = u->n;

    for (uint32_t i = 0; i < item->n_captions; i++)
        if (!add(u, row, &item->captions[i]))
            return -ENOMEM;
    for (uint32_t k = 0; k < work->recipe.n_text_fields; k++)
        for (uint32_t i = 0; i < item->n_fields; i++) {
            const struct row_field *f = &item->fields[i];

            if (has_name(f, work->recipe.text_fields[k]) &&
                !add(u, row,
                     &(struct row_caption){.text = f->value, .text_bytes = f->value_bytes, .given = true, .prompt = k}))
                return -ENOMEM;
        }
    if (u->n == before && work->recipe.n_text_fields) {
        const char *name = work->recipe.text_fields[0];

        complain(u, row, "no_text", "nothing to score; the list has no value for", (const uint8_t *)name,
                 (uint32_t)strlen(name));
    } else if (u->n - before > ROW_MAX_CAPTIONS) {
        complain(u, row, "many_texts", "too many texts for one item, beginning with", u->texts[before].caption.text,
                 u->texts[before].caption.text_bytes);
    }
    return 0;
}

int unit_texts_collect(struct unit_texts *u, const struct worker_work *work, const struct tokenizer *t, int max_text,
                       int n_words, struct err *err)
{
    int rc = 0;

    *u = (struct unit_texts){.errors = calloc(work->n_items, sizeof(*u->errors))};
    if (!u->errors)
        return err_set(err, -ENOMEM, "no memory for the unit's texts");
    for (uint32_t row = 0; rc == 0 && row < work->n_items; row++)
        rc = add_item(u, work, row);
    for (size_t i = 0; rc == 0 && t && i < u->n; i++)
        rc = encode(u, &u->texts[i], t, max_text, n_words, err);
    /* an invalid text among valid ones stays unscored; alone it makes the item fail */
    for (size_t i = 0; rc == 0 && i < u->n; i++) {
        struct item_error *p = &u->errors[u->texts[i].row];

        if (u->texts[i].has_ids && p->code && strcmp(p->code, "many_texts") != 0)
            p->code = NULL;
    }
    if (rc < 0) {
        unit_texts_release(u);
        return err_set(err, rc, "no memory for the unit's texts");
    }
    return 0;
}

void unit_texts_release(struct unit_texts *u)
{
    free(u->texts);
    free(u->errors);
    token_ids_release(&u->ids);
    *u = (struct unit_texts){0};
}
