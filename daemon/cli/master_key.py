"""``fusecrypt master-key``: a change of the master key, for every key and volume there is."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

from ...dmcrypt.engine.client import Engine
from ...keystore.coprocessor import Apqn, Register
from ...keystore.errors import CoprocessorError, EngineMemoryError, MapperError, PolicyError
from ...keystore.master_key_state import Finding, Registers, State
from ..config import Settings
from ..exitcodes import ExitCode
from ..header_history import HeaderHistory
from ..keystored.client import Keystore
from ..master_key_inventory import find_items
from ..master_key_items import Item, Passphrase, Tools
from .arguments import Arguments
from .output import Output
from .own_engine import run_engine
from .progress import Progress

Source = TypeVar("Source")
Target = TypeVar("Target")

#: Items at a time. Of volumes only as many as the engine derives keys for at once.
_JOBS: Final = {"key": 4, "file": 4, "volume": 2}
_IS_WELL: Final = frozenset({State.DONE, State.STAGED, State.READY, State.OTHER})


@dataclass(slots=True)
class Result:
    """One item, and what became of it."""

    item: Item
    finding: Finding
    did: str = ""  # what was done
    error: str = ""

    def describe(self) -> dict[str, object]:
        """For ``--json``."""
        return {
            "kind": self.item.kind,
            "name": self.item.name,
            "state": str(self.finding.state),
            "text": self.finding.text,
            "did": self.did or None,
            "error": self.error or None,
        }

    def format(self) -> str:
        """A line for people."""
        told = self.error or self.did or self.finding.text
        return f"{self.item.kind} {self.item.name}: {self.finding.state}: {told}"


def run_plan(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Say where everything is, and what would be done; changes nothing.

    Raises:
        MapperError: there is no telling at all.
    """
    with _look(args, settings, output) as results:
        _report(results, output, is_long=True)
        is_bad = any(r.finding.state in {State.LOST, State.UNKNOWN} for r in results)
    return ExitCode.PARTLY_DONE if is_bad else ExitCode.OK


