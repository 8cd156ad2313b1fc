#include "proto/stored.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "proto/recipe_pb.h"
#include "proto/row_pb.h"
#include "proto/stored_pb.h"

#define UNIT_STRUCT_BYTES ((size_t)2 << 20) /* 4096 items, 512 bytes each: structs, pointers, padding */
#define CRC_TAG 0x7d                        /* field 15, wire type 5 (fixed32) */

/* -- the checksum */

static uint32_t crc_of(const uint8_t *data, size_t n)
{
    return (uint32_t)crc32_z(crc32_z(0, NULL, 0), data, n);
}

int stored_check(const void *data, size_t n_bytes, struct err *err)
{
    const uint8_t *d = data;
    uint32_t said, is;

    if (n_bytes > STORED_MAX_BYTES)
        return err_set(err, -EMSGSIZE, "a value of %zu bytes, the limit is %zu", n_bytes, STORED_MAX_BYTES);
    if (n_bytes < STORED_CRC_BYTES || d[n_bytes - STORED_CRC_BYTES] != CRC_TAG)
        return err_set(err, -EILSEQ, "checksum is missing (%zu bytes)", n_bytes);
    is = crc_of(d, n_bytes - STORED_CRC_BYTES);
    d += n_bytes - 4;
    said = (uint32_t)d[0] | (uint32_t)d[1] << 8 | (uint32_t)d[2] << 16 | (uint32_t)d[3] << 24;
    if (said != is)
        return err_set(err, -EILSEQ, "checksum is wrong (%08x, the value says %08x)", is, said);
    return 0;
}

int stored_append_pb(struct buf *out, const ProtobufCMessage *value)
{
    size_t n = protobuf_c_message_get_packed_size(value);
    uint32_t crc;
    uint8_t *at;
    int rc;

    if (n + STORED_CRC_BYTES > STORED_MAX_BYTES)
        return -EINVAL;
    rc = buf_reserve(out, n + STORED_CRC_BYTES);
    if (rc < 0)
        return rc;
    at = out->data + out->size_bytes;
    (void)protobuf_c_message_pack(value, at);
    crc = crc_of(at, n);
    at[n] = CRC_TAG;
    for (int i = 0; i < 4; i++)
        at[n + 1 + (size_t)i] = (uint8_t)(crc >> 8 * i);
    out->size_bytes += n + STORED_CRC_BYTES;
    return 0;
}

static int unpack_value(struct budget *b, const ProtobufCMessageDescriptor *kind, const void *data, size_t n_bytes,
                        ProtobufCMessage **ret, struct err *err)
{
    *ret = protobuf_c_message_unpack(kind, &b->allocator, n_bytes - STORED_CRC_BYTES, data);
    if (!*ret)
        return err_set(err, b->exhausted ? -EMSGSIZE : -EBADMSG, "not a valid %s", kind->short_name);
    return 0;
}

int stored_unpack_pb(struct row_memory *memory, const ProtobufCMessageDescriptor *kind, const void *data,
                     size_t n_bytes, ProtobufCMessage **ret, struct err *err)
{
    struct budget *b;
    int rc = stored_check(data, n_bytes, err);

    if (rc < 0)
        return rc;
    b = row_memory_budget(memory, (size_t)4 << 20);
    if (!b)
        return err_set(err, -ENOMEM, "no memory for a value");
    return unpack_value(b, kind, data, n_bytes, ret, err);
}

/* -- manifest */

