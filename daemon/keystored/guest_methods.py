"""What the keystored's owner can have done for the secure guest, and to EP11's control points."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from ...keystore.add_secret_request import NAME_MAX
from ...keystore.clear_bytes import make_random, wiped
from ...keystore.ep11_session import SECRET_SIZE
from ...keystore.errors import AccessError, ConfigError
from ..control.fields import Fields
from ..control.protocol import Request
from ..control.server import Method
from .messages import (
    pack_request,
    pack_secrets,
    parse_apqn,
    take_control_points,
)
from .secret import read_secret
from .work import Work

if TYPE_CHECKING:
    from ...keystore.coprocessors import Coprocessors

log = logging.getLogger(__name__)


class GuestMethods:
    """Takes parameters apart, lets the guest be changed, puts the answer together."""

    def __init__(self, coprocessors: Coprocessors, work: Work) -> None:
        self._coprocessors = coprocessors
        self._work = work

    def get_table(self) -> dict[str, Method]:
        """The methods by their short names."""
        return {
            "ChangeControlPoints": self.change_control_points,
            "BindAdapter": self._work.make_step("bound", self._coprocessors.bind),
            "AssociateAdapter": self.associate,
            "UnbindAdapter": self._work.make_step("unbound", self._coprocessors.unbind),
            "CreateSecret": self.create_secret,
            "AddSecret": self.add_secret,
            "LockSecrets": self.lock_secrets,
        }

    async def change_control_points(self, call: Request) -> Mapping[str, object]:
        fields = Fields("parameters", call.parameters)
        apqn = parse_apqn(fields)
        on, off = take_control_points(fields, "on"), take_control_points(fields, "off")
        words = [f"{point} on" for point in sorted(on)] + [f"{point} off" for point in sorted(off)]
        return await self._work.alter(
            apqn,
            ", ".join(words) or "no control point changed",
            lambda: self._coprocessors.change_control_points(apqn, on, off),
        )

    async def associate(self, call: Request) -> Mapping[str, object]:
        fields = Fields("parameters", call.parameters)
        apqn, index = parse_apqn(fields), fields.integer("index")
        return await self._work.alter(
            apqn,
            f"associated with secret {index}",
            lambda: self._coprocessors.associate(apqn, index),
        )

    async def create_secret(self, call: Request) -> Mapping[str, object]:
        fields = Fields("parameters", call.parameters, call.fds)
        name = fields.text("name")
        if not 0 < len(name.encode()) <= NAME_MAX:
            raise ConfigError(f"association secret: its name has 1 to {NAME_MAX} bytes")
        source, target = fields.optional_fd("input"), fields.optional_fd("output")

        def work() -> tuple[bytes, bytes]:
            with _read_or_make(source) as secret:
                if len(secret) != SECRET_SIZE:
                    raise ConfigError(
                        f"association secret: {len(secret)} bytes; wanted: {SECRET_SIZE}"
                    )
                made = self._coprocessors.make_request(name, secret)
                if target is not None:
                    _write(target, secret)
                return made

        request, secret_id = await self._work.run(work, secret=name)
        return pack_request(request, secret_id)

    async def add_secret(self, call: Request) -> Mapping[str, object]:
        request = Fields("parameters", call.parameters).data("request")
        secrets = await self._work.run(lambda: self._coprocessors.add_secret(request))
        log.info("association secret %s: added", secrets.secrets[-1].id.hex())
        return pack_secrets(secrets)

    async def lock_secrets(self, _call: Request) -> Mapping[str, object]:
        secrets = await self._work.run(self._coprocessors.lock_secrets)
        log.info("association secrets: locked until the next boot")
        return pack_secrets(secrets)


def _read_or_make(fd: int | None) -> AbstractContextManager[bytearray]:
    """An association secret of a descriptor, or a random one, for the length of a block."""
    if fd is None:
        return wiped(make_random(SECRET_SIZE))
    return read_secret(fd, "association secret", limit=SECRET_SIZE)


def _write(fd: int, secret: bytearray) -> None:
    try:
        if os.write(fd, secret) != len(secret):
            raise AccessError("association secret: only a part was written")
        os.fsync(fd)
    except OSError as error:
        raise AccessError(f"association secret: cannot write it: {error.strerror}") from None
