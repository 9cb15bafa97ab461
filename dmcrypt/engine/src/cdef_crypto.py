"""What cffi is told of the engine's cryptography: its functions, and the wire structs they take.

Source: the headers named in `HEADERS`, and src/wire.h. The C compiler checks every declaration here
against them (API mode).
"""

from typing import Final

HEADERS: Final = (
    "arena.h",
    "argon2_single.h",
    "cipher.h",
    "af.h",
    "secret.h",
    "kdf.h",
    "keyslot.h",
    "plain_key.h",
    "loopaes_key.h",
    "secure_key.h",
    "session.h",
    "rsa.h",
    "selftest.h",
)

CDEF: Final = """
struct wire_token {
    uint32_t length;
    uint32_t pad;
    uint8_t bytes[2144];
};
struct wire_load_secret {
    uint32_t mode;
    uint32_t pad;
    uint64_t offset;
    uint64_t size;
};
struct wire_kdf {
    uint32_t type;
    uint32_t iterations;
    uint32_t memory;
    uint32_t lanes;
    char hash[64];
    uint32_t salt_length;
    uint32_t pad;
    uint8_t salt[64];
};
struct wire_keyslot {
    uint32_t key_size;
    uint32_t stripes;
    uint32_t area_key_size;
    uint32_t pad;
    uint64_t area_offset;
    uint64_t area_length;
    char af_hash[64];
    char area_cipher[64];
    struct wire_kdf kdf;
};
struct wire_digest {
    char hash[64];
    uint32_t iterations;
    uint32_t salt_length;
    uint32_t digest_length;
    uint32_t pad;
    uint8_t salt[64];
    uint8_t digest[512];
};
struct wire_plain_key {
    uint64_t secret;
    uint32_t key_size;
    uint32_t hash_length;
    uint32_t flags;
    uint32_t pad;
    char hash[64];
};
struct wire_benchmark {
    struct wire_kdf kdf;
    uint32_t key_size;
    uint32_t milliseconds;
};

struct arena_info {
    uint32_t kind;
    uint64_t size;
    uint64_t used;
    uint64_t kdf_memory;
};
int arena_init(size_t first, size_t limit, bool force_mlock);
int arena_init_gcrypt(void);
void *arena_alloc(size_t size);
void arena_free(void *p);
size_t arena_size(const void *p);
void arena_use_reserve(bool on);
struct arena_info arena_info(void);
void wipe(void *p, size_t n);
bool equal_const_time(const void *a, const void *b, size_t n);

struct cipher;
#define CIPHER_ANY_XTS_KEY 2
int cipher_open(struct cipher **out, const char *spec, const uint8_t *key, size_t key_size,
                uint32_t sector_size, unsigned flags, unsigned threads);
int cipher_check(const char *spec, size_t key_size);
bool cipher_is_null(const char *spec);
void cipher_close(struct cipher *c);
int cipher_decrypt(struct cipher *c, unsigned thread, void *buf, size_t length, uint64_t sector);
int cipher_encrypt(struct cipher *c, unsigned thread, void *dst, const void *src, size_t length,
                   uint64_t sector);

int af_split(const char *hash, const uint8_t *key, size_t size, uint32_t stripes,
             uint8_t *material);
int af_merge(const char *hash, const uint8_t *material, size_t size, uint32_t stripes,
             uint8_t *key);

struct secret {
    uint8_t *bytes;
    size_t length;
};
int secret_load(struct secret *out, int fd, const struct wire_load_secret *how);
void secret_free(struct secret *s);
int kdf_init(uint32_t memory_limit, unsigned lanes);
uint32_t kdf_memory_ceiling(void);
int kdf_derive(const struct wire_kdf *kdf, const uint8_t *secret, size_t secret_length,
               uint8_t *out, size_t size);
int argon2_single(const struct wire_kdf *kdf, const uint8_t *secret, size_t secret_length,
                  uint8_t *out, size_t size);
int kdf_benchmark(const struct wire_benchmark *b, struct wire_kdf *out);
int keyslot_open(int fd, const struct wire_keyslot *slot, const struct wire_digest *digest,
                 const struct secret *secret, uint8_t **key);
int keyslot_create(int fd, const struct wire_keyslot *slot, const struct secret *secret,
                   const uint8_t *key, size_t key_size);
int digest_compute(const struct wire_digest *d, const uint8_t *key, size_t key_size, uint8_t *out);
int plain_key(const struct wire_plain_key *p, const struct secret *secret, uint8_t **key);
struct wire_loopaes_key {
    uint32_t key_size;
    char hash[64];
    ...;
};
int loopaes_key(const struct wire_loopaes_key *p, const struct secret *secret, uint8_t **key,
                unsigned *count);

int session_init(void);
struct session { ...; };
int session_prepare(struct session *next);
void session_replace(struct session *next);
int session_rewrap(const struct session *old, struct wire_token *token);
void session_discard(struct session *old);
void session_public_key(uint8_t *out);
void session_pattern(uint8_t *out);
uint32_t session_kind(const struct wire_token *token);
int rsa_modulus(uint8_t *modulus);
int session_wrap(const uint8_t *key, size_t size, struct wire_token *token);
int session_unwrap(const struct wire_token *token, uint8_t **key, size_t *size);
bool session_is_imported(const struct wire_token *token);
int session_make_pkey(uint32_t key_type, struct wire_token *token);
int session_join_pkeys(const uint8_t *bytes, size_t size, struct wire_token *token);
int session_import(const uint8_t *blob, size_t length, size_t key_size, struct wire_token *token);

bool secure_key_is_whole(const uint8_t *bytes, size_t size);
bool secure_key_is_fragment(const uint8_t *bytes, size_t size);

int selftest_run(const char **failed);
"""