int stored_manifest_unit_encode(const struct stored_manifest_unit *u, struct buf *out)
{
    Blipline__ManifestUnit pb = BLIPLINE__MANIFEST_UNIT__INIT;
    struct row_item_pb *items = NULL;
    Blipline__Item **list = NULL;
    int rc = -ENOMEM;

    if (u->n_items == 0 || u->n_items > MSG_MAX_UNIT_ITEMS)
        return -EINVAL;
    items = malloc(u->n_items * sizeof(*items));
    list = malloc(u->n_items * sizeof(void *));
    if (!items || !list)
        goto out;
    for (uint32_t i = 0; i < u->n_items; i++) {
        if (row_item_check(&u->items[i], NULL) < 0 || u->items[i].item != u->first_item + i) {
            rc = -EINVAL;
            goto out;
        }
        row_item_to_pb(&u->items[i], &items[i]);
        list[i] = &items[i].item;
    }
    pb.first_item = u->first_item;
    pb.n_items = u->n_items;
    pb.items = list;
    rc = stored_append_pb(out, &pb.base);
out:
    free(list);
    free(items);
    return rc;
}

static int manifest_from_pb(struct budget *b, const Blipline__ManifestUnit *from, struct stored_manifest_unit *ret,
                            struct err *err)
{
    struct row_item *items;

    if (from->n_items == 0 || from->n_items > MSG_MAX_UNIT_ITEMS)
        return err_set(err, -EBADMSG, "a unit of %zu items, not 1 to %d", from->n_items, MSG_MAX_UNIT_ITEMS);
    items = budget_alloc(b, from->n_items * sizeof(*items));
    if (!items)
        return err_set(err, -ENOMEM, "no memory for %zu items", from->n_items);
    for (size_t i = 0; i < from->n_items; i++) {
        const unsigned long long want = from->first_item + i;
        int rc = row_item_from_pb(b, from->items[i], &items[i], err);

        if (rc < 0)
            return rc;
        if (items[i].item != want)
            return err_set(err, -EBADMSG, "found item %llu, expected item %llu", (unsigned long long)items[i].item,
                           want);
    }
    *ret = (struct stored_manifest_unit){
        .first_item = from->first_item, .n_items = (uint32_t)from->n_items, .items = items};
    return 0;
}

int stored_manifest_unit_decode(struct row_memory *memory, const void *data, size_t n_bytes,
                                struct stored_manifest_unit *ret, struct err *err)
{
    ProtobufCMessage *pb;
    struct budget *b;
    int rc = stored_check(data, n_bytes, err);

    if (rc < 0)
        return rc;
    /* the checksum shows that this program wrote it; a field of 5 bytes becomes structs of 150 */
    b = row_memory_budget(memory, 32 * n_bytes + UNIT_STRUCT_BYTES);
    if (!b)
        return err_set(err, -ENOMEM, "no memory for a manifest unit");
    rc = unpack_value(b, &blipline__manifest_unit__descriptor, data, n_bytes, &pb, err);
    return rc < 0 ? rc : manifest_from_pb(b, (const Blipline__ManifestUnit *)(const void *)pb, ret, err);
}

/* -- records */

int stored_record_encode(const struct row_record *r, struct buf *out)
{
    struct row_record_pb pb;

    if (row_record_check(r, NULL) < 0)
        return -EINVAL;
    row_record_to_pb(r, &pb);
    pb.record.n_embeddings = 0;
    return stored_append_pb(out, &pb.record.base);
}

int stored_embedding_encode(const struct row_embedding *e, struct buf *out)
{
    Blipline__Embedding pb;

    if (row_embedding_check(e, NULL) < 0)
        return -EINVAL;
    row_embedding_to_pb(e, &pb);
    return stored_append_pb(out, &pb.base);
}

int stored_embedding_decode(struct row_memory *memory, const void *data, size_t n_bytes, struct row_embedding *ret,
                            struct err *err)
{
    ProtobufCMessage *pb;
    struct budget *b;
    int rc = stored_check(data, n_bytes, err);

    if (rc < 0)
        return rc;
    b = row_memory_budget(memory, n_bytes + 65536);
    if (!b)
        return err_set(err, -ENOMEM, "no memory for an embedding");
    rc = unpack_value(b, &blipline__embedding__descriptor, data, n_bytes, &pb, err);
    return rc < 0 ? rc : row_embedding_from_pb((const Blipline__Embedding *)(const void *)pb, ret, err);
}

