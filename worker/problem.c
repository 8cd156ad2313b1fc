#include "worker/problem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void item_problem_set(struct item_problem *p, const char *code, const char *fmt, ...)
{
    va_list ap;

    if (p->code)
        return;
    p->code = code;
    va_start(ap, fmt);
    (void)vsnprintf(p->text, sizeof(p->text), fmt, ap);
    va_end(ap);
}

void item_problem_record(const struct item_problem *p, uint64_t item, struct row_record *ret)
{
    memset(ret, 0, sizeof(*ret));
    ret->item = item;
    ret->failed = true;
    (void)msg_text_set(ret->error_code, sizeof(ret->error_code), p->code);
    ret->error_message = (const uint8_t *)p->text;
    ret->error_message_bytes = (uint32_t)strlen(p->text);
}
