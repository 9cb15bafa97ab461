#include "device_table.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "parked.h"
#include "suspension.h"

void device_table_init(struct device_table *t, struct wire_stats *stats)
{
    pthread_condattr_t monotonic;

    pthread_rwlock_init(&t->lock, NULL);
    pthread_mutex_init(&t->drain_lock, NULL);
    pthread_mutex_init(&t->parking_lock, NULL);
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
    const uint64_t session = atomic_load(&t->session);
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
    else if (atomic_load(&t->session) != session)
        rc = -EKEYEXPIRED; /* its keys came too late to be dropped with the others */
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
    if (atomic_exchange(&dev->state, DEVICE_REMOVED) != DEVICE_ACTIVE)
        atomic_fetch_sub(&t->suspended, 1);
    *parked = parked_take(t, dev);
    pthread_mutex_unlock(&dev->lock);
    device_drain(t, dev, 0, NULL);
    int rc = device_sync(dev);

    pthread_rwlock_wrlock(&t->lock);
    t->stats[dev->stats_slot] = (struct wire_stats){ 0 };
    t->slot_used[dev->stats_slot] = 0;
    pthread_rwlock_unlock(&t->lock);
    device_free(dev);
    return rc;
}

/* Of a device that is suspended: from now on I/O fails; or it waits for its user to resume it, and for no key that the
 * daemon could bring. @return whether that is news */
static bool settle_waiting(struct device_table *t, struct device *dev, bool fails, struct parked **parked)
{
    pthread_mutex_lock(&dev->lock);
    const bool is_suspended = atomic_load(&dev->state) == DEVICE_SUSPENDED;
    bool is_news = is_suspended && (fails ? !dev->fails : dev->wants_key);
    if (is_news && fails)
        *parked = parked_take(t, dev);
    if (is_news) {
        dev->fails = fails;
        dev->wants_key = dev->has_asked = false;
    }
    pthread_mutex_unlock(&dev->lock);
    return is_news;
}

int device_table_suspend(struct device_table *t, uint64_t node, bool wipe_keys, bool fails, struct parked **parked)
{
    struct device *dev = device_table_find(t, node);
    int rc;

    *parked = NULL;
    if (dev == NULL)
        return -ENODEV;
    if (!device_begin_suspension(t, dev, fails)) {
        rc = settle_waiting(t, dev, fails, parked) ? 0 : -EALREADY;
        device_table_leave(t, dev);
        return rc;
    }
    device_drain(t, dev, 1, NULL);
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
    if (rc == 0)
        *parked = device_end_suspension(t, dev);
    pthread_mutex_unlock(&dev->lock);
    device_table_leave(t, dev);
    return rc;
}

/* Bring a device in use to rest for a change. On success it is held, and its lock, until end_change. */
static int begin_change(struct device_table *t, uint64_t node, struct device **changed)
{
    struct device *dev = device_table_find(t, node);
    int rc = -EBUSY;

    if (dev == NULL)
        return -ENODEV;
    if (device_begin_suspension(t, dev, false)) {
        device_drain(t, dev, 1, NULL);
        pthread_mutex_lock(&dev->lock);
        if (atomic_load(&dev->state) == DEVICE_SUSPENDING) {
            *changed = dev;
            return 0;
        }
        pthread_mutex_unlock(&dev->lock);
        rc = -ENODEV; /* removed meanwhile */
    }
    device_table_leave(t, dev);
    return rc;
}

static struct parked *end_change(struct device_table *t, struct device *dev)
{
    struct parked *parked = device_end_suspension(t, dev);

    pthread_mutex_unlock(&dev->lock);
    device_table_leave(t, dev);
    return parked;
}

int device_table_resize(struct device_table *t, uint64_t node, uint64_t size, struct parked **parked)
{
    struct device *dev = NULL;
    int rc = begin_change(t, node, &dev);

    *parked = NULL;
    if (rc != 0)
        return rc;
    rc = table_resize(dev->table, size, dev->sector_size, dev->read_only);
    if (rc == 0)
        dev->size = size;
    *parked = end_change(t, dev);
    return rc;
}

int device_table_refresh(struct device_table *t, uint64_t node, bool discards, struct parked **parked)
{
    struct device *dev = NULL;
    int rc = begin_change(t, node, &dev);

    *parked = NULL;
    if (rc != 0)
        return rc;
    if (discards && dev->read_only)
        rc = -EROFS;
    else
        dev->discards = discards;
    if (rc == 0 && discards)
        table_read_holes(dev->table, dev->sector_size);
    *parked = end_change(t, dev);
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
    const uint64_t session = atomic_load(&t->session);
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
    if (atomic_load(&t->session) != session) {
        rc = -EKEYEXPIRED;
    } else if (atomic_load(&dev->state) == DEVICE_SUSPENDED && d->size == dev->size
               && d->sector_size == dev->sector_size) {
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

int device_table_copy_token(struct device_table *t, uint64_t node, uint32_t segment, struct wire_token *token)
{
    struct device *dev = device_table_find(t, node);
    int rc = -EINVAL;

    if (dev == NULL)
        return -ENODEV;
    pthread_mutex_lock(&dev->lock);
    if (segment < dev->table->segment_count) {
        *token = dev->table->segments[segment].token;
        rc = token->length == 0 ? -ENOKEY : 0;
    }
    pthread_mutex_unlock(&dev->lock);
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
    parked_free(device_table_refuse(t)); /* none, but where nobody is there to refuse them */
    pthread_rwlock_rdlock(&t->lock);
    for (unsigned i = 0; i < DEVICE_BUCKETS; i++)
        for (struct device *dev = t->buckets[i]; dev != NULL; dev = dev->next_in_bucket)
            in_time = device_drain(t, dev, 0, &deadline) && in_time;
    if (in_time)
        rc = sync_all(t);
    pthread_rwlock_unlock(&t->lock);
    return rc;
}
