"""``fusecrypt adapter master-key …``: the registers of an adapter, from key parts to SET."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from typing import Final

from ...keystore.cca import MASTER_KEY_SIZE
from ...keystore.coprocessor import MODE_EP11, AdapterInfo, Apqn, Register
from ...keystore.errors import ConfigError, MapperError, NotFoundError
from ...keystore.registers import Part
from ..config import Settings
from ..exitcodes import ExitCode
from ..keystored.client import Keystore
from ..keystored.messages import describe_adapter
from .arguments import Arguments
from .ask_yes import ask_capitals
from .master_key import find_left_behind
from .output import Output
from .passphrase import is_handed_on, read_stream
from .source import open_for_reading

_NAMES_MAX: Final = 10
_REGISTERS: Final = {str(register).lower(): register for register in Register}


def run_load(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Combine a key part into NEW."""
    apqn = Apqn.parse(args.positionals[0])
    text = args.text("part")
    if text not in tuple(Part):
        wanted = f"wanted: {', '.join(Part)}"
        raise ConfigError(f"--part: got {text!r}; {wanted}" if text else f"--part: {wanted}")
    with _provide_part(args.positionals[1]) as fd:
        info = Keystore(settings).load_master_key_part(apqn, Part(text), fd)
    return _tell_new(output, info)


