"""Every option that ``fusecrypt`` knows: its own, cryptsetup's, and those that it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from .refused_options import REFUSED, REFUSED_LETTERS


class Kind(Enum):
    """Whether an option takes a value."""

    FLAG = "flag"
    VALUE = "value"
    OPTIONAL = "optional"  # only joined by =
    LIST = "list"  # a value, as often as it is given


@dataclass(frozen=True, slots=True)
class Option:
    """One option, under its long name."""

    help: str
    metavar: str = ""
    short: str = ""
    kind: Kind = Kind.VALUE
    #: Actions that do something else with it, or have a default of their own.
    help_of: Mapping[str, str] = field(default_factory=dict[str, str])


def make_flag(text: str, short: str = "") -> Option:
    """An option without a value."""
    return Option(text, short=short, kind=Kind.FLAG)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The options of one tool."""

    options: Mapping[str, Option]
    aliases: Mapping[str, str] = field(default_factory=dict[str, str])
    #: Options of the real tool that are refused by name, and why.
    refused: Mapping[str, str] = field(default_factory=dict[str, str])
    #: Flags that this tool has and we do not, or that mean an option of another letter.
    more_short_names: Mapping[str, str] = field(default_factory=dict[str, str])
    is_abbreviated: bool = False  # long options may be cut short, as getopt_long(3) has it

    @property
    def short_names(self) -> dict[str, str]:
        """Letters to long names."""
        own = {option.short: name for name, option in self.options.items() if option.short}
        return {**self.more_short_names, **own}

    def find(self, name: str) -> str:
        """The full name of an option as it was written; ``name`` itself when there is none."""
        name = self.aliases.get(name, name)
        if self.is_abbreviated and name and name not in self.options:
            known = [full for full in (*self.options, *self.refused) if full.startswith(name)]
            if len(known) == 1:
                return known[0]
        return name


