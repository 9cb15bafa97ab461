#include "key_requests.h"

#include <errno.h>
#include <string.h>

#include "arena.h"
#include "cipher_benchmark.h"
#include "kdf.h"
#include "keyslot.h"
#include "loopaes_key.h"
#include "plain_key.h"
#include "random.h"
#include "rsa.h"
#include "secure_key.h"
#include "session.h"

#define KEY_SIZE_LEAST 1u
#define KEY_SIZE_MOST SESSION_KEY_MAX

void key_load_secret(struct request *r)
{
    struct secrets *secrets = &r->engine->secrets;
    struct wire_load_secret how;
    struct wire_secret out = { 0 };
    struct secret secret;

    memcpy(&how, r->body, sizeof how);
    int rc = secret_load(&secret, r->fds[0], &how);
    if (rc == 0) {
        out.length = secret.length;
        out.handle = secrets_add(secrets, &secret);
        if (out.handle == 0) {
            secret_free(&secret);
            rc = -EUSERS;
        }
    }
    request_finish(r, rc, &out, sizeof out);
}

void key_drop_secret(struct request *r)
{
    struct wire_secret in;

    memcpy(&in, r->body, sizeof in);
    request_finish(r, secrets_drop(&r->engine->secrets, in.handle), NULL, 0);
}

static bool is_terminated(const char name[WIRE_NAME_MAX])
{
    return memchr(name, 0, WIRE_NAME_MAX) != NULL;
}

static bool is_sound_kdf(const struct wire_kdf *k)
{
    return is_terminated(k->hash) && k->salt_length <= WIRE_SALT_MAX;
}

static bool is_sound_keyslot(const struct wire_keyslot *k)
{
    return is_terminated(k->af_hash) && is_terminated(k->area_cipher) && is_sound_kdf(&k->kdf);
}

static bool is_sound_digest(const struct wire_digest *d)
{
    return is_terminated(d->hash) && d->salt_length <= WIRE_SALT_MAX && d->digest_length <= WIRE_DIGEST_MAX;
}

/* Wrap a clear key for the daemon, and wipe it. */
static void answer_with_key(struct request *r, int rc, uint8_t *key, size_t size)
{
    struct wire_token token = { 0 };

    if (rc == 0) {
        rc = session_wrap(key, size, &token);
        arena_free(key);
    }
    request_finish(r, rc, &token, sizeof token);
}

/* The secret that a request names, to be released; or NULL, and the request is answered. */
static struct held_secret *use_secret(struct request *r, uint64_t handle)
{
    struct held_secret *held = secrets_use(&r->engine->secrets, handle);

    if (held == NULL)
        request_finish(r, -ENOENT, NULL, 0);
    return held;
}

void key_open_keyslot(struct request *r)
{
    struct wire_open_keyslot in;
    uint8_t *key = NULL;
    int rc = -EINVAL;

    memcpy(&in, r->body, sizeof in);
    struct held_secret *held = use_secret(r, in.secret);
    if (held == NULL)
        return;
    if (is_sound_keyslot(&in.keyslot) && is_sound_digest(&in.digest))
        rc = keyslot_open(r->fds[0], &in.keyslot, &in.digest, &held->secret, &key);
    secrets_release(&r->engine->secrets, held);
    answer_with_key(r, rc, key, in.keyslot.key_size);
}

void key_create_keyslot(struct request *r)
{
    struct wire_create_keyslot in;
    uint8_t *key;
    size_t size;
    int rc = -EINVAL;

    memcpy(&in, r->body, sizeof in);
    struct held_secret *held = use_secret(r, in.secret);
    if (held == NULL)
        return;
    if (is_sound_keyslot(&in.keyslot)) {
        rc = session_unwrap(&in.token, &key, &size);
        if (rc == 0) {
            rc = keyslot_create(r->fds[0], &in.keyslot, &held->secret, key, size);
            arena_free(key);
        }
    }
    secrets_release(&r->engine->secrets, held);
    request_finish(r, rc, NULL, 0);
}

static bool has_equal_halves(const uint8_t *key, size_t size)
{
    return equal_const_time(key, key + size / 2, size / 2);
}

/* Arena memory for a key of a size that the session can wrap. */
static int allocate_key(uint32_t size, uint8_t **key)
{
    if (size < KEY_SIZE_LEAST || size > KEY_SIZE_MOST)
        return -EINVAL;
    *key = arena_alloc(size);
    return *key != NULL ? 0 : -ENOSPC;
}

void key_generate(struct request *r)
{
    struct wire_key_size in;
    uint8_t *key = NULL;

    memcpy(&in, r->body, sizeof in);
    int rc = allocate_key(in.size, &key);
    if (rc == 0) {
        do
            rc = random_fill(key, in.size);
        while (rc == 0 && (in.flags & WIRE_KEY_XTS) != 0 && has_equal_halves(key, in.size));
        if (rc != 0)
            arena_free(key);
    }
    answer_with_key(r, rc, key, in.size);
}

