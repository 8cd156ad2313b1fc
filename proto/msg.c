#include "proto/msg.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void msg_init(struct msg *m, enum msg_type type)
{
    memset(m, 0, sizeof(*m));
    m->version = MSG_VERSION;
    m->type = type;
}

void msg_release(struct msg *m)
{
    free(m->memory);
    m->memory = NULL;
}

int msg_tensor_bytes(const struct msg_tensor *t, uint64_t *ret_bytes, uint64_t *ret_item_bytes)
{
    uint64_t item = dtype_size_bytes(t->dtype), bytes;

    if (t->n_dims == 0 || t->n_dims > MSG_MAX_DIMS)
        return -EMSGSIZE;
    for (uint32_t i = 1; i < t->n_dims; i++)
        if (__builtin_mul_overflow(item, (uint64_t)t->shape[i], &item))
            return -EMSGSIZE;
    if (__builtin_mul_overflow(item, (uint64_t)t->shape[0], &bytes) || bytes > MSG_MAX_TENSOR_BYTES)
        return -EMSGSIZE;
    *ret_bytes = bytes;
    *ret_item_bytes = item;
    return 0;
}

static const char *name_of(const char *const *names, size_t n_names, unsigned number)
{
    return number < n_names && names[number] ? names[number] : "?";
}

bool msg_tensor_is_pictures(const struct msg_tensor *t)
{
    return t->dtype == DTYPE_U8 && t->n_dims == 1;
}

#define NAME_OF(names, number) name_of(names, sizeof(names) / sizeof(*(names)), (unsigned)(number))

const char *msg_type_name(enum msg_type type)
{
    static const char *const names[] = {
        [MSG_HELLO] = "hello",
        [MSG_WELCOME] = "welcome",
        [MSG_REFUSE] = "refuse",
        [MSG_CREDIT] = "credit",
        [MSG_WORK] = "work",
        [MSG_RESULT] = "result",
        [MSG_FAILURE] = "failure",
        [MSG_RETURN] = "return",
        [MSG_HEARTBEAT] = "heartbeat",
        [MSG_DRAIN] = "drain",
        [MSG_BYE] = "bye",
        [MSG_JOB_OPEN] = "job_open",
        [MSG_JOB_OPENED] = "job_opened",
        [MSG_JOB_ROWS] = "job_rows",
        [MSG_JOB_ROWS_OK] = "job_rows_ok",
        [MSG_JOB_SEAL] = "job_seal",
        [MSG_JOB_ACCEPTED] = "job_accepted",
        [MSG_JOB_QUERY] = "job_query",
        [MSG_JOB_PROGRESS] = "job_progress",
        [MSG_JOB_STOP] = "job_stop",
        [MSG_SHUTDOWN] = "shutdown",
        [MSG_JOB_AGAIN] = "job_again",
        [MSG_JOB_CLOSE] = "job_close",
        [MSG_JOB_FIND] = "job_find",
        [MSG_JOB_FOUND] = "job_found",
        [MSG_JOB_LIST] = "job_list",
        [MSG_JOB_LISTED] = "job_listed",
        [MSG_JOB_CONTROL] = "job_control",
        [MSG_MODEL_OFFER] = "model_offer",
        [MSG_MODEL_WANT] = "model_want",
        [MSG_MODEL_FILES] = "model_files",
        [MSG_MODEL_LIST] = "model_list",
        [MSG_MODEL_LISTED] = "model_listed",
        [MSG_MODEL_GET] = "model_get",
        [MSG_FLEET_QUERY] = "fleet_query",
        [MSG_FLEET] = "fleet",
        [MSG_STORE_READ] = "store_read",
        [MSG_STORE_ROWS] = "store_rows",
        [MSG_JOB_PUSH] = "job_push",
        [MSG_JOB_PUSHED] = "job_pushed",
    };

    return NAME_OF(names, type);
}

enum msg_task msg_embedding_task(enum msg_embedding kind)
{
    static const enum msg_task tasks[] = {[MSG_EMBEDDING_QUERY] = MSG_TASK_QUERY,
                                          [MSG_EMBEDDING_ITC] = MSG_TASK_ITC,
                                          [MSG_EMBEDDING_ITC_TEXT] = MSG_TASK_ITC_TEXT,
                                          [MSG_EMBEDDING_CLS] = MSG_TASK_CLS};

    return tasks[kind];
}

const char *msg_reason_name(enum msg_reason reason)
{
    static const char *const names[] = {
        [MSG_REASON_VERSION] = "version",
        [MSG_REASON_MODEL] = "model",
        [MSG_REASON_BAD_MESSAGE] = "bad message",
        [MSG_REASON_NOT_ALLOWED] = "not allowed",
        [MSG_REASON_STORE] = "store",
        [MSG_REASON_RECIPE] = "recipe",
        [MSG_REASON_LIMIT] = "limit",
        [MSG_REASON_UNKNOWN_JOB] = "unknown job",
        [MSG_REASON_DRAINING] = "draining",
        [MSG_REASON_STALLED] = "stalled",
        [MSG_REASON_BUSY] = "busy",
    };

    return NAME_OF(names, reason);
}

bool msg_text_set(char *dst, size_t dst_size, const char *text)
{
    size_t n = strnlen(text, dst_size);
    bool fits = n < dst_size;

    if (!fits)
        n = dst_size - 1;
    memcpy(dst, text, n);
    dst[n] = '\0';
    return fits;
}
