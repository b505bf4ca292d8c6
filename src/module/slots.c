/* slots.c - finds the relocation slots through which the main program calls libc, and points them at the redirections.
 *
 * A dynamically linked program calls read() through a pointer in its global offset table, one per function, which the
 * dynamic linker filled in: an entry of DT_JMPREL (calls) or DT_RELA (address taken) of type JUMP_SLOT or GLOB_DAT. The
 * page may be read-only (RELRO) or shared with .data, so the protection that the kernel reports is put back exactly.
 */
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <link.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "module/module.h"

#if defined(__x86_64__)
#define IS_SLOT(type) ((type) == R_X86_64_JUMP_SLOT || (type) == R_X86_64_GLOB_DAT)
#elif defined(__aarch64__)
#define IS_SLOT(type) ((type) == R_AARCH64_JUMP_SLOT || (type) == R_AARCH64_GLOB_DAT)
#else
#error "relocation types of this architecture are not known yet"
#endif

typedef void (*any_fn)(void);

struct redirection {
    const char *name;
    any_fn ours;
    size_t libc_offset;  /* where struct rshm_libc keeps what the slot pointed at */
    bool required;       /* a server that does not import it cannot be served */
};

#define REDIRECT(fn, required) {#fn, (any_fn)rshm_##fn, offsetof(struct rshm_libc, fn), required}
static const struct redirection redirections[] = {
    REDIRECT(read, true),        REDIRECT(write, true),      REDIRECT(writev, false),
    REDIRECT(close, true),       REDIRECT(epoll_ctl, true),  REDIRECT(epoll_wait, true),
    REDIRECT(epoll_pwait, false), REDIRECT(recv, false),     REDIRECT(send, false),
};
#define REDIRECTIONS (sizeof redirections / sizeof redirections[0])

struct slot {
    any_fn *address;
    any_fn before;
    any_fn ours;
};

#define SLOTS_MAX (4 * REDIRECTIONS)
static struct slot slots[SLOTS_MAX];
static size_t slot_count;

struct program {
    uintptr_t base;
    const ElfW(Sym) *symbols;
    const char *strings;
    const ElfW(Rela) *tables[2];
    size_t counts[2];
    uintptr_t text_start, text_end; /* the executable segment: a slot into it is a call not resolved yet */
};

/* Addresses in the dynamic section: relocated by glibc, not by musl. */
static const void *dynamic_pointer(uintptr_t base, uintptr_t value)
{
    return (const void *)(value < base ? base + value : value);
}

static int first_object(struct dl_phdr_info *info, size_t size, void *arg)
{
    struct program *p = arg;
    const ElfW(Dyn) *dynamic = NULL;
    (void)size;

    p->base = info->dlpi_addr;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *h = &info->dlpi_phdr[i];
        if (h->p_type == PT_DYNAMIC)
            dynamic = (const ElfW(Dyn) *)(p->base + h->p_vaddr);
        if (h->p_type == PT_LOAD && (h->p_flags & PF_X)) {
            p->text_start = p->base + h->p_vaddr;
            p->text_end = p->text_start + h->p_memsz;
        }
    }
    if (dynamic == NULL)
        return 1;
    for (; dynamic->d_tag != DT_NULL; dynamic++) {
        const void *pointer = dynamic_pointer(p->base, dynamic->d_un.d_ptr);
        switch (dynamic->d_tag) {
        case DT_SYMTAB: p->symbols = pointer; break;
        case DT_STRTAB: p->strings = pointer; break;
        case DT_JMPREL: p->tables[0] = pointer; break;
        case DT_PLTRELSZ: p->counts[0] = dynamic->d_un.d_val / sizeof(ElfW(Rela)); break;
        case DT_RELA: p->tables[1] = pointer; break;
        case DT_RELASZ: p->counts[1] = dynamic->d_un.d_val / sizeof(ElfW(Rela)); break;
        default: break;
        }
    }
    return 1; /* the first object is the main program; stop here */
}

