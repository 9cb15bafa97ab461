/* Hostile parameters to the engine's cryptography: they give errors, or results, and nothing else.
 *
 * With libFuzzer (-fsanitize=fuzzer), or alone: FUZZ_ALONE makes a main() that takes a seed and a count and
 * feeds inputs of its own. An input is a stream of operations; what an operation needs is read from the
 * stream, often one of the names that headers have, so that checks behind the first are reached too.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "af.h"
#include "arena.h"
#include "cipher.h"
#include "kdf.h"
#include "keyslot.h"
#include "loopaes_key.h"
#include "plain_key.h"
#include "rsa.h"
#include "secure_key.h"
#include "selftest.h"
#include "session.h"

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            abort(); \
        } \
    } while (0)

struct input {
    const uint8_t *bytes;
    size_t left;
};

static const char *const NAMES[] = {
    "sha256", "sha1", "sha512", "md5", "whirlpool", "blake2b-512", "blake2s-256", "stribog512", "plain", "",
    "sha256:16", "sha1:0", "plain:99999", "aes-xts-plain64", "aes-cbc-essiv:sha256", "aes-cbc-plain64",
    "serpent-xts-plain", "twofish-cbc-benbi", "cast5-cbc-eboiv", "des3_ede-cbc-null", "aes-ecb", "aes", "aes-plain",
    "aes-ctr-plain64be", "blowfish-cbc-plain64", "capi:xts(aes)-plain64", "aes:64-cbc-lmk", "aes-cbc-essiv:sha3-256",
    "aes-lrw-benbi", "aes-pcbc-plain64", "serpent:4-cbc-essiv:sha256", "aes-cbc-tcw", "aes-cbc-elephant", "cipher_null-ecb",
    "xchacha20,aes-adiantum-plain64", "capi:essiv(cbc(aes),sha256)-plain", "blowfish:2-cbc-lmk", "aes:64-xts-eboiv",
};
static const uint32_t NUMBERS[] = {0, 1, 7, 8, 16, 24, 31, 32, 48, 64, 128, 511, 512, 1024, 4000, 4096, 65536,
                                   INT32_MAX, UINT32_MAX};

static void take(struct input *in, void *out, size_t size)
{
    size_t have = in->left < size ? in->left : size;
    memset(out, 0, size);
    memcpy(out, in->bytes, have);
    in->bytes += have;
    in->left -= have;
}

static uint8_t take_byte(struct input *in)
{
    uint8_t byte;
    take(in, &byte, 1);
    return byte;
}

static uint32_t take_number(struct input *in)
{
    uint32_t number;
    if (take_byte(in) & 3)
        return NUMBERS[take_byte(in) % (sizeof(NUMBERS) / sizeof(NUMBERS[0]))];
    take(in, &number, sizeof(number));
    return number;
}

/* Mostly a number that the operation takes well, so that the next check is reached. */
static uint32_t take_near(struct input *in, uint32_t good)
{
    return take_byte(in) & 7 ? good : take_number(in);
}

static void take_name(struct input *in, char name[WIRE_NAME_MAX])
{
    memset(name, 0, WIRE_NAME_MAX);
    uint8_t kind = take_byte(in);
    if (kind & 15)
        strncpy(name, NAMES[take_byte(in) % (sizeof(NAMES) / sizeof(NAMES[0]))], WIRE_NAME_MAX - 1);
    else
        take(in, name, WIRE_NAME_MAX); /* perhaps without a NUL */
    if ((kind & 0xf0) == 0)
        name[take_byte(in) % WIRE_NAME_MAX] = (char)take_byte(in);
}

static void take_kdf(struct input *in, struct wire_kdf *kdf)
{
    kdf->type = take_near(in, 1 + take_byte(in) % 3);
    kdf->iterations = take_byte(in) % 4; /* more only costs time */
    kdf->memory = take_near(in, 8 + take_byte(in));
    kdf->lanes = take_near(in, 1 + take_byte(in) % 4);
    take_name(in, kdf->hash);
    kdf->salt_length = take_near(in, 32);
    take(in, kdf->salt, sizeof(kdf->salt));
}

