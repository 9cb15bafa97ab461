#include "range_lock.h"

void range_lock_init(struct range_lock *l)
{
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->released, NULL);
    l->held = 0;
    l->waiting = 0;
}

void range_lock_destroy(struct range_lock *l)
{
    pthread_cond_destroy(&l->released);
    pthread_mutex_destroy(&l->lock);
}

static bool is_free(const struct range_lock *l, uint64_t first, uint64_t end, bool exclusive)
{
    if (l->held == UINT32_MAX)
        return false;
    for (uint32_t left = l->held; left != 0; left &= left - 1) {
        unsigned i = (unsigned)__builtin_ctz(left);
        if (first < l->ranges[i].end && l->ranges[i].first < end && (exclusive || l->ranges[i].exclusive))
            return false;
    }
    return true;
}

unsigned range_lock_acquire(struct range_lock *l, uint64_t first, uint64_t end, bool exclusive)
{
    pthread_mutex_lock(&l->lock);
    while (!is_free(l, first, end, exclusive)) {
        l->waiting++;
        pthread_cond_wait(&l->released, &l->lock);
        l->waiting--;
    }
    unsigned holder = (unsigned)__builtin_ctz(~l->held);
    l->held |= UINT32_C(1) << holder;
    l->ranges[holder].first = first;
    l->ranges[holder].end = end;
    l->ranges[holder].exclusive = exclusive;
    pthread_mutex_unlock(&l->lock);
    return holder;
}

void range_lock_release(struct range_lock *l, unsigned holder)
{
    pthread_mutex_lock(&l->lock);
    l->held &= ~(UINT32_C(1) << holder);
    if (l->waiting != 0)
        pthread_cond_broadcast(&l->released);
    pthread_mutex_unlock(&l->lock);
}
