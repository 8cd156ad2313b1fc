/* msg.h - messages between client, broker and workers as plain structs (wire.proto explains each field).
 *
 * Who may call: anyone, from any thread; nothing is shared.
 * Units:  in the names; `shape` is outermost first, shape[0] counts items.
 * Memory: text is a NUL-terminated array inside the struct; bytes with a NUL are refused. A msg from msg_unpack owns
 *         `memory` (lease ids, inline tensor bytes): free it with msg_release. A msg that you fill in borrows what its
 *         pointers point to; msg_release of it does nothing.
 * Errors: -EBADMSG for a malformed message, -EMSGSIZE beyond a limit, -ENOMEM, -EPROTONOSUPPORT for another version,
 *         -EOPNOTSUPP for a tensor transport that is not implemented; err names the field. ret is untouched on failure.
 *
 * Packing and unpacking apply the same checks, so a packed message can be unpacked. */
#ifndef BLIPLINE_PROTO_MSG_H
#define BLIPLINE_PROTO_MSG_H

#include "base/buf.h"
#include "base/err.h"
#include "base/fingerprint.h"
#include "base/stage.h"
#include "proto/msg_fleet.h"
#include "proto/recipe.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MSG_VERSION 2 /* of this program; HELLO gives a range */

enum {
    MSG_MAX_BYTES = 64 * 1024,    /* an envelope */
    MSG_MAX_TENSORS = 8,          /* of one message */
    MSG_MAX_DIMS = 6,             /* of one tensor */
    MSG_MAX_INLINE_BYTES = 4096,  /* a tensor inside the envelope */
    MSG_MAX_ROW_FRAMES = 64,      /* of one message */
    MSG_MAX_TENSOR_FRAMES = 1024, /* of one message */
    MSG_MAX_UNIT_ITEMS = 4096,    /* of one unit, hence of one lease */
    MSG_MAX_ROWS = 1024 * 1024,   /* of one message */
    MSG_MAX_LEASE_IDS = 1024,     /* of one heartbeat */
    MSG_MAX_NODES = 8,            /* of one job's stage graph */
    MSG_MAX_STAGES = 8,           /* of one progress answer */
    MSG_MAX_HUNG = 8,             /* of one progress answer */
    MSG_MAX_RETRY_CODES = 32,
    MSG_MAX_FIND_KEYS = 256,
    MSG_MAX_FOUND_ITEMS = 65536,
    MSG_MAX_LISTED_JOBS = 256,
    MSG_OTHER_KEY_BYTES = 120,
    MSG_TOKEN_BYTES = 16,
    MSG_MAX_KEY_BYTES = 8192, /* of STORE_READ */
    MSG_CODE_SIZE = 32,       /* one word of [a-z0-9_-] */
    MSG_TEXT_SIZE = 1024,
    MSG_PATH_SIZE = 4096,
    MSG_MAX_SELECTION_BYTES = MSG_MAX_UNIT_ITEMS / 8,
};
#define MSG_MAX_ROW_FRAME_BYTES ((size_t)16 << 20)
#define MSG_MAX_TENSOR_FRAME_BYTES ((size_t)8 << 20)
#define MSG_MAX_TENSOR_BYTES ((uint64_t)4 << 30) /* of one tensor, all frames */

