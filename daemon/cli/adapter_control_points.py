"""``fusecrypt adapter control-points``: what an EP11 adapter lets be done with keys."""

from __future__ import annotations

from ...keystore.control_points import ControlPoint, parse_control_point
from ...keystore.coprocessor import AdapterInfo, Apqn
from ..config import Settings
from ..exitcodes import ExitCode
from ..keystored.guest_client import GuestKeystore
from .arguments import Arguments
from .output import Output


def run(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Turn control points on and off, and show them all."""
    apqn = Apqn.parse(args.positionals[0])
    turn_on, turn_off = _parse(args, "set"), _parse(args, "clear")
    # Without a change, too: only this says that the adapter has none.
    info = GuestKeystore(settings).change_control_points(apqn, turn_on, turn_off)
    output.json(_describe(info))
    for point in ControlPoint:
        state = "on" if point in info.control_points else "off"
        output.line(f"{point:>3d}  {point!s:<30}  {state}")
    return ExitCode.OK


def _parse(args: Arguments, option: str) -> list[ControlPoint]:
    return [parse_control_point(text) for text in args.texts(option)]


def _describe(info: AdapterInfo) -> dict[str, object]:
    points = {str(point): point in info.control_points for point in ControlPoint}
    return {"apqn": str(info.apqn), "control_points": points}
