/* The list of actions that a step appends to. */
#include "base/grow.h"
#include "broker/core_worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void core_actions_init(struct core_actions *a)
{
    *a = (struct core_actions){0};
    arena_init(&a->arena, 0);
}

void core_actions_clear(struct core_actions *a)
{
    a->n = 0;
    arena_reset(&a->arena);
}

void core_actions_release(struct core_actions *a)
{
    free(a->items);
    arena_release(&a->arena);
    *a = (struct core_actions){0};
}

void core_break(struct core *c)
{
    c->broken = true;
}

struct core_action *core_emit(struct core *c, enum core_action_type type)
{
    struct core_actions *a = c->out;
    struct core_action *action = &c->dummy;

    if (grow_array(&a->items, &a->capacity, a->n, sizeof(*a->items), 64) == 0)
        action = &a->items[a->n++];
    else
        core_break(c);
    memset(action, 0, sizeof(*action));
    action->type = type;
    return action;
}

void core_emit_id(struct core *c, enum core_action_type type, uint64_t id)
{
    core_emit(c, type)->job = id; /* job, peer and payload share one member of the union */
}

void *core_emit_alloc(struct core *c, size_t bytes)
{
    void *p = arena_alloc(&c->out->arena, bytes);

    if (!p)
        core_break(c);
    return p;
}

void core_refuse(struct core *c, uint64_t peer, enum core_refuse_reason reason, const char *text)
{
    struct core_action *a;
    size_t n = strlen(text) + 1;
    char *copy = core_emit_alloc(c, n);

    if (!copy)
        return;
    memcpy(copy, text, n);
    a = core_emit(c, CORE_DO_REFUSE);
    a->refuse.peer = peer;
    a->refuse.reason = reason;
    a->refuse.text = copy;
}

void core_emit_hung(struct core *c, uint64_t peer, const char *text)
{
    char *copy = core_emit_alloc(c, CORE_TEXT_BYTES);
    struct core_action *a;

    if (!copy)
        return;
    (void)snprintf(copy, CORE_TEXT_BYTES, "%s", text);
    a = core_emit(c, CORE_DO_HUNG);
    a->hung.peer = peer;
    a->hung.text = copy;
}
