#include "kdf.h"

#include <errno.h>
#include <gcrypt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "arena.h"
#include "argon2_single.h"
#include "hash.h"
#include "worker_pool.h"

/* libgcrypt counts the matrix in an unsigned int of bytes: 4 GiB would wrap to nothing. */
#define GCRYPT_MEMORY_MAX ((1u << 22) - 1) /* KiB */
#define ARGON2_LANES_MAX 64u

static struct {
    _Atomic uint32_t memory_limit; /* KiB */
    _Atomic uint32_t half_of_physical; /* KiB; asked once, for sysinfo(2) is beyond the sandbox */
    pthread_mutex_t argon2;        /* one matrix at a time */
} kdf_state = {.argon2 = PTHREAD_MUTEX_INITIALIZER};

int kdf_init(uint32_t memory_limit, unsigned lanes)
{
    uint64_t half = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) / 2048;
    atomic_store(&kdf_state.half_of_physical, half < UINT32_MAX ? (uint32_t)half : UINT32_MAX);
    atomic_store(&kdf_state.memory_limit, memory_limit);
    return worker_pool_start(lanes);
}

uint32_t kdf_memory_ceiling(void)
{
    uint32_t limit = atomic_load(&kdf_state.memory_limit), half = atomic_load(&kdf_state.half_of_physical);
    uint32_t ceiling = limit < half ? limit : half;
    return ceiling < GCRYPT_MEMORY_MAX ? ceiling : GCRYPT_MEMORY_MAX;
}

static int pbkdf2(const struct wire_kdf *kdf, const uint8_t *secret, size_t secret_length, uint8_t *out,
                  size_t size)
{
    int algorithm = hash_find(kdf->hash);
    if (!algorithm)
        return -EOPNOTSUPP;
    arena_use_reserve(true);
    gcry_error_t error = gcry_kdf_derive(secret, secret_length, GCRY_KDF_PBKDF2, algorithm, kdf->salt,
                                         kdf->salt_length, kdf->iterations, size, out);
    arena_use_reserve(false);
    return hash_errno(error);
}

static int argon2_gcrypt(const struct wire_kdf *kdf, const uint8_t *secret, size_t secret_length, uint8_t *out,
                         size_t size)
{
    const unsigned long parameters[] = {size, kdf->iterations, kdf->memory, kdf->lanes};
    int kind = kdf->type == WIRE_ARGON2I ? GCRY_KDF_ARGON2I : GCRY_KDF_ARGON2ID;
    gcry_kdf_hd_t handle = NULL;

    arena_use_reserve(true);
    gcry_error_t error = gcry_kdf_open(&handle, GCRY_KDF_ARGON2, kind, parameters, 4, secret, secret_length,
                                       kdf->salt, kdf->salt_length, NULL, 0, NULL, 0);
    if (!error)
        error = gcry_kdf_compute(handle, &WORKER_POOL_OPS);
    if (!error)
        error = gcry_kdf_final(handle, size, out);
    if (handle)
        gcry_kdf_close(handle);
    arena_use_reserve(false);

    bool matrix_is_large = kdf->memory > ARENA_LARGE / 1024;
    if (matrix_is_large && gcry_err_code(error) == GPG_ERR_ENOMEM)
        return -ENOMEM;
    return hash_errno(error);
}

static int argon2(const struct wire_kdf *kdf, const uint8_t *secret, size_t secret_length, uint8_t *out,
                  size_t size)
{
    if (kdf->lanes == 0 || kdf->lanes > ARGON2_LANES_MAX || kdf->memory < 8 * kdf->lanes)
        return -EINVAL; /* RFC 9106 section 3.1: at least 8 blocks a lane */
    if (kdf->memory > atomic_load(&kdf_state.memory_limit))
        return -E2BIG;

    bool gcrypt_can = secret_length > 0 && kdf->memory <= GCRYPT_MEMORY_MAX;
    pthread_mutex_lock(&kdf_state.argon2);
    int error = (gcrypt_can ? argon2_gcrypt : argon2_single)(kdf, secret, secret_length, out, size);
    pthread_mutex_unlock(&kdf_state.argon2);
    return error;
}

int kdf_derive(const struct wire_kdf *kdf, const uint8_t *secret, size_t secret_length, uint8_t *out,
               size_t size)
{
    const uint8_t *given = secret_length ? secret : (const uint8_t *)"";
    if (size == 0 || size > KDF_OUTPUT_MAX || kdf->iterations == 0 || kdf->salt_length == 0
        || kdf->salt_length > WIRE_SALT_MAX)
        return -EINVAL;
    int error = -EOPNOTSUPP;
    if (kdf->type == WIRE_PBKDF2)
        error = pbkdf2(kdf, given, secret_length, out, size);
    else if (kdf->type == WIRE_ARGON2I || kdf->type == WIRE_ARGON2ID)
        error = argon2(kdf, given, secret_length, out, size);
    wipe_stack();
    return error;
}
