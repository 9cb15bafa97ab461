"""``fusecrypt adapter create|list|show|remove``: virtual adapters."""

from __future__ import annotations

from typing import Final

from ...keystore.control_points import ControlPoint
from ...keystore.coprocessor import (
    MODE_ACCEL,
    MODE_CCA,
    MODE_EP11,
    MODE_LETTERS,
    MODE_PKCS11,
    PKEY_DRIVER,
    AdapterInfo,
    Apqn,
    SeState,
)
from ...keystore.errors import ConfigError, CoprocessorError, NotFoundError
from ..config import Settings
from ..exitcodes import ExitCode
from ..keystored.client import Keystore
from ..keystored.messages import describe_adapter, pack_adapters
from .adapter_seal import warn_of_file
from .adapter_token import create_token, describe_token
from .arguments import Arguments
from .ask_yes import ask_capitals
from .output import Output, format_table

_CARD_TYPES: Final = {f"CEX{level}": level for level in range(5, 9)}


def run_create(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Make an adapter, and say what its master key is worth."""
    apqn = Apqn.parse(args.positionals[0])
    mode = args.text("mode") or MODE_CCA
    if mode == MODE_PKCS11:
        return create_token(args, apqn, settings, output)
    for option in ("uri", "allow-clear-in-keystored"):
        if args.has(option) or args.text(option):
            raise ConfigError(f"--{option}: wanted: --mode {MODE_PKCS11}")
    if mode not in MODE_LETTERS:
        raise ConfigError(
            f"--mode: got {mode!r}; wanted: {', '.join((*MODE_LETTERS, MODE_PKCS11))}"
        )
    card_type = args.text("card-type")
    level = None if card_type is None else _CARD_TYPES.get(card_type.upper())
    if card_type is not None and level is None:
        raise ConfigError(f"--card-type: got {card_type!r}; wanted: {', '.join(_CARD_TYPES)}")
    has_master_key = not args.has("no-master-key") and mode != MODE_ACCEL
    adapter = Keystore(settings).create_adapter(
        apqn,
        mode,
        with_master_key=has_master_key,
        level=level,
        is_control_only=args.has("control-only"),
    )
    output.json(describe_adapter(adapter))
    if has_master_key:
        output.line(f"Adapter {apqn} has a new random master key, MKVP {adapter.current}.")
        output.warn(
            f"the master key of {apqn} is on this machine only. If it is lost, all data of all"
            " volumes under it is lost. Make a copy now, and keep it elsewhere: fusecrypt adapter"
            " backup FILE"
        )
    elif mode == MODE_ACCEL:
        output.line(f"Adapter {apqn} is an accelerator: it has no master key and serves no keys.")
    elif adapter.is_imprint:
        output.line(
            f"Adapter {apqn} is in imprint mode: 'fusecrypt adapter leave-imprint' comes "
            "before its master key."
        )
    else:
        output.line(f"Adapter {apqn} has no master key yet: it cannot make or use keys.")
    return ExitCode.OK


def run_add(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Have an adapter of an IBM Z machine used."""
    adapter = Keystore(settings).add_adapter(Apqn.parse(args.positionals[0]))
    output.json(describe_adapter(adapter))
    output.line(
        f"Adapter {adapter.apqn} is the machine's {adapter.type}, CURRENT {adapter.current}."
    )
    output.warn(
        f"keys under {adapter.apqn} are made and validated here; volumes under them are opened by "
        "the kernel's paes (cryptsetup open), not by fusecrypt. This was never tried on hardware"
    )
    return ExitCode.OK


def run_leave_imprint(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Take an EP11 adapter into use."""
    adapter = Keystore(settings).leave_imprint(Apqn.parse(args.positionals[0]))
    output.json(describe_adapter(adapter))
    output.line(f"Adapter {adapter.apqn} has left imprint mode, and has no master key yet.")
    return ExitCode.OK


def run_list(_args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """All adapters, a line each."""
    keystore = Keystore(settings)
    adapters = keystore.list_adapters()
    output.json(pack_adapters(adapters))
    rows = [("APQN", "MODE", "TYPE", "SERIAL", "STATUS", "NEW", "CURRENT", "OLD")]
    rows += [
        (
            str(adapter.apqn),
            adapter.mode,
            adapter.type,
            adapter.serial,
            str(adapter.status),
            str(adapter.new),
            str(adapter.current),
            str(adapter.old),
        )
        for adapter in adapters
    ]
    if adapters:
        for line in format_table(rows):
            output.line(line)
        warn_of_file(keystore, output)
    return ExitCode.OK


def run_show(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """One adapter."""
    apqn = Apqn.parse(args.positionals[0])
    adapter = next((a for a in Keystore(settings).list_adapters() if a.apqn == apqn), None)
    if adapter is None:
        raise NotFoundError(f"adapter {apqn}: does not exist")
    output.json(describe_adapter(adapter))
    for line in (
        f"Adapter {apqn}",
        f"  mode:        {adapter.mode}",
        f"  type:        {_describe_type(adapter)}",
        f"  serial:      {adapter.serial}",
        f"  status:      {adapter.status}",
        f"  domain:      {'administered only' if adapter.is_control_only else 'used here'}",
        f"  requests:    {adapter.requests} since fusecrypt-keystored started",
        f"  created:     {adapter.created}",
        *(describe_token(adapter) if adapter.uri else _describe_problem(adapter)),
        *(["  imprint:     yes, without master keys"] if adapter.is_imprint else ()),
        *_describe_guest(adapter),
        f"  {'WK' if adapter.mode == MODE_EP11 else 'AES'} master key registers:",
        f"    NEW:       {adapter.new.state} {adapter.new}",
        f"    CURRENT:   {adapter.current.state} {adapter.current}",
        *([f"    OLD:       {adapter.old.state} {adapter.old}"] * (adapter.mode != MODE_EP11)),
    ):
        output.line(line)
    return ExitCode.OK


def _describe_guest(adapter: AdapterInfo) -> list[str]:
    """What only EP11 domains have."""
    if adapter.se_state is SeState.ILLICIT:
        return []
    off = [str(point) for point in ControlPoint if point not in adapter.control_points]
    with_secret = "" if adapter.association is None else f", with secret {adapter.association}"
    return [
        f"  guest:       {adapter.se_state}{with_secret}",
        *([f"  session:     {adapter.session.hex()}"] if adapter.session else ()),
        f"  forbidden:   {', '.join(off) or 'nothing, all control points are on'}",
    ]


def _describe_problem(adapter: AdapterInfo) -> list[str]:
    return [f"  problem:     {adapter.problem}"] if adapter.problem else []


def _describe_type(adapter: AdapterInfo) -> str:
    if adapter.uri:
        return "a PKCS#11 token"
    return f"{adapter.type}, {'of the machine' if adapter.driver == PKEY_DRIVER else 'in software'}"


def run_remove(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Forget an adapter with its master keys."""
    apqn = Apqn.parse(args.positionals[0])
    is_asked = not output.is_quiet and not _has_keys_elsewhere(apqn, settings)
    if is_asked and not ask_capitals(
        f"This will remove the master keys of {apqn} irrevocably. Volumes under a master key that"
        " no other\nadapter and no backup has are lost."
    ):
        raise ConfigError(f"adapter {apqn}: not removed; wanted: YES")
    Keystore(settings).remove_adapter(apqn)
    output.json({"apqn": str(apqn)})
    output.note(f"Adapter {apqn} removed.")
    return ExitCode.OK


def _has_keys_elsewhere(apqn: Apqn, settings: Settings) -> bool:
    """The adapter has no master keys of its own; not if nothing can be told, of a damaged one."""
    try:
        adapters = Keystore(settings).list_adapters()
    except CoprocessorError:
        return False
    return any(a.apqn == apqn and (a.uri or a.driver == PKEY_DRIVER) for a in adapters)
