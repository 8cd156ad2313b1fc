/* reader_remote.h - what a reader does where its store is not here. Inside store/ only.
 *
 * Answers are kept until the next question of their kind, so that a walk over the items asks about once for each MiB.
 * Who may call, Units, Memory, Errors: as reader.h. -EPROTO: an answer makes no sense. */
#ifndef BLIPLINE_STORE_READER_REMOTE_H
#define BLIPLINE_STORE_READER_REMOTE_H

#include "store/reader_state.h"

struct remote;

void remote_free(struct remote *m); /* NULL is fine */

int remote_counters(struct reader *r, struct stored_job_counters *ret, struct err *err) CHECK_RESULT;
int remote_disk_bytes(struct reader *r, uint64_t *ret, struct err *err) CHECK_RESULT;
int remote_in_progress(struct reader *r, bool *ret, struct err *err) CHECK_RESULT;
int remote_sources(struct reader *r, struct err *err) CHECK_RESULT; /* into r->sources */
int remote_count_embeddings(struct reader *r, enum msg_embedding kind, uint64_t *ret, struct err *err) CHECK_RESULT;

/* As reader_load_now, reader_find_unit. */
int remote_load(struct reader *r, uint32_t unit, struct err *err) CHECK_RESULT;
int remote_find_unit(struct reader *r, uint64_t item, uint32_t *ret, struct err *err) CHECK_RESULT;
/* 1: *ret is valid until the next call, 0: there is none. */
int remote_embedding(struct reader *r, enum msg_embedding kind, uint64_t item, MDB_val *ret,
                     struct err *err) CHECK_RESULT;

/* Into r->found. */
int remote_units_done(struct reader *r, uint32_t *from, struct err *err) CHECK_RESULT;
int remote_find(struct reader *r, const void *key, size_t size_bytes, struct err *err) CHECK_RESULT;

int remote_check_pages(struct reader *r, struct err *err) CHECK_RESULT;
int remote_verify(struct reader *r, const struct reader_verify *v, uint64_t *ret_n_problems,
                  struct err *err) CHECK_RESULT;

#endif
