#include "selftest.h"

#include <errno.h>
#include <gcrypt.h>
#include <stdbool.h>
#include <string.h>

#include "arena.h"
#include "argon2_single.h"
#include "cipher.h"
#include "hash.h"
#include "kdf.h"

#define SECTOR 512u

/* The bytes of a string literal without its NUL. */
#define BYTES(s) (const uint8_t *)(s), sizeof(s) - 1

/* IEEE 1619-2007 annex B, vectors 4 and 10: a data unit of 512 bytes, 00 to ff twice. The whole ciphertext
 * is compared by its SHA-256, which RFC 7914's PBKDF2 below checks; the head stands here to be looked up. */
static const struct {
    const char *name;
    const uint8_t *key;
    size_t key_size;
    uint64_t sector;
    const char *head, *digest; /* 16 and 32 bytes */
} XTS[] = {
    {"AES-128-XTS, IEEE 1619 vector 4",
     BYTES("\x27\x18\x28\x18\x28\x45\x90\x45\x23\x53\x60\x28\x74\x71\x35\x26"
           "\x31\x41\x59\x26\x53\x58\x97\x93\x23\x84\x62\x64\x33\x83\x27\x95"),
     0, "\x27\xa7\x47\x9b\xef\xa1\xd4\x76\x48\x9f\x30\x8c\xd4\xcf\xa6\xe2",
     "\xeb\xee\x4d\x64\xdd\x23\x95\xbb\x2d\x6a\x2d\x37\xa0\xa4\x8e\xcb"
     "\x2b\xf4\x91\x3c\xfc\x99\xd2\x7c\x22\x14\xf2\xf4\x14\x47\x15\xea"},
    {"AES-256-XTS, IEEE 1619 vector 10",
     BYTES("\x27\x18\x28\x18\x28\x45\x90\x45\x23\x53\x60\x28\x74\x71\x35\x26"
           "\x62\x49\x77\x57\x24\x70\x93\x69\x99\x59\x57\x49\x66\x96\x76\x27"
           "\x31\x41\x59\x26\x53\x58\x97\x93\x23\x84\x62\x64\x33\x83\x27\x95"
           "\x02\x88\x41\x97\x16\x93\x99\x37\x51\x05\x82\x09\x74\x94\x45\x92"),
     255, "\x1c\x3b\x3a\x10\x2f\x77\x03\x86\xe4\x83\x6c\x99\xe3\x70\xcf\x9b",
     "\xe9\x7e\x97\x4f\xa3\x93\xaf\x79\x4f\x7a\x46\x84\x39\x58\x14\xcf"
     "\x82\x0d\xe6\x0a\x01\xea\xec\x67\x7d\x87\xb4\x52\xe3\x16\xb3\x64"},
};

/* NIST SP 800-38A, F.2.5. Its IV is xored into the first block, for sector 0 of plain64 has an IV of zeros. */
static const char CBC_KEY[] = "\x60\x3d\xeb\x10\x15\xca\x71\xbe\x2b\x73\xae\xf0\x85\x7d\x77\x81"
                              "\x1f\x35\x2c\x07\x3b\x61\x08\xd7\x2d\x98\x10\xa3\x09\x14\xdf\xf4";
static const char CBC_PLAIN[] = "\x6b\xc1\xbe\xe2\x2e\x40\x9f\x96\xe9\x3d\x7e\x11\x73\x93\x17\x2a"
                                "\xae\x2d\x8a\x57\x1e\x03\xac\x9c\x9e\xb7\x6f\xac\x45\xaf\x8e\x51";
static const char CBC_CIPHER[] = "\xf5\x8c\x4c\x04\xd6\xe5\xf1\xba\x77\x9e\xab\xfb\x5f\x7b\xfb\xd6"
                                 "\x9c\xfc\x4e\x96\x7e\xdb\x80\x8d\x67\x9f\x77\x7b\xc6\x70\x2c\x7d";