/* Equal to the field numbers of Envelope.body. */
enum msg_type {
    MSG_HELLO = 10,
    MSG_WELCOME = 11,
    MSG_REFUSE = 12,
    MSG_CREDIT = 13,
    MSG_WORK = 14,
    MSG_RESULT = 15,
    MSG_FAILURE = 16,
    MSG_RETURN = 17,
    MSG_HEARTBEAT = 18,
    MSG_DRAIN = 19, /* no body */
    MSG_BYE = 20,   /* no body */
    MSG_JOB_OPEN = 30,
    MSG_JOB_OPENED = 31,
    MSG_JOB_ROWS = 32,
    MSG_JOB_ROWS_OK = 33,
    MSG_JOB_SEAL = 34,
    MSG_JOB_ACCEPTED = 35,
    MSG_JOB_QUERY = 36,
    MSG_JOB_PROGRESS = 37,
    MSG_JOB_STOP = 38,
    MSG_SHUTDOWN = 39, /* no body */
    MSG_JOB_AGAIN = 40,
    MSG_JOB_CLOSE = 41,
    MSG_JOB_FIND = 42,
    MSG_JOB_FOUND = 43,
    MSG_JOB_LIST = 44,
    MSG_JOB_LISTED = 45,
    MSG_JOB_CONTROL = 46,
    MSG_MODEL_OFFER = 50, /* no body */
    MSG_MODEL_WANT = 51,
    MSG_MODEL_FILES = 52,
    MSG_MODEL_LIST = 53,   /* no body */
    MSG_MODEL_LISTED = 54, /* no body */
    MSG_MODEL_GET = 55,
    MSG_FLEET_QUERY = 60,
    MSG_FLEET = 61,
    MSG_STORE_READ = 64,
    MSG_STORE_ROWS = 65,
    MSG_JOB_PUSH = 68,
    MSG_JOB_PUSHED = 69,
};

/* The enums below have the numbers of wire.proto. 0 is "not given". */
enum msg_transport { MSG_TRANSPORT_INLINE = 1, MSG_TRANSPORT_FRAME };
/* What a Q-Former node must produce. Bits. */
enum msg_task {
    MSG_TASK_PROJECT = 1,
    MSG_TASK_SCORE = 2,
    MSG_TASK_QUERY = 4,
    MSG_TASK_ITC = 8,
    MSG_TASK_ITC_TEXT = 16,
    MSG_TASK_CLS = 32,
    MSG_TASK_ALL = 63,
};
enum msg_role {
    MSG_ROLE_WORKER = 1,
    MSG_ROLE_CLIENT = 2,
    MSG_ROLE_ADMIN = 3, /* of keys and connections; a Hello says client */
};

enum msg_reason {
    MSG_REASON_VERSION = 1,
    MSG_REASON_MODEL,
    MSG_REASON_BAD_MESSAGE,
    MSG_REASON_NOT_ALLOWED,
    MSG_REASON_STORE,
    MSG_REASON_RECIPE,
    MSG_REASON_LIMIT,
    MSG_REASON_UNKNOWN_JOB,
    MSG_REASON_DRAINING,
    MSG_REASON_STALLED,
    MSG_REASON_BUSY,
};

enum msg_job_state {
    MSG_JOB_IMPORTING = 1,
    MSG_JOB_RUNNING,
    MSG_JOB_DONE,
    MSG_JOB_STOPPED,
    MSG_JOB_BLOCKED,
    MSG_JOB_FAILED,
    MSG_JOB_PAUSED, /* too many failures */
    MSG_JOB_CANCELLED,
};

enum msg_job_action {
    MSG_JOB_PAUSE = 1,
    MSG_JOB_RESUME,
    MSG_JOB_CANCEL,
    MSG_JOB_PRIORITY,
    MSG_JOB_REMOVE,
    MSG_JOB_RETRY,
};

struct msg_tensor {
    enum dtype dtype;
    uint32_t n_dims;
    uint32_t shape[MSG_MAX_DIMS]; /* shape[0] may be 0, the others may not */
    enum msg_transport transport;
    uint64_t xxh3;              /* over all bytes in order; set by the sender, verified by the consumer */
    uint32_t n_frames;          /* FRAME */
    const uint8_t *inline_data; /* INLINE; as many bytes as the shape has */
    uint32_t inline_bytes;
};

struct msg_lease {
    uint64_t epoch;
    uint64_t id;
    uint64_t job;
    uint32_t unit;
    uint32_t node;
    uint32_t attempt;
    uint32_t first;
    uint32_t count; /* at least 1; first + count is at most MSG_MAX_UNIT_ITEMS */
};