def run_stage(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Re-encipher everything that is not yet, so that it waits for the NEW master key.

    Raises:
        MapperError: there is no telling at all.
    """

    def stage(result: Result) -> None:
        result.item.stage()
        result.did = "staged"
        result.finding = Finding(State.STAGED, result.finding.text)

    with _look(args, settings, output) as results:
        wanted = [r for r in results if r.finding.state is State.UNSTAGED]
        _run(wanted, "staged", stage, args, output)
        _report(results, output)
        return _make_code(results, _IS_WELL)


def run_complete(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Put everything that waits into its place.

    Raises:
        PolicyError: something is not staged, or the NEW master key is not set; nothing was done.
        MapperError: there is no telling at all.
    """

    def complete(result: Result) -> None:
        result.item.complete()
        result.did = "completed"
        result.finding = Finding(State.DONE, result.finding.text)

    with _look(args, settings, output) as results:
        in_the_way = [
            r for r in results if r.finding.state not in {State.DONE, State.READY, State.OTHER}
        ]
        if in_the_way and not args.has("force"):
            for result in in_the_way:
                output.say("error", result.format())
            raise PolicyError(
                f"{len(in_the_way)} of {len(results)} are not ready, nothing was done; wanted: "
                f"{advise([result.finding for result in in_the_way])}; or --force, which completes "
                "what is ready, and removes the keyslots whose passphrase is not given"
            )
        wanted = [r for r in results if r.finding.state is State.READY]
        _run(wanted, "completed", complete, args, output)
        _report(results, output)
        return _make_code(results, {State.DONE, State.OTHER})


def run_rollback(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Forget everything that waits.

    Raises:
        MapperError: there is no telling at all.
    """

    def forget(result: Result) -> None:
        result.did = "rolled back" if result.item.rollback() else ""
        result.finding = Finding(State.DONE, "nothing waits")

    with _tools(args, settings) as tools:
        items = find_items(settings, tools, args.positionals, _list_passphrases(args))
        results = [Result(item, Finding(State.UNKNOWN)) for item in items]
        _run(results, "rolled back", forget, args, output)
        _report(results, output)
    return _make_code(results, {State.DONE})


def advise(findings: Sequence[Finding]) -> str:
    """What makes them ready for ``complete``, in its order.

    Under OLD with no NEW one loaded nothing is to be set: that would be the end of the OLD one.
    """
    states = {finding.state for finding in findings}
    targets = {finding.target for finding in findings}
    steps: list[str] = []
    if State.LOST in states:
        steps.append("'fusecrypt adapter restore FILE' of a backup that has the lost master key")
    if State.UNKNOWN in states:
        steps.append("a --key-file FILE for each passphrase that is not known")
    if targets - {None}:
        steps.append("'fusecrypt master-key stage --key-file FILE', with one for each keyslot")
    if State.STAGED in states or Register.NEW in targets:
        steps.append("'fusecrypt adapter master-key set CARD.DOMAIN'")
    elif Register.CURRENT in targets:
        steps.append("no 'fusecrypt adapter master-key set', which would lose the OLD master key")
    return ", then ".join([*steps, "this again"])


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """Keys and volumes that are not ready for an adapter's SET."""

    lost: tuple[str, ...]  # no adapter would have a master key of theirs any more
    unstaged: tuple[str, ...]  # still under its OLD master key afterwards, or another adapter's
    unknown: tuple[str, ...]  # there is no telling: passphrases are missing


def find_left_behind(settings: Settings, apqn: Apqn) -> LeftBehind:
    """What SET of an adapter would leave behind, as far as it can be told without passphrases.

    Raises:
        MapperError: there is no telling.
    """
    with run_engine() as engine:
        keystore = Keystore(settings)
        registers = Registers(keystore.list_adapters())
        tools = Tools(keystore, registers, HeaderHistory(settings.state_dir), lambda: engine)
        results = [_look_at(item) for item in find_items(settings, tools, (), ())]
    after = registers.set_new(apqn)
    lost: list[str] = []
    unstaged: list[str] = []
    unknown: list[str] = []
    for result in results:
        name, finding = f"{result.item.kind} {result.item.name}", result.finding
        if registers.has_any(finding.mkvps) and not after.has_any(finding.mkvps):
            lost.append(name)
        elif finding.state is State.UNSTAGED:
            unstaged.append(name)
        elif finding.state is State.UNKNOWN and not finding.is_waiting:
            unknown.append(name)
    return LeftBehind(tuple(lost), tuple(unstaged), tuple(unknown))


@contextlib.contextmanager
def _look(
    args: Arguments, settings: Settings, output: Output
) -> Generator[list[Result], None, None]:
    with _tools(args, settings) as tools:
        items = find_items(settings, tools, args.positionals, _list_passphrases(args))
        with Progress("looked at", len(items), output) as progress:
            results = _each(
                items, lambda item: item.kind, lambda item: progress.step(_look_at(item))
            )
        yield results


def _look_at(item: Item) -> Result:
    try:
        return Result(item, item.look())
    except MapperError as error:
        return Result(item, Finding(State.UNKNOWN, str(error)))


@contextlib.contextmanager
def _tools(args: Arguments, settings: Settings) -> Generator[Tools, None, None]:
    keystore = Keystore(settings)
    registers = Registers(keystore.list_adapters())
    if registers.is_empty:
        raise CoprocessorError("no adapter is online; 'fusecrypt adapter list' shows all")
    with contextlib.ExitStack() as stack:
        engines: list[Engine] = [stack.enter_context(run_engine())]
        history = HeaderHistory(settings.state_dir)
        yield Tools(keystore, registers, history, lambda: engines[0], args.has("force"))


def _list_passphrases(args: Arguments) -> list[Passphrase]:
    offset, size = args.number("keyfile-offset") or 0, args.number("keyfile-size") or 0
    return [Passphrase(path, offset, size) for path in args.texts("key-file")]


def _run(
    results: Sequence[Result],
    did: str,
    action: Callable[[Result], None],
    args: Arguments,
    output: Output,
) -> None:
    """Do it to each; a failure is kept with the item, and the others go on."""
    again: list[Result] = []

    def do(result: Result) -> None:
        try:
            action(result)
        except MapperError as error:
            result.error = str(error)

    def do_beside_others(result: Result) -> None:
        try:
            action(result)
        except EngineMemoryError:
            again.append(result)  # alone, later: others have the memory now
        except MapperError as error:
            result.error = str(error)
        progress.step(None)
        if args.has("verbose"):
            output.line(result.format())

    with Progress(did, len(results), output) as progress:
        _each(results, lambda result: result.item.kind, do_beside_others)
    for result in again:
        do(result)


def _each(
    items: Sequence[Source], get_kind: Callable[[Source], str], function: Callable[[Source], Target]
) -> list[Target]:
    """The function's results in order, as many at a time as fit their kind."""
    done: dict[int, Target] = {}
    for kind, jobs in _JOBS.items():
        numbers = [number for number, item in enumerate(items) if get_kind(item) == kind]
        with ThreadPoolExecutor(jobs) as pool:
            targets = pool.map(function, [items[number] for number in numbers])
            done.update(zip(numbers, targets, strict=True))
    return [done[number] for number in sorted(done)]


def _report(results: Sequence[Result], output: Output, *, is_long: bool = False) -> None:
    for result in results:
        if result.error:
            output.say("error", result.format())
        elif result.finding.state in {State.LOST, State.UNKNOWN}:
            output.warn(result.format())
        elif is_long:
            output.line(result.format())
    counts = Counter(str(result.finding.state) for result in results)
    failed = sum(bool(result.error) for result in results)
    told = ", ".join(f"{counts[state]} {state}" for state in State if counts[state])
    output.line(f"{len(results)} in all: {told or 'nothing'}; {failed} failed")
    output.json(
        {
            "items": [result.describe() for result in results],
            "counts": dict(counts),
            "failed": failed,
        }
    )


def _make_code(results: Sequence[Result], well: frozenset[State] | set[State]) -> ExitCode:
    is_well = all(r.finding.state in well and not r.error for r in results)
    return ExitCode.OK if is_well else ExitCode.PARTLY_DONE