static void take_digest(struct input *in, struct wire_digest *digest)
{
    take_name(in, digest->hash);
    digest->iterations = take_byte(in) % 4;
    digest->salt_length = take_near(in, 32);
    digest->digest_length = take_near(in, 32);
    take(in, digest->salt, sizeof(digest->salt));
    take(in, digest->digest, sizeof(digest->digest));
}

static void try_cipher(struct input *in)
{
    static uint8_t data[16384];
    uint8_t key[2080]; /* 65 keys of 32 bytes */
    char spec[WIRE_NAME_MAX + 1] = {0};
    struct cipher *c = NULL;
    take_name(in, spec);
    size_t key_size = take_near(in, 64) % (sizeof(key) + 1), length = take_near(in, 4096) % sizeof(data);
    uint32_t sector_size = take_near(in, 512);
    unsigned threads = take_near(in, 2);
    uint64_t sector = (uint64_t)take_number(in) << (take_byte(in) % 33);
    take(in, key, 256);
    for (size_t i = 256; i < sizeof(key); i++)
        key[i] = (uint8_t)(key[i - 256] + i / 256);
    int error = cipher_open(&c, spec, key, key_size, sector_size, take_byte(in) & 3, threads);
    CHECK((error == 0) == (c != NULL));
    if (!error) {
        CHECK(cipher_check(spec, key_size) == 0);
        uint8_t *before = malloc(length + 1);
        CHECK(before);
        memcpy(before, data, length);
        error = cipher_encrypt(c, threads - 1, data, data, length, sector);
        CHECK((error == 0) == (length % sector_size == 0));
        if (!error)
            CHECK(cipher_decrypt(c, threads - 1, data, length, sector) == 0 && memcmp(before, data, length) == 0);
        free(before);
    }
    cipher_close(c);
}

static void try_keyslot(struct input *in, int fd)
{
    struct wire_keyslot slot = {.area_offset = take_near(in, 4096), .area_length = take_near(in, 65536)};
    struct wire_digest digest = {.iterations = 0};
    struct secret secret = {.bytes = NULL};
    uint8_t *key = NULL, volume_key[1024];
    slot.key_size = take_near(in, 64);
    slot.stripes = take_near(in, 1 + take_byte(in));
    slot.area_key_size = take_near(in, 64);
    take_name(in, slot.af_hash);
    take_name(in, slot.area_cipher);
    take_kdf(in, &slot.kdf);
    take_digest(in, &digest);
    take(in, volume_key, sizeof(volume_key));
    if (take_byte(in) & 1)
        keyslot_create(fd, &slot, &secret, volume_key, take_near(in, slot.key_size) % sizeof(volume_key));
    int error = keyslot_open(fd, &slot, &digest, &secret, &key);
    CHECK((error == 0) == (key != NULL));
    arena_free(key);
}

static void try_kdf(struct input *in)
{
    struct wire_kdf kdf = {.type = 0};
    uint8_t password[300], *out = arena_alloc(KDF_OUTPUT_MAX);
    take_kdf(in, &kdf);
    take(in, password, sizeof(password));
    CHECK(out);
    kdf_derive(&kdf, password, take_near(in, 20) % sizeof(password), out, take_number(in));
    arena_free(out);
}

static void try_plain_key(struct input *in)
{
    struct wire_plain_key how = {.key_size = take_near(in, 32), .hash_length = take_near(in, 0)};
    uint8_t bytes[128], *key = NULL;
    struct secret secret = {.bytes = bytes, .length = take_byte(in) % sizeof(bytes)};
    how.flags = take_number(in);
    take_name(in, how.hash);
    take(in, bytes, sizeof(bytes));
    int error = plain_key(&how, &secret, &key);
    CHECK((error == 0) == (key != NULL));
    arena_free(key);
}

