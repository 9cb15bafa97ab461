"""What the keystored's owner can have done to the adapters themselves."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, TypeVar

from ...keystore.adapters import Change
from ...keystore.cca import MASTER_KEY_SIZE
from ...keystore.clear_bytes import wiped
from ...keystore.coprocessor import AdapterInfo, Register
from ...keystore.pkcs11_uri import TokenUri
from ...keystore.registers import Part
from ...keystore.seal_state import SealMethod
from ...keystore.shares import SHARES_MAX, check_counts
from ...keystore.token_pin import PIN_MAX
from ...keystore.verification import make_mkvp
from ..control.fields import Fields, pack_data
from ..control.protocol import Request
from ..control.server import Method
from .ceremony import combine_in_process, split_in_process
from .messages import pack_adapters, pack_apqns, parse_apqn, take_apqns
from .secret import read_secret
from .work import Work

if TYPE_CHECKING:
    from ...keystore.coprocessors import Coprocessors

log = logging.getLogger(__name__)

Result = TypeVar("Result")

#: Bytes; more than anybody types, and what a pipe holds.
_MAX_PASSPHRASE: Final = 65536


class AdapterMethods:
    """Takes parameters apart, lets the adapters be changed, puts the answer together."""

    def __init__(self, coprocessors: Coprocessors, work: Work) -> None:
        self._coprocessors = coprocessors
        self._work = work

    def get_table(self) -> dict[str, Method]:
        """The methods by their short names."""
        adapters = self._coprocessors
        return {
            "CreateAdapter": self.create_adapter,
            "CreateToken": self.create_token,
            "AddAdapter": self._work.make_step("added", adapters.add),
            "LeaveImprint": self._work.make_step("imprint mode left", adapters.leave_imprint),
            "RemoveAdapter": self.remove_adapter,
            "BackupAdapters": self.backup_adapters,
            "RestoreAdapters": self.restore_adapters,
            "ChangeAdapters": self.change_adapters,
            "LoadMasterKeyPart": self.load_part,
            "GenerateMasterKey": self._work.make_step(
                "random NEW master key", adapters.load_random
            ),
            "CloneMasterKey": self.clone_master_key,
            "ClearNewMasterKey": self._work.make_step("NEW cleared", adapters.clear_new),
            "CommitMasterKey": self._work.make_step("NEW committed", adapters.commit_new),
            "SetMasterKey": self._work.make_step("master key set", adapters.set_new),
            "SplitMasterKey": self.split,
            "CombineMasterKey": self.combine,
            "SealAdapters": self.seal,
            "UnlockAdapters": self.unlock,
            "LockAdapters": self.lock,
        }

    async def create_adapter(self, call: Request) -> Mapping[str, object]:
        fields = Fields("parameters", call.parameters)
        apqn, mode = parse_apqn(fields), fields.text("mode")
        has_master_key, level = fields.flag("master_key"), fields.optional_integer("level")
        is_control_only = fields.flag("control_only")
        info = await self._work.run(
            lambda: self._coprocessors.create(
                apqn,
                mode,
                with_master_key=has_master_key,
                level=level,
                is_control_only=is_control_only,
            ),
            apqn=str(apqn),
        )
        log.info("%s: created, MKVP %s", apqn, info.current)
        return pack_adapters([info])

    async def create_token(self, call: Request) -> Mapping[str, object]:
        fields = Fields("parameters", call.parameters, call.fds)
        apqn, fd = parse_apqn(fields), fields.fd("pin")
        uri = TokenUri.parse(fields.text("uri"))
        has_master_key, is_clear = fields.flag("master_key"), fields.flag("clear_allowed")
        is_control_only = fields.flag("control_only")

        def work() -> AdapterInfo:
            with read_secret(fd, "PIN", limit=PIN_MAX) as pin:
                return self._coprocessors.create_token(
                    apqn,
                    uri,
                    pin,
                    with_master_key=has_master_key,
                    is_clear_allowed=is_clear,
                    is_control_only=is_control_only,
                )

        info = await self._work.run(work, apqn=str(apqn), uri=str(uri))
        log.info("%s: created, %s, MKVP %s", apqn, uri, info.current)
        return pack_adapters([info])

    async def remove_adapter(self, call: Request) -> Mapping[str, object]:
        apqn = parse_apqn(Fields("parameters", call.parameters))
        await self._work.run(lambda: self._coprocessors.remove(apqn), apqn=str(apqn))
        log.info("%s: removed, with its master keys", apqn)
        return {}

    async def backup_adapters(self, call: Request) -> Mapping[str, object]:
        fd = Fields("parameters", call.parameters, call.fds).fd("passphrase")
        work = functools.partial(_with_passphrase, fd, self._coprocessors.backup)
        return {"backup": pack_data(await self._work.run(work))}

    async def restore_adapters(self, call: Request) -> Mapping[str, object]:
        fields = Fields("parameters", call.parameters, call.fds)
        backup, fd = fields.data("backup"), fields.fd("passphrase")
        restore = functools.partial(self._coprocessors.restore, backup)
        apqns = await self._work.run(lambda: _with_passphrase(fd, restore))
        for apqn in apqns:
            log.info("%s: restored from a backup", apqn)
        return pack_apqns(apqns)

    async def change_adapters(self, call: Request) -> Mapping[str, object]:
        fields = Fields("parameters", call.parameters)
        apqns = take_apqns(fields)
        change = Change(fields.choice("change", tuple(Change)))
        names = ", ".join(map(str, apqns))
        await self._work.run(
            lambda: self._coprocessors.change(apqns, change), apqns=names, change=str(change)
        )
        log.info("%s: %s", names, change)
        return {}

    async def load_part(self, call: Request) -> Mapping[str, object]:
        fields = Fields("parameters", call.parameters, call.fds)
        apqn, part = parse_apqn(fields), Part(fields.choice("part", tuple(Part)))
        fd = fields.fd("content")

        def work() -> AdapterInfo:
            with read_secret(fd, "key part", limit=MASTER_KEY_SIZE) as content:
                return self._coprocessors.load_part(apqn, part, content)

        return await self._work.alter(apqn, f"{part} key part loaded", work)

    async def clone_master_key(self, call: Request) -> Mapping[str, object]:
        fields = Fields("parameters", call.parameters)
        apqn, source = parse_apqn(fields), parse_apqn(fields, "from")
        register = Register(fields.choice("register", tuple(Register)))
        return await self._work.alter(
            apqn,
            f"NEW master key is {register} of {source}",
            lambda: self._coprocessors.clone(apqn, source, register),
        )

    async def split(self, call: Request) -> Mapping[str, object]:
        fields = Fields("parameters", call.parameters, call.fds)
        apqn, threshold = parse_apqn(fields), fields.integer("threshold")
        register = Register(fields.choice("register", tuple(Register)))
        fds = _take_shares(fields)

        def work() -> str:
            check_counts(threshold, len(fds))
            with self._coprocessors.copied(apqn, register) as master_key:
                split_in_process(master_key, threshold, fds)
            return str(self._coprocessors.get(apqn).info().get_register(register))

        step = f"{register} master key in {len(fds)} shares, {threshold} wanted"
        mkvp = await self._work.run(work, apqn=str(apqn), step=step)
        log.info("%s: %s; MKVP %s", apqn, step, mkvp)
        return {"mkvp": mkvp}

    async def combine(self, call: Request) -> Mapping[str, object]:
        fields = Fields("parameters", call.parameters, call.fds)
        apqn = None if fields.optional_text("apqn") is None else parse_apqn(fields)
        fds = _take_shares(fields)

        def work() -> str:
            with wiped(combine_in_process(fds)) as master_key:
                if apqn is not None:
                    return str(self._coprocessors.load_whole(apqn, master_key).new)
                return make_mkvp(master_key).hex()

        step = f"{len(fds)} shares put together"
        mkvp = await self._work.run(work, apqn=str(apqn or "-"), step=step)
        log.info("%s: master key of %d shares; MKVP %s", apqn or "-", len(fds), mkvp)
        return {"mkvp": mkvp}

    async def seal(self, call: Request) -> Mapping[str, object]:
        fields = Fields("parameters", call.parameters, call.fds)
        method = SealMethod(fields.choice("with", tuple(SealMethod)))
        pcrs, fd = fields.optional_text("pcrs") or "", fields.optional_fd("passphrase")

        def reseal(passphrase: bytearray) -> None:
            self._coprocessors.reseal(method, passphrase, pcrs)

        await self._work.run(
            lambda: reseal(bytearray()) if fd is None else _with_passphrase(fd, reseal),
            method=str(method),
        )
        log.info("adapters: sealed with %s", method)
        return {}

    async def unlock(self, call: Request) -> Mapping[str, object]:
        fd = Fields("parameters", call.parameters, call.fds).fd("passphrase")
        work = functools.partial(_with_passphrase, fd, self._coprocessors.host_key.unlock)
        await self._work.run(work)
        log.info("adapters: unlocked")
        return {}

    async def lock(self, _call: Request) -> Mapping[str, object]:
        await self._work.run(self._coprocessors.host_key.lock)
        log.info("adapters: locked")
        return {}


def _with_passphrase(fd: int, function: Callable[[bytearray], Result]) -> Result:
    """What a function makes of the passphrase that a descriptor yields. Blocks."""
    with read_secret(fd, "passphrase", limit=_MAX_PASSPHRASE) as passphrase:
        return function(passphrase)


def _take_shares(fields: Fields) -> list[int]:
    fds = [fields.optional_fd(f"share{i}") for i in range(SHARES_MAX)]
    return [fd for fd in fds if fd is not None]
