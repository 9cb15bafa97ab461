#include "device_table.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

void device_table_init(struct device_table *t, struct wire_stats *stats)
{
    pthread_condattr_t monotonic;

    pthread_rwlock_init(&t->lock, NULL);
    pthread_mutex_init(&t->drain_lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&t->drained, &monotonic);
    t->stats = stats;
}

static struct device **find_link(struct device_table *t, uint64_t node)
{
    struct device **link = &t->buckets[node % DEVICE_BUCKETS];

    while (*link != NULL && (*link)->node != node)
        link = &(*link)->next_in_bucket;
    return link;
}

int device_table_add(struct device_table *t, const struct wire_device *d, const struct wire_segment *segments,
                     const int *fds, unsigned fd_count, unsigned threads, uint32_t *stats_slot)
{
    struct table *table;
    int rc = table_create(&table, d, segments, fds, fd_count, threads);

    if (rc != 0)
        return rc;
    pthread_rwlock_wrlock(&t->lock);
    struct device **link = find_link(t, d->node);
    unsigned slot = 0;
    while (slot < DEVICE_SLOTS && t->slot_used[slot])
        slot++;
    struct device *dev = NULL;
    if (*link != NULL)
        rc = -EEXIST;
    else if (slot == DEVICE_SLOTS || t->is_closed)
        rc = -EUSERS;
    else
        rc = device_create(&dev, d, table, &t->stats[slot], slot);
    if (rc == 0) {
        t->slot_used[slot] = 1;
        *stats_slot = slot;
        *link = dev;
    }
    pthread_rwlock_unlock(&t->lock);
    if (rc != 0)
        table_free(table);
    return rc;
}

struct device *device_table_find(struct device_table *t, uint64_t node)
{
    pthread_rwlock_rdlock(&t->lock);
    struct device *dev = t->is_closed ? NULL : *find_link(t, node);
    if (dev != NULL)
        atomic_fetch_add(&dev->in_flight, 1);
    pthread_rwlock_unlock(&t->lock);
    return dev;
}

void device_table_leave(struct device_table *t, struct device *dev)
{
    atomic_fetch_sub(&dev->in_flight, 1);
    /* No word of dev from here: a remover may have freed it. Whoever waits announced itself before it
     * looked at in_flight, so one of the two sees the other. */
    if (atomic_load(&t->draining) != 0) {
        pthread_mutex_lock(&t->drain_lock);
        pthread_cond_broadcast(&t->drained);
        pthread_mutex_unlock(&t->drain_lock);
    }
}

bool device_is_active(const struct device *dev)
{
    return atomic_load(&dev->state) == DEVICE_ACTIVE;
}

/* Wait until only `holders` hold the device. @return whether it came to that before the deadline (NULL: for ever) */
static bool drain(struct device_table *t, struct device *dev, uint64_t holders, const struct timespec *deadline)
{
    bool in_time = true;

    atomic_fetch_add(&t->draining, 1);
    pthread_mutex_lock(&t->drain_lock);
    while (atomic_load(&dev->in_flight) > holders && in_time) {
        if (deadline == NULL)
            pthread_cond_wait(&t->drained, &t->drain_lock);
        else
            in_time = pthread_cond_timedwait(&t->drained, &t->drain_lock, deadline) == 0;
    }
    pthread_mutex_unlock(&t->drain_lock);
    atomic_fetch_sub(&t->draining, 1);
    return in_time;
}

int device_park(struct device *dev, int reply_fd, uint8_t *request)
{
    struct parked *p = malloc(sizeof *p);
    int rc = 0;

    if (p == NULL)
        return -ENOMEM;
    *p = (struct parked){ .reply_fd = reply_fd, .request = request };
    pthread_mutex_lock(&dev->lock);
    switch (atomic_load(&dev->state)) {
    case DEVICE_ACTIVE:
        rc = -EAGAIN;
        break;
    case DEVICE_REMOVED:
        rc = -ENODEV;
        break;
    default:
        *dev->parked_last = p;
        dev->parked_last = &p->next;
    }
    pthread_mutex_unlock(&dev->lock);
    if (rc != 0)
        free(p);
    return rc;
}

/* With dev->lock held. */
static struct parked *take_parked(struct device *dev)
{
    struct parked *parked = dev->parked;

    dev->parked = NULL;
    dev->parked_last = &dev->parked;
    return parked;
}

int device_table_remove(struct device_table *t, uint64_t node, struct parked **parked)
{
    *parked = NULL;
    pthread_rwlock_wrlock(&t->lock);
    struct device **link = find_link(t, node);
    struct device *dev = *link;
    if (dev != NULL)
        *link = dev->next_in_bucket;
    pthread_rwlock_unlock(&t->lock);
    if (dev == NULL)
        return -ENODEV;

    pthread_mutex_lock(&dev->lock);
    atomic_store(&dev->state, DEVICE_REMOVED);
    *parked = take_parked(dev);
    pthread_mutex_unlock(&dev->lock);
    drain(t, dev, 0, NULL);
    int rc = device_sync(dev);

    pthread_rwlock_wrlock(&t->lock);
    t->stats[dev->stats_slot] = (struct wire_stats){ 0 };
    t->slot_used[dev->stats_slot] = 0;
    pthread_rwlock_unlock(&t->lock);
    device_free(dev);
    return rc;
}

