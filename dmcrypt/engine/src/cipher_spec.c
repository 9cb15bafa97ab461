#include "cipher_spec.h"

#include <errno.h>
#include <gcrypt.h>
#include <string.h>

#include "hash.h"

#define ELEPHANT_KEY_MAX 32u

/* Key sizes in bytes: least, most and step. */
static const struct {
    const char *name;
    size_t least, most, step;
    int algorithm;
} ALGORITHMS[] = {
    {"aes", 16, 16, 1, GCRY_CIPHER_AES128},
    {"aes", 24, 24, 1, GCRY_CIPHER_AES192},
    {"aes", 32, 32, 1, GCRY_CIPHER_AES256},
    {"serpent", 4, 32, 4, GCRY_CIPHER_SERPENT256}, /* a shorter key is padded: the algorithm is one */
    {"twofish", 16, 16, 1, GCRY_CIPHER_TWOFISH128},
    {"twofish", 32, 32, 1, GCRY_CIPHER_TWOFISH},
    {"camellia", 16, 16, 1, GCRY_CIPHER_CAMELLIA128},
    {"camellia", 24, 24, 1, GCRY_CIPHER_CAMELLIA192},
    {"camellia", 32, 32, 1, GCRY_CIPHER_CAMELLIA256},
    {"cast5", 16, 16, 1, GCRY_CIPHER_CAST5},
    {"blowfish", 4, 56, 1, GCRY_CIPHER_BLOWFISH},
    {"des3_ede", 24, 24, 1, GCRY_CIPHER_3DES},
    {"des", 8, 8, 1, GCRY_CIPHER_DES},
    {"xchacha20,aes", 32, 32, 1, GCRY_CIPHER_AES256}, /* Adiantum's; the key is ChaCha's */
};

static const struct mode {
    const char *name;
    enum chaining chaining;
} MODES[] = {
    {"cbc", CHAIN_CBC}, {"xts", CHAIN_XTS},   {"ecb", CHAIN_ECB},           {"ctr", CHAIN_CTR},
    {"lrw", CHAIN_LRW}, {"pcbc", CHAIN_PCBC}, {"adiantum", CHAIN_ADIANTUM},
};

static const struct {
    const char *name;
    enum iv_kind kind;
} IVS[] = {
    {"plain64", IV_PLAIN64}, {"plain", IV_PLAIN}, {"plain64be", IV_PLAIN64BE}, {"essiv", IV_PLAIN64},
    {"benbi", IV_BENBI},     {"eboiv", IV_EBOIV}, {"null", IV_NULL},           {"elephant", IV_ELEPHANT},
    {"lmk", IV_LMK},         {"tcw", IV_TCW},
};

/** A spec as text, taken apart. Pointers into `text`. */
struct words {
    char text[WIRE_NAME_MAX];
    const char *cipher, *mode, *iv, *essiv_hash;
    unsigned keys;
};

/* A power of 2 up to CIPHER_KEYS_MAX; else 0. */
static unsigned parse_key_count(const char *text)
{
    unsigned count = 0;
    for (; *text >= '0' && *text <= '9' && count <= CIPHER_KEYS_MAX; text++)
        count = count * 10 + (unsigned)(*text - '0');
    return *text == 0 && count <= CIPHER_KEYS_MAX && (count & (count - 1)) == 0 ? count : 0;
}

/* iv[:option], of which only essiv has one. */
static int parse_iv(struct words *w, const char *iv, const char *option)
{
    bool essiv = iv && strcmp(iv, "essiv") == 0;
    if (essiv != (option != NULL) || (essiv && w->essiv_hash))
        return -EOPNOTSUPP;
    w->iv = iv;
    if (essiv)
        w->essiv_hash = option;
    return 0;
}

/* name(inside), the whole of `text`; an opening bracket inside is left alone. @return inside, or NULL */
static char *take_brackets(char *text)
{
    size_t length = strlen(text);
    char *open = strchr(text, '(');
    if (!open || text[length - 1] != ')')
        return NULL;
    *open = 0;
    text[length - 1] = 0;
    return open + 1;
}

