#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "broker/model_folder.h"
#include "proto/model_contents.h"

#define DEMO "models/blip2-opt-demo"

static struct model model, got; /* large for a stack */
static char folder[64];

static int setup(void **state)
{
    struct err err;

    (void)state;
    model = (struct model){.name = "demo",
                           .writes_captions = true,
                           .n_stages = 2,
                           .stages = {{STAGE_ENCODE, DTYPE_F32, 1, {"0123456789abcdef"}, 3, "host-1"},
                                      {STAGE_LLM, DTYPE_F8_E4M3, 0, {"fedcba9876543210"}, 0, ""}}};
    strcpy(folder, "/tmp/bl-model-XXXXXX");
    return mkdtemp(folder) ? model_contents_describe(DEMO, &model, &err) : -1;
}

static int teardown(void **state)
{
    char command[128];

    (void)state;
    (void)snprintf(command, sizeof(command), "rm -rf %s", folder);
    return system(command); /* NOLINT(cert-env33-c) */
}

static int read_row(const struct buf *b, struct err *err)
{
    const struct row_frame frame = {b->data, b->size_bytes};
    struct row_cursor c;
    int rc;

    row_cursor_init(&c, &frame, 1, 1);
    rc = row_cursor_next_model(&c, &got, err);
    row_cursor_release(&c);
    return rc;
}

static void test_model_row_is_what_was_written(void **state)
{
    struct buf b = {0};
    struct err err;

    (void)state;
    assert_int_equal(model.n_files, 6);
    assert_int_equal(row_model_append(&b, &model), 0);
    assert_int_equal(read_row(&b, &err), 1);
    assert_memory_equal(&got, &model, sizeof(model));
    buf_release(&b);
}

static void test_model_value_has_no_counts_and_a_checksum(void **state)
{
    struct row_memory memory = {0};
    struct buf b = {0};
    struct err err;

    (void)state;
    assert_int_equal(stored_model_encode(&model, &b), 0);
    assert_int_equal(stored_model_decode(&memory, b.data, b.size_bytes, &got, &err), 0);
    assert_int_equal(got.stages[0].n_workers, 0);
    got.stages[0].n_workers = 3;
    assert_memory_equal(&got, &model, sizeof(model));
    b.data[30] ^= 1;
    assert_int_equal(stored_model_decode(&memory, b.data, b.size_bytes, &got, &err), -EILSEQ);
    buf_release(&b);
    row_memory_release(&memory);
}

static void refused(const struct model *m)
{
    struct buf b = {0};

    assert_int_equal(row_model_append(&b, m), -EINVAL);
    assert_int_equal(stored_model_encode(m, &b), -EINVAL);
    buf_release(&b);
}

#define REFUSED(change, same_id) \
    do {                         \
        struct model m = model;  \
                                 \
        change;                  \
        if (!(same_id))          \
            m.id = model_id(&m); \
        refused(&m);             \
    } while (0)

static void test_model_out_of_range_is_refused(void **state)
{
    (void)state;
    REFUSED(m.id.bytes[3] ^= 1, true);
    REFUSED(m.name[0] = 'D', true);
    REFUSED(m.files[2].hash.bytes[0] ^= 1, true);
    REFUSED(m.name[0] = '\0', false);
    REFUSED(strcpy(m.name, "../x"), false);
    REFUSED(strcpy(m.name, "a\nb"), false);
    REFUSED(m.n_files = 0, false);
    REFUSED(m.files[0].file = CHECKPOINT_GENERATION, false);
    REFUSED(m.files[1] = m.files[0], false);
    REFUSED(m.files[5].file = (enum checkpoint_file)7, false);
    REFUSED(m.files[4].size_bytes = 0, false);
    REFUSED(m.files[4].size_bytes = MODEL_MAX_BYTES, false); /* with the others */
    REFUSED(m.files[4].size_bytes = UINT32_MAX, false);
    REFUSED(memset(&m.files[1].hash, 0, FINGERPRINT_BYTES), false);
    REFUSED(m.n_stages = MODEL_MAX_STAGES + 1, false);
    REFUSED(m.stages[0].stage = (enum stage)4, false);
    REFUSED(m.stages[0].dtype = DTYPE_U8, false);
    REFUSED(m.stages[0].settings = MODEL_MAX_SETTINGS + 1, false);
    REFUSED(memset(&m.stages[1].fingerprint, 0, FINGERPRINT_BYTES), false);
}

static void test_model_ids_differ_by_name_and_files_alone(void **state)
{
    struct model m = model;
    struct fingerprint id = model_id(&m);

    (void)state;
    m.n_stages = 0;
    assert_true(fingerprint_equal(&m.id, &id));
    id = model_id(&m);
    assert_true(fingerprint_equal(&m.id, &id));
    m.n_files--;
    id = model_id(&m);
    assert_false(fingerprint_equal(&m.id, &id));
}

