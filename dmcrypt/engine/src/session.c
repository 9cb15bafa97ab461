#include "session.h"

#include <endian.h>
#include <errno.h>
#include <gcrypt.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#include "arena.h"
#include "hash.h"
#include "random.h"
#include "transport.h"

#define WRAPPING_KEY_SIZE 64u /* AES-256-XTS */
#define PATTERN_SIZE 32u
#define KEY_SIZE_MIN 16u
#define KEY_SIZE_MAX 128u
#define TOKEN_HEADER 16u

/** What a token begins with; then the wrapped key and the pattern. Big-endian. */
struct token_header {
    uint8_t type; /* 0 */
    uint8_t zero[3];
    uint8_t version; /* 1 */
    uint8_t zero_too[3];
    uint32_t key_type;
    uint32_t length; /* of the wrapped key, bytes */
};
_Static_assert(sizeof(struct token_header) == TOKEN_HEADER, "token header");
_Static_assert(TOKEN_HEADER + KEY_SIZE_MAX + PATTERN_SIZE <= WIRE_TOKEN_MAX, "a token fits the wire");

static struct {
    pthread_mutex_t lock; /* of the handle: it keeps a tweak */
    gcry_cipher_hd_t wrapping;
    uint8_t pattern[PATTERN_SIZE];
} session = {.lock = PTHREAD_MUTEX_INITIALIZER};

int session_init(void)
{
    if (session.wrapping)
        return -EALREADY;
    uint8_t *key = arena_alloc(WRAPPING_KEY_SIZE);
    int error = key ? random_fill(key, WRAPPING_KEY_SIZE) : -ENOSPC;
    if (!error)
        error = random_fill(session.pattern, sizeof(session.pattern));
    if (!error)
        error = hash_errno(gcry_cipher_open(&session.wrapping, GCRY_CIPHER_AES256, GCRY_CIPHER_MODE_XTS, 0));
    if (!error)
        error = hash_errno(gcry_cipher_setkey(session.wrapping, key, WRAPPING_KEY_SIZE));
    arena_free(key);
    return error ? error : transport_init();
}

const uint8_t *session_public_key(void)
{
    return transport_public_key();
}

const uint8_t *session_pattern(void)
{
    return session.pattern;
}

/* Encipher or decipher a whole key, out of place. The tweak binds what the header says of it. */
static int wrap_bytes(uint8_t *out, const uint8_t *in, size_t size, const struct token_header *header,
                      bool encrypt)
{
    uint8_t tweak[16] = {0};
    memcpy(tweak, &header->key_type, 4);
    memcpy(tweak + 4, &header->length, 4);
    pthread_mutex_lock(&session.lock);
    gcry_error_t error = gcry_cipher_setiv(session.wrapping, tweak, sizeof(tweak));
    if (!error && encrypt)
        error = gcry_cipher_encrypt(session.wrapping, out, size, in, size);
    else if (!error)
        error = gcry_cipher_decrypt(session.wrapping, out, size, in, size);
    pthread_mutex_unlock(&session.lock);
    wipe_stack();
    return hash_errno(error);
}

int session_wrap(const uint8_t *key, size_t size, struct wire_token *token)
{
    if (size < KEY_SIZE_MIN || size > KEY_SIZE_MAX)
        return -EINVAL;
    struct token_header header = {.type = 0,
                                  .version = 1,
                                  .key_type = htobe32(SESSION_VOLUME_KEY),
                                  .length = htobe32((uint32_t)size)};
    memset(token, 0, sizeof(*token));
    int error = wrap_bytes(token->bytes + TOKEN_HEADER, key, size, &header, true);
    if (error)
        return error;
    memcpy(token->bytes, &header, TOKEN_HEADER);
    memcpy(token->bytes + TOKEN_HEADER + size, session.pattern, PATTERN_SIZE);
    token->length = (uint32_t)(TOKEN_HEADER + size + PATTERN_SIZE);
    return 0;
}

int session_unwrap(const struct wire_token *token, uint8_t **key, size_t *size)
{
    static const uint8_t zero[3];
    struct token_header header;
    *key = NULL;
    *size = 0;
    if (token->length < TOKEN_HEADER + KEY_SIZE_MIN + PATTERN_SIZE
        || token->length > TOKEN_HEADER + KEY_SIZE_MAX + PATTERN_SIZE)
        return -EINVAL;
    size_t length = token->length - TOKEN_HEADER - PATTERN_SIZE;
    memcpy(&header, token->bytes, TOKEN_HEADER);
    if (header.type != 0 || memcmp(header.zero, zero, 3) != 0 || header.version != 1
        || memcmp(header.zero_too, zero, 3) != 0 || be32toh(header.key_type) != SESSION_VOLUME_KEY
        || be32toh(header.length) != length)
        return -EINVAL;
    if (!equal_const_time(token->bytes + TOKEN_HEADER + length, session.pattern, PATTERN_SIZE))
        return -EKEYEXPIRED;

    uint8_t *bytes = arena_alloc(length);
    if (!bytes)
        return -ENOSPC;
    int error = wrap_bytes(bytes, token->bytes + TOKEN_HEADER, length, &header, false);
    if (error) {
        arena_free(bytes);
        return error;
    }
    *key = bytes;
    *size = length;
    return 0;
}

int session_import(const uint8_t *blob, size_t length, size_t key_size, struct wire_token *token)
{
    uint8_t *key = NULL;
    size_t size = 0;
    int error = transport_open(blob, length, KEY_SIZE_MAX, &key, &size);
    if (!error && (size < KEY_SIZE_MIN || (key_size && key_size != size)))
        error = -EINVAL;
    if (!error)
        error = session_wrap(key, size, token);
    arena_free(key);
    return error;
}
