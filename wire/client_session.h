/* client_session.h - the connection of a client to a broker: requests and answers.
 *
 * Each call sends one request with a new sequence number and waits for its answer; only rows are streamed, with up to 4
 * unanswered messages. A signal ends a wait with -EINTR and leaves the session usable; for an orderly end after Ctrl-C
 * call client_session_stop_job next.
 *
 * Who may call: one thread. Units: milliseconds. Memory: answers are plain structs of the caller; free sessions with
 * client_session_close. Errors: -ETIMEDOUT no answer in time; -ECONNRESET the connection was lost (open a new session);
 * -EBADMSG malformed reply; or the broker refused, with its text in err: -EPROTONOSUPPORT (version), -ENODEV (model),
 * -EINVAL (bad message), -EPERM (not allowed), -EIO (store), -EEXIST (recipe), -EDQUOT (limit), -ENOENT (unknown job),
 * -ESHUTDOWN (draining). */
#ifndef BLIPLINE_WIRE_CLIENT_SESSION_H
#define BLIPLINE_WIRE_CLIENT_SESSION_H

#include "base/buf.h"
#include "base/err.h"
#include "proto/msg.h"
#include "wire/keys.h"

#include <stdint.h>

struct client_session;

/* Connect and exchange HELLO and WELCOME. It retries until timeout_ms, so the broker may still be starting.
 * `keys` are for tcp (NULL: none). -EACCES: the broker does not accept the key. */
int client_session_open(const char *endpoint, const struct wire_keys *keys, int64_t timeout_ms,
                        struct client_session **ret, struct err *err) CHECK_RESULT;
void client_session_close(struct client_session **s);
/* Of all calls below; the default is 30 s. Opening and sealing a large job may take longer. */
void client_session_set_timeout(struct client_session *s, int64_t timeout_ms);

/* *ret_recipe: after -EEXIST and -ENODEV the recipe that the store was begun with, where the broker says so, else NULL;
 * valid until the next call with the session. */
int client_session_job_open(struct client_session *s, const struct msg_job_open *open, struct msg_job_opened *ret,
                            const struct msg_recipe **ret_recipe, struct err *err) CHECK_RESULT;
/* The sources of the job's store, or its items that have one of the keys of `keys` (n_keys Item rows; emptied): see
 * JobFind. Their rows are appended to `ret`. */
int client_session_find_sources(struct client_session *s, uint64_t job, struct buf *ret, uint32_t *ret_n,
                                struct err *err) CHECK_RESULT;
int client_session_find_items(struct client_session *s, uint64_t job, struct buf *keys, uint32_t n_keys,
                              struct buf *ret, uint32_t *ret_n, struct err *err) CHECK_RESULT;
/* Send one row frame of Item rows (row_item_append); `rows` is emptied. Waits only while 4 are unanswered.
 * *ret_n_items (may be NULL): items that the broker has confirmed so far. */
int client_session_rows(struct client_session *s, uint64_t job, struct buf *rows, uint32_t n_rows,
                        uint64_t *ret_n_items, struct err *err) CHECK_RESULT;
/* The same with Source rows (row_source_append); waits for all answers, so that items which name them may follow. */
int client_session_sources(struct client_session *s, uint64_t job, struct buf *rows, uint32_t n_rows,
                           struct err *err) CHECK_RESULT;
/* The same for items that the store may already have, in the order of a walk. `begin` comes with the first rows of the
 * walk and says which items are done again; NULL with the others. */
int client_session_compare(struct client_session *s, uint64_t job, const struct msg_comparison *begin, struct buf *rows,
                           uint32_t n_rows, struct err *err) CHECK_RESULT;
/* The counts of the broker's latest answer. */
const struct msg_compared *client_session_compared(const struct client_session *s);
/* Waits for the answers of all rows first. Returns when the manifest is durable. disk_bytes: as in JobSeal. */
int client_session_seal(struct client_session *s, uint64_t job, uint64_t disk_bytes, struct msg_job_accepted *ret,
                        struct err *err) CHECK_RESULT;
int client_session_query(struct client_session *s, uint64_t job, struct msg_job_progress *ret,
                         struct err *err) CHECK_RESULT;
/* Drain the job. The answer comes at once, before it has stopped: query it again. */
int client_session_stop_job(struct client_session *s, uint64_t job, struct msg_job_progress *ret,
                            struct err *err) CHECK_RESULT;
/* The broker answers at once with BYE; then it drains, commits and exits. */
int client_session_shutdown(struct client_session *s, struct err *err) CHECK_RESULT;

#endif
