"""What the methods of ``io.fusecrypt.Keystore`` take and return, as values.

The interface, method by method, is described in docs/manual/fusecrypt-keystored.8.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

from ...keystore.control_points import ControlPoint, parse_control_point
from ...keystore.coprocessor import (
    AdapterInfo,
    Apqn,
    Fill,
    Register,
    RegisterState,
    SeState,
    Transport,
    Validation,
)
from ...keystore.errors import ConfigError, MapperError
from ...keystore.keys import SecureKey
from ...keystore.seal_state import SealMethod, SealState
from ...keystore.secret_list import ListedSecret, SecretList
from ...keystore.tokens import KeyType
from ..control.fields import Fields, ParameterError, PassedFds, pack_data, pack_value

INTERFACE: Final = "io.fusecrypt.Keystore"
PROGRAM: Final = "fusecrypt-keystored"

_KEY_TYPES: Final = tuple(KeyType)
_TARGETS: Final = (Register.CURRENT, Register.NEW)


@dataclass(frozen=True, slots=True)
class Info:
    """``GetInfo``: the process."""

    version: str
    pid: int
    directory: str  # of the adapters' state
    memory: str  # "locked" or "may be swapped"

    def pack(self) -> dict[str, object]:
        return pack_value(self)

    @classmethod
    def parse(cls, parameters: Mapping[str, object]) -> Self:
        fields = Fields("reply", parameters)
        return cls(
            version=fields.text("version"),
            pid=fields.integer("pid"),
            directory=fields.text("directory"),
            memory=fields.text("memory"),
        )


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """``GenerateKey``: a new secure key."""

    key_type: KeyType
    key_bits: int  # of one half, if it is an XTS key
    is_xts: bool
    apqns: tuple[Apqn, ...] = ()  # what may make it; empty: any
    clear_key_fd: int | None = None
    is_exportable: bool = False

    def pack(self, fds: PassedFds) -> dict[str, object]:
        """The parameters; the descriptor is added to ``fds``."""
        content: dict[str, object] = {
            "key_type": str(self.key_type),
            "key_bits": self.key_bits,
            "xts": self.is_xts,
            "apqns": [str(apqn) for apqn in self.apqns],
            "exportable": self.is_exportable,
        }
        if self.clear_key_fd is not None:
            content["clear_key"] = fds.add(self.clear_key_fd)
        return content

    @classmethod
    def parse(cls, parameters: Mapping[str, object], fds: Sequence[int]) -> Self:
        fields = Fields("parameters", parameters, fds)
        key_type = KeyType(fields.choice("key_type", _KEY_TYPES))
        key_bits = fields.integer("key_bits")
        return cls(
            key_type,
            key_bits,
            fields.flag("xts"),
            take_apqns(fields),
            fields.optional_fd("clear_key"),
            fields.flag("exportable"),
        )


@dataclass(frozen=True, slots=True)
class RewrapRequest:
    """``ReencipherKey``, ``ConvertKey``, ``RestrictKey``: the same key in another token."""

    key: SecureKey
    apqns: tuple[Apqn, ...] = ()  # what may do it; empty: any
    target: Register | None = None  # of ReencipherKey
    key_type: KeyType | None = None  # of ConvertKey
    is_exportable: bool = False  # of ConvertKey

    def pack(self) -> dict[str, object]:
        content: dict[str, object] = {
            "token": pack_data(self.key.token),
            "apqns": [str(apqn) for apqn in self.apqns],
        }
        if self.target is not None:
            content["target"] = str(self.target)
        if self.key_type is not None:
            content["key_type"] = str(self.key_type)
            content["exportable"] = self.is_exportable
        return content

    @classmethod
    def parse(
        cls,
        parameters: Mapping[str, object],
        *,
        has_target: bool = False,
        has_key_type: bool = False,
    ) -> Self:
        fields = Fields("parameters", parameters)
        return cls(
            SecureKey.parse(fields.data("token")),
            take_apqns(fields),
            Register(fields.choice("target", _TARGETS)) if has_target else None,
            KeyType(fields.choice("key_type", _KEY_TYPES)) if has_key_type else None,
            has_key_type and fields.flag("exportable"),
        )


def parse_apqn(fields: Fields, name: str = "apqn") -> Apqn:
    """An APQN that stands in a message."""
    return _make_apqn(fields.text(name), name)


def pack_apqns(apqns: Sequence[Apqn]) -> dict[str, object]:
    """``RestoreAdapters``: which adapters are there again."""
    return {"apqns": [str(apqn) for apqn in apqns]}


def parse_apqns(parameters: Mapping[str, object]) -> tuple[Apqn, ...]:
    """What `pack_apqns` made."""
    return take_apqns(Fields("reply", parameters))


def parse_backup(parameters: Mapping[str, object]) -> bytes:
    """``BackupAdapters``: the file."""
    return Fields("reply", parameters).data("backup")


def parse_token(parameters: Mapping[str, object]) -> SecureKey:
    """The secure key of a message."""
    return SecureKey.parse(Fields("parameters", parameters).data("token"))


def pack_adapters(adapters: Sequence[AdapterInfo]) -> dict[str, object]:
    """``ListAdapters``: adapters as objects."""
    return {"adapters": [describe_adapter(adapter) for adapter in adapters]}


def describe_adapter(adapter: AdapterInfo) -> dict[str, object]:
    """One adapter, as messages and ``--json`` show it."""
    return {
        "apqn": str(adapter.apqn),
        "mode": adapter.mode,
        "type": adapter.type,
        "serial": adapter.serial,
        "status": str(adapter.status),
        "online": adapter.is_online,
        "configured": adapter.is_configured,
        "checkstop": adapter.is_checkstopped,
        "control_only": adapter.is_control_only,
        "imprint": adapter.is_imprint,
        "driver": "pkcs11" if adapter.uri else adapter.driver,
        "requests": adapter.requests,
        "created": adapter.created,
        "uri": adapter.uri or None,
        "clear_allowed": adapter.is_clear_allowed,
        "limits": list(adapter.limits),
        "problem": adapter.problem or None,
        "control_points": [str(point) for point in sorted(adapter.control_points)],
        "se_state": str(adapter.se_state),
        "association": adapter.association,
        "session": adapter.session.hex() or None,
        **{
            name: {
                "state": str(register.state),
                "mkvp": register.mkvp.hex() if register.mkvp else None,
            }
            for name, register in (
                ("new", adapter.new),
                ("current", adapter.current),
                ("old", adapter.old),
            )
        },
    }


def parse_adapters(parameters: Mapping[str, object]) -> tuple[AdapterInfo, ...]:
    """What `pack_adapters` made."""
    return tuple(
        AdapterInfo(
            apqn=parse_apqn(item),
            mode=item.text("mode"),
            type=item.text("type"),
            serial=item.text("serial"),
            is_online=item.flag("online"),
            new=_parse_register(item.object("new")),
            current=_parse_register(item.object("current")),
            old=_parse_register(item.object("old")),
            created=item.text("created"),
            is_configured=item.flag("configured"),
            is_checkstopped=item.flag("checkstop"),
            is_control_only=item.flag("control_only"),
            is_imprint=item.flag("imprint"),
            driver=item.text("driver"),
            requests=item.integer("requests"),
            uri=item.optional_text("uri") or "",
            is_clear_allowed=item.flag("clear_allowed"),
            limits=tuple(item.texts("limits")),
            problem=item.optional_text("problem") or "",
            control_points=take_control_points(item, "control_points"),
            se_state=SeState(item.choice("se_state", tuple(SeState))),
            association=item.optional_integer("association"),
            session=_parse_hex(item, "session") if item.optional_text("session") else b"",
        )
        for item in Fields("reply", parameters).objects("adapters")
    )


def take_control_points(fields: Fields, name: str) -> frozenset[ControlPoint]:
    """The control points that a message names."""
    try:
        return frozenset(parse_control_point(text) for text in fields.texts(name))
    except ConfigError as error:
        raise ParameterError(name, str(error)) from None


def pack_secrets(secrets: SecretList) -> dict[str, object]:
    """``ListSecrets``: the association secrets, at their indexes."""
    return {
        "secrets": [
            {
                "index": index,
                "type": "Association",
                "id": secret.id.hex(),
                "session": secret.session_id.hex(),
            }
            for index, secret in enumerate(secrets.secrets)
        ],
        "locked": secrets.is_locked,
    }


def parse_secrets(parameters: Mapping[str, object]) -> SecretList:
    """What `pack_secrets` made."""
    fields = Fields("reply", parameters)
    secrets = tuple(
        ListedSecret(_parse_hex(item, "id"), _parse_hex(item, "session"))
        for item in fields.objects("secrets")
    )
    return SecretList(secrets, fields.flag("locked"))


def pack_request(request: bytes, secret_id: bytes) -> dict[str, object]:
    """``CreateSecret``: a request to add a secret, and the secret's id."""
    return {"request": pack_data(request), "id": secret_id.hex()}


