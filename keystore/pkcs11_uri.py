"""`pkcs11:` URIs that name a token and the module that reaches it. No I/O.

Source: RFC 7512 (PKCS #11 URI), sections 2.3 and 2.4.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, NoReturn, Self
from urllib.parse import quote, unquote_to_bytes

from .errors import ConfigError, PolicyError

_SCHEME: Final = "pkcs11:"
_PATH: Final = ("token", "serial", "manufacturer", "model", "slot-id")
_QUERY: Final = ("module-path", "module-name", "pin-source")
_OF_OBJECTS: Final = ("object", "type", "id")
_PLAIN: Final = ":[]@!$'()*+,"  # stand for themselves (section 2.3, pk11-res-avail)
#: Where distributions put the modules that have a name (p11-kit.conf(5)).
_MODULE_DIRECTORIES: Final = (
    "/usr/lib/*-linux-gnu*/pkcs11",
    "/usr/lib64/pkcs11",
    "/usr/lib/pkcs11",
)


@dataclass(frozen=True, slots=True)
class TokenUri:
    """Which token, behind which module; an empty text or None: not said."""

    token: str = ""  # its label
    serial: str = ""
    manufacturer: str = ""
    model: str = ""
    slot_id: int | None = None
    module_path: str = ""
    module_name: str = ""
    pin_source: str = ""  # a path

    @classmethod
    def parse(cls, text: str) -> Self:
        """The URI of one token.

        Raises:
            PolicyError: it holds the PIN.
            ConfigError: not of this form, or it does not say which token or which module.
        """
        if not text.startswith(_SCHEME):
            raise ConfigError(f"PKCS#11 URI: wanted {_SCHEME}token=…?module-path=…")
        path, _, query = text.removeprefix(_SCHEME).partition("?")
        given = _split(path, ";", _PATH) | _split(query, "&", _QUERY)
        slot = given.pop("slot-id", None)
        if slot is not None and not (slot.isascii() and slot.isdecimal()):
            _refuse("slot-id", "wanted a number")
        source = given.pop("pin-source", "")
        if source.startswith("file:"):
            source = "/" + source.removeprefix("file:").lstrip("/")
        if source and not Path(source).is_absolute():
            _refuse("pin-source", "wanted the absolute path of a file")
        uri = cls(
            slot_id=None if slot is None else int(slot),
            pin_source=source,
            **{name.replace("-", "_"): value for name, value in given.items()},
        )
        if not (uri.token or uri.serial or uri.slot_id is not None):
            raise ConfigError("PKCS#11 URI: names no token: wanted token, serial or slot-id")
        if bool(uri.module_path) == bool(uri.module_name):
            raise ConfigError("PKCS#11 URI: wanted one of module-path and module-name")
        if uri.module_path and not Path(uri.module_path).is_absolute():
            _refuse("module-path", "wanted the absolute path of a module")
        if "/" in uri.module_name or uri.module_name.startswith("."):
            _refuse("module-name", "wanted a name, without a path")
        return uri

    def __str__(self) -> str:
        """The URI that is kept: without the source of the PIN."""
        path = [_join(name, self._get(name)) for name in _PATH if self._get(name)]
        query = [_join(name, self._get(name)) for name in _QUERY[:2] if self._get(name)]
        return f"{_SCHEME}{';'.join(path)}?{'&'.join(query)}"

    def matches(
        self, *, label: str, serial: str, manufacturer: str, model: str, slot_id: int
    ) -> bool:
        """A token of which this is known is the one that is meant."""
        found = {"token": label, "serial": serial, "manufacturer": manufacturer, "model": model}
        return self.slot_id in (None, slot_id) and all(
            self._get(name) in ("", value) for name, value in found.items()
        )

    def find_module(self) -> Path:
        """The module's file.

        Raises:
            ConfigError: no such module.
        """
        if self.module_path:
            return Path(self.module_path)
        names = (f"{self.module_name}.so", f"lib{self.module_name}.so")
        for pattern in _MODULE_DIRECTORIES:
            for directory in sorted(Path("/").glob(pattern.removeprefix("/"))):
                for name in names:
                    if (directory / name).exists():
                        return directory / name
        raise ConfigError(
            f"PKCS#11 module {self.module_name}: no {names[0]} in {', '.join(_MODULE_DIRECTORIES)}"
        )

    def _get(self, name: str) -> str:
        value: object = getattr(self, name.replace("-", "_"))
        return "" if value is None else str(value)


assert {f.name.replace("_", "-") for f in fields(TokenUri)} == {*_PATH, *_QUERY}


def _split(text: str, separator: str, names: tuple[str, ...]) -> dict[str, str]:
    given: dict[str, str] = {}
    for item in filter(None, text.split(separator)):
        name, equals, value = item.partition("=")
        if name == "pin-value":
            raise PolicyError(
                "PKCS#11 URI: pin-value: a PIN on the command line is seen by every process of the "
                "machine; wanted pin-source, or the prompt"
            )
        if name in _OF_OBJECTS:
            _refuse(name, "names an object; wanted the token alone")
        if name not in names:
            _refuse(name, f"wanted {', '.join(names)}")
        if not equals or name in given:
            _refuse(name, "given twice" if equals else "wanted a value")
        try:
            given[name] = unquote_to_bytes(value).decode()
        except UnicodeDecodeError:
            _refuse(name, "not UTF-8")
        if not given[name] or "\0" in given[name]:
            _refuse(name, "wanted a value")
    return given


def _refuse(name: str, wanted: str) -> NoReturn:
    raise ConfigError(f"PKCS#11 URI: {name}: {wanted}")


def _join(name: str, value: str) -> str:
    return f"{name}={quote(value, safe=_PLAIN if name in _PATH else '/' + _PLAIN)}"
