#include "proto/model.h"

#include <errno.h>
#include <string.h>
#include <xxhash.h>

#include "proto/msg_pb.h"
#include "proto/row_pb.h"
#include "proto/stored_pb.h"

struct model_pb {
    Blipline__Model model;
    Blipline__ModelFile files[CHECKPOINT_N_FILES], *file_list[CHECKPOINT_N_FILES];
    Blipline__ModelStage stages[MODEL_MAX_STAGES], *stage_list[MODEL_MAX_STAGES];
};

/* -- hashes -- */

struct fingerprint model_hash(const void *data, size_t n)
{
    struct fingerprint f;
    XXH128_canonical_t canonical;

    XXH128_canonicalFromHash(&canonical, XXH3_128bits(data, n));
    memcpy(f.bytes, canonical.digest, sizeof(f.bytes));
    return f;
}

struct fingerprint model_id(const struct model *m)
{
    struct {
        char name[MSG_NAME_SIZE];
        uint8_t files[CHECKPOINT_N_FILES][8 + FINGERPRINT_BYTES];
    } text = {{0}, {{0}}};

    memcpy(text.name, m->name, strlen(m->name));
    for (uint32_t i = 0; i < m->n_files; i++) {
        text.files[i][0] = (uint8_t)m->files[i].file;
        for (int k = 0; k < 4; k++)
            text.files[i][4 + k] = (uint8_t)(m->files[i].size_bytes >> 8 * k);
        memcpy(text.files[i] + 8, m->files[i].hash.bytes, FINGERPRINT_BYTES);
    }
    return model_hash(&text, sizeof(text));
}

uint64_t model_file_bytes(const struct model *m)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < m->n_files; i++)
        bytes += m->files[i].size_bytes;
    return bytes;
}

/* -- checks -- */

static int check_name(const char *name, struct err *err)
{
    for (const char *c = name; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f || *c == '/')
            return err_set(err, -EBADMSG, "model: the name has a control character or a slash");
    return *name ? 0 : err_set(err, -EBADMSG, "model without a name");
}

static int check_files(const struct model *m, struct err *err)
{
    const uint64_t bytes = m->n_files <= CHECKPOINT_N_FILES ? model_file_bytes(m) : 0;

    if (m->n_files == 0 || m->n_files > CHECKPOINT_N_FILES || m->files[0].file != CHECKPOINT_CONFIG)
        return err_set(err, -EBADMSG, "model %s: %u files, or no config.json", m->name, m->n_files);
    for (uint32_t i = 0; i < m->n_files; i++) {
        const struct model_file *f = &m->files[i];

        if ((unsigned)f->file > CHECKPOINT_N_FILES || (i && f->file <= m->files[i - 1].file))
            return err_set(err, -EBADMSG, "model %s: file %u in this place", m->name, (unsigned)f->file);
        if (f->size_bytes == 0 || fingerprint_is_none(&f->hash))
            return err_set(err, -EBADMSG, "model %s: %s is empty, or has no hash", m->name,
                           checkpoint_file_name(f->file));
    }
    if (bytes > MODEL_MAX_BYTES)
        return err_set(err, -EMSGSIZE, "model %s: files of %llu bytes, the limit is %d", m->name,
                       (unsigned long long)bytes, MODEL_MAX_BYTES);
    return 0;
}

static int check_stage(const struct model_stage *s, const char *name, struct err *err)
{
    if (s->stage < STAGE_ENCODE || s->stage > STAGE_LLM || !dtype_is_float(dtype_of_activations(s->dtype)))
        return err_set(err, -EBADMSG, "model %s: unknown stage %d or type %d", name, (int)s->stage, (int)s->dtype);
    if (s->settings > MODEL_MAX_SETTINGS || fingerprint_is_none(&s->fingerprint))
        return err_set(err, -EBADMSG, "model %s: settings %u, or no fingerprint", name, s->settings);
    return 0;
}

static int check(const struct model *m, struct err *err)
{
    struct fingerprint id;
    int rc = check_name(m->name, err);

    if (rc == 0)
        rc = check_files(m, err);
    if (rc == 0 && m->n_stages > MODEL_MAX_STAGES)
        rc = err_set(err, -EMSGSIZE, "model %s: %u stages, the limit is %d", m->name, m->n_stages, MODEL_MAX_STAGES);
    for (uint32_t i = 0; rc == 0 && i < m->n_stages; i++)
        rc = check_stage(&m->stages[i], m->name, err);
    if (rc < 0)
        return rc;
    id = model_id(m);
    return fingerprint_equal(&id, &m->id) ? 0 : err_set(err, -EBADMSG, "model %s: its id is another", m->name);
}

/* -- to protobuf and back -- */