#define ARGON2(kind, n) \
    {.type = (kind), .iterations = 2, .memory = 256, .lanes = (n), .salt = "somesalt", .salt_length = 8}

/* RFC 6070; RFC 7914 section 11; phc-winner-argon2's src/test.c (RFC 9106's own vectors have a key). */
static const struct {
    const char *name;
    struct wire_kdf kdf;
    const char *password, *answer;
    size_t size;
} KDFS[] = {
    {"PBKDF2-HMAC-SHA1, RFC 6070",
     {.type = WIRE_PBKDF2, .iterations = 2, .hash = "sha1", .salt = "salt", .salt_length = 4}, "password",
     "\xea\x6c\x01\x4d\xc7\x2d\x6f\x8c\xcd\x1e\xd9\x2a\xce\x1d\x41\xf0\xd8\xde\x89\x57", 20},
    {"PBKDF2-HMAC-SHA256, RFC 7914",
     {.type = WIRE_PBKDF2, .iterations = 1, .hash = "sha256", .salt = "salt", .salt_length = 4}, "passwd",
     "\x55\xac\x04\x6e\x56\xe3\x08\x9f\xec\x16\x91\xc2\x25\x44\xb6\x05"
     "\xf9\x41\x85\x21\x6d\xde\x04\x65\xe6\x8b\x9d\x57\xc2\x0d\xac\xbc", 32},
    {"Argon2id, one lane",
     ARGON2(WIRE_ARGON2ID, 1),
     "password",
     "\x9d\xfe\xb9\x10\xe8\x0b\xad\x03\x11\xfe\xe2\x0f\x9c\x0e\x2b\x12"
     "\xc1\x79\x87\xb4\xca\xc9\x0c\x2e\xf5\x4d\x5b\x30\x21\xc6\x8b\xfe", 32},
    {"Argon2id, two lanes",
     ARGON2(WIRE_ARGON2ID, 2),
     "password",
     "\x6d\x09\x3c\x50\x1f\xd5\x99\x96\x45\xe0\xea\x3b\xf6\x20\xd7\xb8"
     "\xbe\x7f\xd2\xdb\x59\xc2\x0d\x9f\xff\x95\x39\xda\x2b\xf5\x70\x37", 32},
    {"Argon2i, two lanes",
     ARGON2(WIRE_ARGON2I, 2),
     "password",
     "\x4f\xf5\xce\x27\x69\xa1\xd7\xf4\xc8\xa4\x91\xdf\x09\xd4\x1a\x9f"
     "\xbe\x90\xe5\xeb\x02\x15\x5a\x13\xe4\xc0\x1e\x20\xcd\x4e\xab\x61", 32},
};

/* One published block of each cipher, the first of a sector, the rest of which is zeros. libgcrypt tests a cipher
 * itself when it first gets a key, and remembers a failure for good; later there might be no memory for it. */
