#include "secret.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "arena.h"

#define SECRET_MAX (8u << 20) /* bytes; cryptsetup's DEFAULT_KEYFILE_SIZE_MAXKB */
#define FIRST_SIZE 4096u
#define GROWTH 8u

/* Wait for a descriptor that its owner made non-blocking. Errors show at the next read. */
static void wait_readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    poll(&p, 1, -1);
}

/* The same where the kernel would write into the reader's pages itself, and cannot into those of memfd_secret: files that
 * are read past the page cache, as those of FUSE with direct_io (dev/pkey). What it reads waits in a pipe instead. */
static ssize_t read_through_pipe(int fd, void *buf, size_t size, const uint64_t *offset)
{
    off64_t at = offset ? (off64_t)*offset : 0;
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return -1;
    ssize_t n = splice(fd, offset ? &at : NULL, ends[1], NULL, size, 0);
    if (n > 0)
        n = read(ends[0], buf, (size_t)n);
    const int error = errno;
    close(ends[0]);
    close(ends[1]);
    errno = error;
    return n;
}

/* read(2) or, from an offset, pread(2), that waits, and that a signal does not end. */
static ssize_t read_some(int fd, void *buf, size_t size, const uint64_t *offset)
{
    for (;;) {
        ssize_t n = offset ? pread(fd, buf, size, (off_t)*offset) : read(fd, buf, size);
        if (n < 0 && errno == EFAULT)
            n = read_through_pipe(fd, buf, size, offset);
        if (n >= 0)
            return n;
        if (errno == EAGAIN)
            wait_readable(fd);
        else if (errno != EINTR)
            return -errno;
    }
}

/* Drop bytes of what cannot be read from an offset. They may be secret too: they meet only `buf`. */
static int skip(int fd, uint64_t count, uint8_t *buf, size_t size)
{
    while (count > 0) {
        ssize_t n = read_some(fd, buf, count < size ? (size_t)count : size, NULL);
        if (n <= 0)
            return n < 0 ? (int)n : -ENODATA;
        count -= (uint64_t)n;
    }
    return 0;
}

/* Make room for at least one byte more. */
static int enlarge(struct secret *s, size_t *room)
{
    if (s->length < *room)
        return 0;
    size_t size = *room ? *room * GROWTH : FIRST_SIZE;
    size = size < SECRET_MAX + 1 ? size : SECRET_MAX + 1; /* one more shows that there is too much */
    uint8_t *bytes = arena_alloc(size);
    if (!bytes)
        return -ENOSPC;
    if (s->length > 0)
        memcpy(bytes, s->bytes, s->length);
    arena_free(s->bytes);
    s->bytes = bytes;
    *room = size;
    return 0;
}

static int load(struct secret *s, int fd, const struct wire_load_secret *how)
{
    bool line = how->mode == WIRE_SECRET_LINE;
    uint64_t wanted = how->size, offset = how->offset;
    size_t room = 0;
    if (wanted > SECRET_MAX)
        return -EFBIG;
    int error = enlarge(s, &room);
    if (error)
        return error;

    bool seekable = offset > 0 && read_some(fd, s->bytes, 0, &offset) == 0;
    if (offset > 0 && !seekable)
        error = skip(fd, offset, s->bytes, room);
    while (!error && !(wanted && s->length == wanted)) {
        error = enlarge(s, &room);
        if (error)
            break;
        size_t most = room - s->length;
        if (wanted && most > wanted - s->length)
            most = (size_t)wanted - s->length;
        ssize_t n = read_some(fd, s->bytes + s->length, most, seekable ? &offset : NULL);
        if (n <= 0) {
            error = n < 0 ? (int)n : wanted ? -ENODATA : 0;
            break;
        }
        const uint8_t *end = line ? memchr(s->bytes + s->length, '\n', (size_t)n) : NULL;
        offset += (uint64_t)n;
        s->length = end ? (size_t)(end - s->bytes) : s->length + (size_t)n;
        if (s->length > SECRET_MAX)
            error = -EFBIG;
        if (end)
            break;
    }
    return error;
}

int secret_load(struct secret *out, int fd, const struct wire_load_secret *how)
{
    *out = (struct secret){.bytes = NULL, .length = 0};
    if (how->mode != WIRE_SECRET_ALL && (how->mode != WIRE_SECRET_LINE || how->size != 0))
        return -EINVAL;
    int error = load(out, fd, how);
    if (error)
        secret_free(out);
    return error;
}

void secret_free(struct secret *s)
{
    arena_free(s->bytes);
    *s = (struct secret){.bytes = NULL, .length = 0};
}
