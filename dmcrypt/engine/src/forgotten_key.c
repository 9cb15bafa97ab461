#include "forgotten_key.h"

#include <errno.h>
#include <time.h>

#include "parked.h"
#include "session.h"
#include "suspension.h"

/* A failed write is told at the next fsync of who wrote, and not here. */
static int sync_and_keep_error(struct device *dev)
{
    const int rc = device_sync(dev);

    if (rc != 0) {
        pthread_mutex_lock(&dev->lock);
        dev->write_error = rc;
        pthread_mutex_unlock(&dev->lock);
    }
    return rc;
}

/* Of a device that is stopped, and held until here. */
static int finish_forgetting(struct device_table *t, struct device *dev)
{
    const uint64_t node = dev->node;
    bool asks = false;

    device_drain(t, dev, 1, NULL);
    const int rc = sync_and_keep_error(dev);
    pthread_mutex_lock(&dev->lock);
    if (atomic_load(&dev->state) == DEVICE_SUSPENDING) {
        table_drop_keys(dev->table);
        atomic_store(&dev->state, DEVICE_SUSPENDED);
        asks = dev->wants_key && dev->parked != NULL;
        dev->has_asked = asks;
    }
    pthread_mutex_unlock(&dev->lock);
    device_table_leave(t, dev);
    if (asks && t->key_wanted != NULL)
        t->key_wanted(t->key_wanted_arg, node);
    return rc;
}

int device_table_finish_forgetting(struct device_table *t, uint64_t node)
{
    struct device *dev = device_table_find(t, node);

    return dev != NULL ? finish_forgetting(t, dev) : 0;
}

int device_table_forget_key(struct device_table *t, uint64_t node)
{
    struct device *dev = device_table_find(t, node);
    int rc = 0;

    if (dev == NULL)
        return -ENODEV;
    pthread_mutex_lock(&dev->lock);
    const uint32_t state = atomic_load(&dev->state);
    const bool wants_key = state != DEVICE_ACTIVE && dev->wants_key;
    if (state != DEVICE_ACTIVE)
        rc = -EBUSY;
    else if (table_key_kind(dev->table) != SESSION_IMPORTED_KEY)
        rc = -EINVAL;
    if (rc == 0) {
        device_stop(t, dev, false);
        dev->wants_key = true;
    }
    pthread_mutex_unlock(&dev->lock);
    if (rc == 0)
        return finish_forgetting(t, dev);
    device_table_leave(t, dev);
    return wants_key ? 0 : rc;
}

/* With dev->lock held. */
static bool is_waiting(const struct device *dev)
{
    return atomic_load(&dev->state) == DEVICE_SUSPENDED && dev->wants_key;
}

int device_table_renew_key(struct device_table *t, uint64_t node, uint32_t segment, const struct wire_token *token,
                           unsigned threads, struct parked **parked)
{
    struct device *dev = device_table_find(t, node);
    int rc = -EALREADY;

    *parked = NULL;
    if (dev == NULL)
        return -ENODEV;
    pthread_mutex_lock(&dev->lock);
    if (is_waiting(dev)) {
        struct table *table = dev->table;
        const bool is_segment = segment < table->segment_count && table->segments[segment].target == WIRE_CRYPT;
        rc = is_segment ? segment_open_cipher(&table->segments[segment], token, dev->sector_size, threads) : -EINVAL;
        if (rc == 0 && table_has_keys(table))
            *parked = device_end_suspension(t, dev);
    }
    pthread_mutex_unlock(&dev->lock);
    device_table_leave(t, dev);
    return rc;
}

int device_table_deny_key(struct device_table *t, uint64_t node, uint32_t milliseconds, struct parked **parked)
{
    struct device *dev = device_table_find(t, node);
    int rc = -EALREADY;

    *parked = NULL;
    if (dev == NULL)
        return -ENODEV;
    pthread_mutex_lock(&dev->lock);
    if (is_waiting(dev)) {
        dev->has_asked = false;
        dev->refused_until = monotonic_milliseconds() + milliseconds;
        *parked = parked_take(t, dev);
        rc = 0;
    }
    pthread_mutex_unlock(&dev->lock);
    device_table_leave(t, dev);
    return rc;
}