static const struct {
    const char *name, *spec;
    const uint8_t *key;
    size_t key_size;
    const uint8_t *plain, *answer;
    size_t size;
} BLOCKS[] = {
    {"Serpent-256, the AES submission", "serpent-ecb",
     BYTES("\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f"
           "\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f"),
     (const uint8_t *)"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f",
     BYTES("\xde\x26\x9f\xf8\x33\xe4\x32\xb8\x5b\x2e\x88\xd2\x70\x1c\xe7\x5c")},
    {"Twofish-256, the AES submission", "twofish-ecb",
     BYTES("\x01\x23\x45\x67\x89\xab\xcd\xef\xfe\xdc\xba\x98\x76\x54\x32\x10"
           "\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff"),
     (const uint8_t *)"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
     BYTES("\x37\x52\x7b\xe0\x05\x23\x34\xb8\x9f\x0c\xfc\xca\xe8\x7c\xfa\x20")},
    {"Camellia-256, RFC 3713", "camellia-ecb",
     BYTES("\x01\x23\x45\x67\x89\xab\xcd\xef\xfe\xdc\xba\x98\x76\x54\x32\x10"
           "\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff"),
     (const uint8_t *)"\x01\x23\x45\x67\x89\xab\xcd\xef\xfe\xdc\xba\x98\x76\x54\x32\x10",
     BYTES("\x9a\xcc\x23\x7d\xff\x16\xd7\x6c\x20\xef\x7c\x91\x9e\x3a\x75\x09")},
    {"CAST-128, RFC 2144", "cast5-ecb",
     BYTES("\x01\x23\x45\x67\x12\x34\x56\x78\x23\x45\x67\x89\x34\x56\x78\x9a"),
     (const uint8_t *)"\x01\x23\x45\x67\x89\xab\xcd\xef",
     BYTES("\x23\x8b\x4f\xe5\x84\x7e\x44\xb2")},
    {"Blowfish, B. Schneier's", "blowfish-ecb",
     BYTES("\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f\x70"
           "\x71\x72\x73\x74\x75\x76\x77\x78\x79\x7a"),
     (const uint8_t *)"\x42\x4c\x4f\x57\x46\x49\x53\x48",
     BYTES("\x32\x4e\xd0\xfe\xf4\x13\xa2\x03")},
    {"3DES, SP 800-67", "des3_ede-ecb",
     BYTES("\x01\x23\x45\x67\x89\xab\xcd\xef\x23\x45\x67\x89\xab\xcd\xef\x01"
           "\x45\x67\x89\xab\xcd\xef\x01\x23"),
     (const uint8_t *)"\x54\x68\x65\x20\x71\x75\x66\x63",
     BYTES("\xa8\x26\xfd\x8c\xe5\x3b\x85\x5f")},
    {"DES, FIPS 81", "des-ecb",
     BYTES("\x01\x23\x45\x67\x89\xab\xcd\xef"),
     (const uint8_t *)"\x4e\x6f\x77\x20\x69\x73\x20\x74",
     BYTES("\x3f\xa4\x0e\x8a\x98\x4d\x48\x15")},
    {"AES-LRW, IEEE P1619 draft", "aes-lrw-benbi",
     BYTES("\x45\x62\xac\x25\xf8\x28\x17\x6d\x4c\x26\x84\x14\xb5\x68\x01\x85"
           "\x25\x8e\x2a\x05\xe7\x3e\x9d\x03\xee\x5a\x83\x0c\xcc\x09\x4c\x87"),
     (const uint8_t *)"\x30\x31\x32\x33\x34\x35\x36\x37\x38\x39\x41\x42\x43\x44\x45\x46",
     BYTES("\xf1\xb2\x73\xcd\x65\xa3\xdf\x5f\xe9\x5d\x48\x92\x54\x63\x4e\xb8")},
};

/* The others of our own making: the beginning of the SHA-256 of sector 5, 00 to ff twice, under a key of 01, 26, 4b, …
 * They are as Linux 6.1 has it, with which tests/interop/test_accept_kernel_ciphers.py compares them all. */
static const struct {
    const char *spec;
    size_t key_size;
    const char *digest; /* 16 bytes */
} COMPOSED[] = {
    {"aes-ctr-plain64", 32,
     "\xa8\x6d\x76\xa8\xad\x8f\x5b\x7c\x81\x3f\xfc\x17\x97\x01\x74\xce"},
    {"aes-pcbc-plain64", 32,
     "\xeb\x28\x04\x19\xde\xdc\x1b\x81\x76\x39\x8b\x51\xda\x04\x2b\x63"},
    {"aes-cbc-essiv:sha256", 32,
     "\x3e\x9f\x44\xba\x50\x0d\xe0\x83\xd7\x08\xec\xe5\x82\xda\x5f\x74"},
    {"aes-xts-eboiv", 64,
     "\x73\x5c\x29\x3a\x4d\xee\x9e\x88\xcd\xdd\x4f\x42\xf8\x9d\xad\x07"},
    {"aes-cbc-elephant", 64,
     "\x5a\x0c\x0e\x0e\xe6\x33\x3f\x60\xec\x1c\x85\xd8\xf8\xe0\xe2\x5f"},
    {"aes:2-cbc-lmk", 48,
     "\xd0\x42\x51\xc8\x2a\xa2\xdf\x7f\x02\x53\x93\xc9\xe6\x4f\x21\x3d"},
    {"serpent-cbc-tcw", 64,
     "\xee\x6c\x31\xa9\x93\xc9\x29\xa9\x60\x1c\x4a\xea\x19\x39\xf2\x51"},
    {"xchacha20,aes-adiantum-plain64", 32,
     "\xd3\xd4\xd3\x61\xf4\x98\xe0\x7f\xdd\x9f\x0d\xe9\x45\x93\x56\x68"},
};

