#include "hash.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "arena.h"

static const struct {
    const char *name;
    int algorithm;
} HASHES[] = {
    {"sha1", GCRY_MD_SHA1},
    {"sha224", GCRY_MD_SHA224},
    {"sha256", GCRY_MD_SHA256},
    {"sha384", GCRY_MD_SHA384},
    {"sha512", GCRY_MD_SHA512},
    {"sha512-224", GCRY_MD_SHA512_224},
    {"sha512-256", GCRY_MD_SHA512_256},
    {"sha3-224", GCRY_MD_SHA3_224},
    {"sha3-256", GCRY_MD_SHA3_256},
    {"sha3-384", GCRY_MD_SHA3_384},
    {"sha3-512", GCRY_MD_SHA3_512},
    {"ripemd160", GCRY_MD_RMD160},
    {"rmd160", GCRY_MD_RMD160}, /* the kernel's name, in essiv:rmd160 */
    {"whirlpool", GCRY_MD_WHIRLPOOL},
    {"wp512", GCRY_MD_WHIRLPOOL}, /* the kernel's name */
    {"blake2b-160", GCRY_MD_BLAKE2B_160},
    {"blake2b-256", GCRY_MD_BLAKE2B_256},
    {"blake2b-384", GCRY_MD_BLAKE2B_384},
    {"blake2b-512", GCRY_MD_BLAKE2B_512},
    {"blake2s-128", GCRY_MD_BLAKE2S_128},
    {"blake2s-160", GCRY_MD_BLAKE2S_160},
    {"blake2s-224", GCRY_MD_BLAKE2S_224},
    {"blake2s-256", GCRY_MD_BLAKE2S_256},
    {"sm3", GCRY_MD_SM3},
    {"stribog256", GCRY_MD_STRIBOG256},
    {"stribog512", GCRY_MD_STRIBOG512},
    {"tiger", GCRY_MD_TIGER},
    {"md5", GCRY_MD_MD5},
    {"md4", GCRY_MD_MD4},
};

int hash_find(const char *name)
{
    for (size_t i = 0; i < sizeof(HASHES) / sizeof(HASHES[0]); i++) {
        if (strncasecmp(name, HASHES[i].name, strlen(HASHES[i].name) + 1) == 0)
            return HASHES[i].algorithm;
    }
    return GCRY_MD_NONE;
}

int hash_errno(gcry_error_t error)
{
    switch (gcry_err_code(error)) {
    case GPG_ERR_NO_ERROR:
        return 0;
    case GPG_ERR_ENOMEM:
        return -ENOSPC; /* all of libgcrypt's memory is the arena; Argon2's matrix is checked apart */
    case GPG_ERR_DIGEST_ALGO:
    case GPG_ERR_CIPHER_ALGO:
        return -EOPNOTSUPP;
    case GPG_ERR_WEAK_KEY:
        return -EKEYREJECTED;
    default:
        return -EINVAL;
    }
}

int hash_open(struct hash *h, const char *name, const void *key, size_t key_size)
{
    int algorithm = hash_find(name);
    h->md = NULL;
    h->size = algorithm ? gcry_md_get_algo_dlen(algorithm) : 0;
    if (!algorithm)
        return -EOPNOTSUPP;
    arena_use_reserve(true);
    gcry_error_t error = gcry_md_open(&h->md, algorithm, key ? GCRY_MD_FLAG_HMAC : 0);
    if (!error && key)
        error = gcry_md_setkey(h->md, key, key_size);
    if (error) {
        gcry_md_close(h->md);
        h->md = NULL;
        arena_use_reserve(false);
    }
    return hash_errno(error);
}

void hash_close(struct hash *h)
{
    if (!h->md)
        return;
    gcry_md_close(h->md);
    h->md = NULL;
    arena_use_reserve(false);
}

void hash_reset(struct hash *h)
{
    gcry_md_reset(h->md);
}

void hash_write(struct hash *h, const void *data, size_t size)
{
    gcry_md_write(h->md, data, size);
}

void hash_read(struct hash *h, void *digest, size_t size)
{
    memcpy(digest, gcry_md_read(h->md, 0), size < h->size ? size : h->size);
}
