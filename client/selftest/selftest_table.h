/* selftest_table.h - the rows of a self-test as a table for people.
 *
 * Rows of one kind (the options of decoding) are one line: how many, the worst error, the time. What failed is named
 * below its line.
 * Who may call: one thread. Units: seconds. Memory: none is kept. Errors: none; writing is checked by the caller. */
#ifndef BLIPLINE_CLIENT_SELFTEST_SELFTEST_TABLE_H
#define BLIPLINE_CLIENT_SELFTEST_SELFTEST_TABLE_H

#include <stdbool.h>
#include <stdio.h>

struct json_t;

/* `every_row`: no lines are put together. */
void selftest_table_print(const struct json_t *rows, bool every_row, FILE *out);

bool selftest_row_failed(const struct json_t *row);
bool selftest_row_is_test(const struct json_t *row); /* else it is about the machine, or skipped */

#endif