static bool test_xts(uint8_t *work, const char **name)
{
    uint8_t *digest = work + 2 * SECTOR;
    bool good = true;
    for (size_t i = 0; i < sizeof(XTS) / sizeof(XTS[0]) && good; i++) {
        struct cipher *c = NULL;
        struct hash h = {.md = NULL};
        *name = XTS[i].name;
        for (size_t j = 0; j < SECTOR; j++)
            work[j] = (uint8_t)j;
        good = cipher_open(&c, "aes-xts-plain64", XTS[i].key, XTS[i].key_size, SECTOR, 0, 1) == 0
               && cipher_encrypt(c, 0, work + SECTOR, work, SECTOR, XTS[i].sector) == 0
               && memcmp(work + SECTOR, XTS[i].head, 16) == 0 && hash_open(&h, "sha256", NULL, 0) == 0;
        if (good) {
            hash_write(&h, work + SECTOR, SECTOR);
            hash_read(&h, digest, 32);
            good = memcmp(digest, XTS[i].digest, 32) == 0
                   && cipher_decrypt(c, 0, work + SECTOR, SECTOR, XTS[i].sector) == 0
                   && memcmp(work, work + SECTOR, SECTOR) == 0;
        }
        hash_close(&h);
        cipher_close(c);
    }
    return good;
}

static bool test_cbc(uint8_t *work, const char **name)
{
    struct cipher *c = NULL;
    *name = "AES-256-CBC, SP 800-38A F.2.5";
    memset(work, 0, SECTOR);
    memcpy(work, CBC_PLAIN, sizeof(CBC_PLAIN) - 1);
    for (uint8_t i = 0; i < 16; i++)
        work[i] ^= i;
    bool good = cipher_open(&c, "aes-cbc-plain64", BYTES(CBC_KEY), SECTOR, 0, 1) == 0
                && cipher_encrypt(c, 0, work + SECTOR, work, SECTOR, 0) == 0
                && memcmp(work + SECTOR, CBC_CIPHER, sizeof(CBC_CIPHER) - 1) == 0
                && cipher_decrypt(c, 0, work + SECTOR, SECTOR, 0) == 0
                && memcmp(work + SECTOR, work, SECTOR) == 0;
    cipher_close(c);
    return good;
}

static bool test_kdf(uint8_t *work, const char **name)
{
    bool good = true;
    for (size_t i = 0; i < sizeof(KDFS) / sizeof(KDFS[0]) && good; i++) {
        *name = KDFS[i].name;
        good = kdf_derive(&KDFS[i].kdf, (const uint8_t *)KDFS[i].password, strlen(KDFS[i].password), work,
                          KDFS[i].size) == 0
               && memcmp(work, KDFS[i].answer, KDFS[i].size) == 0;
    }
    return good;
}

