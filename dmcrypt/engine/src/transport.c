#include "transport.h"

#include <errno.h>
#include <gcrypt.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#include "arena.h"
#include "hash.h"
#include "random.h"
#include "rsa.h"

#define KIND_X25519 1u
#define KIND_RSA 2u
#define RSA_HEADER 3u /* kind, hash, number of keys */
#define POINT 32u
#define NONCE 12u
#define TAG 16u
#define HEADER (1u + POINT) /* kind and ephemeral key: the additional data */
#define AES_KEY 32u
#define MARK 16u /* bytes kept of what is random in a blob: enough to tell 4096 apart */

static const char INFO[] = "fusecrypt transport 1";

static struct {
    pthread_mutex_t lock;
    struct transport_pair pair;
    unsigned opened;
    uint8_t seen[TRANSPORT_BLOBS_MAX][MARK]; /* marks of ephemeral keys, ciphertexts; touched as it fills */
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

int transport_prepare(struct transport_pair *pair)
{
    pair->private_key = arena_alloc(POINT);
    int error = pair->private_key ? random_fill(pair->private_key, POINT) : -ENOSPC;
    return error ? error : multiply(pair->public_key, pair->private_key, NULL);
}

void transport_replace(struct transport_pair *pair)
{
    pthread_mutex_lock(&transport.lock);
    const struct transport_pair old = transport.pair;
    transport.pair = *pair;
    *pair = old;
    transport.opened = 0;
    pthread_mutex_unlock(&transport.lock);
    rsa_forget();
}

void transport_discard(struct transport_pair *pair)
{
    arena_free(pair->private_key);
    pair->private_key = NULL;
}

void transport_public_key(uint8_t out[POINT])
{
    pthread_mutex_lock(&transport.lock);
    memcpy(out, transport.pair.public_key, POINT);
    pthread_mutex_unlock(&transport.lock);
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
        hash_write(&expand, transport.pair.public_key, POINT);
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

/* Remember the marks of an opened blob, in which each may stand once. The lock is held. */
static int mark_seen(const uint8_t *const marks[], unsigned count)
{
    for (unsigned k = 0; k < count; k++) {
        for (unsigned i = 0; i < transport.opened; i++) {
            if (memcmp(transport.seen[i], marks[k], MARK) == 0)
                return -EEXIST;
        }
    }
    if (count > TRANSPORT_BLOBS_MAX - transport.opened)
        return -EDQUOT;
    for (unsigned k = 0; k < count; k++)
        memcpy(transport.seen[transport.opened++], marks[k], MARK);
    return 0;
}

static int open_x25519(const uint8_t *blob, size_t length, size_t most, uint8_t **key, size_t *size)
{
    if (length <= HEADER + NONCE + TAG || length - HEADER - NONCE - TAG > most)
        return -EINVAL;
    size_t plain = length - HEADER - NONCE - TAG;
    const uint8_t *ephemeral = blob + 1;

    uint8_t *work = arena_alloc(POINT + AES_KEY), *out = arena_alloc(plain);
    int error = work && out ? 0 : -ENOSPC;
    pthread_mutex_lock(&transport.lock);
    if (!error)
        error = multiply(work, transport.pair.private_key, ephemeral);
    if (!error)
        error = derive(work, ephemeral, work + POINT);
    if (!error)
        error = decipher(work + POINT, blob, out, plain);
    if (!error)
        error = mark_seen(&ephemeral, 1);
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

/* Both keys are deciphered before anything is said of either: all that may be wrong is one error. */
static int open_rsa(const uint8_t *blob, size_t length, size_t most, uint8_t **key, size_t *size)
{
    const unsigned count = length > RSA_HEADER ? blob[2] : 0;
    if (count < 1 || count > 2 || length != RSA_HEADER + count * RSA_SIZE || most < count * RSA_PLAIN_MAX)
        return -EKEYREJECTED;
    uint8_t *out = arena_alloc(2 * RSA_PLAIN_MAX);
    if (!out)
        return -ENOSPC;
    const uint8_t *marks[2] = {NULL, NULL};
    size_t sizes[2] = {0, 0};
    int error = 0;
    for (unsigned i = 0; i < count; i++) {
        marks[i] = blob + RSA_HEADER + i * RSA_SIZE;
        const int rc = rsa_decipher(blob[1], marks[i], out + (i ? sizes[0] : 0), &sizes[i]);
        error = error ? error : rc;
    }
    if (!error && count == 2 && (sizes[0] != sizes[1] || memcmp(marks[0], marks[1], MARK) == 0))
        error = -EKEYREJECTED;
    if (!error) {
        pthread_mutex_lock(&transport.lock);
        error = mark_seen(marks, count);
        pthread_mutex_unlock(&transport.lock);
    }
    if (error) {
        arena_free(out);
        return error;
    }
    *key = out;
    *size = sizes[0] + sizes[1];
    return 0;
}

/* No blob for the old pair is taken any more, so none of them need be remembered. */
static void begin_another_pair(void)
{
    struct transport_pair pair;
    if (transport_prepare(&pair) == 0)
        transport_replace(&pair);
    transport_discard(&pair);
}

static int open_blob(const uint8_t *blob, size_t length, size_t most, uint8_t **key, size_t *size)
{
    switch (blob[0]) {
    case KIND_X25519:
        return open_x25519(blob, length, most, key, size);
    case KIND_RSA:
        return open_rsa(blob, length, most, key, size);
    default:
        return -EOPNOTSUPP;
    }
}

int transport_open(const uint8_t *blob, size_t length, size_t most, uint8_t **key, size_t *size)
{
    *key = NULL;
    *size = 0;
    if (length == 0)
        return -EINVAL;
    int error = open_blob(blob, length, most, key, size);
    if (error == -EDQUOT)
        begin_another_pair();
    return error;
}
