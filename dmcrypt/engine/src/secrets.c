#include "secrets.h"

#include <errno.h>

void secrets_init(struct secrets *s)
{
    pthread_mutex_init(&s->lock, NULL);
}

static struct held_secret *find(struct secrets *s, uint64_t handle)
{
    for (unsigned i = 0; i < SECRETS_MAX; i++)
        if (s->held[i].handle == handle && !s->held[i].is_dropped)
            return &s->held[i];
    return NULL;
}

uint64_t secrets_add(struct secrets *s, struct secret *secret)
{
    uint64_t handle = 0;

    pthread_mutex_lock(&s->lock);
    struct held_secret *place = find(s, 0);
    if (place != NULL) {
        handle = ++s->last_handle;
        *place = (struct held_secret){ .handle = handle, .secret = *secret };
    }
    pthread_mutex_unlock(&s->lock);
    return handle;
}

struct held_secret *secrets_use(struct secrets *s, uint64_t handle)
{
    pthread_mutex_lock(&s->lock);
    struct held_secret *held = handle != 0 ? find(s, handle) : NULL;
    if (held != NULL)
        held->users++;
    pthread_mutex_unlock(&s->lock);
    return held;
}

/* With s->lock held. */
static void free_unused(struct held_secret *held)
{
    if (held->users == 0 && held->is_dropped) {
        secret_free(&held->secret);
        *held = (struct held_secret){ 0 };
    }
}

void secrets_release(struct secrets *s, struct held_secret *held)
{
    pthread_mutex_lock(&s->lock);
    held->users--;
    free_unused(held);
    pthread_mutex_unlock(&s->lock);
}

int secrets_drop(struct secrets *s, uint64_t handle)
{
    pthread_mutex_lock(&s->lock);
    struct held_secret *held = handle != 0 ? find(s, handle) : NULL;
    if (held != NULL) {
        held->is_dropped = 1;
        free_unused(held);
    }
    pthread_mutex_unlock(&s->lock);
    return held != NULL ? 0 : -ENOENT;
}
