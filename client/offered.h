/* offered.h - the models that the workers of a broker have offered, for machines without a checkpoint.
 *
 * The small files of a model are kept in ~/.cache/blipline/models (or $XDG_CACHE_HOME).
 * Who may call: the commands. Units: none. Memory: plain values. Errors: exit codes; the error has been printed. */
#ifndef BLIPLINE_CLIENT_OFFERED_H
#define BLIPLINE_CLIENT_OFFERED_H

#include "proto/model.h"

#include <limits.h>
#include <stdbool.h>

struct offered_model {
    bool known; /* false: it is a checkpoint of this machine, or was not asked for */
    struct model model;
    char folder[PATH_MAX]; /* of its files */
};

struct offered_models {
    struct offered_model model, score_model;
};

/* Look up the models that are not checkpoints of this machine; NULL: none is asked for. `broker`: the value of
 * --broker. */
int offered_find(const char *command, const char *broker, const char *model, const char *score_model,
                 struct offered_models *ret);

#endif
