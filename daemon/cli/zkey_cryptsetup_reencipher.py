"""``fusecrypt zkey-cryptsetup reencipher``: the secure key in a LUKS2 header, another master key.

Every keyslot keeps its number, costs and priority, for which its passphrase is needed: the secure
key is what lies in it.
"""

from __future__ import annotations

from typing import Final

from ...dmcrypt.luks2 import Luks2Header, volume_key
from ...dmcrypt.luks2.volume_key import Pending
from ...keystore.coprocessor import Register
from ...keystore.errors import ConfigError, MasterKeyChangedError
from ..config import Settings
from ..exitcodes import ExitCode
from ..secure_volume import KnownKey, check_pattern, find_pattern
from .arguments import Arguments
from .locating import locating
from .output import Output
from .zkey_cryptsetup import Place, open_place
from .zkey_reencipher import make_wish

_CHOICES: Final = ("to-new", "from-old", "in-place", "staged")


def run(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Re-encipher the volume key, or complete that.

    Raises:
        MapperError: why not; then the header is as it was.
    """
    make_wish(args)
    with open_place(args, settings, output) as place:
        header = place.read()
        with locating(place.path):
            pending = volume_key.find_pending(header.metadata)
        if args.has("complete") or (pending and not any(map(args.has, _CHOICES))):
            if not pending:
                raise ConfigError(f"{place.path}: staged volume key re-enciphering is not pending")
            _complete(place, header, pending)
        else:
            if pending:
                place.confirm(
                    "staged volume key re-enciphering is pending already. Cancel it and start anew",
                    "what waits was kept",
                )
            _prepare(place, header)
    return ExitCode.OK


def _prepare(place: Place, header: Luks2Header) -> None:
    volume = place.volume
    with place.unlock(header) as unlocked:
        place.check_heirs(header, unlocked)
        known = volume.validate(volume.read_key(header, unlocked.key))
        check_pattern(find_pattern(header), known.validation.pattern)
        plan = make_wish(place.args).plan(known.validation.register)
        new = volume.reencipher(known, plan.target)
        if new == known.key:
            raise ConfigError(f"is enciphered with the {plan.target} master key already")
        if plan.is_staged:
            volume.stage(unlocked.slots, new, known.validation.pattern)
        else:
            volume.replace(unlocked.slots, new, known.validation.pattern)
    if plan.is_staged:
        place.output.line(
            f"Staged volume key re-enciphering is initiated for device '{place.path}'. After the "
            "NEW master key is set, 'fusecrypt zkey-cryptsetup reencipher --complete' completes "
            "it."
        )
    else:
        _say_done(place)
        if plan.target is Register.NEW:
            place.output.warn(f"{place.path}: cannot be opened until the NEW master key is set")
    _finish(place, "staged" if plan.is_staged else "replaced", plan.target, unlocked.numbers)


def _complete(place: Place, header: Luks2Header, pending: tuple[Pending, ...]) -> None:
    volume = place.volume
    waiting = [each.unbound for each in pending]
    with place.unlock(header, waiting, only_one=True) as unlocked:
        key = volume.read_key(header, unlocked.key)
        try:
            known = volume.validate(key)
        except MasterKeyChangedError as error:
            raise MasterKeyChangedError(
                f"the volume key that waits is not valid: {error}; the NEW master key may yet "
                "have to be set"
            ) from None
        check_pattern(pending[0].pattern, known.validation.pattern)
        check_pattern(find_pattern(header), known.validation.pattern)
    if known.validation.register is Register.OLD:
        place.confirm(
            "the volume key that waits is under the OLD master key by now. Re-encipher it with the "
            "CURRENT one",
            "what waits was kept",
        )
        _replace_by_current(place, header, known)
        return
    with locating(place.path):
        volume.activate(pending, may_drop=place.args.has("force"))
    _say_done(place)
    numbers = tuple(each.original for each in pending)
    _finish(place, "completed", known.validation.register, numbers)


def _replace_by_current(place: Place, header: Luks2Header, known: KnownKey) -> None:
    """Two changes of the master key since it was staged: what waits goes on from OLD."""
    volume = place.volume
    with place.unlock(header) as unlocked:
        place.check_heirs(header, unlocked)
        new = volume.reencipher(known, Register.CURRENT)
        volume.replace(unlocked.slots, new, known.validation.pattern)
    _say_done(place)
    _finish(place, "replaced", Register.CURRENT, unlocked.numbers)


def _say_done(place: Place) -> None:
    place.output.line(f"Re-enciphering has completed successfully for device '{place.path}'.")


def _finish(place: Place, how: str, target: Register, numbers: tuple[int, ...]) -> None:
    place.action.finish({"outcome": how, "register": str(target), "keyslots": sorted(numbers)})
