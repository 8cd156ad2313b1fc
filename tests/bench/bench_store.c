/* bench_store.c - the job store and its committer: import, commits of units of 1 and 64, the walk over pending units,
 * keys, the look at every page.
 *
 * usage: bench_store [folder] (default: build). One line each: name, rate, unit. Everything is durable: the disk is
 * measured too. */
#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "broker/committer.h"
#include "proto/stored.h"
#include "store/reader.h"
#include "store/store.h"
#include "tests/unit/completion.h"

enum { N_ITEMS = 1000000, FRAME_ROWS = 10000, MOST_WAITING = 256 };

static void die(const char *what, const char *why)
{
    (void)fprintf(stderr, "bench_store: %s: %s\n", what, why);
    exit(1);
}

static void say(const char *name, double n, int64_t start_ns, const char *unit)
{
    double s = (double)(clock_mono_ns() - start_ns) / 1e9;

    printf("%-34s %12.0f %s  (%.2f s)\n", name, n / s, unit, s);
}

static void take(struct committer *c, uint32_t *waiting)
{
    struct committer_completion *done = completion_wait(c, -1);

    if (!done || done->rc < 0)
        die("committer", done ? done->text : "ended");
    committer_completion_free(done);
    (*waiting)--;
}

static void post(struct committer *c, struct committer_request *r, uint32_t *waiting)
{
    while (*waiting >= MOST_WAITING || committer_post(c, &r) == -EAGAIN)
        take(c, waiting);
    if (r)
        die("committer", "post");
    (*waiting)++;
}

static void drain(struct committer *c, uint32_t *waiting)
{
    while (*waiting)
        take(c, waiting);
}

static struct store *open_store(struct committer *c, const char *path, uint32_t unit_items)
{
    struct committer_request *r = committer_request_new(COMMITTER_OPEN, 1, 0);
    struct committer_completion *done;
    struct store *s;

    r->path = strdup(path);
    r->create = true;
    r->meta = calloc(1, sizeof(*r->meta));
    r->meta->unit_items = unit_items;
    msg_recipe_init(&r->meta->recipe);
    r->meta->recipe.decode.max_new_tokens = 20;
    r->meta->n_nodes = 1;
    r->meta->nodes[0].stage = STAGE_ENCODE;
    if (committer_post(c, &r) < 0)
        die(path, "post");
    done = completion_wait(c, -1);
    if (done->rc < 0)
        die(path, done->text);
    s = done->store;
    committer_completion_free(done);
    return s;
}

static void import(struct committer *c, uint32_t n_items)
{
    uint32_t waiting = 0;
    int64_t start = clock_mono_ns();

    for (uint32_t i = 0; i < n_items; i += FRAME_ROWS) {
        struct committer_request *r = committer_request_new(COMMITTER_ROWS, 1, i);

        buf_init(&r->rows, 0);
        r->n_rows = n_items - i < FRAME_ROWS ? n_items - i : FRAME_ROWS;
        for (uint32_t k = i; k < i + r->n_rows; k++) {
            char key[64], path[96];
            struct row_item item = {.key = (uint8_t *)key, .path = (uint8_t *)path, .size_bytes = k, .mtime_ns = k};

            item.key_bytes = (uint32_t)snprintf(key, sizeof(key), "2019/summer/IMG_%07u.jpg", k);
            item.path_bytes = (uint32_t)snprintf(path, sizeof(path), "/data/pictures/%s", key);
            if (row_item_append(&r->rows, &item) < 0)
                die("rows", "append");
        }
        while (waiting >= 4)
            take(c, &waiting);
        post(c, r, &waiting);
    }
    post(c, committer_request_new(COMMITTER_SEAL, 1, 0), &waiting);
    drain(c, &waiting);
    say("import, durable", n_items, start, "items/s");
}

static struct committer_request *results(uint32_t unit, uint64_t first, uint32_t n)
{
    struct committer_request *r = committer_request_new(COMMITTER_UNIT, 1, unit);

    r->unit = unit;
    r->n_records = n;
    r->ends = malloc(n * sizeof(*r->ends));
    buf_init(&r->records, 0);
    for (uint32_t i = 0; i < n; i++) {
        static const char text[] = "a man riding a wave on top of a surfboard";
        struct row_record record = {.item = first + i, .n_captions = 1};

        record.captions[0] = (struct row_caption){
            .text = (const uint8_t *)text, .text_bytes = sizeof(text) - 1, .logprob = -7.25F, .tokens = 12};
        if (stored_record_encode(&record, &r->records) < 0)
            die("record", "encode");
        r->ends[i] = (uint32_t)r->records.size_bytes;
    }
    return r;
}