struct msg_hello {
    enum msg_role role;
    uint32_t min_version, max_version;
    char host[MSG_NAME_SIZE];
    uint64_t boot_nonce;
    uint32_t pid;
    /* workers only */
    enum stage stage;
    char device[MSG_NAME_SIZE];
    enum dtype dtype;
    struct fingerprint fingerprint;
    char model[MSG_NAME_SIZE];
    uint32_t window_items;
    uint64_t window_bytes;
    uint64_t epoch; /* of lease_ids, the leases still held; 0: this HELLO says nothing about leases */
    uint32_t n_lease_ids;
    const uint64_t *lease_ids; /* in msg.memory after msg_unpack */
};

struct msg_welcome {
    uint64_t epoch; /* never 0 */
    uint32_t version;
    uint32_t heartbeat_ms; /* never 0 */
    uint32_t lease_ms;     /* more than heartbeat_ms */
    bool takes_models;
};

struct msg_refuse {
    enum msg_reason reason;
    char text[MSG_TEXT_SIZE];
    bool has_recipe; /* RECIPE, MODEL: the store was begun with this one */
    struct msg_recipe recipe;
};

struct msg_credit {
    uint32_t window_items;
    uint64_t window_bytes;
};

/* Which rows of a tensor to use: bit i % 8 of byte i / 8, lowest first, is set if row i is used. */
struct msg_selection {
    uint32_t tensor; /* ascending */
    uint32_t n_bytes;
    uint8_t rows[MSG_MAX_SELECTION_BYTES];
};

struct msg_work {
    struct msg_lease lease;
    struct msg_recipe recipe;
    uint32_t tasks; /* of the node, enum msg_task */
    uint32_t n_selections;
    struct msg_selection selections[MSG_MAX_TENSORS];
};

struct msg_timing {
    uint64_t compute_ns, decode_ns, resize_ns, wait_ns;
};

struct msg_result {
    struct msg_lease lease;
    struct msg_timing timing;
};

struct msg_failure {
    struct msg_lease lease;
    char code[MSG_CODE_SIZE];
    char text[MSG_TEXT_SIZE];
};

struct msg_return {
    struct msg_lease lease;
    char unseen[MSG_TEXT_SIZE]; /* "": it sees the pictures */
};

struct msg_heartbeat {
    uint64_t epoch;
    uint32_t n_lease_ids;
    const uint64_t *lease_ids; /* in msg.memory after msg_unpack */
    uint64_t progress;
    uint64_t n_items; /* items done by this process so far */
};

struct msg_node {
    enum stage stage;
    uint32_t needs; /* bit i: needs the output of node i; only bits below the node's own number */
    struct fingerprint fingerprint;
    uint64_t out_bytes;
    char model[MSG_NAME_SIZE];
    uint32_t tasks; /* enum msg_task */
};

struct msg_submission {
    bool given;
    uint8_t token[MSG_TOKEN_BYTES];
    char name[MSG_NAME_SIZE];
    bool push; /* the client sends the pictures, too */
};

/* Exactly one of path, job and submission. With `job` there are no recipe and no nodes. */
struct msg_job_open {
    char path[MSG_PATH_SIZE];
    uint64_t job;
    struct msg_submission submission;
    struct msg_recipe recipe;
    uint32_t n_nodes;
    struct msg_node nodes[MSG_MAX_NODES];
    char source[MSG_TEXT_SIZE];
    uint32_t unit_items; /* 0: automatic, else at most MSG_MAX_UNIT_ITEMS */
    bool create;
    uint32_t priority;
    uint32_t max_failures, max_failed_per_mille; /* 0: no limit */
    bool check;                                  /* check all pages of an existing store, whatever its size */
};

struct msg_job_opened {
    uint64_t job, n_items, n_done, n_again, n_redone;
    uint32_t n_units;
};

/* Which items to redo when a walk finds them. Always redone are items with a damaged record and those that failed for a
 * reason that may have passed: the file was missing or unreadable, memory or time ran out, or the list row was bad. */
struct msg_comparison {
    bool refresh;     /* redo items that have changed */
    bool all_failed;  /* redo all failed items */
    uint32_t n_codes; /* redo items that failed with one of `codes` */
    char codes[MSG_MAX_RETRY_CODES][MSG_CODE_SIZE];
};

