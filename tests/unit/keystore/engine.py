"""An engine of the tests' own, to which adapters hand effective keys."""

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


class Engine:
    """What an engine has: two private keys, and the way to open blobs of both kinds."""

    def __init__(self):
        self._point = X25519PrivateKey.generate()
        self._rsa = rsa.generate_private_key(65537, 3072)
        self.public_key = (
            self._point.public_key().public_bytes_raw()
            + self._rsa.public_key().public_numbers().n.to_bytes(384, "big")
        )

    def open(self, blob):
        if blob[0] == 1:
            info = b"fusecrypt transport 1" + blob[1:33] + self.public_key[:32]
            peer = X25519PublicKey.from_public_bytes(blob[1:33])
            key = HKDF(hashes.SHA256(), 32, None, info).derive(self._point.exchange(peer))
            return AESGCM(key).decrypt(blob[33:45], blob[45:], blob[:33])
        assert blob[0] == 2
        assert len(blob) == 3 + 384 * blob[2]
        algorithm = {1: hashes.SHA1, 2: hashes.SHA256}[blob[1]]()
        oaep = padding.OAEP(padding.MGF1(algorithm), algorithm, None)
        return b"".join(
            self._rsa.decrypt(blob[at : at + 384], oaep) for at in range(3, len(blob), 384)
        )