/* The same answers, by the other library. */
static bool test_argon2_single(uint8_t *work, const char **name)
{
    bool good = true;
    for (size_t i = 0; i < sizeof(KDFS) / sizeof(KDFS[0]) && good; i++) {
        if (KDFS[i].kdf.type == WIRE_PBKDF2)
            continue;
        *name = KDFS[i].name;
        good = argon2_single(&KDFS[i].kdf, (const uint8_t *)KDFS[i].password, strlen(KDFS[i].password), work,
                             KDFS[i].size) == 0
               && memcmp(work, KDFS[i].answer, KDFS[i].size) == 0;
    }
    return good;
}

/* RFC 7748 section 6.1: Bob's private key, Alice's public key. */
static bool test_x25519(uint8_t *work, const char **name)
{
    static const char BOB[] = "\x5d\xab\x08\x7e\x62\x4a\x8a\x4b\x79\xe1\x7f\x8b\x83\x80\x0e\xe6"
                              "\x6f\x3b\xb1\x29\x26\x18\xb6\xfd\x1c\x2f\x8b\x27\xff\x88\xe0\xeb";
    static const char ALICE[] = "\x85\x20\xf0\x09\x89\x30\xa7\x54\x74\x8b\x7d\xdc\xb4\x3e\xf7\x5a"
                                "\x0d\xbf\x3a\x0d\x26\x38\x1a\xf4\xeb\xa4\xa9\x8e\xaa\x9b\x4e\x6a";
    static const char SHARED[] = "\x4a\x5d\x9d\x5b\xa4\xce\x2d\xe1\x72\x8e\x3b\xf4\x80\x35\x0f\x25"
                                 "\xe0\x7e\x21\xc9\x47\xd1\x9e\x33\x76\xf0\x9b\x3c\x1e\x16\x17\x42";
    *name = "X25519, RFC 7748";
    arena_use_reserve(true);
    gcry_error_t error = gcry_ecc_mul_point(GCRY_ECC_CURVE25519, work, (const uint8_t *)BOB,
                                            (const uint8_t *)ALICE);
    arena_use_reserve(false);
    return !error && memcmp(work, SHARED, 32) == 0;
}

/* McGrew and Viega, "The Galois/Counter Mode of Operation", test case 16. */
static bool test_gcm(uint8_t *work, const char **name)
{
    static const char KEY[] = "\xfe\xff\xe9\x92\x86\x65\x73\x1c\x6d\x6a\x8f\x94\x67\x30\x83\x08"
                              "\xfe\xff\xe9\x92\x86\x65\x73\x1c\x6d\x6a\x8f\x94\x67\x30\x83\x08";
    static const char NONCE[] = "\xca\xfe\xba\xbe\xfa\xce\xdb\xad\xde\xca\xf8\x88";
    static const char DATA[] = "\xfe\xed\xfa\xce\xde\xad\xbe\xef\xfe\xed\xfa\xce\xde\xad\xbe\xef"
                               "\xab\xad\xda\xd2";
    static const char PLAIN[] = "\xd9\x31\x32\x25\xf8\x84\x06\xe5\xa5\x59\x09\xc5\xaf\xf5\x26\x9a"
                                "\x86\xa7\xa9\x53\x15\x34\xf7\xda\x2e\x4c\x30\x3d\x8a\x31\x8a\x72"
                                "\x1c\x3c\x0c\x95\x95\x68\x09\x53\x2f\xcf\x0e\x24\x49\xa6\xb5\x25"
                                "\xb1\x6a\xed\xf5\xaa\x0d\xe6\x57\xba\x63\x7b\x39";
    static const char CIPHER[] = "\x52\x2d\xc1\xf0\x99\x56\x7d\x07\xf4\x7f\x37\xa3\x2a\x84\x42\x7d"
                                 "\x64\x3a\x8c\xdc\xbf\xe5\xc0\xc9\x75\x98\xa2\xbd\x25\x55\xd1\xaa"
                                 "\x8c\xb0\x8e\x48\x59\x0d\xbb\x3d\xa7\xb0\x8b\x10\x56\x82\x88\x38"
                                 "\xc5\xf6\x1e\x63\x93\xba\x7a\x0a\xbc\xc9\xf6\x62";
    static const char TAG[] = "\x76\xfc\x6e\xce\x0f\x4e\x17\x68\xcd\xdf\x88\x53\xbb\x2d\x55\x1b";
    const size_t size = sizeof(PLAIN) - 1;
    gcry_cipher_hd_t h = NULL;
    *name = "AES-256-GCM, test case 16";
    bool good = !gcry_cipher_open(&h, GCRY_CIPHER_AES256, GCRY_CIPHER_MODE_GCM, 0)
                && !gcry_cipher_setkey(h, BYTES(KEY)) && !gcry_cipher_setiv(h, BYTES(NONCE))
                && !gcry_cipher_authenticate(h, BYTES(DATA))
                && !gcry_cipher_decrypt(h, work, size, CIPHER, size)
                && !gcry_cipher_checktag(h, BYTES(TAG)) && memcmp(work, PLAIN, size) == 0;
    gcry_cipher_close(h);
    return good;
}

