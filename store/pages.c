#include "store/pages.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/page_format.h"

_Static_assert(sizeof(struct page_head) + sizeof(struct page_meta) <= PAGES_META_BYTES, "a meta page is longer");

/* The owner of a page, one byte each. Tables follow these. */
enum owner { OWNER_NONE, OWNER_META, OWNER_FREE, OWNER_FREE_LIST, OWNER_TABLES, OWNER_FIRST_TABLE };
enum { MAX_TABLES = 32, NAME_BYTES = 32 };

struct walk {
    const uint8_t *file;
    size_t page_bytes, n_pages, txn;
    uint8_t *owners;                                        /* [n_pages] */
    char names[OWNER_FIRST_TABLE + MAX_TABLES][NAME_BYTES]; /* by owner */
    unsigned n_names;
    bool stopped;
    bool cut; /* pages below a damaged page were not checked */
    const struct pages_report *report;
};

enum kind { KIND_FREE_LIST, KIND_TABLES, KIND_PLAIN, KIND_DUPSORT, KIND_DUPS };

struct tree {
    struct walk *w;
    enum kind kind;
    uint8_t owner;
    struct page_table says, has;
};

static void walk_page(struct tree *t, size_t number, unsigned level, struct page_bytes low, struct page_bytes high);
static void walk_tree(struct tree *t);

static void PRINTF_LIKE(2, 3) problem(struct walk *w, const char *fmt, ...)
{
    char text[256];
    va_list ap;

    if (w->stopped)
        return;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    w->stopped = !w->report->problem(w->report->arg, text);
}

/* Report damage that hides further pages. */
#define LOSE(walk, ...) ((walk)->cut = true, problem(walk, __VA_ARGS__))

/* -- pages -- */

static const uint8_t *page_at(const struct walk *w, size_t number)
{
    return w->file + number * w->page_bytes;
}

/* Claim n pages from `first` on for the tree. False: they do not exist or have another owner. */
static bool claim(struct tree *t, size_t first, size_t n)
{
    struct walk *w = t->w;
    const char *name = w->names[t->owner];

    if (first < N_METAS || first >= w->n_pages || n > w->n_pages - first) {
        LOSE(w, "%s: leads to page %zu, and the pages are 2 to %zu", name, first, w->n_pages - 1);
        return false;
    }
    for (size_t i = first; i < first + n; i++) {
        if (w->owners[i] == OWNER_NONE)
            continue;
        if (w->owners[i] == t->owner)
            LOSE(w, "page %zu: is in %s twice", i, name);
        else
            LOSE(w, "page %zu: is in %s, and in %s", i, w->names[w->owners[i]], name);
        return false;
    }
    memset(w->owners + first, t->owner, n);
    return true;
}

/* -- keys -- */

static int compare(const struct tree *t, struct page_bytes a, struct page_bytes b)
{
    const size_t n = a.n < b.n ? a.n : b.n;
    int rc;

    if (t->kind == KIND_FREE_LIST && a.n == sizeof(size_t) && b.n == sizeof(size_t))
        return (page_word(a) > page_word(b)) - (page_word(a) < page_word(b));
    rc = n ? memcmp(a.data, b.data, n) : 0;
    return rc ? rc : (a.n > b.n) - (a.n < b.n);
}

/* True if the key follows `previous` (NULL data: none) and is within [low, high) (NULL data: no bound). */
static bool in_order(const struct tree *t, struct page_bytes key, struct page_bytes previous, struct page_bytes low,
                     struct page_bytes high)
{
    return (!previous.data || compare(t, previous, key) < 0) && (!low.data || compare(t, low, key) <= 0) &&
           (!high.data || compare(t, key, high) < 0);
}

/* -- the free list -- */

static void check_free_pages(struct tree *t, struct page_bytes key, struct page_bytes value)
{
    struct walk *w = t->w;
    const size_t txn = key.n == sizeof(size_t) ? page_word(key) : NO_PAGE, n = value.n / sizeof(size_t);
    size_t last = NO_PAGE;

    if (txn > w->txn)
        problem(w, "the free list: has pages that transaction %zu freed, and the last was %zu", txn, w->txn);
    if (n == 0 || page_word(value) > n - 1) {
        LOSE(w, "the free list: what transaction %zu freed is cut short", txn);
        return;
    }
    for (size_t i = 1, end = page_word(value); i <= end && !w->stopped; i++) {
        const size_t page = page_word((struct page_bytes){value.data + i * sizeof(size_t), sizeof(size_t)});

        if (page >= last)
            problem(w, "the free list: page %zu of transaction %zu is not in order", page, txn);
        last = page;
        if (page < N_METAS || page >= w->n_pages)
            problem(w, "the free list: names page %zu, and the pages are 2 to %zu", page, w->n_pages - 1);
        else if (w->owners[page] == OWNER_FREE)
            problem(w, "page %zu: is in the free list twice", page);
        else if (w->owners[page] != OWNER_NONE)
            problem(w, "page %zu: is free, and in %s", page, w->names[w->owners[page]]);
        else
            w->owners[page] = OWNER_FREE;
    }
}

