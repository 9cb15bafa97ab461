"""What ``zkey list`` and ``zkey validate`` print of one key, in zkey's layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ...keystore import key_info
from ...keystore.coprocessor import Validation
from ...keystore.repository_key import RepositoryKey
from ...keystore.token_shape import TokenShape

_RULE: Final = "-" * 85
_PATTERN_HALF: Final = 32  # digits


@dataclass(frozen=True, slots=True)
class Finding:
    """What an adapter says of a key: what it is, or why it cannot be used."""

    validation: Validation | None
    reason: str = ""

    @property
    def enciphered_with(self) -> str:
        """The master key, as zkey shows it."""
        if self.validation is None:
            return "(unknown)"
        return f"{self.validation.register} master key (MKVP: {self.validation.mkvp.hex()})"


def format_record(key: RepositoryKey, shape: TokenShape, finding: Finding | None) -> list[str]:
    """One key of the repository; ``finding``: with what validation found."""
    rows: list[tuple[str, Sequence[str]]] = []
    if finding is not None:
        rows.append(("Status", ["Valid" if finding.validation else "Invalid"]))
    rows += [
        ("Description", [key.description]),
        ("Secure key size", [f"{shape.size} bytes"]),
        ("Clear key size", [format_clear_bits(shape, finding)]),
        ("XTS type key", [format_flag(is_set=shape.is_xts)]),
        ("Key type", [key.key_type]),
    ]
    if finding is not None:
        mkvp = "(none)" if shape.mkvp is None else f"(unknown, MKVP: {shape.mkvp.hex()})"
        rows.append(("Enciphered with", [finding.enciphered_with if finding.validation else mkvp]))
    reenciphered = key.reenciphered or "(never)"
    rows += [
        ("Volumes", key.volumes or ["(none)"]),
        ("APQNs", key.apqns or ["(none)"]),
        ("Key file name", [str(key.path)]),
        (
            "Sector size",
            [f"{key.sector_size} bytes" if key.sector_size else "(system default)"],
        ),
        ("Volume type", [key.volume_type.upper()]),
        ("Verification pattern", split_pattern(key.pattern) or ["(not available)"]),
        ("KMS", [key.kms or "(local)"]),
        ("KMS key label", [key.info.get(key_info.KMS_LABEL) or "(local)"]),
        ("Dummy passphrase", [str(key.passphrase_path) if key.passphrase_path else "(none)"]),
        ("Created", [key.created]),
        ("Changed", [key.changed or "(never)"]),
        (
            "Re-enciphered",
            [f"{reenciphered} (re-enciphering pending)" if key.is_pending else reenciphered],
        ),
    ]
    lines = [f"{'Key':<28} : {key.name}", _RULE]
    for label, values in rows:
        for position, value in enumerate(values):
            start = f"{label:<20} :" if position == 0 else " " * 22
            lines.append(f"        {start} {value}".rstrip())
    return [*lines, ""]


def format_file(path: str, shape: TokenShape, finding: Finding) -> list[str]:
    """A valid key in a file of its own."""
    assert finding.validation is not None
    first, *rest = split_pattern(finding.validation.pattern)
    rows = [
        ("Status:", "Valid"),
        ("Secure key size:", f"{shape.size} bytes"),
        ("Key type:", shape.kind),
        ("Clear key size:", format_clear_bits(shape, finding)),
        ("XTS type key:", format_flag(is_set=shape.is_xts)),
        ("Enciphered with:", finding.enciphered_with),
        ("Verification pattern:", first),
        *(("", part) for part in rest),
    ]
    return [
        f"Validation of secure key in file '{path}':",
        *(f"  {label:<22} {value}" for label, value in rows),
    ]


def describe_key(
    key: RepositoryKey, shape: TokenShape, finding: Finding | None
) -> dict[str, object]:
    """One key of the repository, for ``--json``."""
    content: dict[str, object] = {
        "name": key.name,
        "file": str(key.path),
        "description": key.description,
        "volumes": list(key.volumes),
        "apqns": list(key.apqns),
        "sector_size": key.sector_size,
        "volume_type": key.volume_type,
        "pattern": key.pattern or None,
        "created": key.created,
        "changed": key.changed or None,
        "reenciphered": key.reenciphered or None,
        "pending": key.is_pending,
        "kms": key.kms or None,
        "dummy_passphrase": str(key.passphrase_path) if key.passphrase_path else None,
    }
    return {**content, **describe_secure_key(shape, finding)}


def describe_secure_key(shape: TokenShape, finding: Finding | None) -> dict[str, object]:
    """The key itself, for ``--json``."""
    clear_bits = shape.clear_bits
    content: dict[str, object] = {
        "key_type": shape.kind,
        "size": shape.size,
        "clear_bits": clear_bits,
        "xts": shape.is_xts,
        "mkvp": None if shape.mkvp is None else shape.mkvp.hex(),
    }
    if finding is None:
        return content
    validation = finding.validation
    if validation is None:
        return {**content, "valid": False, "reason": finding.reason}
    return {
        **content,
        "valid": True,
        "clear_bits": validation.clear_bits,
        "register": str(validation.register),
        "effective_pattern": validation.pattern,
        "usable_by": [str(apqn) for apqn in validation.apqns],
    }


def format_clear_bits(shape: TokenShape, finding: Finding | None) -> str:
    """The size of the clear key, as far as anybody knows it."""
    bits = shape.clear_bits
    if finding is not None and finding.validation is not None:
        bits = finding.validation.clear_bits
    return "(unknown)" if bits is None else f"{bits} bits"


def format_flag(*, is_set: bool) -> str:
    """As zkey writes it."""
    return "Yes" if is_set else "No"


def split_pattern(pattern: str) -> list[str]:
    """A verification pattern in the two lines in which it is shown."""
    return [pattern[i : i + _PATTERN_HALF] for i in range(0, len(pattern), _PATTERN_HALF)]