/* dm-crypt.c, crypt_ctr_cipher_new. */
static int parse_capi(struct words *w, char *text)
{
    char *option = strrchr(text, ':');
    if (option)
        *option++ = 0;
    char *iv = strrchr(text, '-');
    if (iv && strchr(iv, ')'))
        iv = NULL; /* the hash's: essiv(ecb(aes),sha3-256) */
    if (iv)
        *iv++ = 0;
    char *inside = take_brackets(text);
    if (inside && strcmp(text, "essiv") == 0) {
        char *hash = strrchr(inside, ',');
        if (!hash)
            return -EOPNOTSUPP;
        *hash++ = 0;
        w->essiv_hash = hash;
        text = inside;
        inside = take_brackets(text);
    }
    if (!inside)
        return -EOPNOTSUPP;
    w->mode = text;
    w->cipher = inside;
    w->keys = 1;
    return parse_iv(w, iv, option);
}

/* dm-crypt.c, crypt_ctr_cipher_old. */
static int parse_old(struct words *w, char *rest)
{
    char *cipher = strsep(&rest, "-");
    w->mode = strsep(&rest, "-");
    char *iv = strsep(&rest, ":");
    w->cipher = strsep(&cipher, ":");
    w->keys = cipher ? parse_key_count(cipher) : 1;
    /* Only a cipher, or cipher-plain, is the first dm-crypt's format. */
    if (!w->mode || (strcmp(w->mode, "plain") == 0 && !iv)) {
        w->mode = "cbc";
        iv = "plain";
    }
    return w->keys == 0 ? -EOPNOTSUPP : parse_iv(w, iv, rest);
}

static int parse_words(struct words *w, const char *text)
{
    size_t length = strnlen(text, sizeof(w->text));
    w->essiv_hash = NULL;
    if (length == sizeof(w->text))
        return -EOPNOTSUPP;
    memcpy(w->text, text, length + 1);
    return strncmp(text, "capi:", 5) == 0 ? parse_capi(w, w->text + 5) : parse_old(w, w->text);
}

/* @return 0; -EOPNOTSUPP: no such cipher; -EINVAL: not with such a key */
static int find_algorithm(const char *name, size_t key_size, int *algorithm)
{
    int error = -EOPNOTSUPP;
    for (size_t i = 0; i < sizeof(ALGORITHMS) / sizeof(ALGORITHMS[0]); i++) {
        if (strcmp(name, ALGORITHMS[i].name) != 0)
            continue;
        if (key_size >= ALGORITHMS[i].least && key_size <= ALGORITHMS[i].most && key_size % ALGORITHMS[i].step == 0) {
            *algorithm = ALGORITHMS[i].algorithm;
            return 0;
        }
        error = -EINVAL;
    }
    return error;
}

static int find_mode(const char *name, enum chaining *chaining)
{
    for (size_t i = 0; i < sizeof(MODES) / sizeof(MODES[0]); i++) {
        if (strcmp(MODES[i].name, name) == 0) {
            *chaining = MODES[i].chaining;
            return 0;
        }
    }
    return -EOPNOTSUPP;
}

static int find_iv(const char *name, enum iv_kind *kind)
{
    for (size_t i = 0; i < sizeof(IVS) / sizeof(IVS[0]); i++) {
        if (strcmp(IVS[i].name, name) == 0) {
            *kind = IVS[i].kind;
            return 0;
        }
    }
    return -EOPNOTSUPP;
}

/* The IV's size and its share of the key: dm-crypt.c, crypt_ctr_ivmode. */
static int split_key(struct cipher_spec *s, size_t key_size, size_t block)
{
    s->iv_size = s->chaining == CHAIN_ADIANTUM ? 32 : block;
    s->block = s->chaining == CHAIN_CTR ? 1 : block;
    s->iv_key_size = 0;
    if (s->iv == IV_ELEPHANT)
        s->iv_key_size = key_size / 2;
    else if (s->iv == IV_TCW)
        s->iv_key_size = s->iv_size + TCW_WHITENING_SIZE;
    else if (s->iv == IV_LMK && key_size % s->keys)
        s->iv_key_size = key_size / (s->keys + 1); /* version 3: one more key is the seed */
    if (key_size < s->iv_key_size || (key_size - s->iv_key_size) % s->keys || (s->iv == IV_ELEPHANT && key_size % 2))
        return -EINVAL;
    s->key_size = (key_size - s->iv_key_size) / s->keys;
    if (s->iv == IV_LMK && s->iv_key_size && (s->iv_key_size != s->key_size || s->key_size < 16))
        return -EINVAL;
    return 0;
}

