/* crew.h - the connected workers as a job sees them: which of them could do its units now, and what it needs if none
 * could.
 *
 * Who may call: the loop's thread. Units: in the names. Memory: the caller's. Errors: none. */
#ifndef BLIPLINE_BROKER_CREW_H
#define BLIPLINE_BROKER_CREW_H

#include "broker/driver.h"
#include "broker/peers.h"
#include "proto/msg.h"

#include <stdbool.h>
#include <stddef.h>

/* In which the recipe wants the stage. */
enum dtype crew_dtype(const struct msg_recipe *recipe, enum stage stage);
/* What the worker is doing. `info` is what the core knows of it. */
enum msg_worker_state crew_state(const struct core_worker_info *info);
/* What a job needs for a node. */
struct crew_need {
    uint64_t job;
    const struct msg_node *node;
    enum dtype dtype;
    const char *unseen; /* what a worker said that cannot see the job's pictures */
};

/* Why no connected worker can do units of the node now: "needs a llm worker of blip2-flan-t5-xl, bf16: none is
 * connected; 2 of another model are". Returns false, and leaves `text` alone, if one can. */
bool crew_is_missing(const struct driver *driver, const struct peers *peers, const struct crew_need *need, char *text,
                     size_t size);

#endif
