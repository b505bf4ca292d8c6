/* module.h - what the files of module/ share. */
#ifndef RSHM_MODULE_H
#define RSHM_MODULE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "module/redis_api.h"
#include "redirect/redirect.h"

/* settings.c: module arguments and shm.* configuration */
struct rshm_settings {
    long long ring_bytes;      /* each way */
    long long sessions_max;
    long long memory_max_bytes;
    long long spin_limit_us;
    int wait_mode;             /* enum rshm_wait_mode */
};
extern struct rshm_settings rshm_settings;
/* Takes the arguments of the load, then registers shm.* where the server has module configuration. Returns REDIS_OK, or REDIS_ERR
 * after logging which setting is wrong and why. */
int rshm_settings_load(RedisModuleCtx *ctx, RedisModuleString **argv, int argc);

/* slots.c: the main program's relocation slots */
/* Finds the slots of the main program's calls and fills libc with what they point at. Returns true, or false with why (a
 * sentence) filled in. Changes nothing. */
bool rshm_slots_find(struct rshm_libc *libc, char *why, size_t why_bytes);
/* Points the slots at the redirections, which must be ready to run. Returns true, or false as above with everything put back. */
bool rshm_slots_write(char *why, size_t why_bytes);
/* Puts every slot and page protection back. */
void rshm_slots_restore(void);

/* open.c: SHM.OPEN */
enum rshm_refusal {
    RSHM_REFUSED_VERSION, RSHM_REFUSED_TOKEN, RSHM_REFUSED_RENDEZVOUS, RSHM_REFUSED_MODE, RSHM_REFUSED_CONTEXT,
    RSHM_REFUSED_ALREADY, RSHM_REFUSED_UNANSWERED, RSHM_REFUSED_TLS, RSHM_REFUSED_HOST, RSHM_REFUSED_SESSIONS, RSHM_REFUSED_MEMORY,
    RSHM_REFUSED_OLD, RSHM_REFUSED_SYSTEM, RSHM_REFUSALS
};
extern const char *const rshm_refusal_names[RSHM_REFUSALS];
extern uint64_t rshm_refused[RSHM_REFUSALS];
redis_command_fn rshm_open_command;

/* report.c: SHM.STATS, SHM.CLIENTS and INFO shm */
redis_command_fn rshm_stats_command, rshm_clients_command;
redis_info_fn rshm_info_section;

#endif
