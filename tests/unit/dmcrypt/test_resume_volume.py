"""Which header may give a suspended volume its key again."""

from dataclasses import dataclass

import pytest

from fusecrypt.dmcrypt.engine.messages import DigestSpec
from fusecrypt.dmcrypt.resume_volume import find_key_again
from fusecrypt.keystore.errors import DigestMismatchError, UnlockError

ONE = DigestSpec("sha256", 1000, b"salt", b"digest", 6)
OTHER = DigestSpec("sha256", 1000, b"salt", b"tsegid", 6)


class LookedAtError(UnlockError):
    """The header was taken, and its keyslots are looked at."""


@dataclass
class Header:
    digest: DigestSpec
    pattern: str | None = None

    def make_digest_spec(self):
        return self.digest

    def find_verification_pattern(self):
        return self.pattern

    def get_segment(self, *, read_only):
        assert read_only
        raise LookedAtError


@pytest.mark.parametrize(
    ("header", "was", "is_taken"),
    [
        (Header(ONE), Header(ONE), True),
        (Header(OTHER), Header(ONE), False),
        # A secure key enciphered anew has another digest, and the same pattern.
        (Header(OTHER, "aa"), Header(ONE, "aa"), True),
        (Header(OTHER, "bb"), Header(ONE, "aa"), False),
        (Header(OTHER), Header(ONE, "aa"), False),
        (Header(OTHER, "aa"), Header(ONE), False),
    ],
)
def test_a_header_is_taken_if_it_vouches_for_the_same_key(header, was, is_taken):
    with pytest.raises(LookedAtError if is_taken else DigestMismatchError):
        find_key_again(
            *(None, header, -1, None),
            was=was,
            key_slot=None,
            data_size=0,
            key_service=None,
        )
