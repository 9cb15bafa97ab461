"""What is known of the key of an open volume, and what may be asked of it."""

import pytest

from fusecrypt.daemon.cli.status import format_key
from fusecrypt.daemon.control.answers import KeyStatus
from fusecrypt.daemon.crypttab_values import parse_lease
from fusecrypt.daemon.live_key import LEASE_MAX, NO_LEASE, Lease, make_live_key
from fusecrypt.dmcrypt.effective_key import Derivation, EffectiveKey
from fusecrypt.keystore.coprocessor import Apqn
from fusecrypt.keystore.errors import ConfigError
from fusecrypt.keystore.keys import ProtectedKey, SecureKey
from tests.unit.keystore.samples import REAL_XTS_KEY

KEY = ProtectedKey(b"token")
SECURE = EffectiveKey(
    KEY,
    "CCA-AESDATA by adapter 03.0039",
    derivation=Derivation(SecureKey.parse(REAL_XTS_KEY), "ab" * 32, Apqn.parse("03.0039")),
)
DEFAULT = Lease(60, 5)


def make(effective, lease=None, idle=None, default=DEFAULT):
    return make_live_key(effective, lease=lease, idle=idle, default=default, now=7.0)


@pytest.mark.parametrize(
    ("lease", "idle", "got"),
    [
        (None, None, DEFAULT),
        (0, None, Lease(0, 5)),
        (None, 0, Lease(60, 0)),
        (9, 8, Lease(9, 8)),
    ],
)
def test_a_volume_has_the_lease_that_it_asks_for_else_that_of_the_settings(lease, idle, got):
    key = make(SECURE, lease, idle)
    assert key.lease == got
    assert (key.kind, key.derived_at, key.derivations, key.state) == ("secure", 7.0, 1, "present")


def test_the_settings_mean_no_other_keys():
    for effective, kind in (
        (EffectiveKey(KEY), "clear"),
        (None, "clear"),
        (EffectiveKey(KEY, is_random=True), "random"),
    ):
        key = make(effective)
        assert (key.kind, key.lease) == (kind, NO_LEASE)
        assert not make(effective, 0, 0).lease
        for name, wanted in (("lease", (1, None)), ("idle", (None, 1))):
            with pytest.raises(ConfigError, match=f"{name} of 1 s: only .* has a {kind} key"):
                make(effective, *wanted)


def test_a_key_that_comes_again_is_counted():
    key = make(SECURE)
    key.note_gone("unavailable", "no adapter")
    key.note_derived(SECURE, 9.0)
    assert (key.state, key.reason, key.derivations, key.derived_at) == ("present", "", 2, 9.0)


def test_a_lease_is_a_span_of_whole_seconds():
    assert [parse_lease(text) for text in ("0", "infinity", "90", "1min 30s")] == [0, 0, 90, 90]
    assert parse_lease(str(LEASE_MAX)) == LEASE_MAX
    for text in ("", "soon", "1500ms", "-1", str(LEASE_MAX + 1)):
        with pytest.raises(ValueError, match=r"time span|wanted: whole seconds"):
            parse_lease(text)


def test_status_says_what_becomes_of_a_key():
    assert format_key(KeyStatus()) == []
    assert format_key(KeyStatus(kind="random", state="lost", reason="of another session")) == [
        "  key:     random protected key, lost: of another session; I/O fails"
    ]
    secure = KeyStatus(
        "secure", "unavailable", "no adapter", "CCA-AESDATA", "ab" * 8, "03.0039", 5, 2, 60, 7
    )
    assert format_key(secure) == [
        f"  key:     CCA-AESDATA, master key {'ab' * 8}, adapter 03.0039",
        "  key state:    unavailable: no adapter",
        "  key derived:  2 times, 5 [seconds] ago",
        "  key lease:    60 [seconds]",
        "  key idle:     7 [seconds]",
    ]
