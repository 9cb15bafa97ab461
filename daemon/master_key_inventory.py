"""Everything that a change of the master key concerns: found by repository, crypttab, and paths."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from ..keystore.errors import NotFoundError
from ..keystore.repository import Repository
from ..keystore.repository_key import LUKS2, RepositoryKey
from .config import Settings
from .crypttab import CrypttabEntry, load_crypttabs
from .device_spec import resolve_device_spec
from .master_key_items import (
    DamagedItem,
    FileItem,
    Item,
    Passphrase,
    RepositoryItem,
    Tools,
    VolumeItem,
    is_secure_volume,
)
from .pkey import SYSFS


def find_items(
    settings: Settings, tools: Tools, paths: Sequence[str], passphrases: Sequence[Passphrase]
) -> list[Item]:
    """All keys, then key files, then volumes; each file once.

    ``paths`` are more volumes; ``passphrases`` are tried on each volume, after those that crypttab
    and repository know.

    Raises:
        AccessError: the repository cannot be read.
        ConfigError, AccessError: a crypttab cannot be read.
    """
    repository = Repository(settings.zkey_repository)
    try:
        keys, damaged = repository.survey()
    except NotFoundError:
        keys, damaged = (), {}
    entries = _list_kept(settings, load_crypttabs(settings.crypttabs).entries)
    items: list[Item] = [RepositoryItem(tools, repository, key) for key in keys]
    items += [DamagedItem(name, error) for name, error in damaged.items()]
    items += _find_files(tools, entries, keys)
    items += _find_volumes(tools, entries, keys, paths, passphrases)
    return items


def _find_files(
    tools: Tools, entries: Sequence[CrypttabEntry], keys: Sequence[RepositoryKey]
) -> list[FileItem]:
    known = {os.path.realpath(key.path) for key in keys}
    found: list[FileItem] = []
    for entry in entries:
        path = entry.key_file
        is_paes = (entry.options.cipher or "").startswith("paes-")
        if path is None or entry.type != "plain" or not is_paes:
            continue
        if (real := os.path.realpath(path)) not in known:
            known.add(real)
            found.append(FileItem(tools, path))
    return found


def _find_volumes(
    tools: Tools,
    entries: Sequence[CrypttabEntry],
    keys: Sequence[RepositoryKey],
    paths: Sequence[str],
    passphrases: Sequence[Passphrase],
) -> list[VolumeItem]:
    """Volumes of the repository and given ones in any case, those of the crypttab if they fit."""
    found: dict[str, tuple[str, list[Passphrase]]] = {}

    def add(path: str, own: Sequence[Passphrase]) -> None:
        _, known = found.setdefault(os.path.realpath(path), (path, []))
        known.extend(own)

    for key in keys:
        if key.is_aes and key.volume_type == LUKS2:
            own = [] if key.passphrase_path is None else [Passphrase(str(key.passphrase_path))]
            for text in key.volumes:
                add(resolve_device_spec(text.rpartition(":")[0]), own)
    for entry in entries:
        path = entry.options.header or entry.source_path
        if entry.type == "plain" or not (os.path.realpath(path) in found or is_secure_volume(path)):
            continue
        add(path, _find_own(entry))
    for path in paths:
        add(os.path.abspath(resolve_device_spec(path)), [])  # noqa: PTH100 - keeps symlinks
    return [
        VolumeItem(tools, path, tuple(dict.fromkeys([*own, *passphrases])))
        for path, own in found.values()
    ]


def _find_own(entry: CrypttabEntry) -> list[Passphrase]:
    if entry.key_file is None:
        return []
    options = entry.options
    return [Passphrase(entry.key_file, options.keyfile_offset, options.keyfile_size)]


def _list_kept(settings: Settings, entries: Sequence[CrypttabEntry]) -> list[CrypttabEntry]:
    """The entries, those without their key file whose key files are new at each reading."""
    random = (str(SYSFS), str(settings.device_dir / "pkey"))
    return [
        replace(entry, key_file=None)
        if entry.key_file is not None
        and (entry.key_file.startswith(random) or not os.path.isfile(entry.key_file))  # noqa: PTH113
        else entry
        for entry in entries
    ]