/* Counts of a walk so far. An item is counted in the first that applies of n_retried, n_refreshed, n_changed. */
struct msg_compared {
    uint64_t n_new;
    uint64_t n_damaged;                            /* unreadable records that were found; their items are redone */
    uint64_t n_retried;                            /* items redone because they failed or their record is damaged */
    uint64_t n_refreshed;                          /* items redone because they have changed */
    uint64_t n_changed;                            /* items not redone whose size or time differs from the manifest */
    uint64_t n_other_fields;                       /* items not redone whose fields differ from the manifest */
    uint8_t other_fields_key[MSG_OTHER_KEY_BYTES]; /* the key of the first of them, truncated */
    uint32_t other_fields_key_bytes;
    uint32_t n_codes;
    uint64_t n_failed_with[MSG_MAX_RETRY_CODES]; /* items that failed with codes[i] */
};

struct msg_job_rows {
    uint64_t job;
    bool sources; /* the rows are sources (proto/row_source.h) */
    bool compare; /* compare the rows with the manifest */
    bool begin;   /* a walk begins: compare by `comparison` from here on */
    struct msg_comparison comparison;
};

struct msg_job_find {
    uint64_t job;
    bool sources; /* the sources of the store, else the items that have one of the keys in the rows */
};

struct msg_job_list {
    uint64_t from_job;
};

struct msg_job_listed {
    uint64_t next_job; /* 0: there are no more */
};

struct msg_job_control {
    uint64_t job;
    enum msg_job_action action;
    uint32_t priority; /* PRIORITY; 0: the usual one */
    uint32_t n_codes;  /* RETRY: only items that failed with one of these; 0: all failed items */
    char codes[MSG_MAX_RETRY_CODES][MSG_CODE_SIZE];
};

enum msg_store_what {
    MSG_STORE_SUMMARY = 1,
    MSG_STORE_UNITS,
    MSG_STORE_UNITS_OF,
    MSG_STORE_DONE,
    MSG_STORE_FIND,
    MSG_STORE_EMBEDDINGS,
    MSG_STORE_CHECK,
    MSG_STORE_VERIFY,
};

struct msg_store_read {
    uint64_t job;
    enum msg_store_what what;
    uint64_t from;                /* a unit, or an item: UNITS_OF, EMBEDDINGS */
    enum msg_embedding embedding; /* EMBEDDINGS; else 0 */
    uint32_t key_bytes;           /* FIND; else 0 */
    uint8_t key[MSG_MAX_KEY_BYTES];
};

struct msg_store_rows {
    uint64_t job;
    uint64_t next;
    uint32_t n_units;
    char damage[MSG_TEXT_SIZE]; /* "": none was met */
    bool more;                  /* another answer follows */
    bool in_progress;
    uint64_t n_problems, n_seen, n_items, disk_bytes;
    uint32_t n_kinds;
    uint64_t n_embeddings[MSG_EMBEDDING_CLS + 1]; /* [n_kinds] */
};

/* JOB_AGAIN, JOB_SEAL, JOB_QUERY, JOB_STOP, JOB_CLOSE, JOB_FOUND */
struct msg_job_ref {
    uint64_t job;
};

/* MODEL_WANT, MODEL_FILES, MODEL_GET; the rows of the others are in proto/model.h */
struct msg_model_ref {
    struct fingerprint model; /* struct model.id, not none */
};

struct msg_job_rows_ok {
    uint64_t job, n_items;
    bool is_compared; /* `compared` is set */
    struct msg_compared compared;
};

struct msg_job_push {
    uint64_t job, offset;
};

struct msg_job_pushed {
    uint64_t job, n_items;
};

struct msg_job_seal {
    uint64_t job;
    uint64_t disk_bytes; /* of manifest and results, estimated; 0: not to be checked */
};

struct msg_job_accepted {
    uint64_t job, n_items, disk_room;
    uint32_t n_units;
};