static bool find_slots(const struct program *p)
{
    slot_count = 0;
    for (int t = 0; t < 2; t++) {
        for (size_t i = 0; p->tables[t] != NULL && i < p->counts[t]; i++) {
            const ElfW(Rela) *r = &p->tables[t][i];
            if (!IS_SLOT(ELF64_R_TYPE(r->r_info)))
                continue;
            const char *name = p->strings + p->symbols[ELF64_R_SYM(r->r_info)].st_name;
            for (size_t k = 0; k < REDIRECTIONS; k++) {
                if (strcmp(name, redirections[k].name) != 0)
                    continue;
                if (slot_count == SLOTS_MAX)
                    return false;
                any_fn *address = (any_fn *)(p->base + r->r_offset);
                slots[slot_count++] = (struct slot){address, *address, redirections[k].ours};
            }
        }
    }
    return true;
}

/* The protection of the page at address, from the kernel. Returns -1 if it cannot be told. */
static int protection_of(uintptr_t address)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[512];
    int prot = -1;
    if (maps == NULL)
        return -1;
    while (fgets(line, sizeof line, maps) != NULL) {
        unsigned long from, to;
        char perms[5];
        if (sscanf(line, "%lx-%lx %4s", &from, &to, perms) == 3 && address >= from && address < to) {
            prot = (perms[0] == 'r' ? PROT_READ : 0) | (perms[1] == 'w' ? PROT_WRITE : 0) | (perms[2] == 'x' ? PROT_EXEC : 0);
            break;
        }
    }
    fclose(maps);
    return prot;
}

/* Returns 0 or -errno. */
static int write_slot(any_fn *address, any_fn value)
{
    uintptr_t page_bytes = (uintptr_t)sysconf(_SC_PAGESIZE), page = (uintptr_t)address & ~(page_bytes - 1);
    int prot = protection_of((uintptr_t)address);
    if (prot < 0)
        return -ENOENT;
    if (!(prot & PROT_WRITE) && mprotect((void *)page, page_bytes, prot | PROT_WRITE) != 0)
        return -errno;
    __atomic_store_n(address, value, __ATOMIC_RELEASE); /* other threads of the server call through it at this moment */
    if (!(prot & PROT_WRITE) && mprotect((void *)page, page_bytes, prot) != 0)
        return -errno;
    return 0;
}

static bool give_up(char *why, size_t why_bytes, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, why_bytes, fmt, ap);
    va_end(ap);
    rshm_slots_restore();
    return false;
}

bool rshm_slots_find(struct rshm_libc *libc, char *why, size_t why_bytes)
{
    struct program p = {0};
    memset(libc, 0, sizeof *libc);
    slot_count = 0;
    dl_iterate_phdr(first_object, &p);
    if (p.symbols == NULL || p.strings == NULL || (p.tables[0] == NULL && p.tables[1] == NULL))
        return give_up(why, why_bytes, "the server is statically linked: its calls cannot be redirected");
    if (!find_slots(&p))
        return give_up(why, why_bytes, "the server has more relocation slots than this module expects");
    for (size_t k = 0; k < REDIRECTIONS; k++) {
        const struct redirection *r = &redirections[k];
        any_fn original = (any_fn)dlsym(RTLD_DEFAULT, r->name);
        bool found = false;
        for (size_t i = 0; i < slot_count; i++) {
            if (slots[i].ours != r->ours)
                continue;
            found = true;
            /* What the slot holds, so that somebody who redirected before us stays in the chain; unless it is the stub of a
             * call that was never made. */
            if ((uintptr_t)slots[i].before < p.text_start || (uintptr_t)slots[i].before >= p.text_end)
                original = slots[i].before;
        }
        if (!found && r->required)
            return give_up(why, why_bytes, "the server does not import %s: there is no relocation slot to redirect", r->name);
        if (original == NULL)
            return give_up(why, why_bytes, "%s is not in libc", r->name);
        memcpy((char *)libc + r->libc_offset, &original, sizeof original);
    }
    return true;
}

bool rshm_slots_write(char *why, size_t why_bytes)
{
    for (size_t i = 0; i < slot_count; i++) {
        int r = write_slot(slots[i].address, slots[i].ours);
        if (r < 0)
            return give_up(why, why_bytes, "a relocation slot could not be written: %s",
                           r == -ENOENT ? "/proc/self/maps cannot be read" : strerror(-r));
    }
    return true;
}

void rshm_slots_restore(void)
{
    for (size_t i = 0; i < slot_count; i++)
        if (*slots[i].address == slots[i].ours) /* else somebody redirected after us, and our code stays loaded */
            write_slot(slots[i].address, slots[i].before);
    slot_count = 0;
}
