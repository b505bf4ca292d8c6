/* replay.c - runs a fuzz target on files, with any compiler: fuzz_x FILE|DIRECTORY... Exit 0 if none of them fails. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "fuzz/input.h"

static int run(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (f == NULL)
        return 0;
    static uint8_t bytes[1 << 16];
    size_t n = fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    uint8_t *exact = malloc(n + 1); /* so that a look behind it is seen by a sanitizer */
    if (exact == NULL)
        return 0;
    memcpy(exact + 1, bytes, n);
    LLVMFuzzerTestOneInput(exact + 1, n);
    free(exact);
    return 1;
}

int main(int argc, char **argv)
{
    int cases = 0;
    for (int i = 1; i < argc; i++) {
        DIR *d = opendir(argv[i]);
        char path[4096];
        if (d == NULL)
            cases += run(argv[i]);
        for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;)
            if (e->d_name[0] != '.') {
                snprintf(path, sizeof path, "%s/%s", argv[i], e->d_name);
                cases += run(path);
            }
        if (d != NULL)
            closedir(d);
    }
    printf("%d cases\n", cases);
    return cases > 0 ? 0 : 1;
}
