/* Lists with columns: any bytes are rows within their limits, or are refused by file and line. The first byte says
 * which kind of table. */
#include "source/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char *const extensions[] = {"jsonl", "csv", "tsv"};
    static const char *const names[] = {"caption", "q"};
    static const struct source_columns wanted = {names, 2};
    struct source_summary sum;
    struct source *s = NULL;
    struct source_item item;
    struct err err = {""};
    uint64_t n_items = 0;
    char arg[80];
    FILE *f;
    int rc;

    if (n == 0)
        return 0;
    (void)snprintf(arg, sizeof(arg), "@/tmp/blipline-fuzz-%d.%s", (int)getpid(), extensions[data[0] % 3]);
    f = fopen(arg + 1, "w");
    if (!f || fwrite(data + 1, 1, n - 1, f) != n - 1 || fclose(f) != 0)
        abort();
    rc = source_open(arg, &wanted, &s, &err);
    while (rc == 0 && (rc = source_next(s, &item, &err)) > 0) {
        if (item.n_fields > SOURCE_MAX_FIELDS || item.key_bytes == 0 ||
            (item.problem_code == IMAGE_OK ? item.path[0] != '/'
                                           : item.path_bytes || item.n_fields || !item.problem[0]))
            abort();
        for (uint32_t i = 0; i < item.n_fields; i++)
            if (item.fields[i].value_bytes > SOURCE_MAX_FIELD_BYTES || item.fields[i].value[item.fields[i].value_bytes])
                abort();
        n_items++;
        rc = 0;
    }
    source_free(s);
    if (rc < 0 && !strstr(err.text, "line ") && !strstr(err.text, "help sources"))
        abort();
    if (source_check(arg, &wanted, 0, &sum, &err) != rc || (rc == 0 && sum.n_items != n_items))
        abort();
    (void)unlink(arg + 1);
    return 0;
}