static int hex_digit(uint8_t c)
{
    const uint8_t lower = c | 0x20;
    return c >= '0' && c <= '9' ? c - '0' : lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/* Hexadecimal text to the `size` bytes that it stands for; arena memory. */
static int decode_hex(const uint8_t *text, size_t size, uint8_t **key)
{
    uint8_t *bytes = arena_alloc(size);
    bool is_hex = bytes != NULL;

    for (size_t i = 0; i < size && is_hex; i++) {
        const int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
        is_hex = high >= 0 && low >= 0;
        if (is_hex)
            bytes[i] = (uint8_t)(high << 4 | low);
    }
    *key = bytes;
    if (is_hex)
        return 0;
    arena_free(bytes);
    *key = NULL;
    return bytes == NULL ? -ENOSPC : -EILSEQ;
}

void key_of_table(struct request *r)
{
    struct wire_table_key in;
    uint8_t *key = NULL;
    int rc = -EINVAL;

    memcpy(&in, r->body, sizeof in);
    struct held_secret *held = use_secret(r, in.secret);
    if (held == NULL)
        return;
    const size_t length = held->secret.length;
    if (in.size >= KEY_SIZE_LEAST && in.size <= KEY_SIZE_MOST)
        rc = in.offset > length || length - in.offset < 2 * in.size
                 ? -ENODATA : decode_hex(held->secret.bytes + in.offset, in.size, &key);
    secrets_release(&r->engine->secrets, held);
    answer_with_key(r, rc, key, in.size);
}

void key_load(struct request *r)
{
    struct wire_key_size in;
    struct secret secret = { 0 };
    int rc = -EINVAL;

    memcpy(&in, r->body, sizeof in);
    if (in.size >= KEY_SIZE_LEAST && in.size <= KEY_SIZE_MOST) {
        struct wire_load_secret how = { .mode = WIRE_SECRET_ALL, .size = in.size };
        rc = secret_load(&secret, r->fds[0], &how);
    }
    if (rc == 0 && (in.flags & WIRE_KEY_XTS) != 0 && has_equal_halves(secret.bytes, in.size)) {
        secret_free(&secret);
        rc = -EKEYREJECTED;
    }
    answer_with_key(r, rc, secret.bytes, in.size);
}

void key_plain(struct request *r)
{
    struct wire_plain_key in;
    uint8_t *key = NULL;

    memcpy(&in, r->body, sizeof in);
    struct held_secret *held = use_secret(r, in.secret);
    if (held == NULL)
        return;
    const int rc = plain_key(&in, &held->secret, &key);
    secrets_release(&r->engine->secrets, held);
    answer_with_key(r, rc, key, in.key_size);
}

void key_loopaes(struct request *r)
{
    struct wire_loopaes_key in;
    struct wire_loopaes_keys out = { 0 };
    uint8_t *key = NULL;
    unsigned count = 0;
    int rc = -EINVAL;

    memcpy(&in, r->body, sizeof in);
    struct held_secret *held = use_secret(r, in.secret);
    if (held == NULL)
        return;
    if (is_terminated(in.hash))
        rc = loopaes_key(&in, &held->secret, &key, &count);
    secrets_release(&r->engine->secrets, held);
    if (rc == 0) {
        out.count = count;
        rc = session_wrap(key, count * in.key_size, &out.token);
        arena_free(key);
    }
    request_finish(r, rc, &out, sizeof out);
}

void key_make_digest(struct request *r)
{
    struct wire_make_digest in;
    struct wire_digest_value out = { 0 };
    uint8_t *key;
    size_t size;
    int rc = -EINVAL;

    memcpy(&in, r->body, sizeof in);
    if (is_sound_digest(&in.digest) && in.digest.digest_length != 0) {
        rc = session_unwrap(&in.token, &key, &size);
        if (rc == 0) {
            out.length = in.digest.digest_length;
            rc = digest_compute(&in.digest, key, size, out.bytes);
            arena_free(key);
        }
    }
    request_finish(r, rc, &out, sizeof out);
}

void key_benchmark(struct request *r)
{
    struct wire_benchmark in;
    struct wire_kdf out = { 0 };
    int rc = -EINVAL;

    memcpy(&in, r->body, sizeof in);
    if (is_sound_kdf(&in.kdf))
        rc = kdf_benchmark(&in, &out);
    request_finish(r, rc, &out, sizeof out);
}

void key_benchmark_cipher(struct request *r)
{
    struct wire_cipher_benchmark in;
    struct wire_cipher_speed out = { 0 };

    memcpy(&in, r->body, sizeof in);
    int rc = cipher_benchmark(&in, &out);
    request_finish(r, rc, &out, sizeof out);
}

void key_import(struct request *r)
{
    const struct wire_blob *in = (const void *)r->body;
    struct wire_token token = { 0 };
    int rc = -EINVAL;

    if (in->length <= sizeof in->bytes)
        rc = session_import(in->bytes, in->length, in->key_size, &token);
    request_finish(r, rc, &token, sizeof token);
}

void key_export(struct request *r)
{
    struct wire_token in;
    struct wire_exported_key out = { .kind = WIRE_CLEAR };
    uint8_t *key;
    size_t size;

    memcpy(&in, r->body, sizeof in);
    int rc = session_unwrap(&in, &key, &size);
    if (rc != 0) {
        request_finish(r, rc, NULL, 0);
        return;
    }
    if (size <= sizeof out.secure && secure_key_is_whole(key, size)) {
        out.kind = WIRE_SECURE;
        out.length = (uint32_t)size;
        memcpy(out.secure, key, size);
    } else if (secure_key_is_fragment(key, size)) {
        out.kind = WIRE_FRAGMENT;
    } else {
        rc = session_join_pkeys(key, size, &out.token);
        if (rc == 0)
            out.kind = WIRE_PROTECTED;
        else if (rc == -EINVAL)
            rc = 0;
    }
    arena_free(key);
    request_finish(r, rc, &out, sizeof out);
}

void key_make_pkey(struct request *r)
{
    struct wire_key_size in;
    struct wire_token token = { 0 };

    memcpy(&in, r->body, sizeof in);
    int rc = session_make_pkey(in.size, &token);
    request_finish(r, rc, &token, sizeof token);
}

void key_rsa(struct request *r)
{
    struct wire_rsa_key out = { .length = RSA_SIZE };
    _Static_assert(sizeof out.modulus >= RSA_SIZE, "the modulus fits the wire");

    request_finish(r, rsa_modulus(out.modulus), &out, sizeof out);
}
