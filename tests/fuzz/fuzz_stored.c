/* Any bytes as stored values: once as they are, once with the checksum made right, so that the parser is reached. */
#include "proto/model.h"
#include "proto/stored.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void decode_all(const uint8_t *data, size_t size)
{
    static struct stored_job_meta meta;
    static struct model model;
    struct row_memory memory = {NULL};
    struct stored_manifest_unit unit;
    struct stored_job_counters counters;
    struct stored_unit_state unit_state;
    struct row_embedding embedding;
    struct row_record record;
    struct buf again;

    buf_init(&again, 0);
    if (stored_manifest_unit_decode(&memory, data, size, &unit, NULL) == 0 &&
        stored_manifest_unit_encode(&unit, &again) < 0)
        abort();
    if (stored_record_decode(&memory, data, size, &record, NULL) == 0 && stored_record_encode(&record, &again) < 0)
        abort();
    if (stored_embedding_decode(&memory, data, size, &embedding, NULL) == 0 &&
        stored_embedding_encode(&embedding, &again) < 0)
        abort();
    if (stored_unit_state_decode(data, size, &unit_state, NULL) == 0 &&
        stored_unit_state_encode(&unit_state, &again) < 0)
        abort();
    if (stored_job_counters_decode(data, size, &counters, NULL) == 0 &&
        stored_job_counters_encode(&counters, &again) < 0)
        abort();
    if (stored_job_meta_decode(data, size, &meta, NULL) == 0 && meta.schema_version == STORED_SCHEMA_VERSION &&
        stored_job_meta_encode(&meta, &again) < 0)
        abort();
    if (stored_model_decode(&memory, data, size, &model, NULL) == 0 && stored_model_encode(&model, &again) < 0)
        abort();
    buf_release(&again);
    row_memory_release(&memory);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *value = malloc(size + STORED_CRC_BYTES);
    uint32_t crc = (uint32_t)crc32(0, data, (uInt)size);

    if (!value)
        return 0;
    decode_all(data, size);
    if (size)
        memcpy(value, data, size);
    value[size] = 0x7d;
    for (int i = 0; i < 4; i++)
        value[size + 1 + (size_t)i] = (uint8_t)(crc >> 8 * i);
    decode_all(value, size + STORED_CRC_BYTES);
    free(value);
    return 0;
}
