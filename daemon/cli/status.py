"""``fusecrypt status`` and ``fusecrypt list``."""

from __future__ import annotations

import os

from ..config import Settings
from ..control.answers import Info, KeyStatus, Listing, Volume, VolumeStats
from ..control.client import ControlClient, NoDaemonError
from ..control.volume_requests import StatusRequest
from ..exitcodes import ExitCode, ReportedError
from ..volume_name import check_volume_name
from .arguments import Arguments
from .output import Output, format_table
from .volume import describe_left_engine

_SECTOR = 512


def run_status(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Show one volume, or the daemon."""
    if not args.positionals:
        return _show_daemon(settings, output)
    name = args.positionals[0].removeprefix(f"{settings.mapper_dir}/")
    check_volume_name(name)
    try:
        with ControlClient(settings.control_socket) as client:
            reply = client.call("Status", StatusRequest(name).pack())
    except NoDaemonError:
        if left := describe_left_engine(settings):
            output.warn(left)
        return _show_inactive(settings, name, output)
    except ReportedError as error:
        if error.exit_code is ExitCode.WRONG_DEVICE:
            return _show_inactive(settings, name, output)
        raise
    output.json(reply)
    for line in format_volume(Volume.parse(reply)):
        output.line(line)
    return ExitCode.OK


def run_list(_args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """List volumes, and crypttab entries that are not open."""
    listing = Listing((), ())
    try:
        with ControlClient(settings.control_socket) as client:
            reply = client.call("List", {})
            listing = Listing.parse(reply)
            output.json(reply)
    except NoDaemonError:
        output.json(listing.pack())
    for line in format_listing(listing):
        output.line(line)
    return ExitCode.OK


def format_listing(listing: Listing) -> list[str]:
    """A table of the volumes and of the entries that are not open, and why those failed."""
    rows = [("NAME", "STATE", "TYPE", "CIPHER", "SIZE", "MODE", "SOURCE")]
    for volume in listing.volumes:
        mode = "read-only" if volume.read_only else "read/write"
        size = _format_size(volume.size)
        rows.append(
            (volume.name, volume.state, volume.type, volume.cipher, size, mode, volume.source)
        )
    active = {volume.name for volume in listing.volumes}
    inactive = [entry for entry in listing.entries if entry.name not in active]
    rows += [(entry.name, entry.state, "-", "-", "-", "-", "-") for entry in inactive]
    errors = [f"{entry.name}: {entry.error}" for entry in inactive if entry.error]
    return [*format_table(rows), *errors] if len(rows) > 1 else []


def format_volume(volume: Volume) -> list[str]:
    """One volume, laid out as cryptsetup 2.8 does, with what only we have at the end."""
    use = " and is in use" if volume.in_use else ""
    state = f"active{use}" if volume.state != "closing" else volume.state
    suspended = " (suspended)" if volume.state == "suspended" else ""
    if volume.state in {"lost", "unavailable"}:
        state += f", but its key is {volume.state}"
    lines = [
        f"{volume.path} is {state}.",
        f"  type:    {volume.type}",
        f"  cipher:  {volume.cipher}",
        f"  keysize: {volume.key_bits} [bits]",
        f"  key location: {volume.key_location}",
        f"  device:  {volume.source}{' (deleted)' if volume.deleted else ''}",
    ]
    lines += format_key(volume.key)
    if volume.header is not None:
        lines.append(f"  header:  {volume.header}")
    lines += [
        f"  sector size:  {volume.sector_size} [bytes]",
        f"  offset:  {_format_sectors(volume.offset)}",
        f"  size:    {_format_sectors(volume.size // _SECTOR)}",
    ]
    if volume.iv_offset:
        lines.append(f"  skipped: {_format_sectors(volume.iv_offset)}")
    lines.append(f"  mode:    {'readonly' if volume.read_only else 'read/write'}{suspended}")
    if volume.flags:
        lines.append(f"  flags:   {' '.join(volume.flags)}")
    optional = {"uuid": volume.uuid, "label": volume.label, "keyslot": volume.keyslot}
    lines += [f"  {f'{key}:':<9}{text}" for key, text in optional.items() if text not in {None, ""}]
    stats = volume.stats
    lines += [
        f"  node:    {volume.dm_path}",
        f"  opened:  {volume.in_use} times now",
        f"  reads:   {stats.reads} ({stats.read_bytes} [bytes])",
        f"  writes:  {stats.writes} ({stats.write_bytes} [bytes]), {stats.flushes} flushes",
    ]
    return lines + format_io_errors(stats)


def format_io_errors(stats: VolumeStats) -> list[str]:
    """How often the backing store failed, and how it did last; nothing if it never did."""
    if not stats.errors:
        return []
    return [f"  errors:  {stats.errors}, the last: {os.strerror(stats.last_error)}"]


def format_key(key: KeyStatus) -> list[str]:
    """What there is to say of the key of a ``paes`` volume; of a clear one nothing."""
    if key.kind == "clear":
        return []
    if key.kind == "random":
        reason = f": {key.reason}; I/O fails" if key.state == "lost" else ""
        return [f"  key:     random protected key, {key.state}{reason}"]
    reason = f": {key.reason}" if key.reason else ""
    times = "once" if key.derivations == 1 else f"{key.derivations} times"
    lines = [
        f"  key:     {key.type}, master key {key.mkvp}, adapter {key.adapter}",
        f"  key state:    {key.state}{reason}",
        f"  key derived:  {times}, {key.age} [seconds] ago",
    ]
    if key.lease:
        lines.append(f"  key lease:    {key.lease} [seconds]")
    if key.idle:
        lines.append(f"  key idle:     {key.idle} [seconds]")
    return lines


def _show_inactive(settings: Settings, name: str, output: Output) -> ExitCode:
    path = settings.mapper_dir / name
    output.line(f"{path} is inactive.")
    output.json({"name": name, "state": "inactive", "path": str(path)})
    return ExitCode.WRONG_DEVICE


def _show_daemon(settings: Settings, output: Output) -> ExitCode:
    try:
        with ControlClient(settings.control_socket) as client:
            reply = client.call("GetInfo", {})
    except NoDaemonError as error:
        left = describe_left_engine(settings)
        raise NoDaemonError(f"{error}{left and f'; {left}'}") from None
    output.json(reply)
    info = Info.parse(reply)
    for line in (
        f"fusecryptd {info.version} is active in {info.runtime_dir}.",
        f"  devices:      {info.mount}",
        f"  volumes:      {info.volumes}",
        f"  daemon:       pid {info.pid}",
        f"  engine:       pid {info.engine_pid}, libgcrypt {info.gcrypt}",
        f"  sandbox:      {info.sandbox}",
        f"  key memory:   {info.arena.kind}, {info.arena.used} of {info.arena.size} bytes used",
        f"  I/O threads:  {info.io_threads}, {info.cloned} with a connection of their own",
        f"  read-ahead:   {info.read_ahead_kb} KiB",
    ):
        output.line(line)
    if os.path.exists(settings.host_key):  # noqa: PTH110 - False, too, where we may not look
        output.warn(
            "the adapters are sealed by a host key in a file: whoever copies both has the master"
            " keys; fusecrypt adapter seal --with … changes that"
        )
    return ExitCode.OK


def _format_sectors(sectors: int) -> str:
    return f"{sectors} [512-byte units] ({sectors * _SECTOR} [bytes])"


def _format_size(size: int) -> str:
    """As `lsblk` does: three digits at most, base 1024."""
    value, units = float(size), iter("BKMGTPE")
    unit = next(units)
    while value >= 1000:
        value, unit = value / 1024, next(units)
    return f"{value:.3g}{unit}"