static void try_loopaes_key(struct input *in)
{
    struct wire_loopaes_key how = {.key_size = take_near(in, 16)};
    uint8_t text[65 * 8], *key = NULL;
    unsigned count = 0, lines = take_byte(in) & 1 ? 64 + take_byte(in) % 3 : take_byte(in) % 66;
    const size_t width = 1 + take_byte(in) % 7;
    struct secret secret = {.bytes = text, .length = 0};
    if (take_byte(in) & 1)
        take_name(in, how.hash);
    take(in, text, sizeof(text));
    for (unsigned i = 0; i < lines && secret.length + width + 1 <= sizeof(text); i++) {
        secret.length += width;
        text[secret.length++] = take_byte(in) % 16 ? '\n' : '\r';
    }
    int error = loopaes_key(&how, &secret, &key, &count);
    CHECK((error == 0) == (key != NULL) && (error != 0 || count == 1 || count == 64 || count == 65));
    arena_free(key);
}

static void try_token(struct input *in)
{
    struct wire_token token = {.length = 0};
    uint8_t bytes[200], *key = NULL;
    size_t size = 0;
    take(in, bytes, sizeof(bytes));
    if (take_byte(in) & 1) {
        size_t wrapped = take_near(in, 64) % sizeof(bytes);
        if (session_wrap(bytes, wrapped, &token) == 0 && take_byte(in) & 1)
            token.bytes[take_byte(in)] ^= take_byte(in);
        token.length = take_near(in, token.length);
    } else {
        take(in, &token, sizeof(token));
    }
    int error = session_unwrap(&token, &key, &size);
    CHECK((error == 0) == (key != NULL));
    arena_free(key);
    session_import(bytes, take_byte(in) % sizeof(bytes), take_number(in), &token);
}

/* Tokens as they come out of keyslots and key files: nearly right ones, in any combination. */
static void try_foreign_tokens(struct input *in)
{
    uint8_t bytes[2 * 136 + 64];
    struct wire_token token;
    size_t size = 0;
    while (size + 136 <= sizeof(bytes) && take_byte(in) % 4 != 0) {
        static const uint32_t kinds[] = {SESSION_AES_128, SESSION_AES_256, SESSION_AES_XTS_128, SESSION_AES_XTS_256};
        if (take_byte(in) & 1) {
            CHECK(session_make_pkey(kinds[take_byte(in) % 4], &token) == 0);
            memcpy(bytes + size, token.bytes, token.length);
            size += token.length;
        } else {
            static const size_t parts[] = {64, 136, 96};
            const unsigned kind = take_byte(in) % 3;
            size_t part = parts[kind];
            take(in, bytes + size, part);
            bytes[size] = kind == 2 ? 0x46 : 1;
            bytes[size + 4] = (uint8_t)(kind == 2 ? 1 : 4 + take_byte(in) % 2);
            size += part;
        }
    }
    if (size > 0 && take_byte(in) & 1)
        bytes[take_number(in) % size] ^= take_byte(in);
    size = take_byte(in) & 1 ? size : take_number(in) % (sizeof(bytes) + 1) % (size + 1);
    CHECK(!(secure_key_is_whole(bytes, size) && secure_key_is_fragment(bytes, size)));
    uint8_t *key = NULL;
    size_t key_size = 0;
    if (session_join_pkeys(bytes, size, &token) == 0) {
        CHECK(!secure_key_is_whole(bytes, size));
        CHECK(session_unwrap(&token, &key, &key_size) == 0 && key_size <= 64);
    }
    arena_free(key);
}

