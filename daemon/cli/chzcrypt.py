"""``fusecrypt chzcrypt`` and ``adapter checkstop|recover``: cards and domains in and out of use."""

from __future__ import annotations

from typing import Final

from ...keystore.adapters import Change
from ...keystore.coprocessor import Apqn
from ...keystore.errors import ConfigError, CoprocessorError
from ..config import Settings
from ..exitcodes import ExitCode
from ..keystored.client import Keystore
from ..keystored.guest_client import GuestKeystore
from .arguments import Arguments
from .crypto_device import choose_devices
from .output import Output

_CHANGES: Final = {
    "enable": Change.ONLINE,
    "disable": Change.OFFLINE,
    "config-on": Change.CONFIGURE,
    "config-off": Change.DECONFIGURE,
}
_OF_CARDS: Final = ("config-on", "config-off")
_OF_GUEST: Final = ("se-bind", "se-associate", "se-unbind")


def run(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Set cards and domains online, offline, configured or deconfigured, or bind a domain."""
    given = [name for name in (*_CHANGES, *_OF_GUEST) if args.has(name)]
    if len(given) != 1:
        wanted = ", ".join(f"--{name}" for name in (*_CHANGES, *_OF_GUEST))
        raise ConfigError(f"chzcrypt: wanted: one of {wanted}")
    (name,) = given
    if name in _OF_GUEST:
        return _change_queue(args, settings, output, name)
    if args.has("all") == bool(args.positionals):
        raise ConfigError("chzcrypt: wanted: --all, or devices")
    if name in _OF_CARDS:
        for text in args.positionals:
            if "." in text:
                raise ConfigError(f"--{name}: got {text!r}; wanted: a CARD, not a domain")
    return _change(args, settings, output, _CHANGES[name])


def run_checkstop(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Let cards fail, for a drill."""
    return _change(args, settings, output, Change.CHECKSTOP)


def run_recover(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """End the drill."""
    return _change(args, settings, output, Change.RECOVER)


def _change_queue(args: Arguments, settings: Settings, output: Output, name: str) -> ExitCode:
    """What concerns the secure guest is done to one domain."""
    if args.has("all") or len(args.positionals) != 1:
        raise ConfigError(f"--{name}: wanted: one CARD.DOMAIN")
    apqn = Apqn.parse(args.positionals[0])
    keystore = GuestKeystore(settings)
    if name == "se-bind":
        info = keystore.bind(apqn)
    elif name == "se-unbind":
        info = keystore.unbind(apqn)
    else:
        index = args.number(name)
        assert index is not None
        info = keystore.associate(apqn, index)
    output.json({"devices": {str(apqn): str(info.se_state)}})
    if args.has("verbose"):
        output.line(f"{apqn} is {info.se_state}")
    return ExitCode.OK


def _change(args: Arguments, settings: Settings, output: Output, change: Change) -> ExitCode:
    keystore = Keystore(settings)
    adapters = keystore.list_adapters()
    if not adapters:
        raise CoprocessorError("no crypto card devices found; fusecrypt adapter create makes one")
    apqns = [adapter.apqn for adapter in choose_devices(adapters, args.positionals)]
    keystore.change_adapters(apqns, change)
    now = {adapter.apqn: adapter for adapter in keystore.list_adapters()}
    output.json({"devices": {str(apqn): str(now[apqn].status) for apqn in apqns}})
    if args.has("verbose"):
        for apqn in apqns:
            output.line(f"{apqn} is {now[apqn].status}")
    return ExitCode.OK
