/* retry.c - all failed items of a store, or those with certain codes, are marked to be redone. */
#include "store/store.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "store/store_state.h"

/* Of one call, which takes some milliseconds. */
enum { MAX_UNITS = 10000, MAX_ITEMS = 4096 };

static bool is_wanted(const struct row_record *r, uint32_t n_codes, const char codes[][MSG_CODE_SIZE])
{
    if (!r->failed || n_codes == 0)
        return r->failed;
    for (uint32_t i = 0; i < n_codes; i++)
        if (strcmp(codes[i], r->error_code) == 0)
            return true;
    return false;
}

/* An unreadable record is left alone: verify tells of it, and to list the item again redoes it. */
static int look_at_item(struct store *s, const struct row_item *item, uint32_t n_codes,
                        const char codes[][MSG_CODE_SIZE], bool *ret, struct err *err)
{
    struct row_record record;
    uint8_t key[8];
    MDB_val v;
    int rc;

    env_put_be64(key, item->item);
    rc = env_get(s->txn, s->env.items, key, 8, &v, err);
    if (rc == 0)
        rc = stored_record_decode(&s->old_memory, v.mv_data, v.mv_size, &record, err);
    *ret = rc == 0 && is_wanted(&record, n_codes, codes);
    return rc == -ENOMEM || rc == -EIO ? rc : 0;
}

static int mark_unit(struct store *s, uint32_t unit, uint32_t n_codes, const char codes[][MSG_CODE_SIZE],
                     struct stored_unit_state *state, uint32_t *ret_n_items, struct err *err)
{
    struct stored_manifest_unit u;
    uint32_t n = 0;
    int rc = env_read_unit(&s->env, s->txn, &s->memory, unit, &u, err);

    *ret_n_items = rc == 0 ? u.n_items : 0;
    for (uint32_t i = 0; rc == 0 && i < u.n_items; i++) {
        const uint64_t bit = (uint64_t)1 << (i % 64);
        bool wanted = false;

        if (state->again[i / 64] & bit || u.items[i].error_code[0])
            continue; /* marked already; or its list says what is wrong with it, so it would fail again */
        rc = look_at_item(s, &u.items[i], n_codes, codes, &wanted, err);
        if (rc == 0 && wanted) {
            state->again[i / 64] |= bit;
            n++;
        }
    }
    return rc == 0 && n ? store_put_marks(s, unit, state, n, err) : rc;
}

int store_retry(struct store *s, uint32_t from, uint32_t n_codes, const char codes[][MSG_CODE_SIZE], uint32_t *ret_next,
                uint32_t *ret_from_unit, struct err *err)
{
    uint32_t unit = from, n_items = 0, n;
    int rc = 0;

    *ret_from_unit = UINT32_MAX;
    for (; rc == 0 && unit < s->counters.n_units && unit - from < MAX_UNITS && n_items < MAX_ITEMS; unit++) {
        const uint64_t n_again = s->counters.n_again;
        struct stored_unit_state state;

        rc = env_read_state(&s->env, s->txn, unit, &state, err);
        if (rc < 0 || !state.done || state.n_failed == 0)
            continue;
        rc = mark_unit(s, unit, n_codes, codes, &state, &n, err);
        n_items += n;
        if (rc == 0 && s->counters.n_again > n_again && *ret_from_unit == UINT32_MAX)
            *ret_from_unit = unit;
    }
    *ret_next = unit < s->counters.n_units ? unit : UINT32_MAX;
    return rc;
}
