/** What a thread leaves in its vector registers is in a core dump, even if its memory is not.
 *
 * glibc copies with registers that libgcrypt's own clean-up does not know of (zmm16 and up).
 */
#ifndef FUSECRYPT_REGISTERS_H
#define FUSECRYPT_REGISTERS_H

/** Zero the calling thread's vector registers. A few nanoseconds: after each job, each request. */
void wipe_registers(void);

#endif
