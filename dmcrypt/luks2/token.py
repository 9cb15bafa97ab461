"""LUKS2 tokens that fusecrypt understands; all others are kept as they are.

Source: LUKS2 On-Disk Format Specification 1.1.4, section 3.6; zkey-cryptsetup(1) for
``paes-verification-pattern``: {"type", "keyslots": [], "verification-pattern": 64 hex digits}.
"""

from __future__ import annotations

import json
import re
from typing import Final, cast

from ...keystore.errors import FormatError
from .model import Metadata, Token

#: Names a key of the kernel's keyring whose content is a passphrase (sec. 3.6.1).
KEYRING: Final = "luks2-keyring"
VERIFICATION_PATTERN: Final = "paes-verification-pattern"
_PATTERN: Final = re.compile(r"[0-9a-fA-F]{64}")


def find_verification_pattern(metadata: Metadata) -> str | None:
    """What tells the effective key of a paes volume (zkey-cryptsetup setvp), if a token does.

    64 lower-case hexadecimal digits.

    Raises:
        FormatError: the token has no such pattern.
    """
    for token in metadata.tokens:
        if token.type == VERIFICATION_PATTERN:
            content = cast(dict[str, object], json.loads(token.text))
            pattern = content.get("verification-pattern")
            if not isinstance(pattern, str) or _PATTERN.fullmatch(pattern) is None:
                raise FormatError(
                    f"tokens.{token.id}.verification-pattern: wanted 64 hexadecimal digits"
                )
            return pattern.lower()
    return None


def get_key_description(token: Token) -> str:
    """What a token of type luks2-keyring calls its key.

    Raises:
        FormatError: it does not say.
    """
    content = cast(dict[str, object], json.loads(token.text))
    description = content.get("key_description")
    if not isinstance(description, str) or "\0" in description:
        raise FormatError(f"tokens.{token.id}.key_description: wanted the name of a key")
    return description
