/* run_program.c - reads the ELF file behind a command; see run_program.h. */
#include "tools/run_program.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SCRIPTS_MAX 4 /* as many interpreters of interpreters as the kernel follows */
#define LINE_BYTES 256

typedef ElfW(Ehdr) elf_header;
typedef ElfW(Phdr) elf_segment;
typedef ElfW(Shdr) elf_section;

static int find_in_path(const char *name, char path[PATH_MAX])
{
    if (strchr(name, '/') != NULL) {
        if ((size_t)snprintf(path, PATH_MAX, "%s", name) >= PATH_MAX)
            return -ENAMETOOLONG;
        return access(path, X_OK) == 0 ? 0 : -errno;
    }
    const char *p = getenv("PATH");
    if (p == NULL)
        p = "/bin:/usr/bin";
    int result = -ENOENT;
    for (;; p++) {
        size_t n = strcspn(p, ":");
        struct stat st;
        if (snprintf(path, PATH_MAX, "%.*s/%s", n == 0 ? 1 : (int)n, n == 0 ? "." : p, name) < PATH_MAX && stat(path, &st) == 0 &&
            S_ISREG(st.st_mode)) {
            if (access(path, X_OK) == 0)
                return 0;
            result = -errno;
        }
        p += n;
        if (*p == '\0')
            return result;
    }
}

static bool within(size_t file_bytes, uint64_t offset, uint64_t bytes)
{
    return offset <= file_bytes && bytes <= file_bytes - offset;
}

static bool has_interpreter(const char *file, size_t bytes, const elf_header *h)
{
    for (unsigned i = 0; i < h->e_phnum; i++) {
        elf_segment s;
        if (h->e_phentsize != sizeof s || !within(bytes, h->e_phoff + (uint64_t)i * sizeof s, sizeof s))
            return true; /* odd: nobody can tell */
        memcpy(&s, file + h->e_phoff + i * sizeof s, sizeof s);
        if (s.p_type == PT_INTERP)
            return true;
    }
    return false;
}

/* Go's runtime makes system calls itself even where it is linked to libc. */
static bool is_go(const char *file, size_t bytes, const elf_header *h)
{
    elf_section names, s;
    if (h->e_shentsize != sizeof s || h->e_shstrndx >= h->e_shnum || !within(bytes, h->e_shoff, (uint64_t)h->e_shnum * sizeof s))
        return false;
    memcpy(&names, file + h->e_shoff + h->e_shstrndx * sizeof s, sizeof names);
    if (!within(bytes, names.sh_offset, names.sh_size))
        return false;
    for (unsigned i = 0; i < h->e_shnum; i++) {
        static const char go[] = ".gopclntab";
        memcpy(&s, file + h->e_shoff + i * sizeof s, sizeof s);
        if (s.sh_name < names.sh_size && names.sh_size - s.sh_name >= sizeof go &&
            memcmp(file + names.sh_offset + s.sh_name, go, sizeof go) == 0)
            return true;
    }
    return false;
}

static int look_at_elf(const char *path, const char *file, size_t bytes, char *why, size_t why_bytes)
{
    elf_header h;
    memcpy(&h, file, sizeof h);
    const unsigned char own_class = sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32;
    if (h.e_ident[EI_CLASS] != own_class) {
        snprintf(why, why_bytes, "%s is a %s-bit program, the preload library is not", path, own_class == ELFCLASS64 ? "32" : "64");
        return 1;
    }
    if (!has_interpreter(file, bytes, &h)) {
        snprintf(why, why_bytes, "%s is a static program: it has no dynamic loader that could load the preload library", path);
        return 1;
    }
    if (is_go(file, bytes, &h)) {
        snprintf(why, why_bytes, "%s is a Go program: it makes its system calls itself, not through libc", path);
        return 1;
    }
    return 0;
}

/* The interpreter in a script's first line; of env, what it looks up. Returns false if there is none. */
static bool interpreter(const char *file, size_t bytes, char name[LINE_BYTES])
{
    char line[LINE_BYTES] = "";
    memcpy(line, file + 2, bytes - 2 < sizeof line - 1 ? bytes - 2 : sizeof line - 1);
    line[strcspn(line, "\n")] = '\0';
    char *rest, *word = strtok_r(line, " \t", &rest);
    if (word == NULL)
        return false;
    const char *base = strrchr(word, '/');
    if (base != NULL && strcmp(base, "/env") == 0) {
        char *argument = strtok_r(NULL, " \t", &rest);
        while (argument != NULL && (argument[0] == '-' || strchr(argument, '=') != NULL))
            argument = strtok_r(NULL, " \t", &rest);
        if (argument != NULL)
            word = argument;
    }
    snprintf(name, LINE_BYTES, "%s", word);
    return true;
}

int rshm_run_look_at(const char *name, char *why, size_t why_bytes)
{
    char path[PATH_MAX], next[LINE_BYTES];
    for (int depth = 0; depth < SCRIPTS_MAX; depth++) {
        struct stat st;
        int r = find_in_path(name, path);
        if (r < 0)
            return depth == 0 ? r : 0; /* the kernel says it best */
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            return 0; /* executable, not readable */
        if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size < (off_t)sizeof(elf_header)) {
            char two[2];
            bool script = pread(fd, two, 2, 0) == 2 && two[0] == '#' && two[1] == '!';
            if (!script || st.st_size < 4) {
                close(fd);
                return 0;
            }
        }
        if (st.st_mode & (S_ISUID | S_ISGID) && geteuid() != 0) {
            snprintf(why, why_bytes, "%s runs as another user or group: the dynamic loader ignores preload libraries there", path);
            close(fd);
            return 1;
        }
        size_t bytes = (size_t)st.st_size;
        char *file = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
        close(fd);
        if (file == MAP_FAILED)
            return 0;
        bool elf = bytes >= sizeof(elf_header) && memcmp(file, ELFMAG, SELFMAG) == 0;
        bool script = !elf && file[0] == '#' && file[1] == '!' && interpreter(file, bytes, next);
        r = elf ? look_at_elf(path, file, bytes, why, why_bytes) : 0;
        munmap(file, bytes);
        if (!script)
            return r;
        name = next;
    }
    return 0;
}