/* -- values -- */

/* A value in overflow pages. */
static bool find_big(struct tree *t, const struct page_node *n, struct page_bytes *ret)
{
    const size_t first = page_word(n->data),
                 need = (sizeof(struct page_head) - 1 + n->value_bytes) / t->w->page_bytes + 1;
    const uint8_t *page;
    uint32_t n_pages;
    struct page_head h;

    if (first >= t->w->n_pages) {
        (void)claim(t, first, 1); /* reports it */
        return false;
    }
    page = page_at(t->w, first);
    h = page_head(page);
    memcpy(&n_pages, page + offsetof(struct page_head, lower), sizeof(n_pages));
    if (h.flags != PAGE_OVERFLOW || h.number != first || n_pages < need) {
        LOSE(t->w, "page %zu: is not the beginning of a value of %zu bytes, as %s says", first, n->value_bytes,
             t->w->names[t->owner]);
        return false;
    }
    if (!claim(t, first, n_pages))
        return false;
    t->has.n_overflow += n_pages;
    *ret = (struct page_bytes){page + sizeof(h), n->value_bytes};
    return true;
}

static void copy_name(struct page_bytes key, char ret[NAME_BYTES])
{
    size_t n = key.n < NAME_BYTES - 1 ? key.n : NAME_BYTES - 1;

    for (size_t i = 0; i < n; i++)
        ret[i] = isprint(key.data[i]) ? (char)key.data[i] : '?';
    ret[n] = '\0';
}

static void walk_named_table(struct tree *t, const struct page_node *n)
{
    struct walk *w = t->w;
    struct tree named = {.w = w, .owner = (uint8_t)w->n_names, .kind = KIND_PLAIN};

    if (w->n_names == sizeof(w->names) / sizeof(w->names[0])) {
        LOSE(w, "there are more than %d tables", MAX_TABLES);
        return;
    }
    copy_name(n->key, w->names[w->n_names]);
    if (n->data.n != sizeof(named.says)) {
        LOSE(w, "table %s: its description has %zu bytes", w->names[w->n_names], n->data.n);
        return;
    }
    w->n_names++;
    memcpy(&named.says, n->data.data, sizeof(named.says));
    if (named.says.flags == (TABLE_DUPSORT | TABLE_DUPFIXED))
        named.kind = KIND_DUPSORT;
    else if (named.says.flags != 0)
        LOSE(w, "table %s: has flags 0x%x, which no table of a job store has", w->names[named.owner], named.says.flags);
    walk_tree(&named);
}

/* The duplicates of a key, in a table of their own. */
static void walk_dups(struct tree *t, const struct page_node *n)
{
    struct tree dups = {.w = t->w, .owner = t->owner, .kind = KIND_DUPS};

    if (n->data.n != sizeof(dups.says)) {
        LOSE(t->w, "%s: the description of a key's values has %zu bytes", t->w->names[t->owner], n->data.n);
        return;
    }
    memcpy(&dups.says, n->data.data, sizeof(dups.says));
    walk_tree(&dups);
    t->has.n_entries += dups.has.n_entries;
}

/* Values of equal size, ascending, without nodes. */
static bool check_fixed(struct tree *t, const uint8_t *page, size_t n_bytes, struct page_bytes low,
                        struct page_bytes high)
{
    const struct page_head h = page_head(page);
    const size_t n = page_n_nodes(&h);
    struct page_bytes last = {NULL, 0};

    if (h.pad == 0 || n * h.pad > n_bytes - sizeof(h))
        return false;
    for (size_t i = 0; i < n; i++) {
        const struct page_bytes key = {page + sizeof(h) + i * h.pad, h.pad};

        if (!in_order(t, key, last, low, high))
            return false;
        last = key;
    }
    t->has.n_entries += n;
    return n > 0;
}

/* The duplicates of a key, in a sub-page within its node. */
static void check_sub_page(struct tree *t, size_t number, struct page_bytes sub)
{
    static const struct page_bytes none;
    struct tree dups = {.w = t->w, .owner = t->owner, .kind = KIND_DUPS};
    struct page_head h = {0};

    if (sub.n >= sizeof(h))
        h = page_head(sub.data);
    if (h.flags != (PAGE_LEAF | PAGE_DIRTY | PAGE_FIXED | PAGE_SUB) || !page_has_bounds(&h, sub.n) ||
        !check_fixed(&dups, sub.data, sub.n, none, none))
        LOSE(t->w, "page %zu: the values of a key in %s make no sense", number, t->w->names[t->owner]);
    t->has.n_entries += dups.has.n_entries;
}

