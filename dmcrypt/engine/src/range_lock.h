/** A lock on a range of sectors: any number of readers, or one writer.
 *
 * A request that begins or ends inside a sector reads, changes and writes the whole sector; nobody else may
 * touch it meanwhile. A reader must not meet half a ciphertext block either, so reads lock too. No more than
 * RANGE_LOCK_HOLDERS requests of one device run at once (the rest wait), so a scan beats a tree.
 */
#ifndef FUSECRYPT_RANGE_LOCK_H
#define FUSECRYPT_RANGE_LOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define RANGE_LOCK_HOLDERS 32u

struct range_lock {
    pthread_mutex_t lock;
    pthread_cond_t released;
    uint32_t held; /* bit set of ranges in use */
    unsigned waiting;
    struct {
        uint64_t first, end;
        bool exclusive;
    } ranges[RANGE_LOCK_HOLDERS];
};

void range_lock_init(struct range_lock *l);
void range_lock_destroy(struct range_lock *l);

/** Wait for [first, end) and hold it. @return what range_lock_release takes */
unsigned range_lock_acquire(struct range_lock *l, uint64_t first, uint64_t end, bool exclusive);
void range_lock_release(struct range_lock *l, unsigned holder);

#endif
