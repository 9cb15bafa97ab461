#include "suspension.h"

#include "parked.h"

bool device_drain(struct device_table *t, struct device *dev, uint64_t holders, const struct timespec *deadline)
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

void device_stop(struct device_table *t, struct device *dev, bool fails)
{
    dev->fails = fails;
    atomic_fetch_add(&t->suspended, 1);
    atomic_store(&dev->state, DEVICE_SUSPENDING);
}

bool device_begin_suspension(struct device_table *t, struct device *dev, bool fails)
{
    pthread_mutex_lock(&dev->lock);
    bool is_active = atomic_load(&dev->state) == DEVICE_ACTIVE;
    if (is_active)
        device_stop(t, dev, fails);
    pthread_mutex_unlock(&dev->lock);
    return is_active;
}

struct parked *device_end_suspension(struct device_table *t, struct device *dev)
{
    atomic_store(&dev->state, DEVICE_ACTIVE);
    dev->wants_key = dev->has_asked = false;
    atomic_fetch_sub(&t->suspended, 1);
    return parked_take(t, dev);
}
