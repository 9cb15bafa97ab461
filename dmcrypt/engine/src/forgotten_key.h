/** Devices whose key the engine forgets and gets again: leases, and the end of a session.
 *
 * Only keys that a coprocessor sent can be sent again. Such a device comes to rest, loses its key, and wants one from
 * then on: the first request that comes is told to the daemon (device_table.key_wanted) and waits with all that follow,
 * until the daemon brings a key or says that there is none. Without a daemon they fail.
 */
#ifndef FUSECRYPT_FORGOTTEN_KEY_H
#define FUSECRYPT_FORGOTTEN_KEY_H

#include "device_table.h"

/** Finish what runs, sync, forget the key. @return 0, also of one that wants a key already; -ENODEV; -EBUSY: it is being
 *  changed, or suspended otherwise; -EINVAL: nobody could send its key again; the error of a sync, which the next fsync
 *  tells, too */
int device_table_forget_key(struct device_table *t, uint64_t node);

/** Give a device the key that it wants, and go on. @param parked what waited, the caller's to serve
 * @return 0; -ENODEV; -EALREADY: it wants none (any more); or as segment_open_cipher */
int device_table_renew_key(struct device_table *t, uint64_t node, uint32_t segment, const struct wire_token *token,
                           unsigned threads, struct parked **parked);

/** Nobody has the key: what waits fails, and what comes in the next so many milliseconds. Then the next one asks again.
 * @param parked what waited, the caller's to refuse @return 0; -ENODEV; -EALREADY: it wants none (any more) */
int device_table_deny_key(struct device_table *t, uint64_t node, uint32_t milliseconds, struct parked **parked);

/** Nobody is there to bring keys any more. @return what waited for one, the caller's to refuse */
struct parked *device_table_set_alone(struct device_table *t);

/** The devices that the end of a session stopped. Each is to be brought to rest by device_table_finish_forgetting. */
struct stopped {
    unsigned count;
    uint64_t nodes[DEVICE_SLOTS];
};

/** Begin another session: `next` is the one before, afterwards, and to be discarded.
 *
 * No table of keys of the old session is added any more. Clear keys go on, their tokens being wrapped anew. A device
 * with a key that a coprocessor sent is stopped, and wants a key; one with a random protected key is stopped for good,
 * and its I/O fails.
 * @return 0; -EBUSY: a device is being changed just now; nothing has happened, and *parked is the caller's to serve */
int device_table_begin_session(struct device_table *t, struct session *next, struct stopped *stopped,
                               struct parked **parked);

/** Let a stopped device finish what runs, sync, and forget its key. @return 0, also when it was removed meanwhile; or the
 *  error of the sync */
int device_table_finish_forgetting(struct device_table *t, uint64_t node);

#endif
