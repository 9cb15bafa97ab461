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
#define WRAPPED_MIN 16u /* bytes that XTS needs */
#define SENT_KEY_MIN 16u
#define DATA_KEY_MAX 128u /* bytes; what a coprocessor sends is no token */
#define TOKEN_HEADER 16u
#define AES_DATA 64u /* bytes behind the header of a single AES key's token, whatever the key's size */

/** What a token begins with; then the wrapped key and the pattern. Big-endian. */
struct token_header {
    uint8_t type; /* 0 */
    uint8_t zero[3];
    uint8_t version; /* 1 */
    uint8_t zero_too[3];
    uint32_t key_type;
    uint32_t length; /* of the wrapped key and the pattern, bytes */
};
_Static_assert(sizeof(struct token_header) == TOKEN_HEADER, "token header");
_Static_assert(TOKEN_HEADER + SESSION_KEY_MAX + PATTERN_SIZE <= WIRE_TOKEN_MAX, "a token fits the wire");

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

/* Bytes of key in a token of a type of IBM Z's; 0: no such type. */
static size_t pkey_size(uint32_t key_type)
{
    switch (key_type) {
    case SESSION_AES_128:
        return 16;
    case SESSION_AES_192:
        return 24;
    case SESSION_AES_256:
    case SESSION_AES_XTS_128:
        return 32;
    case SESSION_AES_XTS_256:
        return 64;
    default:
        return 0;
    }
}

static size_t data_size(uint32_t key_type, size_t size)
{
    return key_type >= SESSION_AES_128 && key_type <= SESSION_AES_256 ? AES_DATA : size + PATTERN_SIZE;
}

/* What a key of `size` bytes is wrapped as. */
static size_t padded_size(size_t size)
{
    return size < WRAPPED_MIN ? WRAPPED_MIN : size;
}

static int wrap_as(uint32_t key_type, const uint8_t *key, size_t size, struct wire_token *token)
{
    struct token_header header = {.type = 0,
                                  .version = 1,
                                  .key_type = htobe32(key_type),
                                  .length = htobe32((uint32_t)(size + PATTERN_SIZE))};
    memset(token, 0, sizeof(*token));
    const size_t padded = padded_size(size);
    uint8_t *copy = padded == size ? NULL : arena_alloc(padded);
    if (padded != size && !copy)
        return -ENOSPC;
    if (copy)
        memcpy(copy, key, size);
    int error = wrap_bytes(token->bytes + TOKEN_HEADER, copy ? copy : key, padded, &header, true);
    arena_free(copy);
    if (error)
        return error;
    memcpy(token->bytes, &header, TOKEN_HEADER);
    memcpy(token->bytes + TOKEN_HEADER + padded, session.pattern, PATTERN_SIZE);
    token->length = (uint32_t)(TOKEN_HEADER + data_size(key_type, padded));
    return 0;
}

int session_wrap(const uint8_t *key, size_t size, struct wire_token *token)
{
    if (size == 0 || size > SESSION_KEY_MAX)
        return -EINVAL;
    return wrap_as(SESSION_VOLUME_KEY, key, size, token);
}

/* The header of the token that `bytes` begin with, and the sizes of its key and of itself. */
static int parse_token(const uint8_t *bytes, size_t room, struct token_header *header, size_t *size,
                       size_t *token_size)
{
    static const uint8_t zero[3];
    if (room < TOKEN_HEADER)
        return -EINVAL;
    memcpy(header, bytes, TOKEN_HEADER);
    if (header->type != 0 || memcmp(header->zero, zero, 3) != 0 || header->version != 1
        || memcmp(header->zero_too, zero, 3) != 0)
        return -EINVAL;
    const uint32_t length = be32toh(header->length);
    if (length <= PATTERN_SIZE || length > SESSION_KEY_MAX + PATTERN_SIZE)
        return -EINVAL;
    *size = length - PATTERN_SIZE;
    *token_size = TOKEN_HEADER + data_size(be32toh(header->key_type), padded_size(*size));
    return *token_size <= room ? 0 : -EINVAL;
}