/* Blobs of kind 2: nearly right ones. Few are deciphered, which takes a hundredth of a second. */
static void try_enciphered(struct input *in)
{
    uint8_t blob[3 + 2 * RSA_SIZE + 2];
    struct wire_token token;
    memset(blob, 0, sizeof(blob));
    blob[0] = 2;
    blob[1] = (uint8_t)take_near(in, 2);
    blob[2] = (uint8_t)take_near(in, 1 + take_byte(in) % 2);
    for (unsigned i = 3; i < sizeof(blob); i += 16)
        blob[i] = take_byte(in);
    if (take_byte(in) % 128 != 0)
        blob[3] = blob[3 + RSA_SIZE] = 0xff; /* beyond most moduli */
    const size_t size = take_near(in, 3 + blob[2] % 3 * RSA_SIZE) % (sizeof(blob) + 1);
    const int error = session_import(blob, size, 0, &token);
    CHECK(error == -EKEYREJECTED || (size == 0 && error == -EINVAL));
}

static void try_secret(struct input *in, int fd)
{
    struct secret secret;
    struct wire_load_secret how = {.mode = take_near(in, 1 + take_byte(in) % 2)};
    how.offset = (uint64_t)take_number(in) << (take_byte(in) % 33);
    how.size = (uint64_t)take_number(in) << (take_byte(in) % 33);
    int error = secret_load(&secret, fd, &how);
    CHECK(error == 0 || secret.bytes == NULL);
    secret_free(&secret);
}

static void try_af(struct input *in)
{
    char hash[WIRE_NAME_MAX];
    uint8_t key[64];
    size_t size = 1 + take_byte(in) % sizeof(key);
    uint32_t stripes = take_byte(in);
    take_name(in, hash);
    take(in, key, sizeof(key));
    uint8_t *material = arena_alloc(size * (stripes + 1)), *merged = arena_alloc(size);
    CHECK(material && merged);
    if (af_split(hash, key, size, stripes, material) == 0)
        CHECK(af_merge(hash, material, size, stripes, merged) == 0 && memcmp(merged, key, size) == 0);
    arena_free(material);
    arena_free(merged);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static int fd = -1;
    if (fd < 0) {
        const char *failed;
        CHECK(arena_init(512 << 10, 4 << 20, false) == 0 && arena_init_gcrypt() == 0);
        CHECK(kdf_init(1024, 1) == 0 && selftest_run(&failed) == 0 && session_init() == 0);
        uint8_t modulus[RSA_SIZE];
        CHECK(rsa_modulus(modulus) == 0);
        fd = memfd_create("area", MFD_CLOEXEC);
        CHECK(fd >= 0 && ftruncate(fd, 128 << 10) == 0);
    }
    struct input in = {.bytes = bytes, .left = size};
    uint64_t used = arena_info().used;
    while (in.left > 0) {
        switch (take_byte(&in) % 10) {
        case 0: try_cipher(&in); break;
        case 1: try_keyslot(&in, fd); break;
        case 2: try_kdf(&in); break;
        case 3: try_plain_key(&in); break;
        case 4: try_token(&in); break;
        case 5: try_secret(&in, fd); break;
        case 6: try_foreign_tokens(&in); break;
        case 7: try_loopaes_key(&in); break;
        case 8: try_enciphered(&in); break;
        default: try_af(&in); break;
        }
        CHECK(ftruncate(fd, 128 << 10) == 0);
    }
    CHECK(arena_info().used == used);
    CHECK(arena_info().kdf_memory == 0);
    return 0;
}

#ifdef FUZZ_ALONE
int main(int argc, char **argv)
{
    uint64_t state = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
    unsigned long count = argc > 2 ? strtoul(argv[2], NULL, 0) : 1000;
    static uint8_t bytes[4096];
    for (unsigned long i = 0; i < count; i++) {
        for (size_t j = 0; j < sizeof(bytes); j++) {
            state = state * 6364136223846793005u + 1442695040888963407u; /* Knuth's MMIX */
            bytes[j] = (uint8_t)(state >> 56);
        }
        LLVMFuzzerTestOneInput(bytes, sizeof(bytes));
    }
    return 0;
}
#endif