int stored_record_decode(struct row_memory *memory, const void *data, size_t n_bytes, struct row_record *ret,
                         struct err *err)
{
    ProtobufCMessage *pb;
    struct row_record r;
    int rc;

    if ((rc = stored_unpack_pb(memory, &blipline__record__descriptor, data, n_bytes, &pb, err)) < 0 ||
        (rc = row_record_from_pb((const Blipline__Record *)(const void *)pb, &r, err)) < 0)
        return rc;
    *ret = r;
    return 0;
}

/* -- unit states and counters: unpacked on the stack */

enum { AGAIN_BYTES = MSG_MAX_UNIT_ITEMS / 8 };

/* Without trailing zeros. */
static size_t again_to_bytes(const uint64_t *again, uint8_t ret[AGAIN_BYTES])
{
    size_t n = 0;

    for (size_t i = 0; i < AGAIN_BYTES; i++) {
        ret[i] = (uint8_t)(again[i / 8] >> (8 * (i % 8)));
        if (ret[i])
            n = i + 1;
    }
    return n;
}

int stored_unit_state_encode(const struct stored_unit_state *s, struct buf *out)
{
    Blipline__UnitState pb = BLIPLINE__UNIT_STATE__INIT;
    uint8_t again[AGAIN_BYTES];

    if (s->n_parts > STORED_MAX_PARTS)
        return -EINVAL;
    pb.parts.len = s->n_parts;
    pb.parts.data = (uint8_t *)s->parts; /* packing only reads */
    if (s->n_again) {
        pb.again.len = again_to_bytes(s->again, again);
        pb.again.data = again;
    }
    pb.done = s->done;
    pb.attempts = s->attempts;
    pb.n_failed = s->n_failed;
    return stored_append_pb(out, &pb.base);
}

static int unit_state_from_pb(const Blipline__UnitState *from, struct stored_unit_state *ret, struct err *err)
{
    if (from->again.len > AGAIN_BYTES || (from->again.len && !from->done))
        return err_set(err, -EBADMSG, "bit set of items to redo has %zu bytes", from->again.len);
    if (from->parts.len > STORED_MAX_PARTS)
        return err_set(err, -EBADMSG, "list of parts has %zu bytes", from->parts.len);
    *ret = (struct stored_unit_state){.done = from->done, .attempts = from->attempts, .n_failed = from->n_failed};
    ret->n_parts = (uint32_t)from->parts.len;
    if (ret->n_parts)
        memcpy(ret->parts, from->parts.data, ret->n_parts);
    for (size_t i = 0; i < from->again.len; i++)
        ret->again[i / 8] |= (uint64_t)from->again.data[i] << (8 * (i % 8));
    for (size_t i = 0; i < sizeof(ret->again) / sizeof(ret->again[0]); i++)
        ret->n_again += (uint32_t)__builtin_popcountll(ret->again[i]);
    return 0;
}

int stored_unit_state_decode(const void *data, size_t n_bytes, struct stored_unit_state *ret, struct err *err)
{
    _Alignas(16) uint8_t slab[1024];
    ProtobufCMessage *pb;
    struct budget b;
    int rc = stored_check(data, n_bytes, err);

    if (rc < 0)
        return rc;
    budget_init(&b, slab, sizeof(slab), 65536);
    rc = unpack_value(&b, &blipline__unit_state__descriptor, data, n_bytes, &pb, err);
    if (rc == 0)
        rc = unit_state_from_pb((const Blipline__UnitState *)(const void *)pb, ret, err);
    budget_release(&b);
    return rc;
}

int stored_job_counters_encode(const struct stored_job_counters *c, struct buf *out)
{
    Blipline__JobCounters pb = BLIPLINE__JOB_COUNTERS__INIT;

    if (c->n_done > c->n_items || c->n_failed > c->n_done || c->n_units_done > c->n_units || c->n_again > c->n_done)
        return -EINVAL;
    pb.n_again = c->n_again;
    pb.n_redone = c->n_redone;
    pb.n_items = c->n_items;
    pb.n_units = c->n_units;
    pb.sealed = c->sealed;
    pb.n_done = c->n_done;
    pb.n_failed = c->n_failed;
    pb.n_units_done = c->n_units_done;
    return stored_append_pb(out, &pb.base);
}

