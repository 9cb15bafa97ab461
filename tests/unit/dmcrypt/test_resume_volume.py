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

    def make_digest_spec(self):
        return self.digest

    def get_segment(self, *, read_only):
        assert read_only
        raise LookedAtError


@pytest.mark.parametrize(
    ("header", "pattern", "is_taken"),
    [
        (Header(ONE), None, True),
        (Header(OTHER), None, False),
        # A secure key enciphered anew has another digest: the effective key is compared.
        (Header(OTHER), "aa", True),
    ],
)
def test_a_header_is_taken_if_it_may_have_the_same_key(header, pattern, is_taken):
    with pytest.raises(LookedAtError if is_taken else DigestMismatchError):
        find_key_again(
            *(None, header, -1, None),
            was=Header(ONE),
            pattern=pattern,
            key_slot=None,
            data_size=0,
            key_service=None,
        )
