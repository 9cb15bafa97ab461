#include <errno.h>
#include <gcrypt.h>
#include <string.h>

#include "arena.h"
#include "large.h"

/* libgcrypt takes the reason of a NULL from errno. Sizes are rounded up so that handle_realloc, which only
 * learns the rounded size, copies nothing that was not asked for. */
static void *handle_alloc(size_t size)
{
    void *p = NULL;
    if (size > ARENA_LARGE)
        p = large_alloc(size);
    else
        p = arena_alloc((size + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN);
    if (!p)
        errno = ENOMEM;
    return p;
}

static void handle_free(void *p)
{
    if (p && large_free(p) < 0)
        arena_free(p);
}

static void *handle_realloc(void *old, size_t size)
{
    if (!old)
        return handle_alloc(size);
    size_t old_size = large_size(old);
    if (!old_size)
        old_size = arena_size(old);
    if (size <= old_size && old_size - size < old_size / 2)
        return old;
    void *p = handle_alloc(size);
    if (!p)
        return NULL;
    memcpy(p, old, size < old_size ? size : old_size);
    handle_free(old);
    return p;
}

static int handle_is_secure(const void *p)
{
    (void)p;
    return 1; /* there is no other memory */
}

int arena_init_gcrypt(void)
{
    /* Nothing here asks libgcrypt for random bytes (random.h does that); what its arithmetic wants, for RSA,
     * comes from the kernel, without a pool of its own. First of all, or it is too late. */
    gcry_control(GCRYCTL_SET_PREFERRED_RNG_TYPE, GCRY_RNG_TYPE_SYSTEM);
    gcry_set_allocation_handler(handle_alloc, handle_alloc, handle_is_secure, handle_realloc, handle_free);
    gcry_control(GCRYCTL_NO_FIPS_MODE); /* FIPS mode refuses allocation handlers */
    if (!gcry_check_version("1.10.0"))
        return -EPROTONOSUPPORT;
    gcry_control(GCRYCTL_DISABLE_SECMEM, 0); /* no pool of its own: the handlers are the pool */
    gcry_control(GCRYCTL_INITIALIZATION_FINISHED, 0);

    void *probe = gcry_malloc(1);
    int error = probe && arena_size(probe) ? 0 : -EPROTONOSUPPORT;
    gcry_free(probe);
    return error;
}
