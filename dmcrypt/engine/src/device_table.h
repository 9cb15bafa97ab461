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
    uint64_t unique; /* the kernel's number of the request */
    size_t length;
    int reply_fd;
    bool waits_for_key; /* and so not for long */
    uint8_t *request; /* fuse_in_header and all, malloc'ed */
};

/** What may be parked, on all devices together; more is refused with EIO. The kernel lets so many requests of its own
 *  (read-ahead) wait before it stops those of other devices (forward.c: max_background); for a user's mount its limit, a
 *  share of the memory (fs/fuse/inode.c, sanitize_global_limit), is above that from 2 GiB on. */
#define PARKED_MAX 512u
#define PARKED_BYTES_MAX (64u << 20)
/** The same of devices that wait for a key: all that the kernel and so many threads have under way, since I/O is to go on
 *  as if nothing had been. While they wait, for milliseconds as a rule and never long (key_renewal.py), requests of other
 *  devices may wait in the kernel. */
#define PARKED_FOR_KEY_MAX 4096u
#define PARKED_FOR_KEY_BYTES_MAX (256u << 20)
/** Interrupts that overtook their request on its way to being parked. */
#define INTERRUPTS_KEPT 64u

struct device_table {
    pthread_rwlock_t lock;
    struct device *buckets[DEVICE_BUCKETS];
    struct wire_stats *stats; /* DEVICE_SLOTS of them, shared with the daemon */
    uint8_t slot_used[DEVICE_SLOTS];
    _Atomic bool is_closed;
    _Atomic unsigned suspended; /* devices that are, or are about to be */
    _Atomic unsigned parked_count;
    _Atomic size_t parked_bytes;
    _Atomic unsigned parked_for_key_count;
    _Atomic size_t parked_for_key_bytes;
    pthread_mutex_t parking_lock; /* of what follows; taken before a device's */
    uint64_t interrupts[INTERRUPTS_KEPT]; /* 0: none */
    unsigned next_interrupt;
    _Atomic uint64_t session; /* how often another one began */
    _Atomic bool is_alone;    /* nobody is there to bring a key */
    void (*key_wanted)(void *arg, uint64_t node); /* may be NULL; called without locks */
    void *key_wanted_arg;
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

/** Keep a request (a fuse_in_header and what follows) of a suspended device. Takes `request` over on success.
 * @return 0; -EAGAIN: active again, or -ENODEV: removed meanwhile, nothing was kept; -EIO: I/O is to fail, or too many
 *         wait; -EINTR: interrupted; -ENOMEM */
int device_table_park(struct device_table *t, struct device *dev, int reply_fd, uint8_t *request);

/** Stop the wait of a request. @return it, the caller's to refuse; NULL: it does not wait, or not yet */
struct parked *device_table_interrupt(struct device_table *t, uint64_t unique);

/** Stop finding it, wait for its I/O, sync. @param parked what waited, the caller's to refuse
 * @return 0, -ENODEV, or the error of the sync; the device is freed all the same */
int device_table_remove(struct device_table *t, uint64_t node, struct parked **parked);

/** Drain, sync, hold new I/O or with `fails` refuse it; of a device that is suspended, `fails` ends the waiting.
 * @param parked what waited and is to be refused, the caller's
 * A device that waits for the daemon to bring a forgotten key waits for device_table_resume from then on.
 * @return 0, -ENODEV, -EALREADY, or the error of the sync: it is suspended all the same */
int device_table_suspend(struct device_table *t, uint64_t node, bool wipe_keys, bool fails, struct parked **parked);
/** @return 0, -ENODEV, -EINVAL: not suspended, -ENOKEY; on success *parked is the caller's to serve */
int device_table_resume(struct device_table *t, uint64_t node, struct parked **parked);
int device_table_rekey(struct device_table *t, uint64_t node, uint32_t segment, const struct wire_token *token,
                       unsigned threads);
int device_table_load(struct device_table *t, const struct wire_device *d, const struct wire_segment *segments,
                      const int *fds, unsigned fd_count, unsigned threads);
/** Hold I/O for as long as it takes to give the device another size. @param parked what waited, the caller's to serve
 * @return 0, -ENODEV, -EBUSY: suspended; or as table_resize */
int device_table_resize(struct device_table *t, uint64_t node, uint64_t size, struct parked **parked);
/** Allow discards, or no longer, likewise. What is a hole by then goes on being read as zeros.
 * @return 0, -ENODEV, -EBUSY: suspended, or -EROFS */
int device_table_refresh(struct device_table *t, uint64_t node, bool discards, struct parked **parked);
int device_table_flush(struct device_table *t, uint64_t node);

/** The token that a segment was opened with. @return 0; -ENODEV; -EINVAL: no such segment; -ENOKEY: it has none, or none now */
int device_table_copy_token(struct device_table *t, uint64_t node, uint32_t segment, struct wire_token *token);

/** Sync every device without removing it. @return 0 or the first error */
int device_table_sync_all(struct device_table *t);

/** Refuse every new request, and from now on let none wait. @return what was parked, the caller's to refuse */
struct parked *device_table_refuse(struct device_table *t);

/** Refuse likewise, and wait for requests under way for at most `milliseconds`; then sync, unless time ran out. @return 0 or the first error */
int device_table_close(struct device_table *t, unsigned milliseconds);

#endif