def parse_request(parameters: Mapping[str, object]) -> tuple[bytes, bytes]:
    """What `pack_request` made."""
    fields = Fields("reply", parameters)
    return fields.data("request"), _parse_hex(fields, "id")


def parse_mkvp(parameters: Mapping[str, object]) -> str:
    """``SplitMasterKey``, ``CombineMasterKey``: which master key it is."""
    return _parse_hex(Fields("reply", parameters), "mkvp").hex()


def pack_sealing(state: SealState) -> dict[str, object]:
    """``GetSealing``: what keeps the adapters' state from a thief of it."""
    return {
        "with": str(state.method),
        "locked": state.is_locked,
        "plain_file": state.has_plain_file,
    }


def parse_sealing(parameters: Mapping[str, object]) -> SealState:
    """What `pack_sealing` made."""
    fields = Fields("reply", parameters)
    return SealState(
        SealMethod(fields.choice("with", tuple(SealMethod))),
        fields.flag("locked"),
        fields.flag("plain_file"),
    )


def pack_transport(transport: Transport) -> dict[str, object]:
    """``MakeTransport``: what the engine imports."""
    return {
        "blob": pack_data(transport.blob),
        "pattern": transport.pattern,
        "key_size": transport.key_size,
        "apqn": str(transport.apqn),
        "register": str(transport.register),
    }


