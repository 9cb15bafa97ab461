#include "parked.h"

#include <errno.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <time.h>

/* With t->parking_lock held. Numbers of requests are never used twice. */
static bool forget_interrupt(struct device_table *t, uint64_t unique)
{
    for (unsigned i = 0; i < INTERRUPTS_KEPT; i++)
        if (t->interrupts[i] == unique) {
            t->interrupts[i] = 0;
            return true;
        }
    return false;
}

uint64_t monotonic_milliseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Of a device that wants a key: whether one may come. */
static bool may_wait_for_key(const struct device_table *t, const struct device *dev)
{
    return !atomic_load(&t->is_alone) && monotonic_milliseconds() >= dev->refused_until;
}

static bool has_room(const struct device_table *t, const struct parked *p)
{
    if (p->waits_for_key)
        return t->parked_for_key_count < PARKED_FOR_KEY_MAX
               && t->parked_for_key_bytes + p->length <= PARKED_FOR_KEY_BYTES_MAX;
    return t->parked_count < PARKED_MAX && t->parked_bytes + p->length <= PARKED_BYTES_MAX;
}

/* With both locks held. */
static int append(struct device_table *t, struct device *dev, struct parked *p)
{
    if (t->is_closed)
        return -ENODEV;
    switch (atomic_load(&dev->state)) {
    case DEVICE_ACTIVE:
        return -EAGAIN;
    case DEVICE_REMOVED:
        return -ENODEV;
    }
    p->waits_for_key = dev->wants_key;
    if (dev->fails || !has_room(t, p) || (dev->wants_key && !may_wait_for_key(t, dev)))
        return -EIO;
    if (forget_interrupt(t, p->unique))
        return -EINTR;
    *dev->parked_last = p;
    dev->parked_last = &p->next;
    atomic_fetch_add(p->waits_for_key ? &t->parked_for_key_count : &t->parked_count, 1);
    atomic_fetch_add(p->waits_for_key ? &t->parked_for_key_bytes : &t->parked_bytes, p->length);
    return 0;
}

int device_table_park(struct device_table *t, struct device *dev, int reply_fd, uint8_t *request)
{
    const struct fuse_in_header *h = (const void *)request;
    struct parked *p = malloc(sizeof *p);

    if (p == NULL)
        return -ENOMEM;
    *p = (struct parked){ .unique = h->unique, .length = h->len, .reply_fd = reply_fd, .request = request };
    pthread_mutex_lock(&t->parking_lock);
    pthread_mutex_lock(&dev->lock);
    int rc = append(t, dev, p);
    /* One that is not at rest yet asks when it is. */
    const bool asks = rc == 0 && dev->wants_key && !dev->has_asked && atomic_load(&dev->state) == DEVICE_SUSPENDED;
    if (asks)
        dev->has_asked = true;
    const uint64_t node = dev->node;
    pthread_mutex_unlock(&dev->lock);
    pthread_mutex_unlock(&t->parking_lock);
    if (asks && t->key_wanted != NULL)
        t->key_wanted(t->key_wanted_arg, node);
    if (rc != 0)
        free(p);
    return rc;
}

static void count_out(struct device_table *t, const struct parked *p)
{
    atomic_fetch_sub(p->waits_for_key ? &t->parked_for_key_count : &t->parked_count, 1);
    atomic_fetch_sub(p->waits_for_key ? &t->parked_for_key_bytes : &t->parked_bytes, p->length);
}

struct parked *parked_take(struct device_table *t, struct device *dev)
{
    struct parked *parked = dev->parked;

    for (const struct parked *p = parked; p != NULL; p = p->next)
        count_out(t, p);
    dev->parked = NULL;
    dev->parked_last = &dev->parked;
    return parked;
}

struct parked **parked_append(struct parked **last, struct parked *more)
{
    *last = more;
    while (*last != NULL)
        last = &(*last)->next;
    return last;
}

/* With t->parking_lock held. */
static struct parked *take_one(struct device_table *t, struct device *dev, uint64_t unique)
{
    struct parked *found = NULL;

    pthread_mutex_lock(&dev->lock);
    for (struct parked **link = &dev->parked; *link != NULL; link = &(*link)->next)
        if ((*link)->unique == unique) {
            found = *link;
            *link = found->next;
            if (found->next == NULL)
                dev->parked_last = link;
            found->next = NULL;
            count_out(t, found);
            break;
        }
    pthread_mutex_unlock(&dev->lock);
    return found;
}

struct parked *device_table_interrupt(struct device_table *t, uint64_t unique)
{
    struct parked *found = NULL;

    if (atomic_load(&t->suspended) == 0)
        return NULL;
    pthread_rwlock_rdlock(&t->lock);
    pthread_mutex_lock(&t->parking_lock);
    for (unsigned i = 0; i < DEVICE_BUCKETS && found == NULL; i++)
        for (struct device *dev = t->buckets[i]; dev != NULL && found == NULL; dev = dev->next_in_bucket)
            found = take_one(t, dev, unique);
    if (found == NULL) {
        /* Another reader may be about to park the request. */
        t->interrupts[t->next_interrupt] = unique;
        t->next_interrupt = (t->next_interrupt + 1) % INTERRUPTS_KEPT;
    }
    pthread_mutex_unlock(&t->parking_lock);
    pthread_rwlock_unlock(&t->lock);
    return found;
}

struct parked *device_table_refuse(struct device_table *t)
{
    struct parked *all = NULL, **last = &all;

    pthread_rwlock_wrlock(&t->lock);
    pthread_mutex_lock(&t->parking_lock);
    t->is_closed = true;
    for (unsigned i = 0; i < DEVICE_BUCKETS; i++)
        for (struct device *dev = t->buckets[i]; dev != NULL; dev = dev->next_in_bucket) {
            pthread_mutex_lock(&dev->lock);
            last = parked_append(last, parked_take(t, dev));
            pthread_mutex_unlock(&dev->lock);
        }
    pthread_mutex_unlock(&t->parking_lock);
    pthread_rwlock_unlock(&t->lock);
    return all;
}

void parked_free(struct parked *parked)
{
    while (parked != NULL) {
        struct parked *next = parked->next;
        free(parked->request);
        free(parked);
        parked = next;
    }
}
