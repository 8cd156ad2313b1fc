#include "proto/row_pb.h"

#include <errno.h>
#include <math.h>
#include <string.h>

static ProtobufCBinaryData bytes_to_pb(const void *data, size_t n)
{
    return (ProtobufCBinaryData){.len = n, .data = (uint8_t *)data};
}

static uint32_t clip_size(size_t n)
{
    return n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
}

static int check_caption(const struct row_caption *c, struct err *err)
{
    if (c->text_bytes > ROW_MAX_CAPTION_BYTES || c->prompt_text_bytes > ROW_MAX_CAPTION_BYTES)
        return err_set(err, -EMSGSIZE, "a caption of %u bytes with a prompt of %u, the limit is %d", c->text_bytes,
                       c->prompt_text_bytes, ROW_MAX_CAPTION_BYTES);
    if (!isfinite(c->logprob) || !isfinite(c->score))
        return err_set(err, -EBADMSG, "logprob or score is not finite");
    if (!isfinite(c->itc) || !isfinite(c->itm))
        return err_set(err, -EBADMSG, "itc or itm is not finite");
    return 0;
}

static void caption_to_pb(const struct row_caption *from, Blipline__Caption *to)
{
    *to = (Blipline__Caption)BLIPLINE__CAPTION__INIT;
    to->text = bytes_to_pb(from->text, from->text_bytes);
    to->logprob = from->logprob;
    to->tokens = from->tokens;
    to->prompt = from->prompt;
    to->sample = from->sample;
    to->score = from->score;
    to->given = from->given;
    to->prompt_text = bytes_to_pb(from->prompt_text, from->prompt_text_bytes);
    to->has_itc = from->has_itc;
    to->itc = from->itc;
    to->has_itm = from->has_itm;
    to->itm = from->itm;
}

static struct row_caption caption_from_pb(const Blipline__Caption *from)
{
    return (struct row_caption){
        .text = from->text.data,
        .text_bytes = clip_size(from->text.len),
        .logprob = from->logprob,
        .tokens = from->tokens,
        .prompt = from->prompt,
        .sample = from->sample,
        .score = from->score,
        .given = from->given,
        .prompt_text = from->prompt_text.len ? from->prompt_text.data : NULL,
        .prompt_text_bytes = clip_size(from->prompt_text.len),
        .has_itc = from->has_itc,
        .itc = from->itc,
        .has_itm = from->has_itm,
        .itm = from->itm,
    };
}

static int check_field(const struct row_field *f, struct err *err)
{
    if (f->name_bytes == 0 || f->name_bytes >= MSG_NAME_SIZE)
        return err_set(err, -EMSGSIZE, "a field's name of %u bytes, not 1 to %d", f->name_bytes, MSG_NAME_SIZE - 1);
    if (f->value_bytes > ROW_MAX_FIELD_BYTES)
        return err_set(err, -EMSGSIZE, "field %.*s of %u bytes, the limit is %d", (int)f->name_bytes,
                       (const char *)f->name, f->value_bytes, ROW_MAX_FIELD_BYTES);
    return 0;
}

static int check_error(const char *code, uint32_t message_bytes, struct err *err)
{
    if (message_bytes > ROW_MAX_MESSAGE_BYTES)
        return err_set(err, -EMSGSIZE, "a message of %u bytes, the limit is %d", message_bytes, ROW_MAX_MESSAGE_BYTES);
    return msg_check_code(code, err) < 0 ? -EBADMSG : 0;
}

static void error_to_pb(const char *code, const uint8_t *message, uint32_t message_bytes, Blipline__ItemError *to)
{
    *to = (Blipline__ItemError)BLIPLINE__ITEM_ERROR__INIT;
    to->code = msg_text_to_pb(code);
    to->message = bytes_to_pb(message, message_bytes);
}