def parse_transport(parameters: Mapping[str, object]) -> Transport:
    """What `pack_transport` made."""
    fields = Fields("reply", parameters)
    return Transport(
        blob=fields.data("blob"),
        pattern=fields.text("pattern"),
        key_size=fields.integer("key_size"),
        apqn=parse_apqn(fields),
        register=Register(fields.choice("register", tuple(Register))),
    )


def pack_validation(validation: Validation) -> dict[str, object]:
    """``ValidateKey``: what a secure key is."""
    return {
        "key_type": str(validation.key_type),
        "xts": validation.is_xts,
        "clear_bits": validation.clear_bits,
        "register": str(validation.register),
        "mkvp": validation.mkvp.hex(),
        "pattern": validation.pattern,
        "apqns": [str(apqn) for apqn in validation.apqns],
    }


def parse_validation(parameters: Mapping[str, object]) -> Validation:
    """What `pack_validation` made."""
    fields = Fields("reply", parameters)
    return Validation(
        key_type=KeyType(fields.choice("key_type", _KEY_TYPES)),
        is_xts=fields.flag("xts"),
        clear_bits=fields.integer("clear_bits"),
        register=Register(fields.choice("register", tuple(Register))),
        mkvp=_parse_hex(fields, "mkvp"),
        pattern=fields.text("pattern"),
        apqns=take_apqns(fields),
    )


def _parse_register(fields: Fields) -> RegisterState:
    state = Fill(fields.choice("state", tuple(Fill)))
    mkvp = None if fields.optional_text("mkvp") is None else _parse_hex(fields, "mkvp")
    return RegisterState(state, mkvp)


def take_apqns(fields: Fields) -> tuple[Apqn, ...]:
    """The APQNs of a message."""
    return tuple(_make_apqn(text, "apqns") for text in fields.texts("apqns"))


def _make_apqn(text: str, name: str) -> Apqn:
    try:
        return Apqn.parse(text)
    except MapperError as error:
        raise ParameterError(name, str(error)) from None


def _parse_hex(fields: Fields, name: str) -> bytes:
    try:
        return bytes.fromhex(fields.text(name))
    except ValueError:
        raise ParameterError(name, "hexadecimal digits") from None
