#include "engine.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "arena.h"
#include "claim.h"
#include "control.h"
#include "kdf.h"
#include "registers.h"
#include "sandbox.h"
#include "selftest.h"
#include "session.h"

/* Room for a keyslot being opened (a split key of 64 bytes takes 256 KB) and some volumes; then it grows. */
#define ARENA_FIRST (1u << 20)
#define ARENA_MOST (256u << 20)
#define ARGON2_LANES 4u /* LUKS2 allows no more parallel costs */
#define KEY_THREADS 2u
#define READING_THREADS 2u
#define ADMIN_THREADS 4u

static unsigned choose_readers(unsigned wanted)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);

    if (wanted == 0)
        wanted = processors < 2 ? 2 : processors > 8 ? 8 : (unsigned)processors;
    return wanted < ENGINE_CLONES_MAX ? wanted : ENGINE_CLONES_MAX;
}

/* One descriptor a reader: the first, clones of it as far as may be, and then the first again. */
static void clone_descriptors(struct engine *e, int *fds)
{
    const uint32_t first = (uint32_t)e->options.fuse_fd;

    fds[0] = e->options.fuse_fd;
    for (unsigned i = 1; i < e->readers; i++) {
        int fd = i - 1 < e->options.clone_fd_count ? e->options.clone_fds[i - 1] : open("/dev/fuse", O_RDWR | O_CLOEXEC);
        if (fd >= 0 && ioctl(fd, FUSE_DEV_IOC_CLONE, &first) == 0) {
            fds[i] = fd;
            e->clones++;
            continue;
        }
        if (fd >= 0)
            close(fd);
        fds[i] = e->options.fuse_fd;
    }
}

static void unmounted(void *arg)
{
    struct engine *e = arg;
    const uint64_t one = 1;

    atomic_store(&e->is_unmounted, true);
    device_table_sync_all(&e->devices);
    (void)!write(e->wake_fd, &one, sizeof one);
}

static int by_value(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

static void close_other_descriptors(const struct engine_options *o)
{
    int keep[5 + ENGINE_CLONES_MAX] = { o->control_fd, o->fuse_fd, o->session_fd, o->lifetime_fd, o->claim_fd };

    memcpy(keep + 5, o->clone_fds, sizeof o->clone_fds);
    qsort(keep, 5 + o->clone_fd_count, sizeof *keep, by_value);
    sandbox_close_descriptors(keep, 5 + o->clone_fd_count);
}

static void tell_key_wanted(void *arg, uint64_t node)
{
    control_send_event(arg, WIRE_EVENT_KEY_WANTED, node);
}

static int make_stats(struct engine *e)
{
    const size_t size = DEVICE_SLOTS * sizeof(struct wire_stats);

    e->stats_fd = memfd_create("fusecrypt-statistics", MFD_CLOEXEC);
    if (e->stats_fd < 0 || ftruncate(e->stats_fd, (off_t)size) != 0)
        return -errno;
    void *stats = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, e->stats_fd, 0);
    if (stats == MAP_FAILED)
        return -errno;
    device_table_init(&e->devices, stats);
    e->devices.key_wanted = tell_key_wanted;
    e->devices.key_wanted_arg = e;
    return 0;
}

static int make_descriptors(struct engine *e)
{
    sigset_t all, term;

    /* Signals come by descriptor alone: a handler's frame would put registers, round keys in them, on a stack. */
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    e->signal_fd = signalfd(-1, &term, SFD_CLOEXEC);
    e->wake_fd = eventfd(0, EFD_CLOEXEC);
    return e->signal_fd >= 0 && e->wake_fd >= 0 ? 0 : -errno;
}

static int start_threads(struct engine *e, const int *fuse_fds)
{
    int rc = pool_start(&e->keys, "keys", KEY_THREADS);

    if (rc == 0)
        rc = pool_start(&e->reading, "secrets", READING_THREADS);
    if (rc == 0)
        rc = pool_start(&e->admin, "admin", ADMIN_THREADS);
    if (rc == 0 && e->options.fuse_fd >= 0)
        rc = fuse_loop_start(&e->loop, fuse_fds, e->readers, e->options.session_fd, &e->devices, unmounted, e);
    if (rc == 0 && e->options.claim_fd >= 0)
        rc = claim_start(&e->options.claim_fd);
    return rc;
}

int engine_run(const struct engine_options *options, const char **failure)
{
    int fuse_fds[ENGINE_CLONES_MAX];
    int rc;

    /* Shrinking an arena of its own, glibc reads /proc/sys/vm/overcommit_memory, which the sandbox forbids. */
    mallopt(M_ARENA_MAX, 1);
    struct engine *e = aligned_alloc(_Alignof(struct engine), sizeof *e);
    *failure = "memory";
    if (e == NULL)
        return -ENOMEM;
    memset(e, 0, sizeof *e);
    e->options = *options;
    e->readers = choose_readers(options->readers);
    secrets_init(&e->secrets);
    close_other_descriptors(options);
    e->sandbox = sandbox_begin();

    *failure = "key memory";
    rc = arena_init(ARENA_FIRST, ARENA_MOST, options->force_mlock);
    if (rc != 0)
        return rc;
    *failure = "libgcrypt";
    rc = arena_init_gcrypt();
    if (rc != 0)
        return rc;
    *failure = "descriptors";
    rc = make_descriptors(e);
    if (rc == 0)
        rc = make_stats(e);
    if (rc != 0)
        return rc;
    if (options->fuse_fd >= 0)
        clone_descriptors(e, fuse_fds);
    e->sandbox |= sandbox_drop();
    *failure = "session keys";
    rc = session_init();
    if (rc != 0)
        return rc;
    rc = kdf_init(options->kdf_memory_limit, ARGON2_LANES);
    if (rc != 0)
        return rc;
    *failure = "self-test";
    rc = selftest_run(failure);
    if (rc != 0)
        return rc;
    *failure = "threads";
    rc = start_threads(e, fuse_fds);
    if (rc != 0)
        return rc;
    *failure = "seccomp";
    rc = sandbox_close();
    if (rc < 0)
        return rc;
    e->sandbox |= (uint32_t)rc;
    wipe_registers();
    control_serve(e);
}

int engine_settle(struct engine *e, unsigned milliseconds)
{
    fuse_loop_release(&e->loop, device_table_refuse(&e->devices), EIO);
    return device_table_close(&e->devices, milliseconds);
}

_Noreturn void engine_exit(struct engine *e, int status)
{
    (void)e;
    _exit(status);
}