struct parked *device_table_set_alone(struct device_table *t)
{
    struct parked *all = NULL, **last = &all;

    pthread_rwlock_rdlock(&t->lock);
    pthread_mutex_lock(&t->parking_lock);
    atomic_store(&t->is_alone, true);
    for (unsigned i = 0; i < DEVICE_BUCKETS; i++)
        for (struct device *dev = t->buckets[i]; dev != NULL; dev = dev->next_in_bucket) {
            pthread_mutex_lock(&dev->lock);
            if (dev->wants_key)
                last = parked_append(last, parked_take(t, dev));
            pthread_mutex_unlock(&dev->lock);
        }
    pthread_mutex_unlock(&t->parking_lock);
    pthread_rwlock_unlock(&t->lock);
    return all;
}

/* With dev->lock held. @return whether the device may go over to another session now */
static bool stop_for_session(struct device_table *t, struct device *dev, struct stopped *stopped)
{
    const uint32_t state = atomic_load(&dev->state);

    if (state != DEVICE_ACTIVE)
        return state != DEVICE_SUSPENDING;
    const uint32_t kind = table_key_kind(dev->table);
    if (kind != SESSION_IMPORTED_KEY && kind != SESSION_RANDOM_KEY)
        return true;
    device_stop(t, dev, kind == SESSION_RANDOM_KEY);
    dev->wants_key = kind == SESSION_IMPORTED_KEY;
    stopped->nodes[stopped->count++] = dev->node;
    return true;
}

/* With dev->lock held. Of a stopped device the key goes when its I/O is over. */
static void enter_session(struct device *dev, const struct session *old)
{
    const uint32_t kind = table_key_kind(dev->table);

    if (kind == SESSION_VOLUME_KEY)
        table_rewrap(dev->table, old);
    else if (kind != 0 && atomic_load(&dev->state) == DEVICE_SUSPENDED)
        table_drop_keys(dev->table);
}

/* With t->lock held, since before they were stopped: they stand in the same order. */
static void let_go_on(struct device_table *t, const struct stopped *stopped, struct parked **last)
{
    unsigned found = 0;

    for (unsigned i = 0; i < DEVICE_BUCKETS; i++)
        for (struct device *dev = t->buckets[i]; dev != NULL && found < stopped->count; dev = dev->next_in_bucket) {
            if (dev->node != stopped->nodes[found])
                continue;
            found++;
            pthread_mutex_lock(&dev->lock);
            last = parked_append(last, device_end_suspension(t, dev));
            pthread_mutex_unlock(&dev->lock);
        }
}

int device_table_begin_session(struct device_table *t, struct session *next, struct stopped *stopped,
                               struct parked **parked)
{
    bool may = true;

    *parked = NULL;
    stopped->count = 0;
    pthread_rwlock_wrlock(&t->lock);
    for (unsigned i = 0; i < DEVICE_BUCKETS && may; i++)
        for (struct device *dev = t->buckets[i]; dev != NULL && may; dev = dev->next_in_bucket) {
            pthread_mutex_lock(&dev->lock);
            may = stop_for_session(t, dev, stopped);
            pthread_mutex_unlock(&dev->lock);
        }
    if (!may) {
        let_go_on(t, stopped, parked);
        pthread_rwlock_unlock(&t->lock);
        return -EBUSY;
    }
    session_replace(next);
    atomic_fetch_add(&t->session, 1);
    for (unsigned i = 0; i < DEVICE_BUCKETS; i++)
        for (struct device *dev = t->buckets[i]; dev != NULL; dev = dev->next_in_bucket) {
            pthread_mutex_lock(&dev->lock);
            enter_session(dev, next);
            pthread_mutex_unlock(&dev->lock);
        }
    pthread_rwlock_unlock(&t->lock);
    return 0;
}
