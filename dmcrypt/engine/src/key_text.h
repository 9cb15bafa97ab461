/** Clear keys on their way out: to a descriptor that the caller of one command gave, and nowhere else. */
#ifndef FUSECRYPT_KEY_TEXT_H
#define FUSECRYPT_KEY_TEXT_H

#include <stddef.h>
#include <stdint.h>

#include "control.h"

/** Write a key as it is, or as `cryptsetup luksDump` prints one: 16 bytes a line, each with a blank behind it,
 *  the further lines indented by two tabs.
 *
 * @param form  enum wire_key_form
 * @return 0; -EINVAL: form; -ENOSPC: the arena is full; or the errno of write(2)
 */
int key_text_write(int fd, const uint8_t *key, size_t size, uint32_t form);

/** WIRE_WRITE_KEY. */
void key_write(struct request *r);

/** WIRE_SHOW_KEY. */
void key_show(struct request *r);

#endif
