/* Any bytes as the pages of an LMDB file: from nothing, with numbers in the meta page that lead somewhere; or as
 * changes to a real environment. */
#include "store/page_format.h"
#include "store/pages.h"

#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerInitialize(int *argc, char ***argv);

enum { SMALL_PAGE = 256, EDIT_BYTES = 5 };

static uint8_t *real;
static size_t n_real, real_meta_at;

static void fill(MDB_env *env, int round)
{
    static uint8_t value[9000];
    MDB_dbi plain, dups;
    MDB_txn *txn;

    if (mdb_txn_begin(env, NULL, 0, &txn) || mdb_dbi_open(txn, "plain", MDB_CREATE, &plain) ||
        mdb_dbi_open(txn, "dups", MDB_CREATE | MDB_DUPSORT | MDB_DUPFIXED, &dups))
        abort();
    for (int i = 0; i < 300; i++) {
        uint64_t key[2] = {(uint64_t)i * 7919 % 1000, 0}, number = (uint64_t)i;
        MDB_val k = {16, key}, v = {i % 50 == 0 ? sizeof(value) : 40, value}, d = {8, &number};

        if (mdb_put(txn, plain, &k, &v, 0))
            abort();
        key[0] = (uint64_t)(i * round % 3);
        if (mdb_put(txn, dups, &k, &d, 0))
            abort();
    }
    if (mdb_txn_commit(txn))
        abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    char name[] = "/tmp/blipline-fuzz-XXXXXX", file[64];
    struct page_meta m[2];
    MDB_env *env;
    FILE *f;

    (void)argc;
    (void)argv;
    if (!mkdtemp(name) || mdb_env_create(&env) || mdb_env_set_maxdbs(env, 4) ||
        mdb_env_open(env, name, MDB_NOTLS | MDB_NOLOCK, 0600))
        abort();
    for (int round = 1; round < 4; round++)
        fill(env, round);
    mdb_env_close(env);
    (void)snprintf(file, sizeof(file), "%s/data.mdb", name);
    f = fopen(file, "rb");
    if (!f || fseek(f, 0, SEEK_END) != 0 || !(real = malloc(n_real = (size_t)ftell(f))) || fseek(f, 0, SEEK_SET) != 0 ||
        fread(real, 1, n_real, f) != n_real)
        abort();
    (void)fclose(f);
    (void)unlink(file);
    (void)rmdir(name);
    for (int i = 0; i < 2; i++)
        memcpy(&m[i], real + (size_t)(i * sysconf(_SC_PAGESIZE)) + sizeof(struct page_head), sizeof(m[i]));
    real_meta_at = m[0].txn < m[1].txn ? (size_t)sysconf(_SC_PAGESIZE) : 0;
    return 0;
}

static bool count(void *arg, const char *text)
{
    unsigned *n = arg;

    if (!text[0])
        abort();
    return ++*n < 1000;
}

static unsigned check(const uint8_t *file, size_t n, const uint8_t *meta_at)
{
    uint8_t meta[PAGES_META_BYTES];
    unsigned n_problems = 0;

    memcpy(meta, meta_at, sizeof(meta));
    if (pages_check(file, n, meta, &(struct pages_report){count, &n_problems}, NULL) == 0 && n_problems >= 1000)
        abort();
    return n_problems;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    uint8_t *file;
    unsigned n_problems;

    if (n == 0)
        return 0;
    if (data[0] & 1) { /* edits: where, and what is there then */
        file = malloc(n_real);
        if (!file)
            return 0;
        memcpy(file, real, n_real);
        for (size_t i = 1; i + EDIT_BYTES <= n; i += EDIT_BYTES) {
            uint32_t at;

            memcpy(&at, data + i, sizeof(at));
            file[at % n_real] = data[i + 4];
        }
        n_problems = check(file, n_real, file + real_meta_at);
        if (memcmp(file, real, n_real) == 0 && n_problems)
            abort();
    } else if (n - 1 >= 2 * SMALL_PAGE) {
        struct page_meta m;

        file = malloc(n - 1);
        if (!file)
            return 0;
        memcpy(file, data + 1, n - 1);
        memcpy(&m, file + sizeof(struct page_head), sizeof(m));
        m.free.pad = SMALL_PAGE;
        m.last_page = (n - 1) / SMALL_PAGE - 1;
        m.free.root %= m.last_page + 2;
        m.main.root %= m.last_page + 2;
        m.free.depth %= 4;
        m.main.depth %= 4;
        memcpy(file + sizeof(struct page_head), &m, sizeof(m));
        (void)check(file, n - 1, file);
    } else {
        return 0;
    }
    free(file);
    return 0;
}