int stored_job_counters_decode(const void *data, size_t n_bytes, struct stored_job_counters *ret, struct err *err)
{
    _Alignas(16) uint8_t slab[1024];
    const Blipline__JobCounters *c;
    ProtobufCMessage *pb;
    struct budget b;
    int rc = stored_check(data, n_bytes, err);

    if (rc < 0)
        return rc;
    budget_init(&b, slab, sizeof(slab), 65536);
    rc = unpack_value(&b, &blipline__job_counters__descriptor, data, n_bytes, &pb, err);
    c = (const Blipline__JobCounters *)(const void *)pb;
    if (rc == 0 &&
        (c->n_done > c->n_items || c->n_failed > c->n_done || c->n_units_done > c->n_units || c->n_again > c->n_done))
        rc = err_set(err, -EBADMSG, "the counters contradict each other");
    if (rc == 0)
        *ret = (struct stored_job_counters){
            .n_items = c->n_items,
            .n_units = c->n_units,
            .sealed = c->sealed,
            .n_done = c->n_done,
            .n_failed = c->n_failed,
            .n_units_done = c->n_units_done,
            .n_again = c->n_again,
            .n_redone = c->n_redone,
        };
    budget_release(&b);
    return rc;
}

/* -- the job: recipe and graph are wire messages inside `bytes` fields */

/* Append packed recipe and nodes to `parts`; the nodes begin at *ret_recipe_bytes. */
static int pack_recipe_and_nodes(const struct stored_job_meta *m, struct buf *parts, size_t *ret_recipe_bytes)
{
    Blipline__JobOpen graph = BLIPLINE__JOB_OPEN__INIT;
    Blipline__Node nodes[MSG_MAX_NODES], *list[MSG_MAX_NODES];
    struct msg_recipe_pb recipe;
    size_t n_recipe;
    int rc;

    msg_recipe_to_pb(&m->recipe, &recipe);
    for (uint32_t i = 0; i < m->n_nodes; i++) {
        msg_node_to_pb(&m->nodes[i], &nodes[i]);
        list[i] = &nodes[i];
    }
    graph.n_nodes = m->n_nodes;
    graph.nodes = list;
    n_recipe = protobuf_c_message_get_packed_size(&recipe.recipe.base);
    rc = buf_reserve(parts, n_recipe + protobuf_c_message_get_packed_size(&graph.base) + 1);
    if (rc < 0)
        return rc;
    parts->size_bytes = protobuf_c_message_pack(&recipe.recipe.base, parts->data);
    parts->size_bytes += protobuf_c_message_pack(&graph.base, parts->data + n_recipe);
    *ret_recipe_bytes = n_recipe;
    return 0;
}

int stored_job_meta_encode(const struct stored_job_meta *m, struct buf *out)
{
    Blipline__JobMeta pb = BLIPLINE__JOB_META__INIT;
    struct buf parts;
    size_t n_recipe;
    int rc;

    if (msg_recipe_check(&m->recipe, NULL) < 0 || msg_check_nodes(m->nodes, m->n_nodes, NULL) < 0 ||
        m->unit_items > MSG_MAX_UNIT_ITEMS)
        return -EINVAL;
    buf_init(&parts, MSG_MAX_BYTES);
    rc = pack_recipe_and_nodes(m, &parts, &n_recipe);
    if (rc == 0) {
        pb.schema_version = m->schema_version;
        pb.recipe = (ProtobufCBinaryData){.len = n_recipe, .data = parts.data};
        pb.nodes = (ProtobufCBinaryData){.len = parts.size_bytes - n_recipe, .data = parts.data + n_recipe};
        pb.source = msg_text_to_pb(m->source);
        pb.created_ms = m->created_ms;
        pb.unit_items = m->unit_items;
        pb.program = msg_text_to_pb(m->program);
        if (m->has_token)
            pb.token = (ProtobufCBinaryData){.len = sizeof(m->token), .data = (uint8_t *)(uintptr_t)m->token};
        pb.name = msg_text_to_pb(m->name);
        pb.owner = msg_text_to_pb(m->owner);
        pb.push = m->push;
        rc = stored_append_pb(out, &pb.base);
    }
    buf_release(&parts);
    return rc;
}