static void check_value(struct tree *t, size_t number, const struct page_node *n)
{
    struct page_bytes value = n->data;

    if (t->kind == KIND_TABLES && n->flags == NODE_TABLE) {
        walk_named_table(t, n);
    } else if (t->kind == KIND_DUPSORT && n->flags == (NODE_TABLE | NODE_DUPS)) {
        walk_dups(t, n);
        return; /* has counted */
    } else if (t->kind == KIND_DUPSORT && n->flags == NODE_DUPS) {
        check_sub_page(t, number, n->data);
        return;
    } else if ((n->flags & ~(unsigned)NODE_BIG) || (n->flags && t->kind >= KIND_DUPSORT)) {
        LOSE(t->w, "page %zu: a row of %s has flags 0x%x", number, t->w->names[t->owner], n->flags);
    } else if (!(n->flags & NODE_BIG) || find_big(t, n, &value)) {
        if (t->kind == KIND_FREE_LIST)
            check_free_pages(t, n->key, value);
    }
    t->has.n_entries++;
}

/* -- trees -- */

/* Rows are adjacent up to the end of their page and do not overlap. */
static void check_room(struct tree *t, size_t number, const struct page_head *h, size_t room)
{
    if (!t->w->stopped && room != t->w->page_bytes - h->upper)
        problem(t->w, "page %zu: the rows of %s take %zu bytes of it, and it says %zu", number, t->w->names[t->owner],
                room, t->w->page_bytes - h->upper);
}

static void walk_leaf(struct tree *t, size_t number, struct page_bytes low, struct page_bytes high)
{
    const uint8_t *page = page_at(t->w, number);
    const struct page_head h = page_head(page);
    struct page_bytes last = {NULL, 0};
    size_t room = 0;
    struct page_node n;

    t->has.n_leaf++;
    for (size_t i = 0; i < page_n_nodes(&h) && !t->w->stopped; i++) {
        if (!page_node(page, t->w->page_bytes, i, false, &n)) {
            LOSE(t->w, "page %zu: row %zu of %s is not within the page", number, i, t->w->names[t->owner]);
            return;
        }
        if (!in_order(t, n.key, last, low, high))
            problem(t->w, "page %zu: row %zu of %s is not in order", number, i, t->w->names[t->owner]);
        last = n.key;
        room += page_node_room(&n);
        check_value(t, number, &n);
    }
    if (page_n_nodes(&h) == 0)
        problem(t->w, "page %zu: has no rows of %s", number, t->w->names[t->owner]);
    check_room(t, number, &h, room);
}

static void walk_branch(struct tree *t, size_t number, unsigned level, struct page_bytes low, struct page_bytes high)
{
    const uint8_t *page = page_at(t->w, number);
    const struct page_head h = page_head(page);
    const size_t count = page_n_nodes(&h), least = t->kind == KIND_FREE_LIST ? 1 : 2;
    struct page_node n, next = {0};
    size_t room = 0;

    t->has.n_branch++;
    if (count < least)
        problem(t->w, "page %zu: leads to %zu pages of %s", number, count, t->w->names[t->owner]);
    for (size_t i = 0; i < count && !t->w->stopped; i++) {
        n = next;
        if ((i == 0 && !page_node(page, t->w->page_bytes, 0, true, &n)) ||
            (i + 1 < count && !page_node(page, t->w->page_bytes, i + 1, true, &next))) {
            LOSE(t->w, "page %zu: a row of %s is not within the page", number, t->w->names[t->owner]);
            return;
        }
        /* the first key is not used */
        if (i > 0 && !in_order(t, n.key, (struct page_bytes){NULL, 0}, low, high))
            problem(t->w, "page %zu: key %zu of %s is not in order", number, i, t->w->names[t->owner]);
        room += page_node_room(&n);
        walk_page(t, n.child, level + 1, i > 0 ? n.key : low, i + 1 < count ? next.key : high);
    }
    check_room(t, number, &h, room);
}