struct msg_stage_progress {
    enum stage stage;
    uint32_t workers;
    uint64_t items_done;
    uint32_t units_ready, units_leased;
    uint64_t busy_ns, decode_ns, resize_ns, failures, lease_expiries, isolations;
    uint64_t returns, bad_results, tensors_refused, stalls;
    uint32_t benched; /* workers */
};

/* A worker that makes no progress. */
struct msg_hung_worker {
    char host[MSG_NAME_SIZE];
    uint32_t pid;
    enum stage stage;
    char text[MSG_TEXT_SIZE];
};

/* Counts of the broker process, over all jobs. */
struct msg_broker_counters {
    uint64_t late, strangers, malformed, bad_messages, refusals, benches, cut_off, splits, lost, closed, turned_away;
    uint64_t keys_accepted, keys_denied, handshakes_bad, handshakes_unfinished;
};

struct msg_job_progress {
    uint64_t job;
    enum msg_job_state state;
    uint64_t n_items, n_done, n_failed, n_again, n_redone;
    uint32_t n_units, n_units_done;
    uint32_t n_stages;
    struct msg_stage_progress stages[MSG_MAX_STAGES];
    char text[MSG_TEXT_SIZE];
    uint64_t n_given_up;
    uint32_t n_hung;
    struct msg_hung_worker hung[MSG_MAX_HUNG];
    struct msg_broker_counters broker;
};

/* About 40 KiB. To build one, call msg_init and set what you need. */
struct msg {
    uint32_t version; /* msg_init sets MSG_VERSION */
    uint64_t seq;
    uint32_t n_row_frames, n_rows;
    uint32_t n_tensors;
    struct msg_tensor tensors[MSG_MAX_TENSORS];
    enum msg_type type;
    union {
        struct msg_hello hello;
        struct msg_welcome welcome;
        struct msg_refuse refuse;
        struct msg_credit credit;
        struct msg_work work;
        struct msg_result result;
        struct msg_failure failure;
        struct msg_return return_lease;
        struct msg_heartbeat heartbeat;
        struct msg_job_open job_open;
        struct msg_job_opened job_opened;
        struct msg_job_ref job_ref;
        struct msg_job_rows job_rows;
        struct msg_job_find job_find;
        struct msg_job_list job_list;
        struct msg_job_listed job_listed;
        struct msg_job_control job_control;
        struct msg_fleet_query fleet_query;
        struct msg_fleet fleet;
        struct msg_store_read store_read;
        struct msg_store_rows store_rows;
        struct msg_job_rows_ok job_rows_ok;
        struct msg_job_push job_push;
        struct msg_job_pushed job_pushed;
        struct msg_job_seal job_seal;
        struct msg_job_accepted job_accepted;
        struct msg_job_progress job_progress;
        struct msg_model_ref model_ref;
    };
    void *memory; /* allocated by msg_unpack */
};

/* Set type and version; zero the rest. */
void msg_init(struct msg *m, enum msg_type type);
void msg_release(struct msg *m);

/* `data` is an envelope frame from a peer; `ret` does not point into it. */
int msg_unpack(const void *data, size_t n_bytes, struct msg *ret, struct err *err) CHECK_RESULT;
/* Append the envelope to `buf`. -EINVAL if a field is out of range (an error of the caller). */
int msg_pack(const struct msg *m, struct buf *buf, struct err *err) CHECK_RESULT;

/* Bytes of the whole tensor and of one item. -EMSGSIZE beyond MSG_MAX_TENSOR_BYTES. */
int msg_tensor_bytes(const struct msg_tensor *t, uint64_t *ret_bytes, uint64_t *ret_item_bytes) CHECK_RESULT;

/* The bytes of pictures, not rows of items. */
bool msg_tensor_is_pictures(const struct msg_tensor *t);

const char *msg_type_name(enum msg_type type);             /* "hello", ...; "?" if unknown */
enum msg_task msg_embedding_task(enum msg_embedding kind); /* the task that produces it */
const char *msg_reason_name(enum msg_reason reason);       /* "version", "model", ...; "?" */

/* Copy text into an array of the structs above. Returns false if it was truncated. */
bool msg_text_set(char *dst, size_t dst_size, const char *text);

#endif
