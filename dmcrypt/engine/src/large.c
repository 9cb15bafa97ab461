#include "large.h"

#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>

#include "arena.h"

static struct {
    pthread_mutex_t lock;
    uint64_t total; /* bytes */
    struct {
        void *base;
        size_t size;
    } piece[LARGE_MAX];
} large = {.lock = PTHREAD_MUTEX_INITIALIZER};

void *large_alloc(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    if (madvise(p, size, MADV_DONTDUMP) < 0 || madvise(p, size, MADV_DONTFORK) < 0) {
        munmap(p, size);
        return NULL;
    }
    madvise(p, size, MADV_HUGEPAGE); /* Argon2 reads at random: fewer TLB misses; may fail */
    pthread_mutex_lock(&large.lock);
    unsigned i = 0;
    while (i < LARGE_MAX && large.piece[i].base)
        i++;
    if (i < LARGE_MAX) {
        large.piece[i].base = p;
        large.piece[i].size = size;
        large.total += size;
    }
    pthread_mutex_unlock(&large.lock);
    if (i == LARGE_MAX) {
        munmap(p, size);
        return NULL;
    }
    return p;
}

int large_free(void *p)
{
    size_t size = 0;
    pthread_mutex_lock(&large.lock);
    for (unsigned i = 0; i < LARGE_MAX && p && !size; i++) {
        if (large.piece[i].base == p) {
            size = large.piece[i].size;
            large.piece[i].base = NULL;
            large.total -= size;
        }
    }
    pthread_mutex_unlock(&large.lock);
    if (!size)
        return -ENOENT;
    wipe(p, size);
    munmap(p, size);
    return 0;
}

size_t large_size(const void *p)
{
    size_t size = 0;
    pthread_mutex_lock(&large.lock);
    for (unsigned i = 0; i < LARGE_MAX && p && !size; i++)
        size = large.piece[i].base == p ? large.piece[i].size : 0;
    pthread_mutex_unlock(&large.lock);
    return size;
}

uint64_t large_total(void)
{
    pthread_mutex_lock(&large.lock);
    uint64_t total = large.total;
    pthread_mutex_unlock(&large.lock);
    return total;
}
