#include "client/named_store.h"

#include "console/cli.h"
#include "console/crash_handler.h"
#include "store/reader.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* True if the name does not exist or is not a store; false if a store cannot be read. */
static bool is_no_store(const char *path)
{
    char data[PATH_MAX];

    return snprintf(data, sizeof(data), "%s/data.mdb", path) < (int)sizeof(data) && access(data, F_OK) < 0 &&
           (errno == ENOENT || errno == ENOTDIR);
}

int named_store_open(const char *command, const char *path, struct reader **ret)
{
    struct err err = {""};
    int rc;

    crash_handler_install(command, path);
    rc = reader_open(path, false, ret, &err);
    if (rc == 0)
        return CLI_EXIT_OK;
    cli_error("%s: %s", command, err.text[0] ? err.text : strerror(-rc));
    return is_no_store(path) ? CLI_EXIT_USAGE : CLI_EXIT_ERROR;
}