/* A change to the hashed data would make every broker and cache ask again. */
static void test_model_id_is_the_same_in_every_program(void **state)
{
    struct model m = {.name = "a", .n_files = 1, .files = {{CHECKPOINT_CONFIG, 0x01020304, {"0123456789abcdef"}}}};
    const struct fingerprint id = model_id(&m);
    char hex[FINGERPRINT_HEX_SIZE];

    (void)state;
    assert_string_equal(fingerprint_to_hex(&id, hex), "9b08d1f9a7165fffc61d1f06cc4310d5");
}

static void message_refused(struct msg *m)
{
    struct buf b = {0};

    assert_int_equal(msg_pack(m, &b, NULL), -EINVAL);
    buf_release(&b);
}

static void test_model_messages_are_checked_before_their_frames(void **state)
{
    struct msg m;
    const struct msg_tensor one = {
        .dtype = DTYPE_U8, .n_dims = 1, .shape = {MODEL_MAX_BYTES}, .transport = MSG_TRANSPORT_FRAME, .n_frames = 4};
    struct buf b = {0};

    (void)state;
    msg_init(&m, MSG_MODEL_FILES);
    m.model_ref.model = model.id;
    m.n_tensors = 1;
    m.tensors[0] = one;
    assert_int_equal(msg_pack(&m, &b, NULL), 0);
    buf_release(&b);
    m.model_ref.model = (struct fingerprint){0};
    message_refused(&m);
    m.model_ref.model = model.id;
    m.tensors[0].shape[0]++;
    m.tensors[0].n_frames++;
    message_refused(&m);
    m.tensors[0] = one;
    m.tensors[0].dtype = DTYPE_F32;
    m.tensors[0].n_frames = 16;
    message_refused(&m);
    m.n_tensors = 0;
    message_refused(&m);
    m.n_tensors = 7;
    for (int i = 0; i < 7; i++) {
        m.tensors[i] = one;
        m.tensors[i].shape[0] = m.tensors[i].n_frames = 1;
    }
    message_refused(&m);
    msg_init(&m, MSG_MODEL_GET);
    message_refused(&m);
    msg_init(&m, MSG_MODEL_OFFER);
    message_refused(&m);
    msg_init(&m, MSG_MODEL_LISTED);
    m.n_row_frames = 1;
    m.n_rows = MODEL_MAX_LISTED + 1;
    message_refused(&m);
}

static void note(void *arg, const struct model *m)
{
    (void)arg;
    got = *m;
}

static char why[256];

static void note_skipped(const char *text)
{
    (void)snprintf(why, sizeof(why), "%s", text);
}

static void test_model_folder_has_what_was_written(void **state)
{
    struct model_contents files = {0}, again = {0};
    char hex[FINGERPRINT_HEX_SIZE], path[256];
    struct err err = {""};

    (void)state;
    assert_int_equal(model_contents_read(DEMO, &model, &files, &err), 0);
    assert_int_equal(model_folder_write(folder, &model, &files, &err), 0);
    assert_int_equal(model_folder_read(folder, &model, &again, &err), 0);
    for (uint32_t i = 0; i < model.n_files; i++)
        assert_memory_equal(files.files[i].data, again.files[i].data, model.files[i].size_bytes);
    model_contents_release(&again);
    model.n_stages = 1;
    assert_int_equal(model_folder_write(folder, &model, NULL, &err), 0);
    assert_int_equal(model_folder_list(folder, note, note_skipped, NULL, &err), 0);
    assert_int_equal(got.n_stages, 1);
    assert_string_equal(why, "");
    (void)snprintf(path, sizeof(path), "%s/%s/config.json", folder, fingerprint_to_hex(&model.id, hex));
    assert_int_equal(truncate(path, 10), 0);
    assert_int_equal(model_folder_read(folder, &model, &again, &err), -EBADMSG);
    assert_non_null(strstr(err.text, "config.json"));
    (void)snprintf(path, sizeof(path), "%s/%s/model", folder, hex);
    assert_int_equal(truncate(path, 10), 0);
    got.n_stages = 77;
    assert_int_equal(model_folder_list(folder, note, note_skipped, NULL, &err), 0);
    assert_int_equal(got.n_stages, 77);
    assert_non_null(strstr(why, hex));
    model_contents_release(&files);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_model_row_is_what_was_written, setup, teardown),
        cmocka_unit_test_setup_teardown(test_model_value_has_no_counts_and_a_checksum, setup, teardown),
        cmocka_unit_test_setup_teardown(test_model_out_of_range_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_model_ids_differ_by_name_and_files_alone, setup, teardown),
        cmocka_unit_test(test_model_id_is_the_same_in_every_program),
        cmocka_unit_test_setup_teardown(test_model_messages_are_checked_before_their_frames, setup, teardown),
        cmocka_unit_test_setup_teardown(test_model_folder_has_what_was_written, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
