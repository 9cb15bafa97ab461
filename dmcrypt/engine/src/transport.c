#include "transport.h"

#include <errno.h>
#include <gcrypt.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#include "arena.h"
#include "hash.h"
#include "random.h"

#define KIND_X25519 1u
#define POINT 32u
#define NONCE 12u
#define TAG 16u
#define HEADER (1u + POINT) /* kind and ephemeral key: the additional data */
#define AES_KEY 32u
#define MARK 16u /* bytes kept of an ephemeral key: enough to tell 65536 random ones apart */

static const char INFO[] = "fusecrypt transport 1";

static struct {
    pthread_mutex_t lock;
    uint8_t *private_key; /* arena memory */
    uint8_t public_key[POINT];
    unsigned opened;
    uint8_t seen[TRANSPORT_BLOBS_MAX][MARK]; /* marks of the ephemeral keys opened; touched as it fills */
} transport = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* X25519; point NULL: the base point. libgcrypt's big numbers end the process when they get no memory. */
static int multiply(uint8_t *out, const uint8_t *scalar, const uint8_t *point)
{
    static const uint8_t zero[POINT];
    arena_use_reserve(true);
    gcry_error_t error = gcry_ecc_mul_point(GCRY_ECC_CURVE25519, out, scalar, point);
    arena_use_reserve(false);
    if (error || equal_const_time(out, zero, POINT)) /* RFC 7748 section 6.1: a point of small order */
        return -EKEYREJECTED;
    return 0;
}

int transport_init(void)
{
    transport.private_key = arena_alloc(POINT);
    int error = transport.private_key ? random_fill(transport.private_key, POINT) : -ENOSPC;
    return error ? error : multiply(transport.public_key, transport.private_key, NULL);
}

const uint8_t *transport_public_key(void)
{
    return transport.public_key;
}

/* HKDF-SHA256 without salt, one block: secret and out are POINT and AES_KEY bytes of arena memory. */
static int derive(const uint8_t *secret, const uint8_t *ephemeral, uint8_t *out)
{
    static const uint8_t no_salt[32];
    const uint8_t first = 1;
    struct hash extract = {.md = NULL}, expand = {.md = NULL};
    int error = hash_open(&extract, "sha256", no_salt, sizeof(no_salt));
    if (!error) {
        hash_write(&extract, secret, POINT);
        hash_read(&extract, out, AES_KEY);
        error = hash_open(&expand, "sha256", out, AES_KEY);
    }
    if (!error) {
        hash_write(&expand, INFO, sizeof(INFO) - 1);
        hash_write(&expand, ephemeral, POINT);
        hash_write(&expand, transport.public_key, POINT);
        hash_write(&expand, &first, 1);
        hash_read(&expand, out, AES_KEY);
    }
    hash_close(&extract);
    hash_close(&expand);
    return error;
}

/* AES-256-GCM. @return 0; -EKEYREJECTED: not authentic */
static int decipher(const uint8_t *aes_key, const uint8_t *blob, uint8_t *out, size_t size)
{
    gcry_cipher_hd_t h = NULL;
    gcry_error_t error = gcry_cipher_open(&h, GCRY_CIPHER_AES256, GCRY_CIPHER_MODE_GCM, 0);
    if (!error)
        error = gcry_cipher_setkey(h, aes_key, AES_KEY);
    if (!error)
        error = gcry_cipher_setiv(h, blob + HEADER, NONCE);
    if (!error)
        error = gcry_cipher_authenticate(h, blob, HEADER);
    if (!error)
        error = gcry_cipher_decrypt(h, out, size, blob + HEADER + NONCE, size);
    bool opened = !error;
    if (opened)
        error = gcry_cipher_checktag(h, blob + HEADER + NONCE + size, TAG);
    gcry_cipher_close(h);
    return opened && error ? -EKEYREJECTED : hash_errno(error);
}

/* Remember an authentic blob. The lock is held. */
static int mark_seen(const uint8_t *ephemeral)
{
    for (unsigned i = 0; i < transport.opened; i++) {
        if (memcmp(transport.seen[i], ephemeral, MARK) == 0)
            return -EEXIST;
    }
    if (transport.opened == TRANSPORT_BLOBS_MAX)
        return -EDQUOT;
    memcpy(transport.seen[transport.opened++], ephemeral, MARK);
    return 0;
}

int transport_open(const uint8_t *blob, size_t length, size_t most, uint8_t **key, size_t *size)
{
    *key = NULL;
    *size = 0;
    if (length == 0)
        return -EINVAL;
    if (blob[0] != KIND_X25519)
        return -EOPNOTSUPP;
    if (length <= HEADER + NONCE + TAG || length - HEADER - NONCE - TAG > most)
        return -EINVAL;
    size_t plain = length - HEADER - NONCE - TAG;
    const uint8_t *ephemeral = blob + 1;

    uint8_t *work = arena_alloc(POINT + AES_KEY), *out = arena_alloc(plain);
    int error = work && out ? 0 : -ENOSPC;
    pthread_mutex_lock(&transport.lock);
    if (!error)
        error = multiply(work, transport.private_key, ephemeral);
    if (!error)
        error = derive(work, ephemeral, work + POINT);
    if (!error)
        error = decipher(work + POINT, blob, out, plain);
    if (!error)
        error = mark_seen(ephemeral);
    pthread_mutex_unlock(&transport.lock);
    wipe_stack();
    arena_free(work);
    if (error) {
        arena_free(out);
        return error;
    }
    *key = out;
    *size = plain;
    return 0;
}
