/** The engine process: what starts in which order, and how it ends.
 *
 * The one struct engine is the process's only state. Threads: main (control socket, signals); fuse-io, one a
 * cloned descriptor, and fuse-spare; fuse-sync; fuse-replies, fuse-forward, fuse-notify (forward.h); keys (KDFs), secrets (reading pipes), admin
 * (draining, syncing); argon2 lanes; claim (claim.h).
 */
#ifndef FUSECRYPT_ENGINE_H
#define FUSECRYPT_ENGINE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "device_table.h"
#include "fuse_loop.h"
#include "jobs.h"
#include "secrets.h"

#define ENGINE_CLONES_MAX 16u

struct engine_options {
    int control_fd;
    int fuse_fd;     /* -1: keyslot operations only */
    int session_fd;  /* -1 likewise */
    int lifetime_fd; /* kept open; -1: none */
    int claim_fd;    /* listening socket for keystored's questions (claim.h); -1: none */
    int clone_fds[ENGINE_CLONES_MAX]; /* open descriptors of /dev/fuse to make clones of */
    unsigned clone_fd_count;
    unsigned readers;          /* 0: as many as processors, between 2 and 8 */
    uint32_t kdf_memory_limit; /* KiB */
    bool force_mlock;          /* key memory without memfd_secret (tests) */
};

struct engine {
    struct engine_options options;
    int stats_fd;
    int wake_fd;   /* eventfd: unmounted */
    int signal_fd; /* SIGTERM */
    unsigned readers, clones;
    uint32_t sandbox; /* enum sandbox_bit */
    struct device_table devices;
    struct fuse_loop loop;
    struct secrets secrets;
    struct pool keys, reading, admin;
    _Atomic bool is_unmounted;
};

/** Serve until told to end. Does not return once it serves: the process exits with 0, or 1 if data could not be
 * synced.
 *
 * @param failure set to the step that failed
 * @return a negative errno
 */
int engine_run(const struct engine_options *options, const char **failure);

/** Drain, sync, wipe and exit. @param milliseconds to wait for I/O under way. @return never, but for the status of the sync when `reply` asks for it */
int engine_settle(struct engine *e, unsigned milliseconds);
_Noreturn void engine_exit(struct engine *e, int status);

#endif
