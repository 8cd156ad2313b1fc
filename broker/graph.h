/* graph.h - does a job's graph fit its recipe? What no worker could ever do is refused before anything is computed.
 *
 * Who may call: anybody. Memory: nothing is kept. Errors: -EINVAL, and err says what cannot be done. */
#ifndef BLIPLINE_BROKER_GRAPH_H
#define BLIPLINE_BROKER_GRAPH_H

#include "base/err.h"
#include "proto/msg.h"

enum { GRAPH_EMBEDDING_TASKS = MSG_TASK_QUERY | MSG_TASK_ITC | MSG_TASK_ITC_TEXT | MSG_TASK_CLS };

int graph_check(const struct msg_job_open *open, struct err *err) CHECK_RESULT;

#endif
