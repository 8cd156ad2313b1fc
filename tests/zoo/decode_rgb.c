/* decode_rgb.c - what Blipline makes of picture files: paths come on standard input, one a line, and a line each goes
 * out, as tests/zoo/zoo.py writes what Pillow makes of them. */
#include "source/fetch.h"
#include "tests/unit/verdict.h"

#include <stdio.h>
#include <stdlib.h>

int main(void)
{
    const struct decode_options options = DECODE_OPTIONS_DEFAULT;
    struct buf bytes;
    char *line = NULL;
    size_t size = 0;
    ssize_t n;

    buf_init(&bytes, 0);
    while ((n = getline(&line, &size, stdin)) > 0) {
        struct err err = {""};
        enum image_error code;

        line[n - 1] = '\0';
        code = source_fetch(line, options.max_file_bytes, &bytes, &err);
        if (code == IMAGE_OK) {
            char text[VERDICT_SIZE];

            verdict(bytes.data, bytes.size_bytes, text, &err);
            printf("%s\t%s\n", text, err.text);
        } else {
            printf("refused\t%s: %s\n", image_error_name(code), err.text);
        }
        (void)fflush(stdout);
    }
    free(line);
    buf_release(&bytes);
    return 0;
}
