#include "source/field_names.h"

#include <string.h>

static const char *const own[] = {
    [FIELD_SOURCE] = "source", [FIELD_PATH] = "path", [FIELD_SIZE] = "size", [FIELD_MTIME] = "mtime"};

int field_names_next(const char **names, const char **ret_at, uint32_t *ret_n)
{
    do {
        if (!**names)
            return 0;
        *ret_at = *names;
        *ret_n = (uint32_t)strcspn(*names, ",");
        *names += *ret_n + ((*names)[*ret_n] == ',');
    } while (*ret_n == 0);
    return 1;
}

enum field_kind field_names_kind(const char *name, uint32_t n)
{
    for (int i = FIELD_SOURCE; i <= FIELD_MTIME; i++)
        if (strlen(own[i]) == n && memcmp(own[i], name, n) == 0)
            return (enum field_kind)i;
    return FIELD_COLUMN;
}
