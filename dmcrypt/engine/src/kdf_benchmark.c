#include <errno.h>
#include <string.h>
#include <time.h>

#include "arena.h"
#include "kdf.h"

#define ITERATIONS_MIN 1000u
#define PASSES_MIN 4u
#define MEMORY_MIN (64u << 10) /* KiB, where the ceiling allows */
#define TRIES_MAX 4u

/* lib/utils_benchmark.c: what is derived matters as little as from what. */
static const uint8_t PASSWORD[] = "foobarfo";

static uint64_t microseconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

/* Derive once. PBKDF2 by its own thread's time, so that other work does not weaken the result; Argon2, which
 * works in several threads, by the wall. */
static int measure(const struct wire_kdf *kdf, uint8_t *out, size_t size, uint64_t *taken)
{
    clockid_t clock = kdf->type == WIRE_PBKDF2 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC;
    uint64_t start = microseconds(clock);
    int error = kdf_derive(kdf, PASSWORD, sizeof(PASSWORD) - 1, out, size);
    *taken = microseconds(clock) - start;
    *taken += *taken == 0;
    return error;
}

static uint32_t clamp(double value, uint32_t least, uint32_t most)
{
    if (value <= least)
        return least;
    return value >= most ? most : (uint32_t)value;
}

static int benchmark_pbkdf2(struct wire_kdf *kdf, uint8_t *out, size_t size, uint64_t target)
{
    uint64_t enough = target / 4 < 250000 ? target / 4 : 250000, taken = 0;
    kdf->iterations = 1u << 12;
    for (;;) {
        int error = measure(kdf, out, size, &taken);
        if (error)
            return error;
        if (taken >= enough || kdf->iterations >= 1u << 28)
            break;
        kdf->iterations *= taken * 8 < enough ? 8 : 2;
    }
    double fitting = (double)kdf->iterations * (double)target / (double)taken;
    kdf->iterations = clamp(fitting, ITERATIONS_MIN, UINT32_MAX);
    return 0;
}

/* Spend `work` (KiB times passes) on memory first, then on passes. */
static void spread(struct wire_kdf *kdf, double work, uint32_t least, uint32_t most)
{
    kdf->memory = clamp(work / PASSES_MIN, least, most);
    kdf->iterations = clamp(work / kdf->memory, PASSES_MIN, UINT32_MAX);
}

static int benchmark_argon2(struct wire_kdf *kdf, uint8_t *out, size_t size, uint64_t target)
{
    uint32_t most = kdf->memory, least = most < MEMORY_MIN ? most : MEMORY_MIN;
    uint64_t taken = 0;
    kdf->memory = least;
    kdf->iterations = PASSES_MIN;
    /* The time of a pass is not quite in proportion to the memory (caches, page faults): approach. */
    for (unsigned i = 0; i < TRIES_MAX; i++) {
        int error = measure(kdf, out, size, &taken);
        if (error)
            return error;
        uint32_t memory = kdf->memory, iterations = kdf->iterations;
        bool near = taken >= target / 100 * 95 && taken <= target / 100 * 110;
        if (near)
            break;
        spread(kdf, (double)memory * iterations * (double)target / (double)taken, least, most);
        if (kdf->memory == memory && kdf->iterations == iterations)
            break;
    }
    return 0;
}

int kdf_benchmark(const struct wire_benchmark *b, struct wire_kdf *out)
{
    uint64_t target = (uint64_t)b->milliseconds * 1000u;
    if (b->milliseconds == 0 || b->key_size == 0 || b->key_size > KDF_OUTPUT_MAX)
        return -EINVAL;
    uint8_t *key = arena_alloc(b->key_size);
    if (!key)
        return -ENOSPC;

    struct wire_kdf trial = b->kdf;
    trial.iterations = 1;
    trial.salt_length = 16;
    memset(trial.salt, 's', sizeof(trial.salt));
    int error;
    if (trial.type == WIRE_PBKDF2) {
        error = benchmark_pbkdf2(&trial, key, b->key_size, target);
    } else {
        uint32_t most = kdf_memory_ceiling();
        trial.memory = trial.memory < most ? trial.memory : most;
        error = benchmark_argon2(&trial, key, b->key_size, target);
    }
    arena_free(key);
    *out = b->kdf;
    out->iterations = trial.iterations;
    out->memory = trial.type == WIRE_PBKDF2 ? 0 : trial.memory;
    return error;
}
