#include "arena.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "large.h"
#include "wire.h"

#if defined(__SANITIZE_ADDRESS__)
#define ARENA_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_ASAN 1
#endif
#endif
#ifdef ARENA_ASAN
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif

#define UNIT ARENA_ALIGN     /* bytes; what sizes are rounded up to */
#define MAPPING (512u << 10) /* bytes; what the arena grows by */
#define MAPPINGS_MAX 256u
#define WORD 64u /* bits of a bitmap's word */
#define STACK_WIPED (32u << 10) /* bytes: deeper than any function called from here goes */

/* libgcrypt 1.10.1 needs at most 14528 bytes at once, 2672 in one piece (RSA of 3072 bits, of which one thread
 * is busy with at a time; else 4672 and 1080: X25519, PBKDF2 with any hash). What is larger is Argon2's, fails
 * as it should, and shall not take the reserve. */
#define RESERVE_PIECE 4096u
_Static_assert(ARENA_RESERVE / ARENA_RESERVE_USERS >= 14528, "each user finds what libgcrypt needs");

/* From this size on, allocations start at the far end of a mapping: the buffers of a keyslot live for
 * seconds, cipher contexts for days, and the one kind shall not leave holes between the other. */
#define FAR_UNITS (16384u / UNIT)

/** One mapping. The bitmaps lie outside it, so that an overrun within cannot change them. */
struct mapping {
    uint8_t *base;
    size_t units;
    size_t free_units;
    uint64_t *used; /* a bit a unit: handed out */
    uint64_t *last; /* a bit a unit: the last one of an allocation */
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t reserve_left; /* a user of the reserve left it */
    unsigned reserve_users;
    bool mlock;
    size_t page;
    size_t limit, size, used; /* bytes */
    unsigned count;
    struct mapping mapping[MAPPINGS_MAX]; /* the first is the reserve, the second is never unmapped */
} arena = {.lock = PTHREAD_MUTEX_INITIALIZER, .reserve_left = PTHREAD_COND_INITIALIZER};

static _Thread_local unsigned reserve_depth; /* calls of arena_use_reserve(true) not yet undone */

void wipe(void *p, size_t n)
{
    explicit_bzero(p, n);
}

__attribute__((noinline)) void wipe_stack(void)
{
    uint8_t below[STACK_WIPED];
    wipe(below, sizeof(below));
}

bool equal_const_time(const void *a, const void *b, size_t n)
{
    const volatile uint8_t *x = a, *y = b;
    unsigned difference = 0;
    for (size_t i = 0; i < n; i++)
        difference |= (unsigned)(x[i] ^ y[i]);
    return difference == 0;
}

static bool get_bit(const uint64_t *map, size_t i)
{
    return map[i / WORD] >> (i % WORD) & 1;
}

static void put_bit(uint64_t *map, size_t i, bool value)
{
    uint64_t bit = UINT64_C(1) << (i % WORD);
    map[i / WORD] = value ? map[i / WORD] | bit : map[i / WORD] & ~bit;
}

/* memfd_secret memory at `where`, or private locked memory. MAP_FIXED over our own PROT_NONE reservation. */
static int map_pages(uint8_t *where, size_t size)
{
    int fd = -1, flags = MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS;
    if (!arena.mlock) {
        fd = (int)syscall(SYS_memfd_secret, O_CLOEXEC);
        if (fd < 0)
            return -errno;
        if (ftruncate(fd, (off_t)size) < 0) {
            int error = errno;
            close(fd);
            return -error;
        }
        flags = MAP_FIXED | MAP_SHARED;
    }
    void *p = mmap(where, size, PROT_READ | PROT_WRITE, flags, fd, 0);
    int error = p == MAP_FAILED ? errno : 0;
    if (fd >= 0)
        close(fd);
    if (!error && arena.mlock && syscall(SYS_mlock2, p, size, 0) < 0)
        error = errno;
    if (!error && madvise(p, size, MADV_DONTDUMP) < 0 && arena.mlock)
        error = errno; /* a memfd_secret page is in no dump anyway */
    if (!error && madvise(p, size, MADV_DONTFORK) < 0)
        error = errno;
    return -error;
}