/* Which IVs make sense with which chaining; dm-crypt.c refuses the same, except where the note says so. */
static bool is_possible(const struct cipher_spec *s, bool essiv, size_t block)
{
    switch (s->iv) {
    case IV_NONE:
        return false; /* dm-crypt would use what is in memory */
    case IV_LMK: /* it changes the first block after it was deciphered: dm-crypt takes other modes, and loses data */
        return s->chaining == CHAIN_CBC && !essiv;
    case IV_EBOIV:
    case IV_ELEPHANT:
        return s->block == s->iv_size && !essiv;
    case IV_TCW:
        return !essiv;
    default:
        return !essiv || s->iv_size == block;
    }
}

/* The whole cipher's block, from any size of key. */
static size_t block_of(const char *cipher)
{
    for (size_t i = 0; i < sizeof(ALGORITHMS) / sizeof(ALGORITHMS[0]); i++) {
        if (strcmp(cipher, ALGORITHMS[i].name) == 0)
            return gcry_cipher_get_algo_blklen(ALGORITHMS[i].algorithm);
    }
    return 0;
}

static int resolve(struct cipher_spec *s, const struct words *w, size_t key_size)
{
    size_t block = block_of(w->cipher);
    int error = find_mode(w->mode, &s->chaining);
    s->iv = IV_NONE;
    s->keys = w->keys;
    s->essiv_algorithm = 0;
    if (!error && w->iv)
        error = find_iv(w->iv, &s->iv);
    if (error)
        return error;
    if (s->chaining == CHAIN_ECB) {
        if (w->essiv_hash || s->iv == IV_LMK || s->iv == IV_TCW || s->iv == IV_ELEPHANT)
            return -EOPNOTSUPP;
        s->iv = IV_NONE; /* dm-crypt ignores it */
    }
    if (strcmp(w->cipher, "cipher_null") == 0) {
        s->chaining = s->chaining == CHAIN_ECB ? CHAIN_NULL : CHAIN_CBC;
        return s->chaining == CHAIN_NULL ? 0 : -EOPNOTSUPP; /* with no key: whatever one is given */
    }
    if (block == 0 || (s->chaining == CHAIN_ADIANTUM) != (strchr(w->cipher, ',') != NULL))
        return -EOPNOTSUPP;
    if ((s->chaining == CHAIN_XTS || s->chaining == CHAIN_LRW) && block != GCRY_XTS_BLOCK_LEN)
        return -EOPNOTSUPP;
    error = split_key(s, key_size, block);
    if (s->chaining == CHAIN_ECB)
        s->iv_size = 0;
    else if (!is_possible(s, w->essiv_hash != NULL, block))
        return -EOPNOTSUPP;
    if (error)
        return error;
    size_t cipher_key = s->key_size;
    if (s->chaining == CHAIN_XTS && cipher_key % 2)
        return -EINVAL;
    if (s->chaining == CHAIN_XTS)
        cipher_key /= 2;
    if (s->chaining == CHAIN_LRW)
        cipher_key = cipher_key < block ? 0 : cipher_key - block;
    error = find_algorithm(w->cipher, cipher_key, &s->algorithm);
    int ignored;
    if (!error && s->iv == IV_ELEPHANT && s->iv_key_size > ELEPHANT_KEY_MAX)
        error = -EINVAL;
    if (!error && s->iv == IV_ELEPHANT)
        error = find_algorithm("aes", s->iv_key_size, &ignored);
    if (!error && w->essiv_hash) {
        int hash = hash_find(w->essiv_hash);
        if (strpbrk(w->essiv_hash, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
            return -EOPNOTSUPP; /* the kernel's names are lower case */
        if (hash == GCRY_MD_NONE || strlen(w->essiv_hash) >= sizeof(s->essiv_hash))
            return -EOPNOTSUPP;
        memcpy(s->essiv_hash, w->essiv_hash, strlen(w->essiv_hash) + 1);
        error = find_algorithm(w->cipher, gcry_md_get_algo_dlen(hash), &s->essiv_algorithm);
    }
    return error;
}

int cipher_spec_parse(struct cipher_spec *out, const char *text, size_t key_size)
{
    struct words w;
    memset(out, 0, sizeof(*out));
    int error = parse_words(&w, text);
    return error ? error : resolve(out, &w, key_size);
}

bool cipher_spec_takes_sector_size(const struct cipher_spec *s, uint32_t sector_size)
{
    return sector_size == 512 || (s->iv != IV_LMK && s->iv != IV_TCW);
}
