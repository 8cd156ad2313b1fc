#include "llm_worker/llm_unit.h"

#include "base/clock.h"
#include "llm_worker/caption.h"
#include "proto/row.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

int llm_unit_new(struct worker_work **work, uint64_t serial, const struct tokenizer *t, const struct config *config,
                 struct unit **ret, struct err *err)
{
    struct unit *u;
    int rc;

    if ((*work)->recipe.decode.max_new_tokens == 0)
        return err_set(err, -EINVAL, "the recipe generates nothing");
    u = calloc(1, sizeof(*u));
    if (!u)
        return err_set(err, -ENOMEM, "no memory for the unit");
    buf_init(&u->texts, ROW_MAX_ROWS_BYTES);
    u->serial = serial;
    u->started_ns = clock_mono_ns();
    u->options = (*work)->recipe.decode;
    u->recipe_hash = msg_recipe_hash(&(*work)->recipe);
    rc = unit_prompts_collect(&u->prompts, *work, t, config, err);
    if (rc == 0) {
        u->captions = calloc(u->prompts.n * (size_t)u->options.n_return + 1, sizeof(*u->captions));
        rc = u->captions ? 0 : err_set(err, -ENOMEM, "no memory for the unit's captions");
    }
    if (rc < 0) {
        llm_unit_free(u);
        return rc;
    }
    u->work = *work;
    *work = NULL;
    *ret = u;
    return 0;
}

void llm_unit_free(struct unit *u)
{
    if (!u)
        return;
    unit_prompts_release(&u->prompts);
    free(u->image_rows);
    free(u->captions);
    buf_release(&u->texts);
    free(u);
}

/* The key for sampling; it does not depend on the worker or the time. */
static uint64_t sampling_key(const struct unit *u, const struct unit_prompt *p)
{
    const uint64_t parts[4] = {u->work->recipe.decode.seed, u->recipe_hash, u->work->items[p->row].item, p->number};

    return XXH3_64bits(parts, sizeof(parts));
}

struct generate_request llm_unit_request(const struct unit *u, uint32_t i, const struct config *config, int n_queries,
                                         int width)
{
    const struct unit_prompt *p = &u->prompts.prompts[i];
    const size_t image_bytes = (size_t)n_queries * (size_t)width * dtype_size_bytes(u->image_dtype);

    return (struct generate_request){.tag = llm_unit_tag(u, i),
                                     .image_rows = (const char *)u->image_rows + (size_t)p->row * image_bytes,
                                     .image_dtype = u->image_dtype,
                                     .n_image_rows = n_queries,
                                     .prompt = u->prompts.ids.ids + p->first_id,
                                     .n_prompt = (int)p->n_ids,
                                     .options = u->options,
                                     .key = sampling_key(u, p),
                                     .eos = config->eos,
                                     .n_eos = config->n_eos};
}

bool llm_unit_skips(const struct unit *u, uint32_t i)
{
    return u->prompts.errors[u->prompts.prompts[i].row].code != NULL;
}

static int note_text(struct unit *u, struct unit_caption *c, const struct generate_sequence *s,
                     const struct tokenizer *t, const struct config *config, struct err *err)
{
    int rc;

    c->start = u->texts.size_bytes;
    rc = caption_text(t, config, s->ids, s->n_ids, &u->texts, err);
    if (rc < 0)
        return rc;
    c->size_bytes = u->texts.size_bytes - c->start;
    c->logprob = (float)s->logprob;
    c->score = (float)s->score;
    c->tokens = (uint32_t)s->n_ids;
    return 0;
}

int llm_unit_note(struct unit *u, uint32_t i, const struct generate_result *r, const struct tokenizer *t,
                  const struct config *config, struct err *err)
{
    struct unit_caption *c = &u->captions[i * (size_t)u->options.n_return];
    int rc = 0;

    u->n_done++;
    if (r->n_sequences < u->options.n_return)
        item_error_set(&u->prompts.errors[u->prompts.prompts[i].row], "not_finite",
                       "the language model gave no finite logit for the next token");
    for (int k = 0; rc == 0 && k < r->n_sequences && k < u->options.n_return; k++)
        rc = note_text(u, &c[k], &r->sequences[k], t, config, err);
    return rc;
}

int llm_unit_note_null(struct unit *u)
{
    static const char word[] = "null";
    const size_t n = u->prompts.n * (size_t)u->options.n_return;

    u->n_submitted = u->n_done = (uint32_t)u->prompts.n;
    for (size_t i = 0; i < n; i++)
        u->captions[i] = (struct unit_caption){.size_bytes = sizeof(word) - 1, .tokens = 1};
    return buf_append(&u->texts, word, sizeof(word) - 1);
}

bool llm_unit_is_done(const struct unit *u)
{
    return u->n_done == u->prompts.n;
}

/* Appends the captions of prompt i to the record. */
static void add_captions(const struct unit *u, size_t i, struct row_record *record)
{
    const struct unit_prompt *p = &u->prompts.prompts[i];
    const struct unit_caption *c = &u->captions[i * (size_t)u->options.n_return];

    for (int k = 0; k < u->options.n_return && record->n_captions < ROW_MAX_CAPTIONS; k++)
        record->captions[record->n_captions++] =
            (struct row_caption){.text = u->texts.data + c[k].start,
                                 .text_bytes = (uint32_t)c[k].size_bytes,
                                 .logprob = c[k].logprob,
                                 .score = c[k].score,
                                 .tokens = c[k].tokens,
                                 .prompt = p->prompt,
                                 .sample = (uint32_t)k,
                                 .prompt_text = p->n_bytes ? u->prompts.texts.data + p->first_byte : NULL,
                                 .prompt_text_bytes = (uint32_t)p->n_bytes};
}

int llm_unit_rows(const struct unit *u, struct buf *ret, uint32_t *ret_n_failed)
{
    struct row_record record;
    size_t prompt = 0;
    int rc = 0;

    *ret_n_failed = 0;
    for (uint32_t row = 0; rc == 0 && row < u->work->n_items; row++) {
        const struct item_error *error = &u->prompts.errors[row];

        memset(&record, 0, sizeof(record));
        record.item = u->work->items[row].item;
        for (; prompt < u->prompts.n && u->prompts.prompts[prompt].row == row; prompt++)
            add_captions(u, prompt, &record);
        if (error->code)
            item_error_record(error, record.item, &record);
        rc = item_record_append(ret, &record, ret_n_failed);
    }
    return rc;
}
