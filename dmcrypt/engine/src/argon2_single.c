#include "argon2_single.h"

#include <argon2.h>
#include <errno.h>
#include <stddef.h>

#include "large.h"

static int allocate(uint8_t **memory, size_t size)
{
    *memory = large_alloc(size);
    return *memory ? ARGON2_OK : ARGON2_MEMORY_ALLOCATION_ERROR;
}

static void release(uint8_t *memory, size_t size)
{
    (void)size;
    large_free(memory);
}

int argon2_single(const struct wire_kdf *kdf, const uint8_t *secret, size_t secret_length, uint8_t *out,
                  size_t size)
{
    /* Without ARGON2_FLAG_CLEAR_PASSWORD the library only reads passphrase and salt. */
    argon2_context context = {
        .out = out,
        .outlen = (uint32_t)size,
        .pwd = (uint8_t *)secret,
        .pwdlen = (uint32_t)secret_length,
        .salt = (uint8_t *)kdf->salt,
        .saltlen = kdf->salt_length,
        .t_cost = kdf->iterations,
        .m_cost = kdf->memory,
        .lanes = kdf->lanes,
        .threads = 1, /* with more it would start some, which the sandbox forbids */
        .version = ARGON2_VERSION_13,
        .allocate_cbk = allocate,
        .free_cbk = release,
        .flags = ARGON2_DEFAULT_FLAGS,
    };
    switch (argon2_ctx(&context, kdf->type == WIRE_ARGON2I ? Argon2_i : Argon2_id)) {
    case ARGON2_OK:
        return 0;
    case ARGON2_MEMORY_ALLOCATION_ERROR:
        return -ENOMEM;
    default:
        return -EINVAL;
    }
}