static int graph_from_bytes(struct budget *b, const ProtobufCBinaryData *bytes, struct stored_job_meta *m,
                            struct err *err)
{
    Blipline__JobOpen *graph = blipline__job_open__unpack(&b->allocator, bytes->len, bytes->data);

    if (!graph)
        return err_set(err, -EBADMSG, "the job's stage graph cannot be read");
    if (graph->n_nodes > MSG_MAX_NODES)
        return err_set(err, -EMSGSIZE, "%zu nodes, the limit is %d", graph->n_nodes, MSG_MAX_NODES);
    m->n_nodes = (uint32_t)graph->n_nodes;
    for (size_t i = 0; i < graph->n_nodes; i++) {
        int rc = msg_node_from_pb(graph->nodes[i], &m->nodes[i], err);

        if (rc < 0)
            return rc;
    }
    return msg_check_nodes(m->nodes, m->n_nodes, err);
}

static int meta_from_pb(struct budget *b, const Blipline__JobMeta *from, struct stored_job_meta *m, struct err *err)
{
    Blipline__Recipe *recipe;
    int rc;

    *m = (struct stored_job_meta){.schema_version = from->schema_version,
                                  .created_ms = from->created_ms,
                                  .unit_items = from->unit_items,
                                  .push = from->push};
    if ((rc = msg_text_from_pb(m->source, sizeof(m->source), &from->source, "source", err)) < 0 ||
        (rc = msg_text_from_pb(m->program, sizeof(m->program), &from->program, "program", err)) < 0 ||
        (rc = msg_text_from_pb(m->name, sizeof(m->name), &from->name, "name", err)) < 0 ||
        (rc = msg_text_from_pb(m->owner, sizeof(m->owner), &from->owner, "owner", err)) < 0)
        return rc;
    m->has_token = from->token.len == sizeof(m->token);
    if (m->has_token)
        memcpy(m->token, from->token.data, sizeof(m->token));
    if (m->schema_version < STORED_OLDEST_VERSION || m->schema_version > STORED_SCHEMA_VERSION)
        return 0; /* the caller refuses the version; the other fields may have another meaning */
    if (m->unit_items > MSG_MAX_UNIT_ITEMS)
        return err_set(err, -EBADMSG, "units of %u items, the limit is %d", m->unit_items, MSG_MAX_UNIT_ITEMS);
    recipe = blipline__recipe__unpack(&b->allocator, from->recipe.len, from->recipe.data);
    if (!recipe)
        return err_set(err, -EBADMSG, "the job's recipe cannot be read");
    if ((rc = msg_recipe_from_pb(recipe, &m->recipe, err)) < 0 || (rc = msg_recipe_check(&m->recipe, err)) < 0)
        return rc;
    return graph_from_bytes(b, &from->nodes, m, err);
}

int stored_job_meta_decode(const void *data, size_t n_bytes, struct stored_job_meta *ret, struct err *err)
{
    _Alignas(16) uint8_t slab[48 * 1024];
    struct stored_job_meta m;
    ProtobufCMessage *pb;
    struct budget b;
    int rc = stored_check(data, n_bytes, err);

    if (rc < 0)
        return rc;
    budget_init(&b, slab, sizeof(slab), (size_t)1 << 20);
    rc = unpack_value(&b, &blipline__job_meta__descriptor, data, n_bytes, &pb, err);
    if (rc == 0)
        rc = meta_from_pb(&b, (const Blipline__JobMeta *)(const void *)pb, &m, err);
    budget_release(&b);
    if (rc == 0)
        *ret = m;
    return rc;
}
