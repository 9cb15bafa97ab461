#include "device.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "whole_io.h"

int io_thread_init(struct io_thread *t, unsigned index)
{
    t->index = index;
    t->data = aligned_alloc(4096, DEVICE_IO_MAX + 2 * DEVICE_SECTOR_MAX);
    t->piece = aligned_alloc(4096, DEVICE_PIECE);
    return t->data != NULL && t->piece != NULL ? 0 : -ENOMEM;
}

static void count(uint64_t *counter, uint64_t n)
{
    __atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

static ssize_t failed(struct device *dev, int error)
{
    count(&dev->stats->errors, 1);
    __atomic_store_n(&dev->stats->last_error, error, __ATOMIC_RELAXED);
    return -error;
}

/* dm-crypt.c, crypt_convert_init: sectors count from the segment's start, plus the IV offset. */
static uint64_t iv_sector(const struct segment *s, uint64_t offset)
{
    return s->iv_offset + ((offset - s->start) >> 9);
}

static const struct segment *find_segment(const struct table *t, uint64_t offset)
{
    for (uint32_t i = 0; i < t->segment_count; i++)
        if (offset - t->segments[i].start < t->segments[i].length)
            return &t->segments[i];
    return NULL;
}

static bool is_hole(const uint8_t *sector, size_t size)
{
    /* Ciphertext of zeros alone has a probability of 2^-4096 and less. */
    return sector[0] == 0 && memcmp(sector, sector + 1, size - 1) == 0;
}

/* Decipher in place all but holes, which are zeros already. Returns an errno. */
static int decipher_around_holes(const struct segment *s, const struct io_thread *t, uint8_t *buf, size_t size,
                                 uint64_t offset)
{
    int error = 0;

    for (size_t at = 0; at < size && error == 0;) {
        size_t first = at;
        while (at < size && !is_hole(buf + at, s->hole_size))
            at += s->hole_size;
        if (at > first)
            error = -cipher_decrypt(s->cipher, t->index, buf + first, at - first, iv_sector(s, offset + first));
        while (at < size && is_hole(buf + at, s->hole_size))
            at += s->hole_size;
    }
    return error;
}

/* Whole sectors, at most DEVICE_PIECE bytes, within one segment. Returns an errno. */
static int read_piece(const struct segment *s, const struct io_thread *t, uint8_t *buf, size_t size,
                      uint64_t offset)
{
    switch (s->target) {
    case WIRE_ZERO:
        memset(buf, 0, size);
        return 0;
    case WIRE_ERROR:
        return EIO;
    }
    int rc = pread_whole(s->backing->fd, buf, size, s->backing_offset + (offset - s->start));
    if (rc == -ENODATA)
        return EIO; /* a backing file that became shorter: an error, never zeros */
    if (rc != 0 || s->target == WIRE_LINEAR)
        return -rc;
    if (s->cipher == NULL)
        return ENOKEY;
    if (s->hole_size != 0)
        return decipher_around_holes(s, t, buf, size, offset);
    return -cipher_decrypt(s->cipher, t->index, buf, size, iv_sector(s, offset));
}

static size_t piece_size(const struct segment *s, uint64_t offset, uint64_t end)
{
    uint64_t left = end - offset;
    uint64_t in_segment = s->start + s->length - offset;

    left = left < in_segment ? left : in_segment;
    return left < DEVICE_PIECE ? (size_t)left : DEVICE_PIECE;
}

/* A write to a file that has lost its name, or its end, could never be found again. */
static int check_backing(const struct segment *s, uint64_t end)
{
    struct stat st;

    if (!s->backing->is_regular)
        return 0;
    if (fstat(s->backing->fd, &st) != 0)
        return errno;
    if (s->backing->was_linked && st.st_nlink == 0)
        return EIO;
    return (uint64_t)st.st_size < s->backing_offset + (end - s->start) ? EIO : 0;
}

ssize_t device_read(struct device *dev, struct io_thread *t, uint32_t size, uint64_t offset, uint8_t **data)
{
    const uint64_t mask = dev->sector_size - 1, device_size = dev->size;

    if (offset >= device_size || size == 0)
        return 0;
    if (size > DEVICE_IO_MAX)
        size = DEVICE_IO_MAX;
    if (size > device_size - offset)
        size = (uint32_t)(device_size - offset);

    const uint64_t first = offset & ~mask, end = (offset + size + mask) & ~mask;
    int error = 0;

    unsigned holder = range_lock_acquire(&dev->ranges, first, end, false);
    for (uint64_t at = first; at < end && error == 0;) {
        const struct segment *s = find_segment(dev->table, at);
        size_t n = piece_size(s, at, end);
        error = read_piece(s, t, t->data + (at - first), n, at);
        at += n;
    }
    range_lock_release(&dev->ranges, holder);
    if (error != 0)
        return failed(dev, error);

    count(&dev->stats->reads, 1);
    count(&dev->stats->read_bytes, size);
    if (first != offset || end != offset + size)
        count(&dev->stats->partial, 1);
    *data = t->data + (offset - first);
    return (ssize_t)size;
}

/* The sector around a border of [offset, offset + size), deciphered, with its new bytes put in. */
static int merge_sector(const struct segment *s, const struct io_thread *t, uint32_t sector_size, uint8_t *buf,
                        uint64_t sector, const uint8_t *src, uint64_t offset, uint64_t end)
{
    int error = read_piece(s, t, buf, sector_size, sector);
    if (error != 0)
        return error;
    uint64_t from = sector > offset ? sector : offset;
    uint64_t to = sector + sector_size < end ? sector + sector_size : end;
    if (src != NULL)
        memcpy(buf + (from - sector), src + (from - offset), to - from);
    else
        memset(buf + (from - sector), 0, to - from);
    return 0;
}

static int encipher(const struct segment *s, const struct io_thread *t, uint8_t *dst, const uint8_t *src,
                    size_t size, uint64_t at)
{
    if (size == 0)
        return 0;
    if (src == NULL) {
        memset(dst, 0, size);
        src = dst;
    }
    if (s->target == WIRE_LINEAR) {
        if (src != dst)
            memcpy(dst, src, size);
        return 0;
    }
    return s->cipher == NULL ? ENOKEY : -cipher_encrypt(s->cipher, t->index, dst, src, size, iv_sector(s, at));
}

/* The sectors [at, at + size) of a write of [offset, end). Returns an errno. */
static int write_piece(struct device *dev, const struct segment *s, const struct io_thread *t, uint64_t at,
                       size_t size, const uint8_t *src, uint64_t offset, uint64_t end)
{
    const uint32_t ss = dev->sector_size;
    uint64_t full = at, full_end = at + size;
    int error;

    if (s->target == WIRE_ERROR)
        return EIO;
    if (s->target == WIRE_ZERO)
        return 0; /* dm-zero takes writes and forgets them */
    error = check_backing(s, at + size);
    if (error == 0 && (at < offset || at + ss > end)) {
        error = merge_sector(s, t, ss, t->piece, at, src, offset, end);
        if (error == 0)
            error = encipher(s, t, t->piece, t->piece, ss, at);
        full += ss;
    }
    if (error == 0 && full < full_end && full_end > end) {
        full_end -= ss;
        uint8_t *last = t->piece + (full_end - at);
        error = merge_sector(s, t, ss, last, full_end, src, offset, end);
        if (error == 0)
            error = encipher(s, t, last, last, ss, full_end);
    }
    if (error == 0 && full < full_end)
        error = encipher(s, t, t->piece + (full - at), src != NULL ? src + (full - offset) : NULL,
                         full_end - full, full);
    if (error == 0)
        error = -pwrite_whole(s->backing->fd, t->piece, size, s->backing_offset + (at - s->start));
    return error;
}

ssize_t device_write(struct device *dev, struct io_thread *t, const uint8_t *src, uint64_t size, uint64_t offset)
{
    const uint64_t mask = dev->sector_size - 1, device_size = dev->size;

    if (dev->read_only)
        return -EROFS;
    if (size == 0)
        return 0;
    if (offset >= device_size)
        return -ENOSPC;
    if (size > device_size - offset)
        size = device_size - offset;

    const uint64_t request_end = offset + size;
    const uint64_t first = offset & ~mask, end = (request_end + mask) & ~mask;
    uint64_t at = first;
    int error = 0;

    unsigned holder = range_lock_acquire(&dev->ranges, first, end, true);
    while (at < end) {
        const struct segment *s = find_segment(dev->table, at);
        size_t n = piece_size(s, at, end);
        error = write_piece(dev, s, t, at, n, src, offset, request_end);
        if (error != 0)
            break;
        at += n;
    }
    range_lock_release(&dev->ranges, holder);

    if (error != 0) {
        pthread_mutex_lock(&dev->lock);
        dev->write_error = -error;
        pthread_mutex_unlock(&dev->lock);
        failed(dev, error);
        if (at <= offset)
            return -error;
    }
    const uint64_t written = (at < request_end ? at : request_end) - offset;
    count(src != NULL ? &dev->stats->writes : &dev->stats->zeroed_bytes, src != NULL ? 1 : written);
    if (src != NULL)
        count(&dev->stats->write_bytes, written);
    if (first != offset || end != request_end)
        count(&dev->stats->partial, 1);
    return (ssize_t)written;
}

int device_sync(struct device *dev)
{
    struct table *table = dev->table;
    int error = 0;

    if (dev->read_only)
        return 0;
    for (uint32_t i = 0; i < table->backing_count; i++) {
        struct stat st;
        if (fdatasync(table->backings[i].fd) != 0)
            error = -errno;
        else if (table->backings[i].was_linked && fstat(table->backings[i].fd, &st) == 0 && st.st_nlink == 0)
            error = -EIO;
    }
    count(&dev->stats->flushes, 1);
    pthread_mutex_lock(&dev->lock);
    if (error != 0)
        dev->sync_error = error;
    error = dev->sync_error;
    if (error == 0) {
        error = dev->write_error;
        dev->write_error = 0;
    }
    pthread_mutex_unlock(&dev->lock);
    return error != 0 ? (int)failed(dev, -error) : 0;
}

/* fallocate(2) of each segment's part of [offset, end). */
static int fallocate_backing(struct device *dev, int mode, uint64_t offset, uint64_t end)
{
    for (uint64_t at = offset; at < end;) {
        const struct segment *s = find_segment(dev->table, at);
        uint64_t part_end = s->start + s->length < end ? s->start + s->length : end;
        if (s->target == WIRE_ERROR)
            return (int)failed(dev, EIO);
        if (s->backing != NULL
            && fallocate(s->backing->fd, mode, (off_t)(s->backing_offset + (at - s->start)), (off_t)(part_end - at)) != 0)
            return errno == EOPNOTSUPP ? -EOPNOTSUPP : (int)failed(dev, errno);
        at = part_end;
    }
    return 0;
}

static int write_zeros(struct device *dev, struct io_thread *t, uint64_t offset, uint64_t length)
{
    while (length > 0) {
        uint64_t n = length < DEVICE_IO_MAX ? length : DEVICE_IO_MAX;
        ssize_t written = device_write(dev, t, NULL, n, offset);
        if (written < 0)
            return (int)written;
        if (written == 0)
            return -EIO;
        offset += (uint64_t)written;
        length -= (uint64_t)written;
    }
    return 0;
}

/* Whole sectors become holes of the backing store; what is left at both ends is written. */
static int punch(struct device *dev, struct io_thread *t, uint64_t offset, uint64_t length)
{
    const uint64_t mask = dev->sector_size - 1, end = offset + length;
    const uint64_t first = (offset + mask) & ~mask, last = end & ~mask;

    if (first >= last)
        return write_zeros(dev, t, offset, length);
    unsigned holder = range_lock_acquire(&dev->ranges, first, last, true);
    int rc = fallocate_backing(dev, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, first, last);
    range_lock_release(&dev->ranges, holder);
    if (rc == 0)
        rc = write_zeros(dev, t, offset, first - offset);
    return rc != 0 ? rc : write_zeros(dev, t, last, end - last);
}

int device_fallocate(struct device *dev, struct io_thread *t, uint32_t mode, uint64_t offset, uint64_t length)
{
    const uint64_t size = dev->size;

    if (dev->read_only)
        return -EROFS;
    if (offset > size || length > size - offset)
        return -ENOSPC;
    switch (mode & ~(uint32_t)FALLOC_FL_KEEP_SIZE) {
    case 0: /* Space only, and the backing file's: content stays. */
        return fallocate_backing(dev, FALLOC_FL_KEEP_SIZE, offset, offset + length);
    case FALLOC_FL_PUNCH_HOLE:
        return dev->discards ? punch(dev, t, offset, length) : write_zeros(dev, t, offset, length);
    case FALLOC_FL_ZERO_RANGE:
        return write_zeros(dev, t, offset, length);
    default:
        return -EOPNOTSUPP;
    }
}
