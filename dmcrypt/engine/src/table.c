#include "device.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "arena.h"

/* One past the last byte that the kernel's off_t can name. */
#define OFFSET_LIMIT ((uint64_t)INT64_MAX)

static bool is_sound_device(const struct wire_device *d)
{
    return d->sector_size >= 512 && d->sector_size <= DEVICE_SECTOR_MAX && (d->sector_size & (d->sector_size - 1)) == 0
           && d->size != 0 && d->segments != 0 && d->segments <= WIRE_SEGMENTS_MAX;
}

static bool is_sound_segment(const struct wire_device *d, const struct wire_segment *s, uint64_t expected_start,
                             unsigned fd_count)
{
    const uint64_t mask = d->sector_size - 1;
    bool has_backing = s->target == WIRE_CRYPT || s->target == WIRE_LINEAR;

    return s->target >= WIRE_CRYPT && s->target <= WIRE_ERROR && s->start == expected_start && s->start <= d->size
           && s->length != 0 && ((s->start | s->length) & mask) == 0 && s->length <= d->size - s->start
           && s->length <= OFFSET_LIMIT && s->backing_offset <= OFFSET_LIMIT - s->length && (s->backing_offset & 511) == 0
           && (!has_backing || s->fd_index < fd_count) && memchr(s->cipher, 0, sizeof s->cipher) != NULL;
}

static unsigned cipher_flags(uint32_t flags)
{
    return (flags & WIRE_IV_LARGE_SECTORS ? CIPHER_IV_LARGE_SECTORS : 0)
           | (flags & WIRE_ANY_XTS_KEY ? CIPHER_ANY_XTS_KEY : 0);
}

int segment_open_cipher(struct segment *s, const struct wire_token *token, uint32_t sector_size, unsigned threads)
{
    static const uint8_t NONE[1];
    const bool has_no_key = token->length == 0 && cipher_is_null(s->spec);
    struct cipher *cipher;
    uint8_t *key = NULL;
    size_t size = 0;
    int rc = has_no_key ? 0 : session_unwrap(token, &key, &size);

    if (rc != 0)
        return rc;
    rc = cipher_open(&cipher, s->spec, has_no_key ? NONE : key, size, sector_size, cipher_flags(s->flags), threads);
    arena_free(key);
    if (rc != 0)
        return rc;
    cipher_close(s->cipher);
    s->cipher = cipher;
    s->token = *token;
    return 0;
}

static void take_backings(struct table *t, const int *fds, unsigned fd_count)
{
    t->backing_count = fd_count;
    for (unsigned i = 0; i < fd_count; i++) {
        struct stat st;
        t->backings[i].fd = fds[i];
        if (fstat(fds[i], &st) == 0) {
            t->backings[i].is_regular = S_ISREG(st.st_mode);
            t->backings[i].was_linked = S_ISREG(st.st_mode) && st.st_nlink > 0;
        }
    }
}

/* The table's next segment, which is sound. */
static int add_segment(struct table *t, const struct wire_segment *w, uint32_t sector_size, unsigned threads)
{
    struct segment *s = &t->segments[t->segment_count++];

    s->start = w->start;
    s->length = w->length;
    s->backing_offset = w->backing_offset;
    s->iv_offset = w->iv_offset;
    s->target = w->target;
    s->flags = w->flags;
    memcpy(s->spec, w->cipher, sizeof s->spec);
    if (w->target == WIRE_CRYPT || w->target == WIRE_LINEAR)
        s->backing = &t->backings[w->fd_index];
    return w->target == WIRE_CRYPT ? segment_open_cipher(s, &w->token, sector_size, threads) : 0;
}

static int add_segments(struct table *t, const struct wire_device *d, const struct wire_segment *segments,
                        unsigned threads)
{
    uint64_t end = 0;
    int rc = 0;

    for (uint32_t i = 0; i < d->segments && rc == 0; i++) {
        if (!is_sound_segment(d, &segments[i], end, t->backing_count))
            return -EINVAL;
        rc = add_segment(t, &segments[i], d->sector_size, threads);
        end += segments[i].length;
    }
    return rc == 0 && end != d->size ? -EINVAL : rc;
}

int table_create(struct table **out, const struct wire_device *d, const struct wire_segment *segments,
                 const int *fds, unsigned fd_count, unsigned threads)
{
    struct table *t = calloc(1, sizeof *t);

    if (t == NULL) {
        for (unsigned i = 0; i < fd_count; i++)
            close(fds[i]);
        return -ENOMEM;
    }
    take_backings(t, fds, fd_count);
    int rc = is_sound_device(d) ? add_segments(t, d, segments, threads) : -EINVAL;
    if (rc != 0) {
        table_free(t);
        return rc;
    }
    if ((d->flags & WIRE_DISCARDS) != 0)
        table_read_holes(t, d->sector_size);
    *out = t;
    return 0;
}

