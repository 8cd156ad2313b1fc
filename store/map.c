/* map.c - maps data.mdb, and more of it as it grows.
 *
 * LMDB maps a fixed length, which must cover every page of data.mdb. Maps of the greatest possible length would exhaust
 * the address space with hundreds of open stores. So a store maps its file and some room after it, and maps more
 * between transactions. A reader in another process does the same when it begins a transaction (MDB_MAP_RESIZED). */
#include "store/env.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>

#include "base/log.h"
#include "store/guard.h"

#define MIB ((uint64_t)1 << 20)
/* Mapped after the file, or half its length if that is more. More is mapped when half of it is used; a transaction
 * needs far less. */
#define ROOM_BYTES (64 * MIB)
/* With less than this nothing can be written. */
#define ROOM_BYTES_MIN MIB

enum { N_TABLES = 5 + MSG_EMBEDDING_CLS };

/* LMDB calls this if a damaged page fails an assertion. Ends the guarded call, or without one the process, as a crash
 * of LMDB would. The transaction has written nothing. */
static void on_assertion(MDB_env *mdb, const char *what)
{
    const char *path = mdb_env_get_userctx(mdb);

    guard_assertion_failed(path, what);
    log_err("%s: data.mdb is damaged (LMDB: %s); blipline verify lists the problems, blipline export writes what can "
            "still be read",
            path, what);
    (void)raise(SIGSEGV);
}

static uint64_t room_behind(uint64_t file_bytes)
{
    return file_bytes / 2 > ROOM_BYTES ? file_bytes / 2 : ROOM_BYTES;
}

static uint64_t map_length(uint64_t file_bytes, uint64_t room_bytes)
{
    return (file_bytes + room_bytes + MIB - 1) / MIB * MIB;
}

static int open_with(struct env *e, unsigned flags, uint64_t map_bytes)
{
    MDB_env *mdb;
    int rc = mdb_env_create(&mdb);

    if (rc != 0)
        return rc;
    rc = mdb_env_set_userctx(mdb, e->path);
    if (rc == 0)
        rc = mdb_env_set_assert(mdb, on_assertion);
    if (rc == 0)
        rc = mdb_env_set_maxdbs(mdb, N_TABLES + 3);
    if (rc == 0)
        rc = mdb_env_set_mapsize(mdb, (size_t)map_bytes);
    if (rc == 0)
        rc = mdb_env_open(mdb, e->path, flags, 0666);
    if (rc == 0)
        e->mdb = mdb;
    else
        mdb_env_close(mdb);
    return rc;
}

int env_map_open(struct env *e, unsigned flags, uint64_t data_bytes)
{
    uint64_t room = room_behind(data_bytes);
    int rc = open_with(e, flags, map_length(data_bytes, room));

    while (rc == ENOMEM && room > ROOM_BYTES_MIN) { /* the process's address space is limited */
        room /= 2;
        rc = open_with(e, flags, map_length(data_bytes, room));
    }
    return rc;
}

/* True if there is address space for a longer map. Checked first, because LMDB releases the old map before it makes the
 * new one. */
static bool fits(uint64_t more_bytes)
{
    void *p = mmap(NULL, (size_t)more_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return p != MAP_FAILED && munmap(p, (size_t)more_bytes) == 0;
}

static int set_length(struct env *e, uint64_t old_bytes, uint64_t new_bytes)
{
    int rc;

    if (!fits(new_bytes - old_bytes))
        return ENOMEM;
    rc = mdb_env_set_mapsize(e->mdb, (size_t)new_bytes);
    if (rc != 0 && rc != EINVAL) { /* the old map is gone; any other call of LMDB would read it */
        mdb_env_close(e->mdb);
        e->mdb = NULL;
        rc = MDB_PANIC;
    }
    return rc;
}

/* Bytes of the file in use. */
static int used_bytes(const struct env *e, MDB_envinfo *ret_info, uint64_t *ret)
{
    int rc = mdb_env_info(e->mdb, ret_info);

    if (rc == 0)
        *ret = ((uint64_t)ret_info->me_last_pgno + 1) * e->page_bytes;
    return rc;
}

/* ENOMEM: `least_bytes` cannot be mapped. */
static int grow(struct env *e, uint64_t least_bytes)
{
    uint64_t used, room, had;
    MDB_envinfo info;
    int rc = used_bytes(e, &info, &used);

    if (rc != 0)
        return rc;
    had = info.me_mapsize > used ? info.me_mapsize - used : 0;
    if (had >= least_bytes && had >= ROOM_BYTES / 2)
        return 0;
    room = room_behind(used);
    if (room < least_bytes)
        room = least_bytes;
    while ((rc = set_length(e, info.me_mapsize, map_length(used, room))) == ENOMEM && room / 2 >= least_bytes &&
           room / 2 > had)
        room /= 2; /* the process's address space is limited */
    return rc == ENOMEM && had >= least_bytes ? 0 : rc;
}

int env_map_grow(struct env *e, uint64_t least_bytes, struct err *err)
{
    int rc = e->mdb ? grow(e, least_bytes < ROOM_BYTES_MIN ? ROOM_BYTES_MIN : least_bytes) : MDB_PANIC;

    if (rc == ENOMEM)
        return err_set(err, -ENOSPC, "%s: no address space for a longer map of data.mdb; raise the limit (ulimit -v)",
                       e->path);
    return rc == 0 ? 0 : err_set(err, -EIO, "%s: cannot map data.mdb: %s", e->path, mdb_strerror(rc));
}

uint64_t env_map_room(const struct env *e)
{
    MDB_envinfo info;
    uint64_t used;

    return used_bytes(e, &info, &used) == 0 && info.me_mapsize > used ? info.me_mapsize - used : 0;
}

int env_map_begin_read(struct env *e, MDB_txn **txn)
{
    for (;;) {
        int rc = !e->mdb ? MDB_PANIC : *txn ? mdb_txn_renew(*txn) : mdb_txn_begin(e->mdb, NULL, MDB_RDONLY, txn);

        if (rc != MDB_MAP_RESIZED)
            return rc;
        rc = grow(e, ROOM_BYTES_MIN); /* the file may be longer again by now */
        if (rc != 0)
            return rc;
    }
}