static bool test_blocks(uint8_t *work, const char **name)
{
    bool good = true;
    for (size_t i = 0; i < sizeof(BLOCKS) / sizeof(BLOCKS[0]) && good; i++) {
        struct cipher *c = NULL;
        *name = BLOCKS[i].name;
        memset(work, 0, SECTOR);
        memcpy(work, BLOCKS[i].plain, BLOCKS[i].size);
        good = cipher_open(&c, BLOCKS[i].spec, BLOCKS[i].key, BLOCKS[i].key_size, SECTOR, 0, 1) == 0
               && cipher_encrypt(c, 0, work + SECTOR, work, SECTOR, 0) == 0
               && memcmp(work + SECTOR, BLOCKS[i].answer, BLOCKS[i].size) == 0
               && cipher_decrypt(c, 0, work + SECTOR, SECTOR, 0) == 0 && memcmp(work + SECTOR, work, SECTOR) == 0;
        cipher_close(c);
    }
    return good;
}

static bool test_composed(uint8_t *work, const char **name)
{
    uint8_t key[64], *digest = work + 2 * SECTOR;
    bool good = true;
    for (size_t i = 0; i < sizeof(key); i++)
        key[i] = (uint8_t)(i * 37 + 1);
    for (size_t i = 0; i < SECTOR; i++)
        work[i] = (uint8_t)i;
    for (size_t i = 0; i < sizeof(COMPOSED) / sizeof(COMPOSED[0]) && good; i++) {
        struct cipher *c = NULL;
        struct hash h = {.md = NULL};
        *name = COMPOSED[i].spec;
        good = cipher_open(&c, COMPOSED[i].spec, key, COMPOSED[i].key_size, SECTOR, 0, 1) == 0
               && cipher_encrypt(c, 0, work + SECTOR, work, SECTOR, 5) == 0 && hash_open(&h, "sha256", NULL, 0) == 0;
        if (good) {
            hash_write(&h, work + SECTOR, SECTOR);
            hash_read(&h, digest, 32);
            good = memcmp(digest, COMPOSED[i].digest, 16) == 0 && cipher_decrypt(c, 0, work + SECTOR, SECTOR, 5) == 0
                   && memcmp(work, work + SECTOR, SECTOR) == 0;
        }
        hash_close(&h);
        cipher_close(c);
    }
    return good;
}

int selftest_run(const char **failed)
{
    static bool (*const TESTS[])(uint8_t *, const char **) = {
        test_kdf, test_argon2_single, test_xts, test_cbc, test_x25519, test_gcm, test_blocks, test_composed,
    };
    *failed = "memory for the self-test";
    uint8_t *work = arena_alloc(3 * SECTOR);
    bool good = work != NULL;
    for (size_t i = 0; i < sizeof(TESTS) / sizeof(TESTS[0]) && good; i++)
        good = TESTS[i](work, failed);
    arena_free(work);
    if (good)
        *failed = NULL;
    return good ? 0 : -ENOTRECOVERABLE;
}