/* @return bytes of a backing store, 0 if they cannot be had */
static uint64_t backing_size(const struct backing *b)
{
    off_t end = lseek(b->fd, 0, SEEK_END);

    return end > 0 ? (uint64_t)end : 0;
}

/* Lock, or let go of, [start, end) of the data area, as the daemon locked what was there at first (fcntl(2)). */
static int lock_area(const struct backing *b, short kind, uint64_t start, uint64_t end)
{
    struct flock area = { .l_type = kind, .l_whence = SEEK_SET, .l_start = (off_t)start, .l_len = (off_t)(end - start) };

    /* Where there are no locks (NFS without lockd) the daemon went on without one, too. */
    return fcntl(b->fd, F_OFD_SETLK, &area) != 0 && (errno == EAGAIN || errno == EACCES) ? -EBUSY : 0;
}

int table_resize(struct table *t, uint64_t size, uint32_t sector_size, bool read_only)
{
    struct segment *s = &t->segments[0];
    int rc = 0;

    if (t->segment_count != 1 || s->backing == NULL || size == 0 || (size & (sector_size - 1)) != 0
        || size > OFFSET_LIMIT - s->backing_offset)
        return -EINVAL;
    if (s->backing_offset + size > backing_size(s->backing))
        return -ENOSPC;
    const uint64_t old_end = s->backing_offset + s->length, end = s->backing_offset + size;
    if (end > old_end)
        rc = lock_area(s->backing, read_only ? F_RDLCK : F_WRLCK, old_end, end);
    else if (end < old_end)
        rc = lock_area(s->backing, F_UNLCK, end, old_end);
    if (rc == 0)
        s->length = size;
    return rc;
}

void table_read_holes(struct table *t, uint32_t sector_size)
{
    for (uint32_t i = 0; i < t->segment_count; i++)
        if (t->segments[i].target == WIRE_CRYPT)
            t->segments[i].hole_size = sector_size;
}

void table_drop_keys(struct table *t)
{
    for (uint32_t i = 0; i < t->segment_count; i++) {
        cipher_close(t->segments[i].cipher);
        t->segments[i].cipher = NULL;
        wipe(&t->segments[i].token, sizeof t->segments[i].token);
    }
}

bool table_has_keys(const struct table *t)
{
    for (uint32_t i = 0; i < t->segment_count; i++)
        if (t->segments[i].target == WIRE_CRYPT && t->segments[i].cipher == NULL)
            return false;
    return true;
}

uint32_t table_key_kind(const struct table *t)
{
    uint32_t kind = 0;

    for (uint32_t i = 0; i < t->segment_count; i++) {
        const struct wire_token *token = &t->segments[i].token;
        const uint32_t of_segment = token->length != 0 ? session_kind(token) : 0;
        kind = of_segment > kind ? of_segment : kind;
    }
    return kind;
}

void table_rewrap(struct table *t, const struct session *old)
{
    for (uint32_t i = 0; i < t->segment_count; i++) {
        struct wire_token *token = &t->segments[i].token;
        if (token->length != 0 && session_rewrap(old, token) != 0)
            wipe(token, sizeof *token);
    }
}

void table_free(struct table *t)
{
    if (t == NULL)
        return;
    table_drop_keys(t);
    for (uint32_t i = 0; i < t->backing_count; i++)
        close(t->backings[i].fd);
    free(t);
}

int device_create(struct device **out, const struct wire_device *d, struct table *table, struct wire_stats *stats,
                  unsigned stats_slot)
{
    struct device *dev = calloc(1, sizeof *dev);

    if (dev == NULL)
        return -ENOMEM;
    dev->node = d->node;
    dev->size = d->size;
    dev->sector_size = d->sector_size;
    dev->read_only = (d->flags & WIRE_READ_ONLY) != 0;
    dev->discards = (d->flags & WIRE_DISCARDS) != 0;
    dev->table = table;
    range_lock_init(&dev->ranges);
    memset(stats, 0, sizeof *stats);
    stats->node = d->node;
    dev->stats = stats;
    dev->stats_slot = stats_slot;
    atomic_init(&dev->state, DEVICE_ACTIVE);
    pthread_mutex_init(&dev->lock, NULL);
    dev->parked_last = &dev->parked;
    *out = dev;
    return 0;
}

void device_free(struct device *dev)
{
    table_free(dev->table);
    range_lock_destroy(&dev->ranges);
    pthread_mutex_destroy(&dev->lock);
    free(dev);
}