static atomic_int n_commits;

static int count_commit(void *arg)
{
    (void)arg;
    atomic_fetch_add(&n_commits, 1);
    return 0;
}

static void commit_all(struct committer *c, struct store *s, uint32_t unit_items, const char *name)
{
    const int commits_before = atomic_load(&n_commits);
    struct store_pending p[MOST_WAITING];
    uint32_t from = 0, next = 0, waiting = 0;
    uint64_t n_items = 0, n_units = 0;
    int64_t start = clock_mono_ns();
    struct err err;
    size_t n;

    do {
        from = next;
        if (store_pending(s, from, MOST_WAITING, p, &n, &next, &err) < 0)
            die("pending", err.text);
        for (size_t i = 0; i < n; i++) {
            post(c, results(p[i].unit, p[i].first_item, p[i].n_items), &waiting);
            n_items += p[i].n_items;
            n_units++;
        }
    } while (next != from);
    drain(c, &waiting);
    say(name, (double)n_units, start, "units/s");
    printf("%34s %12llu items, %d commits, unit of %u\n", "", (unsigned long long)n_items,
           atomic_load(&n_commits) - commits_before, unit_items);
}

static void walk(struct store *s, const char *name)
{
    struct store_pending p[64];
    uint32_t from = 0, next = 0;
    int64_t start = clock_mono_ns(), worst = 0;
    uint64_t calls = 0;
    struct err err;
    size_t n;

    do {
        int64_t t = clock_mono_ns();

        from = next;
        if (store_pending(s, from, 64, p, &n, &next, &err) < 0)
            die("pending", err.text);
        t = clock_mono_ns() - t;
        worst = t > worst ? t : worst;
        calls++;
    } while (next != from);
    say(name, next, start, "units/s");
    printf("%34s %12llu calls, the longest %lld us\n", "", (unsigned long long)calls, (long long)worst / 1000);
}

/* What the owner of a store looks at before it writes; twice, that the pages are in memory. */
static void look_at_pages(const char *path, uint32_t n_items)
{
    struct reader *r;
    struct err err;

    for (int i = 0; i < 2; i++) {
        int64_t start = clock_mono_ns();

        if (reader_open_to_go_on(path, true, &r, &err) < 0)
            die(path, err.text);
        say(i ? "every page, once more" : "every page", n_items, start, "items/s");
        reader_close(r);
    }
}

static void run(const char *folder, uint32_t unit_items, uint32_t n_items)
{
    const struct store_seam seam = {.before_commit = count_commit};
    const struct committer_conf conf = {.seam = &seam};
    char path[4096], command[5000], name[64];
    struct committer *c;
    struct store *s;
    struct err err;
    int64_t start;

    (void)snprintf(path, sizeof(path), "%s/bench-store-%d-%u.lmdb", folder, (int)getpid(), unit_items);
    if (committer_start(&conf, &c, &err) < 0)
        die("committer", err.text);
    s = open_store(c, path, unit_items);
    import(c, n_items);
    (void)snprintf(name, sizeof(name), "pending, nothing done, unit %u", unit_items);
    walk(s, name);
    (void)snprintf(name, sizeof(name), "commit, unit %u", unit_items);
    commit_all(c, s, unit_items, name);
    (void)snprintf(name, sizeof(name), "pending, all done, unit %u", unit_items);
    walk(s, name);
    committer_free(c);

    struct store_options o = {0};
    if (store_open(path, &o, &s, NULL, &err) < 0)
        die(path, err.text);
    start = clock_mono_ns();
    if (!store_keys_wanted(s))
        start = 0; /* the committer had the time to build them */
    while (store_keys_wanted(s))
        if (store_keys_step(s, &err) < 0)
            die("keys", err.text);
    if (start)
        say("keys", n_items, start, "items/s");
    store_close(s);
    look_at_pages(path, n_items);
    (void)snprintf(command, sizeof(command), "rm -r '%s'", path);
    if (system(command) != 0)
        die(path, "cannot remove");
}

int main(int argc, char **argv)
{
    const char *folder = argc > 1 ? argv[1] : "build";

    run(folder, 64, N_ITEMS);
    run(folder, 1, N_ITEMS / 20);
    return 0;
}
