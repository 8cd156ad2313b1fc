/* actions.h - carry out the actions of the core: messages, reads, commits.
 *
 * Who may call: the driver. Units, Memory, Errors: as broker.h. */
#ifndef BLIPLINE_BROKER_ACTIONS_H
#define BLIPLINE_BROKER_ACTIONS_H

#include "broker/core.h"

/* `broker`: struct broker. */
void actions_do(void *broker, const struct core_action *action);

#endif
