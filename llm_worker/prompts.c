#include "llm_worker/prompts.h"

#include "base/grow.h"
#include "model/config_tokenizer.h"

#include <errno.h>
#include <stdlib.h>

#include "proto/template.h"

/* A template and, if it is the same for every item, its ids. */
struct parsed {
    struct template template;
    bool constant;
    size_t first_id, n_ids;
};

struct collect {
    struct unit_prompts *u;
    const struct worker_work *work;
    const struct tokenizer *tokenizer;
    const struct config *config;
    struct parsed parsed[MSG_MAX_PROMPTS];
    uint32_t n_parsed;
    struct err *err;
};

static int add(struct unit_prompts *u, const struct unit_prompt *prompt)
{
    if (grow_array(&u->prompts, &u->capacity, u->n, sizeof(*u->prompts), 64) < 0)
        return -ENOMEM;
    u->prompts[u->n++] = *prompt;
    return 0;
}

/* Appends the ids of a prompt to u->ids. */
static int encode(const struct collect *c, const char *text, size_t n, size_t *ret_first, size_t *ret_n,
                  struct err *err)
{
    struct token_ids *ids = &c->u->ids;
    int rc = 0;

    *ret_first = ids->n;
    if (c->tokenizer)
        rc = tokenizer_encode(c->tokenizer, text, n, true, ids, err);
    *ret_n = ids->n - *ret_first;
    if (rc == 0 && c->tokenizer)
        rc = config_tokenizer_check(c->config, ids->ids + *ret_first, *ret_n, err);
    if (rc == 0 && c->tokenizer && *ret_n == 0)
        rc = err_set(err, -EINVAL, "a prompt has no tokens");
    return rc;
}

/* Without a prompt the caption begins with the bos token. */
static int parse_none(struct collect *c)
{
    struct parsed *p = &c->parsed[c->n_parsed++];

    p->constant = true;
    p->first_id = c->u->ids.n;
    p->n_ids = 1;
    if (!c->tokenizer)
        return 0;
    if (c->config->bos < 0)
        return err_set(c->err, -EINVAL, "the checkpoint has no bos_token_id, so a prompt is required");
    return token_ids_append(&c->u->ids, c->config->bos) < 0 ? -ENOMEM : 0;
}

static int parse(struct collect *c)
{
    static const struct row_item nothing = {.key = (const uint8_t *)"", .path = (const uint8_t *)""};
    const struct msg_recipe *r = &c->work->recipe;
    struct buf text;
    int rc = 0;

    if (r->n_prompts == 0)
        return parse_none(c);
    buf_init(&text, 0);
    for (uint32_t i = 0; rc == 0 && i < r->n_prompts; i++) {
        struct parsed *p = &c->parsed[c->n_parsed++];

        rc = template_parse(r->prompts[i], &p->template, c->err);
        p->constant = rc == 0 && template_is_constant(&p->template);
        if (!p->constant)
            continue;
        buf_clear(&text);
        rc = template_render(&p->template, &nothing, 0, &text, c->err);
        if (rc == 0)
            rc = encode(c, text.size_bytes ? (const char *)text.data : "", text.size_bytes, &p->first_id, &p->n_ids,
                        c->err);
    }
    buf_release(&text);
    return rc;
}

/* Makes the item fail for an invalid field; -ENOMEM is returned. */
static int item_failed(const struct collect *c, uint32_t row, int rc, const struct err *err)
{
    if (rc == -ENOMEM)
        return rc;
    item_error_set(&c->u->errors[row],
                   rc == -ENOENT  ? "missing_field"
                   : rc == -EFBIG ? "long_prompt"
                                  : "bad_prompt",
                   "%s", err->text);
    return 0;
}

/* Adds the prompts of template i for this item. */
static int add_rendered(const struct collect *c, uint32_t row, uint32_t i, uint32_t *number)
{
    const struct row_item *item = &c->work->items[row];
    const struct parsed *p = &c->parsed[i];
    struct unit_prompt prompt = {.row = row, .prompt = i};
    struct err err = {""};
    uint32_t n = 0;
    int rc = template_count(&p->template, item, &n, &err);

    if (rc == 0 && *number + n > ROW_MAX_CAPTIONS) { /* too many for a record: only counted, add_item reports it */
        *number += n;
        return 0;
    }
    for (uint32_t k = 0; rc == 0 && k < n; k++) {
        prompt.number = (*number)++;
        prompt.first_byte = c->u->texts.size_bytes;
        rc = template_render(&p->template, item, k, &c->u->texts, &err);
        prompt.n_bytes = c->u->texts.size_bytes - prompt.first_byte;
        if (rc == 0)
            rc = encode(c, (const char *)c->u->texts.data + prompt.first_byte, prompt.n_bytes, &prompt.first_id,
                        &prompt.n_ids, &err);
        if (rc == 0)
            rc = add(c->u, &prompt);
    }
    return rc < 0 ? item_failed(c, row, rc, &err) : 0;
}

static int add_item(const struct collect *c, uint32_t row)
{
    const uint32_t n_return = c->work->recipe.decode.n_return;
    const size_t first = c->u->n;
    uint32_t number = 0;
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < c->n_parsed; i++) {
        const struct parsed *p = &c->parsed[i];

        if (!p->constant) {
            rc = add_rendered(c, row, i, &number);
            continue;
        }
        rc = add(c->u, &(struct unit_prompt){
                           .row = row, .prompt = i, .number = number, .first_id = p->first_id, .n_ids = p->n_ids});
        number++;
    }
    if (rc == 0 && (uint64_t)number * n_return > ROW_MAX_CAPTIONS) {
        item_error_set(&c->u->errors[row], "many_captions",
                       "%u prompts with %u captions each exceed the limit of %d captions per item", number, n_return,
                       ROW_MAX_CAPTIONS);
        c->u->n = first; /* not used */
    }
    return rc;
}

int unit_prompts_collect(struct unit_prompts *u, const struct worker_work *work, const struct tokenizer *t,
                         const struct config *config, struct err *err)
{
    struct collect *c = calloc(1, sizeof(*c));
    int rc = 0;

    *u = (struct unit_prompts){.errors = calloc(work->n_items, sizeof(*u->errors))};
    buf_init(&u->texts, 0);
    if (!c || !u->errors) {
        rc = -ENOMEM;
    } else {
        *c = (struct collect){.u = u, .work = work, .tokenizer = t, .config = config, .err = err};
        rc = parse(c);
    }
    for (uint32_t row = 0; rc == 0 && row < work->n_items; row++)
        rc = add_item(c, row);
    free(c);
    if (rc < 0)
        unit_prompts_release(u);
    return rc == -ENOMEM ? err_set(err, rc, "no memory for the unit's prompts") : rc;
}

void unit_prompts_release(struct unit_prompts *u)
{
    free(u->prompts);
    free(u->errors);
    token_ids_release(&u->ids);
    buf_release(&u->texts);
    *u = (struct unit_prompts){0};
}