/* One more mapping of `size` bytes, between two pages that nobody may touch. */
static int grow(size_t size)
{
    size_t units = size / UNIT, bitmap = units / WORD * sizeof(uint64_t);
    if (arena.count == MAPPINGS_MAX || size > arena.limit - arena.size)
        return -ENOMEM;
    uint8_t *fence = mmap(NULL, size + 2 * arena.page, PROT_NONE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (fence == MAP_FAILED)
        return -errno;
    int error = map_pages(fence + arena.page, size);
    uint64_t *bits = MAP_FAILED;
    if (!error) {
        bits = mmap(NULL, 2 * bitmap, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        error = bits == MAP_FAILED ? -errno : 0;
    }
    if (error) {
        munmap(fence, size + 2 * arena.page);
        return error;
    }
    arena.mapping[arena.count++] = (struct mapping){.base = fence + arena.page,
                                                    .units = units,
                                                    .free_units = units,
                                                    .used = bits,
                                                    .last = bits + units / WORD};
    arena.size += size;
    memset(fence + arena.page, 0, size); /* bring the pages in now, not at the first secret */
    ASAN_POISON_MEMORY_REGION(fence + arena.page, size);
    return 0;
}

/* Unmap what grow() mapped and nobody uses, so that a request of another size may have its share. */
static bool shrink(void)
{
    unsigned kept = 2, before = arena.count;
    for (unsigned i = 2; i < before; i++) {
        struct mapping m = arena.mapping[i];
        size_t size = m.units * UNIT;
        if (m.free_units < m.units) {
            arena.mapping[kept++] = m;
            continue;
        }
        ASAN_UNPOISON_MEMORY_REGION(m.base, size);
        munmap(m.used, 2 * m.units / WORD * sizeof(uint64_t));
        munmap(m.base - arena.page, size + 2 * arena.page);
        arena.size -= size;
    }
    arena.count = kept;
    return kept < before;
}

int arena_init(size_t first, size_t limit, bool force_mlock)
{
    if (arena.count > 0)
        return -EALREADY;
    arena.page = (size_t)sysconf(_SC_PAGESIZE);
    arena.limit = limit;
    int fd = force_mlock ? -1 : (int)syscall(SYS_memfd_secret, O_CLOEXEC);
    arena.mlock = fd < 0;
    if (fd >= 0)
        close(fd);
    first = first < arena.page ? arena.page : first / arena.page * arena.page;
    int error = grow(ARENA_RESERVE);
    return error ? error : grow(first);
}

/* The first of `count` free units in a row, sought from the near or the far end; SIZE_MAX: none. */
static size_t find_run(const struct mapping *m, size_t count, bool far)
{
    size_t run = 0;
    for (size_t i = 0; i < m->units;) {
        size_t unit = far ? m->units - 1 - i : i;
        uint64_t word = m->used[unit / WORD];
        if (i % WORD == 0 && word == UINT64_MAX) {
            run = 0;
            i += WORD;
            continue;
        }
        if (i % WORD == 0 && word == 0 && run + WORD < count) {
            run += WORD;
            i += WORD;
            continue;
        }
        run = get_bit(m->used, unit) ? 0 : run + 1;
        if (run == count)
            return far ? unit : unit + 1 - count;
        i++;
    }
    return SIZE_MAX;
}

static void *take(struct mapping *m, size_t count)
{
    size_t start = m->free_units < count ? SIZE_MAX : find_run(m, count, count >= FAR_UNITS);
    if (start == SIZE_MAX)
        return NULL;
    for (size_t i = start; i < start + count; i++)
        put_bit(m->used, i, true);
    put_bit(m->last, start + count - 1, true);
    m->free_units -= count;
    arena.used += count * UNIT;
    return m->base + start * UNIT;
}

static void *take_anywhere(size_t count)
{
    void *p = NULL;
    for (unsigned i = 1; i < arena.count && !p; i++)
        p = take(&arena.mapping[i], count);
    return p;
}

/* Grow so that `size` bytes fit: by the usual mapping, or what the limit leaves of it; else by what is needed. */
static int grow_for(size_t size)
{
    size_t need = (size + arena.page - 1) / arena.page * arena.page;
    size_t left = (arena.limit - arena.size) / arena.page * arena.page;
    size_t usual = left < MAPPING ? left : MAPPING;
    if (need < usual && grow(usual) == 0)
        return 0;
    int error = grow(need);
    return error && shrink() ? grow(need) : error;
}

void *arena_alloc(size_t size)
{
    if (size > SIZE_MAX / 2 || arena.count == 0)
        return NULL;
    size_t count = size ? (size + UNIT - 1) / UNIT : 1;
    pthread_mutex_lock(&arena.lock);
    void *p = take_anywhere(count);
    if (!p && grow_for(count * UNIT) == 0)
        p = take_anywhere(count);
    if (!p && reserve_depth > 0 && size <= RESERVE_PIECE)
        p = take(&arena.mapping[0], count);
    pthread_mutex_unlock(&arena.lock);
    if (p)
        ASAN_UNPOISON_MEMORY_REGION(p, size);
    return p;
}

/* The mapping that p lies in, or NULL. The lock is held. */
static struct mapping *find_mapping(const void *p)
{
    for (unsigned i = 0; i < arena.count; i++) {
        struct mapping *m = &arena.mapping[i];
        if ((uintptr_t)p - (uintptr_t)m->base < m->units * UNIT)
            return m;
    }
    return NULL;
}

/* How many units the allocation at p has; *start gets its first. Ends the process when p is not the start
 * of one: then the heap is no longer sound, and going on could put a key anywhere. */
static size_t measure(const struct mapping *m, const void *p, size_t *start)
{
    size_t offset = (size_t)((const uint8_t *)p - m->base), first = offset / UNIT;
    if (offset % UNIT || !get_bit(m->used, first)
        || (first > 0 && get_bit(m->used, first - 1) && !get_bit(m->last, first - 1)))
        __builtin_trap();
    size_t end = first;
    while (!get_bit(m->last, end))
        end++;
    *start = first;
    return end + 1 - first;
}

size_t arena_size(const void *p)
{
    pthread_mutex_lock(&arena.lock);
    const struct mapping *m = find_mapping(p);
    size_t start, size = m ? measure(m, p, &start) * UNIT : 0;
    pthread_mutex_unlock(&arena.lock);
    return size;
}

void arena_free(void *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&arena.lock);
    struct mapping *m = find_mapping(p);
    if (!m)
        __builtin_trap();
    size_t start, count = measure(m, p, &start);
    ASAN_UNPOISON_MEMORY_REGION(p, count * UNIT);
    wipe(p, count * UNIT);
    ASAN_POISON_MEMORY_REGION(p, count * UNIT);
    for (size_t i = start; i < start + count; i++)
        put_bit(m->used, i, false);
    put_bit(m->last, start + count - 1, false);
    m->free_units += count;
    arena.used -= count * UNIT;
    pthread_mutex_unlock(&arena.lock);
}

void arena_use_reserve(bool on)
{
    pthread_mutex_lock(&arena.lock);
    if (on && reserve_depth++ == 0) {
        while (arena.reserve_users == ARENA_RESERVE_USERS)
            pthread_cond_wait(&arena.reserve_left, &arena.lock);
        arena.reserve_users++;
    } else if (!on && --reserve_depth == 0) {
        arena.reserve_users--;
        pthread_cond_signal(&arena.reserve_left);
    }
    pthread_mutex_unlock(&arena.lock);
}

struct arena_info arena_info(void)
{
    pthread_mutex_lock(&arena.lock);
    struct arena_info info = {.kind = arena.mlock ? WIRE_ARENA_MLOCK : WIRE_ARENA_MEMFD_SECRET,
                              .size = arena.size,
                              .used = arena.used};
    pthread_mutex_unlock(&arena.lock);
    info.kdf_memory = large_total();
    return info;
}
