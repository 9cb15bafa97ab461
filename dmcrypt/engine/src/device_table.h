/** The devices by node id, and their coming and going. Thread-safe. */
#ifndef FUSECRYPT_DEVICE_TABLE_H
#define FUSECRYPT_DEVICE_TABLE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "device.h"

#define DEVICE_BUCKETS 256u
#define DEVICE_SLOTS 1024u

/** A request kept while its device is suspended: a copy, with where its reply goes. */
struct parked {
    struct parked *next;
    int reply_fd;
    uint8_t *request; /* fuse_in_header and all, malloc'ed */
};

struct device_table {
    pthread_rwlock_t lock;
    struct device *buckets[DEVICE_BUCKETS];
    struct wire_stats *stats; /* DEVICE_SLOTS of them, shared with the daemon */
    uint8_t slot_used[DEVICE_SLOTS];
    bool is_closed;
    _Atomic unsigned draining; /* how many wait for some device's in_flight to fall */
    pthread_mutex_t drain_lock;
    pthread_cond_t drained;
};

/** @param stats zeroed memory for DEVICE_SLOTS */
void device_table_init(struct device_table *t, struct wire_stats *stats);

/** Make a device and let requests find it. @return 0; -EEXIST, -EUSERS (all slots in use), or as table_create */
int device_table_add(struct device_table *t, const struct wire_device *d, const struct wire_segment *segments,
                     const int *fds, unsigned fd_count, unsigned threads, uint32_t *stats_slot);

/** The device of a node, held until device_table_leave; NULL when there is none. */
struct device *device_table_find(struct device_table *t, uint64_t node);
void device_table_leave(struct device_table *t, struct device *dev);

/** Whether I/O may go on, for a holder. While it may not: park, or refuse. */
bool device_is_active(const struct device *dev);

/** Keep a request of a suspended device. Takes `request` over on success.
 * @return 0; -EAGAIN: active again, or -ENODEV: removed meanwhile, nothing was kept; -ENOMEM */
int device_park(struct device *dev, int reply_fd, uint8_t *request);

/** Stop finding it, wait for its I/O, sync. @param parked what waited, the caller's to refuse
 * @return 0, -ENODEV, or the error of the sync; the device is freed all the same */
int device_table_remove(struct device_table *t, uint64_t node, struct parked **parked);

/** Hold I/O, drain, sync. @return 0, -ENODEV, -EALREADY, or the error of the sync (then it stays active) */
int device_table_suspend(struct device_table *t, uint64_t node, bool wipe_keys);
/** @return 0, -ENODEV, -EINVAL: not suspended, -ENOKEY; on success *parked is the caller's to serve */
int device_table_resume(struct device_table *t, uint64_t node, struct parked **parked);
int device_table_rekey(struct device_table *t, uint64_t node, uint32_t segment, const struct wire_token *token,
                       unsigned threads);
int device_table_load(struct device_table *t, const struct wire_device *d, const struct wire_segment *segments,
                      const int *fds, unsigned fd_count, unsigned threads);
int device_table_flush(struct device_table *t, uint64_t node);

/** Sync every device without removing it. @return 0 or the first error */
int device_table_sync_all(struct device_table *t);

/** Refuse every new request, and wait for those under way for at most `milliseconds`; then sync, unless time ran out. @return 0 or the first error */
int device_table_close(struct device_table *t, unsigned milliseconds);

#endif
