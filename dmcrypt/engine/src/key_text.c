#include "key_text.h"

#include <errno.h>
#include <string.h>

#include "arena.h"
#include "secure_key.h"
#include "session.h"
#include "whole_io.h"

#define LINE 16u /* bytes of the key */
#define BREAK "\n\t\t"

static uint8_t *put_digits(uint8_t *to, uint8_t byte)
{
    static const char DIGITS[] = "0123456789abcdef";

    *to++ = (uint8_t)DIGITS[byte >> 4];
    *to++ = (uint8_t)DIGITS[byte & 15];
    return to;
}

/* As luksDump has it. Arena memory, `*length` bytes of it. */
static uint8_t *make_lines(const uint8_t *key, size_t size, size_t *length)
{
    const size_t breaks = size > 0 ? (size - 1) / LINE : 0;
    uint8_t *text = arena_alloc(3 * size + breaks * (sizeof BREAK - 1) + 1);
    uint8_t *to = text;

    if (text == NULL)
        return NULL;
    for (size_t i = 0; i < size; i++) {
        if (i > 0 && i % LINE == 0) {
            memcpy(to, BREAK, sizeof BREAK - 1);
            to += sizeof BREAK - 1;
        }
        to = put_digits(to, key[i]);
        *to++ = ' ';
    }
    *to++ = '\n';
    *length = (size_t)(to - text);
    return text;
}

int key_text_write(int fd, const uint8_t *key, size_t size, uint32_t form)
{
    size_t length = 0;

    if (form == WIRE_KEY_RAW)
        return write_whole(fd, key, size);
    if (form != WIRE_KEY_TEXT)
        return -EINVAL;
    uint8_t *text = make_lines(key, size, &length);
    if (text == NULL)
        return -ENOSPC;
    int rc = write_whole(fd, text, length);
    arena_free(text);
    return rc;
}

void key_write(struct request *r)
{
    struct wire_write_key in;
    uint8_t *key = NULL;
    size_t size = 0;

    memcpy(&in, r->body, sizeof in);
    int rc = 0;
    if (r->engine->options.fuse_fd >= 0)
        rc = -EPERM; /* for one command's own engine: a daemon has no use for it */
    else if (session_is_imported(&in.token))
        rc = -EACCES;
    else
        rc = session_unwrap(&in.token, &key, &size);
    if (rc == 0 && (secure_key_is_whole(key, size) || secure_key_is_fragment(key, size)))
        rc = -EACCES;
    if (rc == 0)
        rc = key_text_write(r->fds[0], key, size, in.form);
    arena_free(key);
    request_finish(r, rc, NULL, 0);
}

void key_show(struct request *r)
{
    struct wire_show_key in;
    struct wire_token token;
    uint8_t *key = NULL, *text = NULL;
    size_t size = 0;

    memcpy(&in, r->body, sizeof in);
    int rc = device_table_copy_token(&r->engine->devices, in.node, in.segment, &token);
    if (rc == 0 && session_is_imported(&token))
        rc = -EACCES;
    if (rc == 0)
        rc = session_unwrap(&token, &key, &size);
    if (rc == 0) {
        text = arena_alloc(2 * size);
        rc = text == NULL ? -ENOSPC : 0;
    }
    for (size_t i = 0; i < size && rc == 0; i++)
        put_digits(text + 2 * i, key[i]);
    if (rc == 0)
        rc = write_whole(r->fds[0], text, 2 * size);
    arena_free(text);
    arena_free(key);
    request_finish(r, rc, NULL, 0);
}