/* `out` has room for padded_size(size) bytes. */
static int unwrap_into(uint8_t *out, const uint8_t *bytes, const struct token_header *header, size_t size)
{
    const size_t padded = padded_size(size);
    if (!equal_const_time(bytes + TOKEN_HEADER + padded, session.pattern, PATTERN_SIZE))
        return -EKEYEXPIRED;
    return wrap_bytes(out, bytes + TOKEN_HEADER, padded, header, false);
}

int session_unwrap(const struct wire_token *token, uint8_t **key, size_t *size)
{
    struct token_header header;
    size_t length, token_size;
    *key = NULL;
    *size = 0;
    if (token->length > WIRE_TOKEN_MAX)
        return -EINVAL;
    int error = parse_token(token->bytes, token->length, &header, &length, &token_size);
    const uint32_t key_type = error ? 0 : be32toh(header.key_type);
    if (!error && (token_size != token->length
                   || (key_type != SESSION_VOLUME_KEY && key_type != SESSION_IMPORTED_KEY)))
        error = -EINVAL;
    if (error)
        return error;

    uint8_t *bytes = arena_alloc(padded_size(length));
    if (!bytes)
        return -ENOSPC;
    error = unwrap_into(bytes, token->bytes, &header, length);
    if (error) {
        arena_free(bytes);
        return error;
    }
    *key = bytes;
    *size = length;
    return 0;
}

bool session_is_imported(const struct wire_token *token)
{
    struct token_header header;
    size_t size, token_size;
    return token->length > WIRE_TOKEN_MAX || parse_token(token->bytes, token->length, &header, &size, &token_size)
           || be32toh(header.key_type) != SESSION_VOLUME_KEY;
}

int session_make_pkey(uint32_t key_type, struct wire_token *token)
{
    const size_t size = pkey_size(key_type);
    if (size == 0)
        return -EINVAL;
    uint8_t *key = arena_alloc(size);
    int error = key ? random_fill(key, size) : -ENOSPC;
    if (!error)
        error = wrap_as(key_type, key, size, token);
    arena_free(key);
    return error;
}

int session_join_pkeys(const uint8_t *bytes, size_t size, struct wire_token *token)
{
    struct token_header header;
    size_t part = 0, token_size = 0, joined = 0;
    uint32_t first_type = 0;
    uint8_t *key = arena_alloc(2 * AES_DATA);
    int error = key ? 0 : -ENOSPC;

    for (size_t at = 0; at < size && !error; at += token_size) {
        error = parse_token(bytes + at, size - at, &header, &part, &token_size);
        if (error)
            break;
        const uint32_t key_type = be32toh(header.key_type);
        /* A second one belongs to a pair for XTS: the two are of one size, and single keys. */
        if (pkey_size(key_type) != part
            || (at != 0 && (at + token_size != size || key_type != first_type || key_type > SESSION_AES_256)))
            error = -EINVAL;
        first_type = key_type;
        if (!error)
            error = unwrap_into(key + joined, bytes + at, &header, part);
        joined += part;
    }
    if (!error)
        error = joined == 0 ? -EINVAL : wrap_as(SESSION_IMPORTED_KEY, key, joined, token);
    arena_free(key);
    return error;
}

int session_import(const uint8_t *blob, size_t length, size_t key_size, struct wire_token *token)
{
    uint8_t *key = NULL;
    size_t size = 0;
    int error = transport_open(blob, length, DATA_KEY_MAX, &key, &size);
    if (!error && (size < SENT_KEY_MIN || (key_size && key_size != size)))
        error = -EINVAL;
    if (!error)
        error = wrap_as(SESSION_IMPORTED_KEY, key, size, token);
    arena_free(key);
    return error;
}
