#include "broker/crew.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* The connected workers of a node's stage. */
struct crew {
    uint32_t n_able;                                /* could do it now */
    uint32_t n_benched, n_draining, n_silent;       /* are of its model, but do nothing now */
    uint32_t n_unseen;                              /* could, but do not see the pictures */
    uint32_t n_other_model, n_other_dtype, n_other; /* are not; `other` has the same name and dtype */
    const struct peer *other;
    struct core_worker_info benched; /* the last one */
};

enum dtype crew_dtype(const struct msg_recipe *recipe, enum stage stage)
{
    return stage == STAGE_ENCODE    ? recipe->dtype_encode
           : stage == STAGE_QFORMER ? recipe->dtype_qformer
                                    : recipe->dtype_llm;
}

enum msg_worker_state crew_state(const struct core_worker_info *info)
{
    return info->silent              ? MSG_WORKER_SILENT
           : info->benched           ? MSG_WORKER_BENCHED
           : info->window_items == 0 ? MSG_WORKER_DRAINING
           : info->n_leases > 0      ? MSG_WORKER_WORKING
                                     : MSG_WORKER_IDLE;
}

/* Does a worker of the node's stage have its model? */
static bool fits(const struct peer *p, const struct msg_node *node)
{
    return fingerprint_is_none(&node->fingerprint) || fingerprint_equal(&p->fingerprint, &node->fingerprint);
}

static void add_other(struct crew *crew, const struct peer *p, const struct crew_need *need)
{
    if (strcmp(p->model, need->node->model) != 0) {
        crew->n_other_model++;
    } else if (p->dtype != need->dtype) {
        crew->n_other_dtype++;
    } else {
        crew->n_other++;
        crew->other = p;
    }
}

static void add_fit(struct crew *crew, const struct core_worker_info *info, bool sees)
{
    switch (crew_state(info)) {
    case MSG_WORKER_SILENT:
        crew->n_silent++;
        return;
    case MSG_WORKER_BENCHED:
        crew->n_benched++;
        crew->benched = *info;
        return;
    case MSG_WORKER_DRAINING:
        crew->n_draining++;
        return;
    default:
        crew->n_able += sees;
        crew->n_unseen += !sees;
    }
}

static struct crew crew_of(const struct driver *driver, const struct peers *peers, const struct crew_need *need)
{
    const struct msg_node *node = need->node;
    struct core_worker_info info;
    struct crew crew = {0};
    size_t at = 0;

    for (const struct peer *p; (p = peers_next(peers, &at));) {
        if (p->role != MSG_ROLE_WORKER || p->stage != node->stage ||
            core_worker_get(driver->core, p->number, driver->now_ms, &info) < 0)
            continue;
        if (fits(p, node))
            add_fit(&crew, &info, node->needs || core_worker_sees(driver->core, p->number, need->job));
        else
            add_other(&crew, p, need);
    }
    return crew;
}

/* The first digits tell fingerprints apart. */
static const char *short_hex(const struct fingerprint *f, char ret[9])
{
    (void)snprintf(ret, 9, "%02x%02x%02x%02x", f->bytes[0], f->bytes[1], f->bytes[2], f->bytes[3]);
    return ret;
}

static void append(char *text, size_t size, const char *fmt, ...) PRINTF_LIKE(3, 4);

static void append(char *text, size_t size, const char *fmt, ...)
{
    const size_t n = strlen(text);
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text + n, size - n, fmt, ap);
    va_end(ap);
}

static const char *is_are(uint32_t n)
{
    return n == 1 ? "is" : "are";
}

/* Append "2 are draining", after a comma unless it is the first. */
static void append_some(char *text, size_t size, const char **separator, uint32_t n, const char *what)
{
    if (n == 0)
        return;
    append(text, size, "%s%u %s %s", *separator, n, is_are(n), what);
    *separator = ", ";
}

/* Workers of its model are connected, and none of them takes work now. */
static void explain_unable(const struct crew *crew, char *text, size_t size)
{
    const uint32_t n = crew->n_benched + crew->n_draining + crew->n_silent;
    const char *separator = " ";

    if (n == 1) {
        append(text, size, "the only one is %s",
               crew->n_benched    ? "benched"
               : crew->n_draining ? "draining"
                                  : "silent");
    } else {
        append(text, size, "of %u that are connected,", n);
        append_some(text, size, &separator, crew->n_benched, "benched");
        append_some(text, size, &separator, crew->n_draining, "draining");
        append_some(text, size, &separator, crew->n_silent, "silent");
    }
    if (crew->n_benched)
        append(text, size, "; %u failures in a row, the last: %s", crew->benched.n_bad, crew->benched.why);
}

/* No worker of its model is connected. */
static void explain_none(const struct crew *crew, const struct msg_node *node, char *text, size_t size)
{
    const uint32_t n = crew->n_other_model + crew->n_other_dtype + crew->n_other;
    const struct {
        uint32_t n;
        const char *what;
    } parts[] = {{crew->n_other_model, "of another model"},
                 {crew->n_other_dtype, "of another number type"},
                 {crew->n_other, "of the same name with other weights"}};
    const char *separator = "; ";
    char want[9], have[9];

    append(text, size, "none is connected");
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        if (parts[i].n)
            append(text, size, "%s%u %s", separator, parts[i].n, parts[i].what);
        separator = parts[i].n ? " and " : separator;
    }
    if (n)
        append(text, size, " %s", is_are(n));
    if (crew->other)
        append(text, size, " (%s is wanted, one has %s)", short_hex(&node->fingerprint, want),
               short_hex(&crew->other->fingerprint, have));
}

bool crew_is_missing(const struct driver *driver, const struct peers *peers, const struct crew_need *need, char *text,
                     size_t size)
{
    const struct crew crew = crew_of(driver, peers, need);
    const enum stage stage = need->node->stage;

    if (crew.n_able)
        return false;
    if (crew.n_unseen > 1)
        (void)snprintf(text, size, "none of %u %s workers can see the pictures: %.900s", crew.n_unseen,
                       stage_name(stage), need->unseen);
    else if (crew.n_unseen)
        (void)snprintf(text, size, "%s", need->unseen);
    if (crew.n_unseen)
        return true;
    (void)snprintf(text, size, "needs %s %s worker", stage == STAGE_ENCODE ? "an" : "a", stage_name(stage));
    if (need->node->model[0])
        append(text, size, " of %s, %s", need->node->model, dtype_word(need->dtype));
    append(text, size, ": ");
    if (crew.n_benched + crew.n_draining + crew.n_silent)
        explain_unable(&crew, text, size);
    else
        explain_none(&crew, need->node, text, size);
    return true;
}