int row_item_check(const struct row_item *r, struct err *err)
{
    if (r->key_bytes == 0 || r->key_bytes > ROW_MAX_KEY_BYTES)
        return err_set(err, -EMSGSIZE, "item %llu: a key of %u bytes, not 1 to %d", (unsigned long long)r->item,
                       r->key_bytes, ROW_MAX_KEY_BYTES);
    if (r->path_bytes > ROW_MAX_PATH_BYTES)
        return err_set(err, -EMSGSIZE, "item %llu: a path of %u bytes, the limit is %d", (unsigned long long)r->item,
                       r->path_bytes, ROW_MAX_PATH_BYTES);
    if (r->root_bytes > r->path_bytes)
        return err_set(err, -EBADMSG, "item %llu: the root has %u bytes, the path %u", (unsigned long long)r->item,
                       r->root_bytes, r->path_bytes);
    if (r->path_bytes && memchr(r->path, 0, r->path_bytes))
        return err_set(err, -EBADMSG, "item %llu: the path contains a NUL byte", (unsigned long long)r->item);
    if (r->n_fields > ROW_MAX_FIELDS || r->n_captions > ROW_MAX_CAPTIONS)
        return err_set(err, -EMSGSIZE, "item %llu: %u fields and %u captions, the limits are %d and %d",
                       (unsigned long long)r->item, r->n_fields, r->n_captions, ROW_MAX_FIELDS, ROW_MAX_CAPTIONS);
    if (r->error_code[0] && check_error(r->error_code, r->error_message_bytes, err) < 0)
        return err_prefix(err, -EBADMSG, "item %llu", (unsigned long long)r->item);
    for (uint32_t i = 0; i < r->n_fields; i++)
        if (check_field(&r->fields[i], err) < 0)
            return err_prefix(err, -EMSGSIZE, "item %llu", (unsigned long long)r->item);
    for (uint32_t i = 0; i < r->n_captions; i++) {
        int rc = check_caption(&r->captions[i], err);

        if (rc < 0)
            return err_prefix(err, rc, "item %llu", (unsigned long long)r->item);
    }
    return 0;
}

void row_item_to_pb(const struct row_item *from, struct row_item_pb *to)
{
    blipline__item__init(&to->item);
    to->item.item = from->item;
    to->item.key = bytes_to_pb(from->key, from->key_bytes);
    to->item.path = bytes_to_pb(from->path, from->path_bytes);
    to->item.root_bytes = from->root_bytes;
    to->item.pushed_at = from->pushed_at;
    to->item.pushed_bytes = from->pushed_bytes;
    to->item.size_bytes = from->size_bytes;
    to->item.mtime_ns = from->mtime_ns;
    to->item.source = from->source;
    for (uint32_t i = 0; i < from->n_fields; i++) {
        to->fields[i] = (Blipline__Field)BLIPLINE__FIELD__INIT;
        to->fields[i].name = bytes_to_pb(from->fields[i].name, from->fields[i].name_bytes);
        to->fields[i].value = bytes_to_pb(from->fields[i].value, from->fields[i].value_bytes);
        to->field_list[i] = &to->fields[i];
    }
    to->item.n_fields = from->n_fields;
    to->item.fields = to->field_list;
    for (uint32_t i = 0; i < from->n_captions; i++) {
        caption_to_pb(&from->captions[i], &to->captions[i]);
        to->caption_list[i] = &to->captions[i];
    }
    to->item.n_captions = from->n_captions;
    to->item.captions = to->caption_list;
    if (!from->error_code[0])
        return;
    error_to_pb(from->error_code, from->error_message, from->error_message_bytes, &to->error);
    to->item.error = &to->error;
}

/* Converts fields and captions of an item into `b`. */
static int item_lists_from_pb(struct budget *b, const Blipline__Item *from, struct row_item *ret)
{
    struct row_field *fields = NULL;
    struct row_caption *captions = NULL;

    if (from->n_fields && !(fields = budget_alloc(b, from->n_fields * sizeof(*fields))))
        return -EMSGSIZE;
    if (from->n_captions && !(captions = budget_alloc(b, from->n_captions * sizeof(*captions))))
        return -EMSGSIZE;
    for (size_t i = 0; i < from->n_fields; i++)
        fields[i] = (struct row_field){.name = from->fields[i]->name.data,
                                       .name_bytes = clip_size(from->fields[i]->name.len),
                                       .value = from->fields[i]->value.data,
                                       .value_bytes = clip_size(from->fields[i]->value.len)};
    for (size_t i = 0; i < from->n_captions; i++)
        captions[i] = caption_from_pb(from->captions[i]);
    ret->n_fields = (uint32_t)from->n_fields;
    ret->fields = fields;
    ret->n_captions = (uint32_t)from->n_captions;
    ret->captions = captions;
    return 0;
}

