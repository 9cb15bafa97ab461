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

static struct session session;
/* Held for reading while something of the session is in use, for writing while it is exchanged. */
static pthread_rwlock_t life = PTHREAD_RWLOCK_INITIALIZER;
static pthread_mutex_t handle_lock = PTHREAD_MUTEX_INITIALIZER; /* a handle keeps a tweak */

int session_prepare(struct session *next)
{
    *next = (struct session){.wrapping = NULL};
    uint8_t *key = arena_alloc(WRAPPING_KEY_SIZE);
    next->scratch = arena_alloc(SESSION_KEY_MAX);
    int error = key && next->scratch ? random_fill(key, WRAPPING_KEY_SIZE) : -ENOSPC;
    if (!error)
        error = random_fill(next->pattern, sizeof(next->pattern));
    if (!error)
        error = hash_errno(gcry_cipher_open(&next->wrapping, GCRY_CIPHER_AES256, GCRY_CIPHER_MODE_XTS, 0));
    if (!error)
        error = hash_errno(gcry_cipher_setkey(next->wrapping, key, WRAPPING_KEY_SIZE));
    if (!error)
        error = transport_prepare(&next->pair);
    arena_free(key);
    wipe_stack();
    if (error)
        session_discard(next);
    return error;
}

void session_replace(struct session *next)
{
    pthread_rwlock_wrlock(&life);
    uint8_t *scratch = next->scratch;
    const struct session old = session;
    session = *next;
    *next = old;
    transport_replace(&session.pair);
    next->pair = session.pair;
    next->scratch = scratch;
    /* The pair is the transport's now, and the scratch is for taking leave of the old session. */
    session.pair = (struct transport_pair){.private_key = NULL};
    session.scratch = NULL;
    pthread_rwlock_unlock(&life);
}

void session_discard(struct session *old)
{
    gcry_cipher_close(old->wrapping);
    arena_free(old->scratch);
    transport_discard(&old->pair);
    wipe(old, sizeof(*old));
}

int session_init(void)
{
    struct session first;
    if (session.wrapping)
        return -EALREADY;
    int error = session_prepare(&first);
    if (error)
        return error;
    session_replace(&first);
    session_discard(&first);
    return 0;
}

void session_public_key(uint8_t out[32])
{
    transport_public_key(out);
}

void session_pattern(uint8_t out[PATTERN_SIZE])
{
    pthread_rwlock_rdlock(&life);
    memcpy(out, session.pattern, PATTERN_SIZE);
    pthread_rwlock_unlock(&life);
}

/* Encipher or decipher a whole key. The tweak binds what the header says of it. */
static int wrap_with(const struct session *s, uint8_t *out, const uint8_t *in, size_t size,
                     const struct token_header *header, bool encrypt)
{
    uint8_t tweak[16] = {0};
    memcpy(tweak, &header->key_type, 4);
    memcpy(tweak + 4, &header->length, 4);
    pthread_mutex_lock(&handle_lock);
    gcry_error_t error = gcry_cipher_setiv(s->wrapping, tweak, sizeof(tweak));
    if (!error && encrypt)
        error = gcry_cipher_encrypt(s->wrapping, out, size, in, size);
    else if (!error)
        error = gcry_cipher_decrypt(s->wrapping, out, size, in, size);
    pthread_mutex_unlock(&handle_lock);
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

/* With `life` held, as all that wraps and unwraps from here on. */
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
    int error = wrap_with(&session, token->bytes + TOKEN_HEADER, copy ? copy : key, padded, &header, true);
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
    pthread_rwlock_rdlock(&life);
    int error = wrap_as(SESSION_VOLUME_KEY, key, size, token);
    pthread_rwlock_unlock(&life);
    return error;
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
    return wrap_with(&session, out, bytes + TOKEN_HEADER, padded, header, false);
}

/* The header of a token of a volume key, and the key's size. */
static int parse_own(const struct wire_token *token, struct token_header *header, size_t *size)
{
    size_t token_size;
    if (token->length > WIRE_TOKEN_MAX)
        return -EINVAL;
    int error = parse_token(token->bytes, token->length, header, size, &token_size);
    const uint32_t key_type = error ? 0 : be32toh(header->key_type);
    if (!error && (token_size != token->length
                   || (key_type != SESSION_VOLUME_KEY && key_type != SESSION_IMPORTED_KEY
                       && key_type != SESSION_RANDOM_KEY)))
        error = -EINVAL;
    return error;
}

int session_unwrap(const struct wire_token *token, uint8_t **key, size_t *size)
{
    struct token_header header;
    size_t length;
    *key = NULL;
    *size = 0;
    int error = parse_own(token, &header, &length);
    if (error)
        return error;

    uint8_t *bytes = arena_alloc(padded_size(length));
    if (!bytes)
        return -ENOSPC;
    pthread_rwlock_rdlock(&life);
    error = unwrap_into(bytes, token->bytes, &header, length);
    pthread_rwlock_unlock(&life);
    if (error) {
        arena_free(bytes);
        return error;
    }
    *key = bytes;
    *size = length;
    return 0;
}

uint32_t session_kind(const struct wire_token *token)
{
    struct token_header header;
    size_t size;
    return parse_own(token, &header, &size) ? 0 : be32toh(header.key_type);
}

bool session_is_imported(const struct wire_token *token)
{
    return session_kind(token) != SESSION_VOLUME_KEY;
}

int session_rewrap(const struct session *old, struct wire_token *token)
{
    struct token_header header;
    size_t size;
    int error = parse_own(token, &header, &size);
    if (!error && be32toh(header.key_type) != SESSION_VOLUME_KEY)
        error = -EINVAL;
    if (error)
        return error;
    const size_t padded = padded_size(size);
    uint8_t *wrapped = token->bytes + TOKEN_HEADER;
    if (!equal_const_time(wrapped + padded, old->pattern, PATTERN_SIZE))
        return -EKEYEXPIRED;
    error = wrap_with(old, old->scratch, wrapped, padded, &header, false);
    pthread_rwlock_rdlock(&life);
    if (!error)
        error = wrap_with(&session, wrapped, old->scratch, padded, &header, true);
    memcpy(wrapped + padded, session.pattern, PATTERN_SIZE);
    pthread_rwlock_unlock(&life);
    wipe(old->scratch, padded);
    return error;
}

int session_make_pkey(uint32_t key_type, struct wire_token *token)
{
    const size_t size = pkey_size(key_type);
    if (size == 0)
        return -EINVAL;
    uint8_t *key = arena_alloc(size);
    int error = key ? random_fill(key, size) : -ENOSPC;
    pthread_rwlock_rdlock(&life);
    if (!error)
        error = wrap_as(key_type, key, size, token);
    pthread_rwlock_unlock(&life);
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

    pthread_rwlock_rdlock(&life);
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
        error = joined == 0 ? -EINVAL : wrap_as(SESSION_RANDOM_KEY, key, joined, token);
    pthread_rwlock_unlock(&life);
    arena_free(key);
    return error;
}

int session_import(const uint8_t *blob, size_t length, size_t key_size, struct wire_token *token)
{
    uint8_t *key = NULL;
    size_t size = 0;
    pthread_rwlock_rdlock(&life);
    int error = transport_open(blob, length, DATA_KEY_MAX, &key, &size);
    if (!error && (size < SENT_KEY_MIN || (key_size && key_size != size)))
        error = -EINVAL;
    if (!error)
        error = wrap_as(SESSION_IMPORTED_KEY, key, size, token);
    pthread_rwlock_unlock(&life);
    arena_free(key);
    return error;
}
