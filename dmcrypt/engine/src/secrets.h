/** Passphrases and key files that requests name by handle. Thread-safe. */
#ifndef FUSECRYPT_SECRETS_H
#define FUSECRYPT_SECRETS_H

#include <pthread.h>
#include <stdint.h>

#include "secret.h"

#define SECRETS_MAX 256u

struct held_secret {
    uint64_t handle; /* 0: free */
    unsigned users;
    struct secret secret;
    int is_dropped;
};

struct secrets {
    pthread_mutex_t lock;
    uint64_t last_handle;
    struct held_secret held[SECRETS_MAX];
};

void secrets_init(struct secrets *s);

/** Take a secret over. @return its handle, or 0 when there are too many */
uint64_t secrets_add(struct secrets *s, struct secret *secret);

/** Use a secret until secrets_release. @return NULL: no such handle */
struct held_secret *secrets_use(struct secrets *s, uint64_t handle);
void secrets_release(struct secrets *s, struct held_secret *held);

/** Wipe it, as soon as nobody uses it. @return 0 or -ENOENT */
int secrets_drop(struct secrets *s, uint64_t handle);

#endif
