"""The options of zkey-cryptsetup, as it spells them, and ours that go with them."""

from __future__ import annotations

from typing import Final

from .options import Kind, Option, Vocabulary, make_flag
from .s390_options import S390_OPTIONS

ZKEY_CRYPTSETUP: Final = Vocabulary(
    {
        **S390_OPTIONS,
        "debug": make_flag("Show where an error came from", "D"),
        "verbose": make_flag("Say what was done", "V"),
        "key-file": Option(
            "Read a passphrase from this file; once for each keyslot", "FILE", "d", Kind.LIST
        ),
        "keyfile-offset": Option("Skip so much of the key files", "BYTES", "o"),
        "keyfile-size": Option("Read at most so much of the key files", "BYTES", "l"),
        "tries": Option("How often a passphrase may be typed", "N", "T"),
        "to-new": make_flag("Encipher with the NEW master key", "N"),
        "from-old": make_flag("Encipher what is under the OLD with the CURRENT master key", "O"),
        "in-place": make_flag("Put the result into the header's place at once", "i"),
        "staged": make_flag("Let the result wait until --complete", "s"),
        "complete": make_flag("Put what waits into its place", "c"),
        "volume-key-file": Option("The secure key in this file", "FILE", "m"),
        "batch-mode": make_flag("Do not ask for confirmation", "q"),
        "force": make_flag("Remove keyslots whose passphrase was not given", "F"),
    },
    aliases={"master-key-file": "volume-key-file"},
    refused={"integrity-key-size": "there is no dm-integrity here"},
    more_short_names={"I": "integrity-key-size", "p": "complete"},
    is_abbreviated=True,
)