static void walk_page(struct tree *t, size_t number, unsigned level, struct page_bytes low, struct page_bytes high)
{
    const unsigned wanted = level < t->says.depth ? PAGE_BRANCH : PAGE_LEAF;
    struct walk *w = t->w;
    const char *name = w->names[t->owner];
    struct page_head h;

    if (w->stopped || !claim(t, number, 1))
        return;
    h = page_head(page_at(w, number));
    if (h.number != number)
        problem(w, "page %zu: says that it is page %zu (%s)", number, h.number, name);
    if ((h.flags != wanted && !(t->kind == KIND_DUPS && wanted == PAGE_LEAF && h.flags == (PAGE_LEAF | PAGE_FIXED))) ||
        !page_has_bounds(&h, w->page_bytes)) {
        LOSE(w, "page %zu: is not the %s page that %s has there", number, wanted == PAGE_BRANCH ? "branch" : "leaf",
             name);
    } else if (h.flags == PAGE_BRANCH) {
        walk_branch(t, number, level, low, high);
    } else if (h.flags == PAGE_LEAF) {
        walk_leaf(t, number, low, high);
    } else {
        t->has.n_leaf++;
        if (!check_fixed(t, page_at(w, number), w->page_bytes, low, high))
            LOSE(w, "page %zu: the values of a key in %s make no sense", number, name);
    }
}

static void walk_tree(struct tree *t)
{
    static const struct page_bytes none;
    const struct page_table *says = &t->says, *has = &t->has;
    const char *name = t->w->names[t->owner];
    const bool was_cut = t->w->cut;

    t->w->cut = false;
    if (says->depth > MAX_DEPTH || (says->depth == 0) != (says->root == NO_PAGE))
        LOSE(t->w, "%s: has a depth of %u pages", name, says->depth);
    else if (says->root != NO_PAGE)
        walk_page(t, says->root, 1, none, none);
    if (!t->w->cut && has->n_entries != says->n_entries)
        problem(t->w, "%s: has %zu rows, and says %zu", name, has->n_entries, says->n_entries);
    if (!t->w->cut &&
        (has->n_branch != says->n_branch || has->n_leaf != says->n_leaf || has->n_overflow != says->n_overflow))
        problem(t->w, "%s: has %zu branch, %zu leaf and %zu overflow pages, and says %zu, %zu and %zu", name,
                has->n_branch, has->n_leaf, has->n_overflow, says->n_branch, says->n_leaf, says->n_overflow);
    t->w->cut |= was_cut;
}

/* -- all of it -- */

static void check_rest(struct walk *w)
{
    size_t n = 0, first = 0;

    if (w->cut || w->stopped)
        return; /* pages below a damaged page would be reported too */
    for (size_t i = w->n_pages; i-- > N_METAS;)
        if (w->owners[i] == OWNER_NONE) {
            n++;
            first = i;
        }
    if (n)
        problem(w, "%zu pages are neither free nor in a table; the first is page %zu", n, first);
}

/* Checks the constants of both meta pages and the numbers of this one. */
static bool check_meta(struct walk *w, size_t size_bytes, const struct page_meta *m)
{
    w->page_bytes = m->free.pad;
    if (w->page_bytes < MIN_PAGE_BYTES || w->page_bytes > MAX_PAGE_BYTES || (w->page_bytes & (w->page_bytes - 1)) ||
        m->last_page < N_METAS - 1 || m->last_page >= size_bytes / w->page_bytes) {
        problem(w, "the meta page: its numbers make no sense, or the file is shorter than it says");
        return false;
    }
    w->n_pages = m->last_page + 1;
    for (size_t i = 0; i < N_METAS; i++) {
        const uint8_t *page = page_at(w, i);
        const struct page_head h = page_head(page);
        struct page_meta there;

        memcpy(&there, page + sizeof(h), sizeof(there));
        if (!(h.flags & PAGE_META) || there.magic != META_MAGIC || there.version != META_VERSION)
            problem(w, "page %zu: is not the meta page that it must be", i);
    }
    return true;
}

int pages_check(const uint8_t *file, size_t size_bytes, const uint8_t meta[PAGES_META_BYTES],
                const struct pages_report *report, struct err *err)
{
    struct walk w = {.file = file,
                     .names = {"nothing", "the meta pages", "the free pages", "the free list", "the list of tables"},
                     .n_names = OWNER_FIRST_TABLE,
                     .report = report};
    struct tree main = {.w = &w, .owner = OWNER_TABLES, .kind = KIND_TABLES};
    struct tree free_list = {.w = &w, .owner = OWNER_FREE_LIST, .kind = KIND_FREE_LIST};
    struct page_meta m;

    memcpy(&m, meta + sizeof(struct page_head), sizeof(m));
    if (!check_meta(&w, size_bytes, &m))
        return w.stopped ? -ECANCELED : 0;
    w.owners = calloc(w.n_pages, 1);
    if (!w.owners)
        return err_set(err, -ENOMEM, "out of memory");
    w.txn = m.txn;
    memset(w.owners, OWNER_META, N_METAS);
    main.says = m.main;
    free_list.says = m.free;
    walk_tree(&main);
    walk_tree(&free_list);
    check_rest(&w);
    free(w.owners);
    return w.stopped ? -ECANCELED : 0;
}