static void to_pb(const struct model *from, struct model_pb *to)
{
    blipline__model__init(&to->model);
    to->model.id = msg_fingerprint_to_pb(&from->id);
    to->model.name = msg_text_to_pb(from->name);
    for (uint32_t i = 0; i < from->n_files; i++) {
        blipline__model_file__init(&to->files[i]);
        to->files[i].file = from->files[i].file;
        to->files[i].size_bytes = from->files[i].size_bytes;
        to->files[i].hash = msg_fingerprint_to_pb(&from->files[i].hash);
        to->file_list[i] = &to->files[i];
    }
    to->model.n_files = from->n_files;
    to->model.files = to->file_list;
    for (uint32_t i = 0; i < from->n_stages; i++) {
        blipline__model_stage__init(&to->stages[i]);
        to->stages[i].stage = from->stages[i].stage;
        to->stages[i].dtype = from->stages[i].dtype;
        to->stages[i].settings = from->stages[i].settings;
        to->stages[i].fingerprint = msg_fingerprint_to_pb(&from->stages[i].fingerprint);
        to->stages[i].n_workers = from->stages[i].n_workers;
        to->stages[i].host = msg_text_to_pb(from->stages[i].host);
        to->stage_list[i] = &to->stages[i];
    }
    to->model.n_stages = from->n_stages;
    to->model.stages = to->stage_list;
    to->model.writes_captions = from->writes_captions;
}

static int stage_from_pb(const Blipline__ModelStage *from, struct model_stage *to, struct err *err)
{
    int rc = msg_fingerprint_from_pb(&from->fingerprint, &to->fingerprint, err);

    to->stage = (enum stage)from->stage;
    to->dtype = (enum dtype)from->dtype;
    to->settings = from->settings;
    to->n_workers = from->n_workers;
    return rc < 0 ? rc : TEXT_FROM_PB(to->host, from->host, "host", err);
}

static int from_pb(const Blipline__Model *from, struct model *ret, struct err *err)
{
    int rc;

    *ret = (struct model){.n_files = (uint32_t)from->n_files,
                          .n_stages = (uint32_t)from->n_stages,
                          .writes_captions = from->writes_captions};
    if (from->n_files > CHECKPOINT_N_FILES || from->n_stages > MODEL_MAX_STAGES)
        return err_set(err, -EMSGSIZE, "model: %zu files and %zu stages, the limits are %d and %d", from->n_files,
                       from->n_stages, CHECKPOINT_N_FILES, MODEL_MAX_STAGES);
    rc = msg_fingerprint_from_pb(&from->id, &ret->id, err);
    if (rc == 0)
        rc = TEXT_FROM_PB(ret->name, from->name, "name of the model", err);
    for (size_t i = 0; rc == 0 && i < from->n_files; i++) {
        ret->files[i].file = (enum checkpoint_file)from->files[i]->file;
        ret->files[i].size_bytes = from->files[i]->size_bytes;
        rc = msg_fingerprint_from_pb(&from->files[i]->hash, &ret->files[i].hash, err);
    }
    for (size_t i = 0; rc == 0 && i < from->n_stages; i++)
        rc = stage_from_pb(from->stages[i], &ret->stages[i], err);
    return rc < 0 ? rc : check(ret, err);
}

/* -- rows and values -- */

int row_model_append(struct buf *frame, const struct model *m)
{
    struct model_pb pb;

    if (check(m, NULL) < 0)
        return -EINVAL;
    to_pb(m, &pb);
    return row_append_pb(frame, &pb.model.base);
}

int row_cursor_next_model(struct row_cursor *c, struct model *ret, struct err *err)
{
    ProtobufCMessage *row = NULL;
    int rc = row_cursor_next_pb(c, &blipline__model__descriptor, &row, err);

    if (rc <= 0 || !row)
        return rc;
    rc = from_pb((const Blipline__Model *)(const void *)row, ret, err);
    return rc < 0 ? rc : 1;
}

int stored_model_encode(const struct model *m, struct buf *out)
{
    struct model_pb pb;

    if (check(m, NULL) < 0)
        return -EINVAL;
    to_pb(m, &pb);
    for (uint32_t i = 0; i < m->n_stages; i++)
        pb.stages[i].n_workers = 0;
    return stored_append_pb(out, &pb.model.base);
}

int stored_model_decode(struct row_memory *memory, const void *data, size_t n_bytes, struct model *ret, struct err *err)
{
    ProtobufCMessage *pb;
    int rc = stored_unpack_pb(memory, &blipline__model__descriptor, data, n_bytes, &pb, err);

    return rc < 0 ? rc : from_pb((const Blipline__Model *)(const void *)pb, ret, err);
}
