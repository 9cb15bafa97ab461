/** IV modes that touch a sector's data: lmk, tcw and elephant.
 *
 * Source: Linux drivers/md/dm-crypt.c, crypt_iv_lmk_one, crypt_iv_tcw_whitening, crypt_iv_elephant.
 * `work` is arena memory of the calling thread, SECTOR_TWEAK_WORK bytes, aligned to 8.
 */
#ifndef FUSECRYPT_SECTOR_TWEAK_H
#define FUSECRYPT_SECTOR_TWEAK_H

#include <gcrypt.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SECTOR_TWEAK_WORK 128u
#define LMK_SEED_SIZE 64u

/** lmk, loop-AES: the state of MD5, without its padding, over seed (version 3), the plaintext of the sector but for
 *  its first 16 bytes, and the number.
 *
 * @param seed   LMK_SEED_SIZE bytes, NULL in version 2
 * @param data   the sector's 512 bytes
 * @param out    the IV, size bytes: a block of the cipher, 8 or 16
 */
void lmk_make_iv(uint8_t *work, const uint8_t *seed, const uint8_t *data, uint64_t number, uint8_t *out, size_t size);

/** tcw, TrueCrypt's: XOR every 8 bytes of an enciphered sector with what is made of the number and of the key's
 *  whitening, 16 bytes. */
void tcw_whiten(uint8_t *work, const uint8_t *whitening, uint8_t *data, size_t size, uint64_t number);

/** elephant, BitLocker's: mix a sector before it is enciphered, or unmix it after it was deciphered.
 *
 * @param tweak   AES in ECB with the second half of the key
 * @param offset  the sector's number times its size
 * @return 0 or -EIO
 */
int elephant_mix(uint8_t *work, gcry_cipher_hd_t tweak, uint8_t *data, size_t size, uint64_t offset, bool encrypt);

#endif