OPTIONS: Final[dict[str, Option]] = {
    # ours
    "runtime-dir": Option("Use the daemon of this runtime directory", "DIR"),
    "crypttab": Option("Read this crypttab instead of the default ones", "FILE"),
    "json": Option("Print JSON: pretty, short or off", "MODE", kind=Kind.OPTIONAL),
    # of every action
    "help": make_flag("Show this help", "?"),
    "usage": make_flag("Show briefly which options there are"),
    "version": make_flag("Show the version", "V"),
    "verbose": make_flag("Say what was done", "v"),
    "debug": make_flag("Show where an error came from"),
    "debug-json": make_flag("The same, and the JSON area of each LUKS2 header"),
    "test-args": make_flag("Only check the command line"),
    "disable-locks": make_flag("Work at headers without a lock. DANGEROUS!"),
    "batch-mode": make_flag("Do not ask for confirmation", "q"),
    # where the key comes from
    "key-file": Option("Read the passphrase from a file; - is standard input", "FILE", "d"),
    "keyfile-offset": Option("Skip so much of the key file", "BYTES"),
    "keyfile-size": Option("Read at most so much of the key file", "BYTES", "l"),
    "volume-key-file": Option(
        "Use the volume key in this file",
        "FILE",
        help_of={
            "luksFormat": "Make a volume with the volume key in this file",
            "luksDump": "With --dump-volume-key: write the volume key to this new file",
        },
    ),
    "key-slot": Option(
        "Use only this keyslot",
        "N",
        "S",
        help_of={"luksFormat": "Make this keyslot (default: 0)"},
    ),
    "tries": Option("How often a passphrase may be typed (default: 3)", "N", "T"),
    "timeout": Option("Wait so long for a passphrase to be typed", "SECONDS", "t"),
    "verify-passphrase": make_flag("Ask for the passphrase twice", "y"),
    "test-passphrase": make_flag("Only try the passphrase, open nothing"),
    # what is opened
    "type": Option(
        "luks, luks1 or luks2",
        "TYPE",
        "M",
        help_of={
            "open": "luks, luks1, luks2, plain or loopaes (default: luks)",
            "refresh": "luks, luks1, luks2, plain or loopaes",
            "luksFormat": "luks, luks1 or luks2 (default: luks2)",
            "convert": "luks1 or luks2",
        },
    ),
    "header": Option("The LUKS header is in this file", "FILE"),
    "readonly": make_flag("Open for reading only", "r"),
    "shared": make_flag("Open other parts of a device than those that are open already"),
    "serialize-memory-hard-pbkdf": make_flag("Derive one key by Argon2 at a time"),
    "persistent": make_flag("Have the header remember --allow-discards and --perf-…"),
    "lease": Option("Derive the volume's secure key anew after so long", "SECONDS"),
    "idle": Option("Forget the volume's secure key after so long without I/O", "SECONDS"),
    "allow-discards": make_flag("Pass discards (punched holes) on to the file or device"),
    "cipher": Option(
        "Cipher, as in aes-xts-plain64",
        "CIPHER",
        "c",
        help_of={"luksFormat": "Cipher (default: aes-xts-plain64)"},
    ),
    "key-size": Option(
        "Size of the volume key",
        "BITS",
        "s",
        help_of={
            "luksFormat": "Size of the volume key (default: 512 for XTS, else 256)",
            "benchmark": "Size of the key (default: 256)",
        },
    ),
    "hash": Option(
        "Hash of PBKDF2 and AF",
        "HASH",
        "h",
        help_of={
            "open": "Hash of the passphrase (plain) or key file (loopaes)",
            "luksFormat": "Hash of PBKDF2, digest and AF (default: sha256)",
            "benchmark": "Hash of PBKDF2 (default: sha256)",
        },
    ),
    "offset": Option("Where the data starts", "SECTORS", "o"),
    "skip": Option("What the IV of the first sector starts at", "SECTORS", "p"),
    "size": Option("Size of the data", "SECTORS", "b"),
    "device-size": Option("Size of the data, with a unit", "SIZE"),
    "sector-size": Option(
        "Encrypt in sectors of 512, 1024, 2048 or 4096",
        "BYTES",
        help_of={
            "open": "Encrypt in sectors of 512, 1024, 2048 or 4096 (default: 512)",
            "luksFormat": "Encrypt in sectors of 512, 1024, 2048 or 4096 (default: 4096; "
            "512 where the data are not whole ones, and for luks1)",
            "benchmark": "Encrypt in sectors of 512, 1024, 2048 or 4096 (default: 4096)",
        },
    ),
    "iv-large-sectors": make_flag("Count IVs in sectors of the sector size"),
    # luksFormat
    "align-payload": Option("Begin the data at a multiple of this", "SECTORS"),
    "pbkdf": Option(
        "argon2id, argon2i or pbkdf2 (default: argon2id; luks1: pbkdf2)",
        "TYPE",
        help_of={"benchmark": "argon2id, argon2i or pbkdf2"},
    ),
    "pbkdf-memory": Option("Memory of Argon2", "KILOBYTES"),
    "pbkdf-parallel": Option("Lanes of Argon2", "N"),
    "pbkdf-force-iterations": Option("Iterations, without a benchmark", "N"),
    "iter-time": Option(
        "How long unlocking may take here (default: 2000)",
        "MILLISECONDS",
        "i",
        help_of={"benchmark": "How long Argon2 may take here (default: 2000)"},
    ),
    "label": Option("Label of the volume", "TEXT"),
    "subsystem": Option("Subsystem of the volume", "TEXT"),
    "uuid": Option("UUID of the volume", "UUID"),
    "luks2-metadata-size": Option("Size of each metadata area", "SIZE"),
    "luks2-keyslots-size": Option("Size of the keyslots area", "SIZE"),
    "force-weak": make_flag("Make a volume with a weak cipher"),
    "force-password": make_flag("Accepted; passwords are not rated"),
    "use-random": make_flag("Accepted; keys come from the kernel's one generator"),
    "use-urandom": make_flag("Accepted; keys come from the kernel's one generator"),
    # changing headers
    "dry-run": make_flag("Only say what would be changed"),
    "new-keyfile": Option("Read the new passphrase from a file; - is standard input", "FILE"),
    "new-keyfile-offset": Option("Skip so much of the new key file", "BYTES"),
    "new-keyfile-size": Option("Read at most so much of the new key file", "BYTES"),
    "new-key-slot": Option("Make this keyslot", "N"),
    "keyslot-cipher": Option("Encrypt the keyslot's key material with this cipher", "CIPHER"),
    "keyslot-key-size": Option("Size of that cipher's key", "BITS"),
    "unbound": make_flag("A keyslot with a key of its own; a token without keyslots"),
    "header-backup-file": Option("The backup of a header", "FILE"),
    "priority": Option("When a keyslot is tried: prefer, normal or ignore", "PRIORITY"),
    "token-id": Option("This token", "N"),
    "token-type": Option("Only tokens of this type", "TYPE"),
    "new-token-id": Option("Take the new passphrase from this token", "N"),
    "token-only": make_flag("Ask for no passphrase if no token helps"),
    "token-replace": make_flag("Replace the token that is there"),
    "key-description": Option("Name of the key in the kernel's keyring", "TEXT"),
    "json-file": Option(
        "Read or write the token's JSON here; - is standard input or output", "FILE"
    ),
    "dump-volume-key": make_flag("Print the volume key"),
    # other actions
    "deferred": make_flag("Close when the last user is gone"),
    "cancel-deferred": make_flag("Take a deferred close back"),
    "refresh": make_flag("Give an open volume other flags, as the action of that name"),
    "table": Option("Read the table from a file; - is standard input", "FILE"),
    "show-keys": make_flag("Show the keys in a table"),
    "fail-io": make_flag("Let I/O fail instead of wait"),
    "dump-json-metadata": make_flag("Print the JSON area of the header"),
    "mode": Option("Kind of an adapter: cca, ep11, accel or pkcs11 (default: cca)", "MODE"),
    "card-type": Option(
        "Card of an adapter: CEX5 to CEX8 (default: that of the card, or CEX8)", "TYPE"
    ),
    "force": make_flag("Set it though keys or volumes are lost with it"),
    "control-only": make_flag("The adapter is administered here and not used"),
    "part": Option("Which part of the master key: first, middle or last", "PART"),
    "register": Option(
        "Whose master key is taken: new, current or old (default: current)", "REGISTER"
    ),
    "shares": Option("Into how many shares the master key is split", "N"),
    "threshold": Option("How many of them make it again", "K"),
    "with": Option(
        "What seals the adapters: host-key-file, passphrase, systemd-credential or tpm2", "METHOD"
    ),
    "pcrs": Option("State of the boot that the TPM wants, as in 7 or sha256:0,7", "PCRS"),
    "head": Option("A head that audit verify printed once: it must still be there", "HEAD"),
    "uri": Option("PKCS#11 token of an adapter (RFC 7512)", "URI"),
    "allow-clear-in-keystored": make_flag(
        "Let a token that cannot wrap by RSA-OAEP give keys to keystored in the clear"
    ),
    "set": Option("Turn this control point on", "NAME", kind=Kind.LIST),
    "clear": Option("Turn this control point off", "NAME", kind=Kind.LIST),
    "no-master-key": make_flag("Leave the adapter's master-key registers empty"),
    # of the kernel's dm-crypt only
    "disable-keyring": make_flag("Accepted; volume keys are never in the kernel's keyring"),
    "disable-external-tokens": make_flag("Accepted; no token plugins are loaded"),
    "perf-same_cpu_crypt": make_flag("Accepted; tunes the kernel's dm-crypt only"),
    "perf-submit_from_crypt_cpus": make_flag("Accepted; tunes the kernel's dm-crypt only"),
    "perf-no_read_workqueue": make_flag("Accepted; tunes the kernel's dm-crypt only"),
    "perf-no_write_workqueue": make_flag("Accepted; tunes the kernel's dm-crypt only"),
}

ALIASES: Final = {
    "master-key-file": "volume-key-file",
    "dump-master-key": "dump-volume-key",
    "read-only": "readonly",
}

CRYPTSETUP: Final = Vocabulary(OPTIONS, ALIASES, REFUSED, {"j": "json", **REFUSED_LETTERS})

# Taken by every action, for scripts that give them everywhere.
COMMON: Final = frozenset(
    {
        "runtime-dir",
        "crypttab",
        "json",
        "help",
        "usage",
        "version",
        "verbose",
        "debug",
        "debug-json",
        "test-args",
        "batch-mode",
        "disable-keyring",
        "disable-locks",
        "disable-external-tokens",
        "perf-same_cpu_crypt",
        "perf-submit_from_crypt_cpus",
        "perf-no_read_workqueue",
        "perf-no_write_workqueue",
    }
)
