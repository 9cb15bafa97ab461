/** What the engine takes from itself, so that code run by an attacker in it finds nothing to work with.
 *
 * Order: sandbox_begin, then everything that needs rights (arena, clones of /dev/fuse), then sandbox_drop, then
 * the threads, then sandbox_close.
 */
#ifndef FUSECRYPT_SANDBOX_H
#define FUSECRYPT_SANDBOX_H

#include <stdint.h>

enum sandbox_bit { SANDBOX_SECCOMP = 1, SANDBOX_LANDLOCK = 2, SANDBOX_NOT_DUMPABLE = 4, SANDBOX_NO_CAPABILITIES = 8 };

/** No core, no ptrace by the same user, the most lockable memory that the limits allow. @return bits gained */
uint32_t sandbox_begin(void);

/** Close every descriptor above 2 but `keep`. @param keep sorted, ascending */
void sandbox_close_descriptors(const int *keep, unsigned count);

/** No capabilities, no new privileges, no path of the file system. For the calling thread and those it makes.
 * @return bits gained */
uint32_t sandbox_drop(void);

/** Only the system calls that serving needs, for all threads; any other ends the process.
 * @return the bit, or a negative errno */
int sandbox_close(void);

#endif