static int item_error_from_pb(const Blipline__ItemError *from, struct row_item *ret, struct err *err)
{
    ret->error_message = from->message.data;
    ret->error_message_bytes = clip_size(from->message.len);
    return msg_text_from_pb(ret->error_code, sizeof(ret->error_code), &from->code, "error", err);
}

int row_item_from_pb(struct budget *b, const Blipline__Item *from, struct row_item *ret, struct err *err)
{
    uint8_t *path;
    int rc;

    if (from->key.len > UINT32_MAX || from->path.len > UINT32_MAX)
        return err_set(err, -EMSGSIZE, "item %llu: a key or path larger than 4 GiB", (unsigned long long)from->item);
    *ret = (struct row_item){
        .item = from->item,
        .key = from->key.data,
        .key_bytes = (uint32_t)from->key.len,
        .path = from->path.data,
        .path_bytes = (uint32_t)from->path.len,
        .root_bytes = from->root_bytes,
        .pushed_at = from->pushed_at,
        .pushed_bytes = from->pushed_bytes,
        .size_bytes = from->size_bytes,
        .mtime_ns = from->mtime_ns,
        .source = from->source,
    };
    if (from->n_fields > ROW_MAX_FIELDS || from->n_captions > ROW_MAX_CAPTIONS)
        return err_set(err, -EMSGSIZE, "item %llu: %zu fields and %zu captions, the limits are %d and %d",
                       (unsigned long long)from->item, from->n_fields, from->n_captions, ROW_MAX_FIELDS,
                       ROW_MAX_CAPTIONS);
    rc = item_lists_from_pb(b, from, ret);
    if (rc < 0)
        return err_set(err, rc, "item %llu: no room for its fields", (unsigned long long)from->item);
    rc = from->error ? item_error_from_pb(from->error, ret, err) : 0;
    if (rc == 0)
        rc = row_item_check(ret, err);
    if (rc < 0)
        return rc;
    path = budget_alloc(b, from->path.len + 1); /* NUL-terminated, for open(2) */
    if (!path)
        return err_set(err, -EMSGSIZE, "item %llu: no room for its path", (unsigned long long)from->item);
    if (from->path.len)
        memcpy(path, from->path.data, from->path.len);
    path[from->path.len] = '\0';
    ret->path = path;
    return 0;
}

int row_embedding_check(const struct row_embedding *e, struct err *err)
{
    uint64_t bytes;

    if (e->kind < MSG_EMBEDDING_QUERY || e->kind > MSG_EMBEDDING_CLS)
        return err_set(err, -EBADMSG, "unknown embedding %u", (unsigned)e->kind);
    if (e->dtype != DTYPE_F32 && e->dtype != DTYPE_F16)
        return err_set(err, -EBADMSG, "embedding %s: dtype %u, not F16 or F32", msg_embedding_name(e->kind),
                       (unsigned)e->dtype);
    if (e->cols == 0 || __builtin_mul_overflow((uint64_t)e->rows, (uint64_t)e->cols, &bytes) ||
        __builtin_mul_overflow(bytes, (uint64_t)dtype_size_bytes(e->dtype), &bytes) || bytes != e->data_bytes)
        return err_set(err, -EBADMSG, "embedding %s: %u bytes for %u x %u", msg_embedding_name(e->kind), e->data_bytes,
                       e->rows, e->cols);
    return 0;
}

void row_embedding_to_pb(const struct row_embedding *from, Blipline__Embedding *to)
{
    *to = (Blipline__Embedding)BLIPLINE__EMBEDDING__INIT;
    to->kind = (uint32_t)from->kind;
    to->dtype = (uint32_t)from->dtype;
    to->rows = from->rows;
    to->cols = from->cols;
    to->data = bytes_to_pb(from->data, from->data_bytes);
}

int row_embedding_from_pb(const Blipline__Embedding *from, struct row_embedding *ret, struct err *err)
{
    struct row_embedding e = {.kind = (enum msg_embedding)from->kind,
                              .dtype = (enum dtype)from->dtype,
                              .rows = from->rows,
                              .cols = from->cols,
                              .data = from->data.data,
                              .data_bytes = clip_size(from->data.len)};
    int rc = row_embedding_check(&e, err);

    if (rc == 0)
        *ret = e;
    return rc;
}

