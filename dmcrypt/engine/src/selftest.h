/** Known answers at start: IEEE 1619 (XTS), NIST SP 800-38A (CBC), a published block of every cipher, the modes and
 *  IVs that libgcrypt has not got, RFC 6070 and 7914 (PBKDF2), Argon2 by libgcrypt and by libargon2, RFC 7748 (X25519),
 *  GCM. Needs arena, libgcrypt and kdf_init (a limit of 256 KiB or more). */
#ifndef FUSECRYPT_SELFTEST_H
#define FUSECRYPT_SELFTEST_H

/** @return 0, or -ENOTRECOVERABLE; *failed then names the vector */
int selftest_run(const char **failed);

#endif
