#include "rsa.h"

#include <errno.h>
#include <gcrypt.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#include "arena.h"

/* More than libgcrypt 1.10.1 needs at once to make a key pair (11 KiB) or to use it (15 KiB). Its big
 * numbers end the process when they get no memory: what fails for lack of memory shall fail here. */
#define ROOM (32u << 10)

static struct {
    pthread_mutex_t lock;
    gcry_sexp_t key; /* arena memory, as all of libgcrypt's */
    uint8_t modulus[RSA_SIZE];
} rsa = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Whether the arena has what libgcrypt will ask for. Should another thread be faster, there is the reserve. */
static bool has_room(void)
{
    void *room = arena_alloc(ROOM);
    arena_free(room);
    return room != NULL;
}

/* The parameter of a key as big-endian bytes. @return false: there is none of that size */
static bool read_parameter(gcry_sexp_t key, const char *name, uint8_t *out, size_t size)
{
    gcry_sexp_t list = gcry_sexp_find_token(key, name, 0);
    gcry_mpi_t number = list ? gcry_sexp_nth_mpi(list, 1, GCRYMPI_FMT_USG) : NULL;
    size_t written = 0;
    bool read = number && !gcry_mpi_print(GCRYMPI_FMT_USG, out, size, &written, number) && written == size;
    gcry_mpi_release(number);
    gcry_sexp_release(list);
    return read;
}

/* As a transient key, its random bytes are the kernel's alone, as those of all keys here; for another one
 * libgcrypt would read a file and measure jitter. */
static int make_key(void)
{
    gcry_sexp_t wanted = NULL, pair = NULL;
    gcry_error_t error =
        gcry_sexp_build(&wanted, NULL, "(genkey (rsa (nbits %u) (rsa-use-e 5:65537) (transient-key)))", RSA_BITS);
    if (!error)
        error = gcry_pk_genkey(&pair, wanted);
    if (!error && read_parameter(pair, "n", rsa.modulus, RSA_SIZE))
        rsa.key = gcry_sexp_find_token(pair, "private-key", 0);
    gcry_sexp_release(wanted);
    gcry_sexp_release(pair);
    return rsa.key ? 0 : -EIO;
}

/* With the lock and the reserve. */
static int provide_key(void)
{
    if (rsa.key)
        return 0;
    return has_room() ? make_key() : -ENOSPC;
}

static void enter(void)
{
    pthread_mutex_lock(&rsa.lock);
    arena_use_reserve(true);
}

static void leave(void)
{
    arena_use_reserve(false);
    pthread_mutex_unlock(&rsa.lock);
    wipe_stack();
}

int rsa_modulus(uint8_t modulus[RSA_SIZE])
{
    enter();
    int error = provide_key();
    if (!error)
        memcpy(modulus, rsa.modulus, RSA_SIZE);
    leave();
    return error;
}

void rsa_forget(void)
{
    enter();
    gcry_sexp_release(rsa.key);
    rsa.key = NULL;
    memset(rsa.modulus, 0, sizeof rsa.modulus);
    leave();
}

static bool is_key_size(size_t size)
{
    return size == 16 || size == 24 || size == 32;
}

/* With the lock and the reserve. */
static int decipher(enum rsa_hash hash, const uint8_t *ciphertext, uint8_t *out, size_t *size)
{
    static const char *const formats[] = {
        [RSA_SHA1] = "(enc-val (flags oaep) (hash-algo sha1) (rsa (a %b)))",
        [RSA_SHA256] = "(enc-val (flags oaep) (hash-algo sha256) (rsa (a %b)))",
    };
    gcry_sexp_t in = NULL, plain = NULL;
    size_t length = 0;
    gcry_error_t error = gcry_sexp_build(&in, NULL, formats[hash], (int)RSA_SIZE, ciphertext);
    if (!error)
        error = gcry_pk_decrypt(&plain, in, rsa.key);
    const char *bytes = error ? NULL : gcry_sexp_nth_data(plain, 1, &length);
    const bool is_key = bytes && is_key_size(length);
    if (is_key) {
        memcpy(out, bytes, length);
        *size = length;
    }
    gcry_sexp_release(in);
    gcry_sexp_release(plain);
    return is_key ? 0 : -EKEYREJECTED;
}

int rsa_decipher(enum rsa_hash hash, const uint8_t ciphertext[RSA_SIZE], uint8_t *out, size_t *size)
{
    if (hash != RSA_SHA1 && hash != RSA_SHA256)
        return -EKEYREJECTED;
    enter();
    int error = rsa.key ? 0 : -EKEYREJECTED; /* nobody was given a public key */
    /* A number beyond the modulus would be a second ciphertext of the same key. */
    if (!error && memcmp(ciphertext, rsa.modulus, RSA_SIZE) >= 0)
        error = -EKEYREJECTED;
    if (!error && !has_room())
        error = -ENOSPC;
    if (!error)
        error = decipher(hash, ciphertext, out, size);
    leave();
    return error;
}

bool rsa_is_own(const uint8_t modulus[RSA_SIZE])
{
    pthread_mutex_lock(&rsa.lock);
    const bool own = rsa.key && memcmp(rsa.modulus, modulus, RSA_SIZE) == 0;
    pthread_mutex_unlock(&rsa.lock);
    return own;
}
