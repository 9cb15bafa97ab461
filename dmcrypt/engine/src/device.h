/** A mapped device: a table of segments over backing descriptors, and I/O on it.
 *
 * Requests may begin and end anywhere. Data goes through the ciphers in pieces that stay in the cache.
 * A device is made by device_create, reached through device_table.h, and freed when its last user left.
 */
#ifndef FUSECRYPT_DEVICE_H
#define FUSECRYPT_DEVICE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "cipher.h"
#include "range_lock.h"
#include "session.h"
#include "wire.h"

/** Most bytes of one request. The kernel splits what is larger and sends the parts at once, so that several
 * threads work at one read(2) or write(2): with 1 MiB only one did (docs/performance.md). */
#define DEVICE_IO_MAX (256u << 10)
#define DEVICE_SECTOR_MAX 4096u

struct backing {
    int fd;
    bool is_regular;
    bool was_linked; /* had a name when the device was made */
};

struct segment {
    uint64_t start, length, backing_offset; /* bytes */
    uint64_t iv_offset;                     /* 512-byte sectors */
    uint32_t target;                        /* enum wire_target */
    uint32_t flags;                         /* of struct wire_segment */
    uint32_t hole_size;                     /* bytes that are zeros if their ciphertext is (a hole); 0: none are */
    struct backing *backing;                /* one of the table's; NULL without */
    struct cipher *cipher;                  /* NULL without, or while its key is dropped */
    struct wire_token token;                /* that it was opened with; length 0 likewise */
    char spec[WIRE_NAME_MAX];
};

struct table {
    uint32_t segment_count, backing_count;
    struct segment segments[WIRE_SEGMENTS_MAX];
    struct backing backings[WIRE_FDS_MAX];
};

enum device_state { DEVICE_ACTIVE, DEVICE_SUSPENDING, DEVICE_SUSPENDED, DEVICE_REMOVED };

struct parked; /* a request that waits for a suspended device: device_table.h */

struct device {
    uint64_t node;
    _Atomic uint64_t size; /* bytes; changes only while nobody does I/O, but LSEEK looks at it then */
    uint32_t sector_size;
    bool read_only, discards;
    struct table *table; /* changes only while suspended and drained */
    struct range_lock ranges;
    struct wire_stats *stats;
    unsigned stats_slot;

    _Atomic uint32_t state; /* enum device_state */
    _Atomic uint64_t in_flight; /* holders: see device_table_find */
    pthread_mutex_t lock; /* of what follows */
    bool fails; /* while suspended, new I/O is refused and not parked */
    bool wants_key; /* suspended because its key was forgotten: forgotten_key.h */
    bool has_asked; /* for that key, since it was forgotten or refused */
    uint64_t refused_until; /* milliseconds of CLOCK_MONOTONIC: nobody has the key, I/O is refused */
    struct parked *parked, **parked_last;
    int sync_error;  /* negative errno of a failed fdatasync: stays, the kernel forgets which data was lost */
    int write_error; /* of a failed write: told at the next fsync, then forgotten */

    struct device *next_in_bucket;
};

/** Scratch memory of one thread that does I/O. Only its thread touches it. */
struct io_thread {
    unsigned index;  /* below the `threads` that ciphers are opened for */
    uint8_t *data;   /* DEVICE_IO_MAX + 2 * DEVICE_SECTOR_MAX bytes, page-aligned */
    uint8_t *piece;  /* DEVICE_PIECE bytes of ciphertext on its way out */
};

/** What is enciphered or deciphered at once; measured best at a quarter to a half of the L2 cache. */
#define DEVICE_PIECE (128u << 10)

int io_thread_init(struct io_thread *t, unsigned index);

/** Check a table and open its ciphers.
 *
 * @param fds   taken over: closed by table_free, or here on failure
 * @param threads  how many io_threads there are
 * @return 0; -EINVAL: sizes, order or offsets; others as session_unwrap and cipher_open
 */
int table_create(struct table **out, const struct wire_device *d, const struct wire_segment *segments,
                 const int *fds, unsigned fd_count, unsigned threads);
void table_free(struct table *t);

/** Give a segment its key, in place of any that it had. @return 0, or as session_unwrap and cipher_open */
int segment_open_cipher(struct segment *s, const struct wire_token *token, uint32_t sector_size, unsigned threads);
void table_drop_keys(struct table *t);
bool table_has_keys(const struct table *t);

/** Of the segments' keys the one that is the least lasting: SESSION_RANDOM_KEY, SESSION_IMPORTED_KEY,
 *  SESSION_VOLUME_KEY; 0: there is none, or none now. */
uint32_t table_key_kind(const struct table *t);

/** Wrap the tokens of clear keys anew; one of which that is not possible is dropped, and its cipher stays. */
void table_rewrap(struct table *t, const struct session *old);

/** Make the one segment of a table end elsewhere. Nobody does I/O on it.
 *
 * The lock that the daemon took on the backing file's data area is made to follow.
 * @param size bytes of the device
 * @return 0; -EINVAL: no whole sectors, or a table of another kind; -ENOSPC: beyond the end of the backing store;
 *         -EBUSY: somebody else has what would be added
 */
int table_resize(struct table *t, uint64_t size, uint32_t sector_size, bool read_only);

/** From now on read holes as zeros. Nobody does I/O on it. */
void table_read_holes(struct table *t, uint32_t sector_size);

/** @return 0 or -ENOMEM. The table is taken over on success. */
int device_create(struct device **out, const struct wire_device *d, struct table *table,
                  struct wire_stats *stats, unsigned stats_slot);
void device_free(struct device *dev);

/** Read. @param data set to where the bytes are, inside t->data
 * @return bytes read (fewer only at the end of the device), or a negative errno */
ssize_t device_read(struct device *dev, struct io_thread *t, uint32_t size, uint64_t offset, uint8_t **data);

/** Write from src; NULL writes zeros.
 * @return bytes written (fewer at the end of the device), -ENOSPC past it, -EROFS, or another negative errno */
ssize_t device_write(struct device *dev, struct io_thread *t, const uint8_t *src, uint64_t size, uint64_t offset);

/** fdatasync every backing descriptor. @return 0 or a negative errno; a failure stays */
int device_sync(struct device *dev);

/** FALLOCATE: modes that zero write enciphered zeros, since a hole would decipher to garbage. Of a device with
 * discards a hole becomes one in the backing store, and is read as zeros: that is what whoever punches a file expects.
 * @return 0; -EOPNOTSUPP: a mode that moves data, or a backing store without holes; -ENOSPC: beyond the end */
int device_fallocate(struct device *dev, struct io_thread *t, uint32_t mode, uint64_t offset, uint64_t length);

#endif