int row_record_check(const struct row_record *r, struct err *err)
{
    int rc = 0;

    if (r->n_captions > ROW_MAX_CAPTIONS || r->n_embeddings > MSG_MAX_EMBEDDINGS)
        return err_set(err, -EMSGSIZE, "record %llu: %u captions and %u embeddings, the limits are %d and %d",
                       (unsigned long long)r->item, r->n_captions, r->n_embeddings, ROW_MAX_CAPTIONS,
                       MSG_MAX_EMBEDDINGS);
    for (uint32_t i = 0; rc == 0 && i < r->n_captions; i++)
        rc = check_caption(&r->captions[i], err);
    for (uint32_t i = 0; rc == 0 && i < r->n_embeddings; i++)
        rc = row_embedding_check(&r->embeddings[i], err);
    if (rc < 0)
        return err_prefix(err, rc, "record %llu", (unsigned long long)r->item);
    if (!r->failed)
        return 0;
    if (r->n_captions || r->n_embeddings)
        return err_set(err, -EBADMSG, "record %llu: both an error and captions or embeddings",
                       (unsigned long long)r->item);
    rc = check_error(r->error_code, r->error_message_bytes, err);
    return rc < 0 ? err_prefix(err, rc, "record %llu", (unsigned long long)r->item) : 0;
}

void row_record_to_pb(const struct row_record *from, struct row_record_pb *to)
{
    blipline__record__init(&to->record);
    to->record.item = from->item;
    to->record.n_captions = from->n_captions;
    to->record.captions = to->list;
    for (uint32_t i = 0; i < from->n_captions; i++) {
        caption_to_pb(&from->captions[i], &to->captions[i]);
        to->list[i] = &to->captions[i];
    }
    to->record.n_embeddings = from->n_embeddings;
    to->record.embeddings = to->embedding_list;
    for (uint32_t i = 0; i < from->n_embeddings; i++) {
        row_embedding_to_pb(&from->embeddings[i], &to->embeddings[i]);
        to->embedding_list[i] = &to->embeddings[i];
    }
    if (!from->failed)
        return;
    error_to_pb(from->error_code, from->error_message, from->error_message_bytes, &to->error);
    to->record.error = &to->error;
}

static int record_lists_from_pb(const Blipline__Record *from, struct row_record *ret, struct err *err)
{
    if (from->n_captions > ROW_MAX_CAPTIONS || from->n_embeddings > MSG_MAX_EMBEDDINGS)
        return err_set(err, -EMSGSIZE, "record %llu: %zu captions and %zu embeddings, the limits are %d and %d",
                       (unsigned long long)from->item, from->n_captions, from->n_embeddings, ROW_MAX_CAPTIONS,
                       MSG_MAX_EMBEDDINGS);
    ret->n_captions = (uint32_t)from->n_captions;
    for (size_t i = 0; i < from->n_captions; i++)
        ret->captions[i] = caption_from_pb(from->captions[i]);
    ret->n_embeddings = (uint32_t)from->n_embeddings;
    for (size_t i = 0; i < from->n_embeddings; i++) {
        int rc = row_embedding_from_pb(from->embeddings[i], &ret->embeddings[i], err);

        if (rc < 0)
            return err_prefix(err, rc, "record %llu", (unsigned long long)from->item);
    }
    return 0;
}

int row_record_from_pb(const Blipline__Record *from, struct row_record *ret, struct err *err)
{
    int rc;

    ret->item = from->item;
    rc = record_lists_from_pb(from, ret, err);
    if (rc < 0)
        return rc;
    ret->failed = from->error != NULL;
    ret->error_code[0] = '\0';
    ret->error_message = NULL;
    ret->error_message_bytes = 0;
    if (from->error) {
        const ProtobufCBinaryData *message = &from->error->message;

        rc = msg_text_from_pb(ret->error_code, sizeof(ret->error_code), &from->error->code, "error code", err);
        if (rc < 0)
            return rc;
        ret->error_message = message->data;
        ret->error_message_bytes = clip_size(message->len);
    }
    return row_record_check(ret, err);
}
