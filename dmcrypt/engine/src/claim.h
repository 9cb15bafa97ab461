/** The engine's claim to its public keys: keystored asks, before it wraps a key for one of them.
 *
 * The socket (SOCK_SEQPACKET) is made by the engine's unit before the sandbox closes, where only the engine's user
 * may make one; so whoever answers there is an engine of the service. A question is a packet with a public key as
 * keystored is given it: X25519 (32 bytes), and the modulus of RSA (384 bytes) behind it or not. The answer is one
 * byte: 1, these are keys of the present session; 0, they are not. A public key is no secret.
 */
#ifndef FUSECRYPT_CLAIM_H
#define FUSECRYPT_CLAIM_H

/** Answer on a listening socket, in a thread of its own, as long as the process lives. Once.
 *
 * @param listener stays the caller's, and where it is
 * @return 0 or a negative errno
 */
int claim_start(int *listener);

#endif