def run_generate(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Make a random NEW master key."""
    apqn = Apqn.parse(args.positionals[0])
    info = Keystore(settings).generate_master_key(apqn)
    output.warn(
        f"the NEW master key of {apqn} is in its token only, and cannot leave it"
        if info.uri
        else f"nobody knows the NEW master key of {apqn}. Clone it to the adapters that are to"
        " serve the same keys, and make a backup: fusecrypt adapter backup FILE"
    )
    return _tell_new(output, info)


def run_clone(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Make another adapter's master key the NEW one."""
    apqn, source = (Apqn.parse(text) for text in args.positionals)
    info = Keystore(settings).clone_master_key(apqn, source, parse_register(args))
    return _tell_new(output, info)


def run_clear_new(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Empty NEW."""
    return _tell_new(
        output, Keystore(settings).clear_new_master_key(Apqn.parse(args.positionals[0]))
    )


def run_commit(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Approve the NEW wrapping key of an EP11 adapter."""
    return _tell_new(output, Keystore(settings).commit_master_key(Apqn.parse(args.positionals[0])))


def run_set(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Make NEW the CURRENT master key, and say which keys that concerns."""
    apqn = Apqn.parse(args.positionals[0])
    keystore = Keystore(settings)
    before = _get(keystore, apqn)
    has_old = before.mode != MODE_EP11
    lost = before.old.mkvp if has_old else before.current.mkvp
    if before.new.is_usable:  # otherwise it is refused
        _check_left_behind(args, settings, output, before)
    info = keystore.set_master_key(apqn)
    if lost is not None:
        output.warn(
            f"{apqn} has the master key {lost.hex()} no more: keys that are still under it can be"
            " used only with another adapter that has it"
        )
    if info.old.mkvp is not None:
        output.warn(
            f"keys under {info.old} are under the OLD master key of {apqn} now, and are lost to it"
            " with the next one that is set: re-encipher them, and complete what was staged"
        )
    output.json(describe_adapter(info))
    old = f", OLD {info.old}" if has_old else ""
    output.line(f"Adapter {apqn}: CURRENT {info.current}{old}.")
    return ExitCode.OK


def _check_left_behind(
    args: Arguments, settings: Settings, output: Output, before: AdapterInfo
) -> None:
    """Warn of what is not ready; what is lost with this very SET only goes with a YES.

    Raises:
        ConfigError: it was not agreed to.
    """
    try:
        left = find_left_behind(settings, before.apqn)
    except MapperError as error:
        output.warn(f"it cannot be told whether everything is staged: {error}")
        return
    if left.unstaged:
        helps = (
            "another adapter has their master key"
            if before.mode == MODE_EP11
            else "until the next SET 'fusecrypt master-key stage' still helps"
        )
        output.warn(
            f"{len(left.unstaged)} keys or volumes are not staged for the NEW master key: "
            f"{_list_some(left.unstaged)}; {helps}"
        )
    if left.unknown:
        output.warn(
            f"of {len(left.unknown)} keys or volumes it cannot be told, and they may be lost: "
            f"{_list_some(left.unknown)}; 'fusecrypt master-key plan --key-file FILE' tells"
        )
    if left.lost:
        _confirm_loss(args, output, before, left.lost)


def _confirm_loss(
    args: Arguments, output: Output, before: AdapterInfo, lost: Sequence[str]
) -> None:
    register = Register.CURRENT if before.mode == MODE_EP11 else Register.OLD
    loss = (
        f"{len(lost)} keys or volumes are under the {register} master key of {before.apqn}, which "
        f"is gone with this SET: {_list_some(lost)}"
    )
    if args.has("force"):
        output.warn(f"{loss}. They can be used only with another adapter or backup that has it")
        return
    if output.is_quiet or not ask_capitals(f"{loss}. They are lost."):
        raise ConfigError(
            f"adapter {before.apqn}: nothing was set: {loss}; wanted: 'fusecrypt master-key stage "
            "--key-file FILE' before, or YES, or --force"
        )


def _list_some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMES_MAX]) + (", …" if len(names) > _NAMES_MAX else "")


def run_query(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """The state of the registers."""
    info = _get(Keystore(settings), Apqn.parse(args.positionals[0]))
    output.json(describe_adapter(info))
    is_ep11 = info.mode == MODE_EP11
    for register in Register:
        state = info.get_register(register)
        mkvp = f"0x{state}" if state.mkvp else "-"
        if is_ep11 and register is not Register.OLD:  # it has none
            output.line(f"WK {register + ':':<9}{state.state:<11} {mkvp}")
        elif not is_ep11:
            output.line(f"AES {register + ':':<9}{state.state:<8} {mkvp}")
    return ExitCode.OK


def parse_register(args: Arguments) -> Register:
    """What ``--register`` names; CURRENT without it.

    Raises:
        ConfigError: no register.
    """
    name = args.text("register") or "current"
    if name not in _REGISTERS:
        raise ConfigError(f"--register: got {name!r}; wanted: {', '.join(_REGISTERS)}")
    return _REGISTERS[name]


def _get(keystore: Keystore, apqn: Apqn) -> AdapterInfo:
    info = next((a for a in keystore.list_adapters() if a.apqn == apqn), None)
    if info is None:
        raise NotFoundError(f"adapter {apqn}: does not exist")
    return info


def _tell_new(output: Output, info: AdapterInfo) -> ExitCode:
    output.json(describe_adapter(info))
    mkvp = f", MKVP {info.new}" if info.new.mkvp else ""
    output.line(f"Adapter {info.apqn}: NEW is {info.new.state}{mkvp}.")
    return ExitCode.OK


@contextlib.contextmanager
def _provide_part(path: str) -> Generator[int, None, None]:
    """A descriptor that yields the 32 bytes of a key part, for keystored to read."""
    if path != "-":
        with open_for_reading(path, "key part") as file:
            if is_handed_on(file.fd):
                if file.size != MASTER_KEY_SIZE:
                    raise ConfigError(
                        f"key part {path}: {file.size} bytes; wanted: {MASTER_KEY_SIZE}"
                    )
                yield file.fd
                return
            with _read(file.fd, f"key part {path}") as fd:
                yield fd
        return
    with _read(0, "standard input") as fd:
        yield fd


@contextlib.contextmanager
def _read(source: int, where: str) -> Generator[int, None, None]:
    with read_stream(source, where, to_newline=False, offset=0, size=0) as part:
        if part.length != MASTER_KEY_SIZE:
            raise ConfigError(f"{where}: {part.length} bytes; wanted: {MASTER_KEY_SIZE}")
        with part.pipe() as fd:
            yield fd
