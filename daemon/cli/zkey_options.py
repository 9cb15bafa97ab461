"""The options of zkey, as it spells them, and ours that go with them."""

from __future__ import annotations

from typing import Final

from .options import Option, Vocabulary, make_flag
from .s390_options import S390_OPTIONS

ZKEY: Final = Vocabulary(
    {
        **S390_OPTIONS,
        "verbose": make_flag("Say what was done", "V"),
        "xts": make_flag("Make a key for XTS, which is two keys", "x"),
        "keybits": Option(
            "Size of the key, or of one half: 128, 192 or 256 (default: 256)", "BITS", "k"
        ),
        "clearkey": Option("Take the clear key in this file instead of a random one", "FILE", "c"),
        "key-type": Option(
            "CCA-AESDATA, CCA-AESCIPHER, EP11-AES or PKCS11-AES",
            "TYPE",
            "K",
            help_of={
                "zkey generate": "CCA-AESDATA, CCA-AESCIPHER, EP11-AES or PKCS11-AES "
                "(default: CCA-AESDATA)",
                "zkey convert": "CCA-AESCIPHER",
            },
        ),
        "name": Option("Name of the key in the repository; list, validate: a pattern", "NAME", "N"),
        "description": Option("Text that says what the key is for", "TEXT", "d"),
        "volumes": Option("Volumes that use the key, with their names", "VOLUME:NAME,…", "l"),
        "apqns": Option("Adapters that are to hold the master key", "CARD.DOMAIN,…", "a"),
        "no-apqn-check": make_flag("Do not check that these adapters are there and agree"),
        "sector-size": Option("Sector size of the volumes; 0: the system's default", "BYTES", "S"),
        "volume-type": Option("plain or luks2", "TYPE", "t"),
        "exportable": make_flag("Allow the key to be exported (CCA-AESCIPHER, EP11-AES)"),
        "gen-dummy-passphrase": make_flag("Make a random dummy passphrase for the key"),
        "set-dummy-passphrase": Option("Take what is in this file for it", "FILE"),
        "remove-dummy-passphrase": make_flag("Forget the key's dummy passphrase"),
        "new-name": Option("Name of the copy, or name from now on", "NAME", "w"),
        "force": make_flag("Do not ask for confirmation", "F"),
        "batch-mode": make_flag("Do not ask for confirmation", "q"),
        "local": make_flag("Only keys that no key-management system has; make such a one", "L"),
        "kms-bound": make_flag("Keys that a key-management system has", "M"),
        "to-new": make_flag("Encipher with the NEW master key", "n"),
        "from-old": make_flag("Encipher what is under the OLD with the CURRENT master key", "o"),
        "in-place": make_flag("Put the result into the key's place at once", "i"),
        "staged": make_flag("Let the result wait until --complete", "s"),
        "complete": make_flag("Put what waits into the key's place", "p"),
        "output": Option("Write the result into this file", "FILE", "f"),
        "key-file": Option("The volumes' key file", "FILE"),
        "keyfile-offset": Option("Skip so much of it", "BYTES"),
        "keyfile-size": Option("Read at most so much of it", "BYTES"),
        "open": make_flag("The commands that open the volumes"),
        "format": make_flag("The commands that format them"),
        "run": make_flag("Run the commands", "r"),
        "tries": Option("How often a passphrase may be typed", "N"),
    },
    refused={"wrap-with-trusted": "adapters have no trusted wrapping keys"},
    is_abbreviated=True,
)
