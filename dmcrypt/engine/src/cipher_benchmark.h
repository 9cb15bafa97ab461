/** How fast a cipher is here, on the way that a volume's data takes. */
#ifndef FUSECRYPT_CIPHER_BENCHMARK_H
#define FUSECRYPT_CIPHER_BENCHMARK_H

#include "wire.h"

/** Encipher and decipher a mebibyte of memory under a random key, again and again, each for about the time wanted.
 *
 * @return 0; -EINVAL: sizes or time; others as cipher_open
 */
int cipher_benchmark(const struct wire_cipher_benchmark *b, struct wire_cipher_speed *out);

#endif
