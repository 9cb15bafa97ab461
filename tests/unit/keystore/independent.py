"""A second way from a secure key to the clear one: the standards read again, nothing of ours."""

import hashlib

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

TOKENS = {4: 64, 5: 136}


def unwrap(token: bytes, master_key: bytes) -> bytes:
    """The clear key of one token or of the two of an XTS key, everything about them checked."""
    size = TOKENS[token[4]]
    return b"".join(
        (_unwrap_data if token[4] == 4 else _unwrap_cipher)(token[i : i + size], bytes(master_key))
        for i in range(0, len(token), size)
    )


def _unwrap_data(token: bytes, master_key: bytes) -> bytes:
    assert token[8:16] == hashlib.sha256(b"\1" + master_key).digest()[:8]
    decryptor = Cipher(algorithms.AES(master_key), modes.CBC(bytes(16))).decryptor()
    padded = decryptor.update(token[16:48]) + decryptor.finalize()
    size = int.from_bytes(token[56:58], "big") // 8
    assert not any(padded[size:])
    lrc = 0
    for byte in padded:
        lrc ^= byte
    assert lrc == token[7]
    words = [int.from_bytes(token[i : i + 4], "big") for i in range(0, 60, 4)]
    assert sum(words) % 2**32 == int.from_bytes(token[60:], "big")
    return padded[:size]


def _unwrap_cipher(token: bytes, master_key: bytes) -> bytes:
    assert token[10:18] == hashlib.sha256(b"\1" + master_key).digest()[:8]
    wrapped = token[56 : int.from_bytes(token[2:4], "big")]
    assert not any(token[56 + len(wrapped) :])
    # RFC 3394 2.2.2, index based, with numbers instead of byte strings.
    n = len(wrapped) // 8 - 1
    a, *r = (int.from_bytes(wrapped[i : i + 8], "big") for i in range(0, len(wrapped), 8))
    for t in range(6 * n, 0, -1):
        i = (t - 1) % n
        block = ((a ^ t) << 64 | r[i]).to_bytes(16, "big")
        decryptor = Cipher(algorithms.AES(master_key), modes.ECB()).decryptor()
        block = decryptor.update(block) + decryptor.finalize()
        a, r[i] = int.from_bytes(block[:8], "big"), int.from_bytes(block[8:], "big")
    payload = b"".join(number.to_bytes(8, "big") for number in (a, *r))
    pad, remainder = divmod(payload[6], 8)
    assert (payload[:6], payload[7], payload[8:12], remainder) == (b"\xa6" * 6, 32, bytes(4), 0)
    assert payload[12:44] == hashlib.sha256(token[30:56]).digest()
    assert not any(payload[len(payload) - pad :])
    return payload[44 : len(payload) - pad]
