#include "loopaes_key.h"

#include <errno.h>
#include <string.h>

#include "arena.h"
#include "hash.h"

#define LINES_MAX 65u

/* Source: cryptsetup lib/loopaes/loopaes.c; loop-AES 3.x README, section 5 (key file formats). */

/** The keys of a file, as they stand there: `count` lines of `length` bytes. Pointers into the secret. */
struct lines {
    const uint8_t *text[LINES_MAX];
    size_t length;
    unsigned count;
};

static bool ends_line(uint8_t c)
{
    return c == '\n' || c == '\r' || c == 0;
}

static int split_lines(struct lines *out, const struct secret *s)
{
    size_t at = 0;
    out->count = 0;
    out->length = 0;
    while (at < s->length) {
        const size_t begin = at;
        while (at < s->length && !ends_line(s->bytes[at]))
            at++;
        const size_t length = at - begin;
        if (at == s->length || length == 0 || out->count == LINES_MAX || (out->count > 0 && length != out->length))
            return -EINVAL;
        out->text[out->count++] = s->bytes + begin;
        out->length = length;
        while (at < s->length && ends_line(s->bytes[at]))
            at++;
    }
    return out->count == 1 || out->count == LINES_MAX - 1 || out->count == LINES_MAX ? 0 : -EINVAL;
}

/* Text that gpg wrote, or an OpenPGP packet, whose first bit is set (RFC 9580, 4.2). */
static bool is_openpgp(const struct secret *s)
{
    static const char ARMOR[] = "BEGIN PGP MESSAGE";
    const size_t head = s->length < 100 ? s->length : 100;
    return head > 0 && ((s->bytes[0] & 0x80) || memmem(s->bytes, head, ARMOR, sizeof(ARMOR) - 1));
}

static const char *choose_hash(const struct wire_loopaes_key *p)
{
    if (p->hash[0])
        return p->hash;
    return p->key_size == 16 ? "sha256" : p->key_size == 24 ? "sha384" : p->key_size == 32 ? "sha512" : NULL;
}

/* What tells the versions apart: without it one file would give the same keys in both. */
static uint8_t version_mark(unsigned count)
{
    return count == LINES_MAX ? 0xf4 : count == LINES_MAX - 1 ? 0x55 : 0;
}

int loopaes_key(const struct wire_loopaes_key *p, const struct secret *secret, uint8_t **key, unsigned *count)
{
    struct lines lines;
    struct hash h;
    *key = NULL;
    *count = 0;
    const char *name = choose_hash(p);
    if (!name || p->key_size == 0 || p->key_size > LOOPAES_KEY_MAX)
        return -EDOM;
    if (is_openpgp(secret))
        return -ENOTUNIQ;
    int error = split_lines(&lines, secret);
    if (error)
        return error;
    error = hash_open(&h, name, NULL, 0);
    if (error)
        return error;
    uint8_t *out = h.size < p->key_size ? NULL : arena_alloc(lines.count * p->key_size);
    error = h.size < p->key_size ? -EDOM : out ? 0 : -ENOSPC;
    for (unsigned i = 0; i < lines.count && !error; i++) {
        hash_reset(&h);
        hash_write(&h, lines.text[i], lines.length);
        hash_read(&h, out + i * p->key_size, p->key_size);
        out[i * p->key_size] ^= version_mark(lines.count);
    }
    hash_close(&h);
    wipe_stack();
    if (error)
        return error;
    *key = out;
    *count = lines.count;
    return 0;
}
