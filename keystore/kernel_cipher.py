"""The verification pattern of a secure key, computed by the kernel of a machine that can use it.

Source: Documentation/crypto/userspace-if.rst of Linux (AF_ALG, symmetric ciphers); paes_s390.c for
the names; what is enciphered: see verification.py.
"""

from __future__ import annotations

import socket
from typing import Final

from .errors import CoprocessorError

_PLAINTEXT: Final = bytes(32)
_NO_IV: Final = bytes(16)


def make_pattern(token: bytes, *, is_xts: bool, cipher: str = "paes") -> str:
    """64 hexadecimal digits; ``cipher`` is what takes the token for its key.

    Raises:
        CoprocessorError: the kernel has no such cipher, or does not take the token.
    """
    name = f"{'xts' if is_xts else 'cbc'}({cipher})"
    try:
        with socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET) as algorithm:
            algorithm.bind(("skcipher", name))
            algorithm.setsockopt(socket.SOL_ALG, socket.ALG_SET_KEY, token)
            operation, _ = algorithm.accept()
            with operation:
                operation.sendmsg_afalg([_PLAINTEXT], op=socket.ALG_OP_ENCRYPT, iv=_NO_IV)
                ciphertext = operation.recv(len(_PLAINTEXT))
    except OSError as error:
        raise CoprocessorError(f"the kernel's {name}: {error.strerror}") from None
    if len(ciphertext) != len(_PLAINTEXT):
        raise CoprocessorError(f"the kernel's {name}: {len(ciphertext)} bytes, wanted 32")
    return ciphertext.hex()