int device_table_suspend(struct device_table *t, uint64_t node, bool wipe_keys)
{
    struct device *dev = device_table_find(t, node);
    uint32_t active = DEVICE_ACTIVE;
    int rc;

    if (dev == NULL)
        return -ENODEV;
    if (!atomic_compare_exchange_strong(&dev->state, &active, DEVICE_SUSPENDING)) {
        device_table_leave(t, dev);
        return -EALREADY;
    }
    drain(t, dev, 1, NULL);
    rc = device_sync(dev);
    pthread_mutex_lock(&dev->lock);
    if (atomic_load(&dev->state) == DEVICE_SUSPENDING) {
        if (wipe_keys)
            table_drop_keys(dev->table);
        atomic_store(&dev->state, DEVICE_SUSPENDED);
    }
    pthread_mutex_unlock(&dev->lock);
    device_table_leave(t, dev);
    return rc;
}

int device_table_resume(struct device_table *t, uint64_t node, struct parked **parked)
{
    struct device *dev = device_table_find(t, node);
    int rc = 0;

    *parked = NULL;
    if (dev == NULL)
        return -ENODEV;
    pthread_mutex_lock(&dev->lock);
    if (atomic_load(&dev->state) != DEVICE_SUSPENDED)
        rc = -EINVAL;
    else if (!table_has_keys(dev->table))
        rc = -ENOKEY;
    if (rc == 0) {
        atomic_store(&dev->state, DEVICE_ACTIVE);
        *parked = take_parked(dev);
    }
    pthread_mutex_unlock(&dev->lock);
    device_table_leave(t, dev);
    return rc;
}

int device_table_rekey(struct device_table *t, uint64_t node, uint32_t segment, const struct wire_token *token,
                       unsigned threads)
{
    struct device *dev = device_table_find(t, node);
    int rc = -EINVAL;

    if (dev == NULL)
        return -ENODEV;
    pthread_mutex_lock(&dev->lock);
    if (atomic_load(&dev->state) == DEVICE_SUSPENDED && segment < dev->table->segment_count
        && dev->table->segments[segment].target == WIRE_CRYPT)
        rc = segment_open_cipher(&dev->table->segments[segment], token, dev->sector_size, threads);
    pthread_mutex_unlock(&dev->lock);
    device_table_leave(t, dev);
    return rc;
}

int device_table_load(struct device_table *t, const struct wire_device *d, const struct wire_segment *segments,
                      const int *fds, unsigned fd_count, unsigned threads)
{
    struct table *table;
    int rc = table_create(&table, d, segments, fds, fd_count, threads);

    if (rc != 0)
        return rc;
    struct device *dev = device_table_find(t, d->node);
    if (dev == NULL) {
        table_free(table);
        return -ENODEV;
    }
    pthread_mutex_lock(&dev->lock);
    /* The size and the sector size are promises that the kernel holds in its inode. */
    if (atomic_load(&dev->state) == DEVICE_SUSPENDED && d->size == dev->size && d->sector_size == dev->sector_size) {
        struct table *old = dev->table;
        dev->table = table;
        table = old;
    } else {
        rc = -EINVAL;
    }
    pthread_mutex_unlock(&dev->lock);
    device_table_leave(t, dev);
    table_free(table);
    return rc;
}

/* A holder of an active device keeps it from being suspended, and so its table from being replaced. A device that
 * is not active was synced on its way there. */
static int sync_held(struct device *dev)
{
    return device_is_active(dev) ? device_sync(dev) : 0;
}

int device_table_flush(struct device_table *t, uint64_t node)
{
    struct device *dev = device_table_find(t, node);

    if (dev == NULL)
        return -ENODEV;
    int rc = sync_held(dev);
    device_table_leave(t, dev);
    return rc;
}

static int sync_all(struct device_table *t)
{
    int first = 0;

    for (unsigned i = 0; i < DEVICE_BUCKETS; i++)
        for (struct device *dev = t->buckets[i]; dev != NULL; dev = dev->next_in_bucket) {
            atomic_fetch_add(&dev->in_flight, 1);
            int rc = sync_held(dev);
            atomic_fetch_sub(&dev->in_flight, 1);
            if (first == 0)
                first = rc;
        }
    return first;
}

int device_table_sync_all(struct device_table *t)
{
    pthread_rwlock_rdlock(&t->lock);
    int rc = sync_all(t);
    pthread_rwlock_unlock(&t->lock);
    return rc;
}

int device_table_close(struct device_table *t, unsigned milliseconds)
{
    struct timespec deadline;
    bool in_time = true;
    int rc = -ETIMEDOUT;

    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += (time_t)(milliseconds / 1000);
    deadline.tv_nsec += (long)(milliseconds % 1000) * 1000000;
    if (deadline.tv_nsec >= 1000000000) {
        deadline.tv_sec++;
        deadline.tv_nsec -= 1000000000;
    }
    pthread_rwlock_wrlock(&t->lock);
    t->is_closed = true;
    pthread_rwlock_unlock(&t->lock);
    pthread_rwlock_rdlock(&t->lock);
    for (unsigned i = 0; i < DEVICE_BUCKETS; i++)
        for (struct device *dev = t->buckets[i]; dev != NULL; dev = dev->next_in_bucket)
            in_time = drain(t, dev, 0, &deadline) && in_time;
    if (in_time)
        rc = sync_all(t);
    pthread_rwlock_unlock(&t->lock);
    return rc;
}
