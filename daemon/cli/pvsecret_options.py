"""The options of pvsecret, as that tool spells them, and what of it there is not.

Source: pvsecret(1), pvsecret-create(1) and pvsecret-add(1) of s390-tools.
"""

from __future__ import annotations

from typing import Final

from .options import Option, Vocabulary, make_flag
from .s390_options import S390_OPTIONS

_OF_ULTRAVISOR: Final = "a request is for this state directory; there is no ultravisor"

PVSECRET: Final = Vocabulary(
    {
        **S390_OPTIONS,
        "version": make_flag("Show the version"),  # -v is another
        "verbose": make_flag("Say what was done", "v"),
        "output": Option("Write the request to this file, which must not exist", "FILE", "o"),
        "input-secret": Option("Take the 32 bytes of the secret from this file", "FILE"),
        "output-secret": Option("Write the secret to this file, which must not exist", "FILE"),
    },
    refused={
        **dict.fromkeys(
            (
                "cck",
                "cert",
                "crl",
                "cuid",
                "cuid-hex",
                "extension-secret",
                "flags",
                "hdr",
                "host-key-document",
                "no-verify",
                "offline",
                "root-ca",
                "user-data",
                "user-sign-key",
            ),
            _OF_ULTRAVISOR,
        ),
        "force": "no file is overwritten",
        "format": "--json is for programs",
        "stdout": "the id is printed in any case",
    },
    more_short_names={"C": "cert", "f": "force", "k": "host-key-document"},
)

#: Action to reason.
REFUSED_PVSECRET_ACTIONS: Final = {
    **dict.fromkeys(
        ("pvsecret create meta", "pvsecret create update-cck", "pvsecret verify"), _OF_ULTRAVISOR
    ),
    **dict.fromkeys(
        ("pvsecret create retrievable", "pvsecret retrieve"),
        "no secret is given back; keys are kept as secure keys: zkey generate",
    ),
}
