"""The keystored as the daemon and the command line see it: plain blocking calls.

Any thread may call; each call has a connection of its own.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ...keystore.coprocessor import AdapterInfo, Apqn, Register, Transport, Validation
from ...keystore.keys import SecureKey
from ..control.fields import PassedFds, pack_data
from .connection import KeystoreConnection
from .messages import (
    GenerateRequest,
    Info,
    RewrapRequest,
    parse_adapters,
    parse_apqns,
    parse_backup,
    parse_mkvp,
    parse_sealing,
    parse_token,
    parse_transport,
    parse_validation,
)

if TYPE_CHECKING:
    from ...keystore.adapters import Change
    from ...keystore.registers import Part
    from ...keystore.seal_state import SealMethod, SealState
    from ...keystore.tokens import KeyType


class Keystore(KeystoreConnection):
    """The adapters and what they can do, in another process.

    Every method raises a `MapperError`. Whatever is wrong with adapters, their master keys or the
    process that holds them is a `CoprocessorError`.
    """

    def make_transport(self, key: SecureKey, public_key: bytes) -> Transport:
        """A volume key for the engine that made ``public_key``; nobody else can use it."""
        parameters = {"token": pack_data(key.token), "public_key": pack_data(public_key)}
        return self._call("MakeTransport", parameters, parse_transport)

    def generate(
        self,
        key_type: KeyType,
        *,
        key_bits: int,
        xts: bool,
        apqns: Sequence[Apqn] = (),
        clear_key_fd: int | None = None,
        is_exportable: bool = False,
    ) -> SecureKey:
        """A new secure key, random or made of a clear key that is read from a descriptor.

        ``key_bits`` counts one half of an XTS key. ``apqns``: what may make it; empty: any.
        ``is_exportable``: a CCA-AESCIPHER key allows every export, not only the one for volumes.
        """
        fds = PassedFds()
        request = GenerateRequest(
            key_type, key_bits, xts, tuple(apqns), clear_key_fd, is_exportable
        )
        return self._call("GenerateKey", request.pack(fds), parse_token, fds.fds)

    def reencipher(
        self, key: SecureKey, target: Register, *, apqns: Sequence[Apqn] = ()
    ) -> SecureKey:
        """The same key under the master key that is ``target``: CURRENT or NEW.

        A key that is under it already comes back as it is: compare the two. ``apqns``: what may do
        it; empty: any.

        Raises:
            MasterKeyChangedError: no adapter holds its master key CURRENT or OLD.
            CoprocessorError: those that do have nothing, or not the same, in ``target``.
        """
        request = RewrapRequest(key, tuple(apqns), target=target)
        return self._call("ReencipherKey", request.pack(), parse_token)

    def convert(
        self,
        key: SecureKey,
        key_type: KeyType,
        *,
        apqns: Sequence[Apqn] = (),
        is_exportable: bool = False,
    ) -> SecureKey:
        """A CCA-AESDATA key as CCA-AESCIPHER, under the same master key."""
        request = RewrapRequest(key, tuple(apqns), key_type=key_type, is_exportable=is_exportable)
        return self._call("ConvertKey", request.pack(), parse_token)

    def restrict(self, key: SecureKey, *, apqns: Sequence[Apqn] = ()) -> SecureKey:
        """A CCA-AESCIPHER key that may not be exported any more; it may still become protected."""
        return self._call("RestrictKey", RewrapRequest(key, tuple(apqns)).pack(), parse_token)

    def validate(self, key: SecureKey) -> Validation:
        """What a secure key is, and which master key wraps it.

        Raises:
            MasterKeyChangedError: no adapter holds its master key.
        """
        return self._call("ValidateKey", {"token": pack_data(key.token)}, parse_validation)

    def get_info(self) -> Info:
        """The process."""
        return self._call("GetInfo", {}, Info.parse)

    def list_adapters(self) -> tuple[AdapterInfo, ...]:
        """All adapters, in the order of their APQNs."""
        return self._call("ListAdapters", {}, parse_adapters)

    def create_adapter(
        self,
        apqn: Apqn,
        mode: str,
        *,
        with_master_key: bool,
        level: int | None = None,
        is_control_only: bool = False,
    ) -> AdapterInfo:
        """Make a virtual adapter; ``with_master_key``: with a random one set.

        ``level``: 5 to 8, of a CEX5 to CEX8; None: the card's, or 8.
        """
        return self._change(
            "CreateAdapter",
            apqn,
            {
                "mode": mode,
                "master_key": with_master_key,
                "level": level,
                "control_only": is_control_only,
            },
        )

    def create_token(
        self,
        apqn: Apqn,
        uri: str,
        pin_fd: int,
        *,
        with_master_key: bool,
        is_clear_allowed: bool = False,
        is_control_only: bool = False,
    ) -> AdapterInfo:
        """Make a PKCS#11 token an adapter; the descriptor yields its PIN.

        ``with_master_key``: let it make one, if it has none.
        """
        fds = PassedFds()
        content = {
            "uri": uri,
            "pin": fds.add(pin_fd),
            "master_key": with_master_key,
            "clear_allowed": is_clear_allowed,
            "control_only": is_control_only,
        }
        return self._change("CreateToken", apqn, content, fds.fds)

    def add_adapter(self, apqn: Apqn) -> AdapterInfo:
        """Have an adapter of the machine itself used: IBM Z's."""
        return self._change("AddAdapter", apqn)

    def leave_imprint(self, apqn: Apqn) -> AdapterInfo:
        """Take an EP11 adapter into use."""
        return self._change("LeaveImprint", apqn)

    def change_adapters(self, apqns: Sequence[Apqn], change: Change) -> None:
        """Change the state of adapters, or of the whole cards that they are of."""
        parameters = {"apqns": [str(apqn) for apqn in apqns], "change": str(change)}
        self._call("ChangeAdapters", parameters, dict)

    def load_master_key_part(self, apqn: Apqn, part: Part, fd: int) -> AdapterInfo:
        """Combine 32 bytes, which a descriptor yields, into the NEW master key."""
        fds = PassedFds()
        content = {"part": str(part), "content": fds.add(fd)}
        return self._change("LoadMasterKeyPart", apqn, content, fds.fds)

    def generate_master_key(self, apqn: Apqn) -> AdapterInfo:
        """Make a random NEW master key."""
        return self._change("GenerateMasterKey", apqn)

    def clone_master_key(self, apqn: Apqn, source: Apqn, register: Register) -> AdapterInfo:
        """Make the master key in a register of another adapter the NEW one."""
        content = {"from": str(source), "register": str(register)}
        return self._change("CloneMasterKey", apqn, content)

    def split_master_key(
        self, apqn: Apqn, register: Register, threshold: int, fds: Sequence[int]
    ) -> str:
        """Write shares of a master key into empty files; its MKVP."""
        parameters = {"apqn": str(apqn), "register": str(register), "threshold": threshold}
        return self._share("SplitMasterKey", parameters, fds)

    def combine_master_key(self, apqn: Apqn | None, fds: Sequence[int]) -> str:
        """Put a master key together and make it the NEW one, of no adapter for None; its MKVP."""
        parameters = {} if apqn is None else {"apqn": str(apqn)}
        return self._share("CombineMasterKey", parameters, fds)

    def clear_new_master_key(self, apqn: Apqn) -> AdapterInfo:
        """Empty NEW."""
        return self._change("ClearNewMasterKey", apqn)

    def commit_master_key(self, apqn: Apqn) -> AdapterInfo:
        """Approve the NEW wrapping key of an EP11 adapter."""
        return self._change("CommitMasterKey", apqn)

    def set_master_key(self, apqn: Apqn) -> AdapterInfo:
        """Make NEW the CURRENT master key, CURRENT the OLD one; what was OLD is gone."""
        return self._change("SetMasterKey", apqn)

    def get_sealing(self) -> SealState:
        """What keeps the adapters' state from a thief of it."""
        return self._call("GetSealing", {}, parse_sealing)

    def seal(self, method: SealMethod, *, pcrs: str = "", passphrase_fd: int | None = None) -> None:
        """Seal the adapters' state with something else from now on."""
        fds = PassedFds()
        parameters: dict[str, object] = {"with": str(method), "pcrs": pcrs}
        if passphrase_fd is not None:
            parameters["passphrase"] = fds.add(passphrase_fd)
        self._call("SealAdapters", parameters, dict, fds.fds)

    def unlock(self, passphrase_fd: int) -> None:
        """Open the adapters' state with a passphrase, until the process ends."""
        fds = PassedFds()
        self._call("UnlockAdapters", {"passphrase": fds.add(passphrase_fd)}, dict, fds.fds)

    def lock(self) -> None:
        """Have the passphrase asked for again."""
        self._call("LockAdapters", {}, dict)

    def remove_adapter(self, apqn: Apqn) -> None:
        """Forget an adapter and its master keys."""
        self._call("RemoveAdapter", {"apqn": str(apqn)}, dict)

    def backup(self, passphrase_fd: int) -> bytes:
        """All adapters with their master keys, sealed with what the descriptor yields."""
        fds = PassedFds()
        parameters = {"passphrase": fds.add(passphrase_fd)}
        return self._call("BackupAdapters", parameters, parse_backup, fds.fds)

    def restore(self, backup: bytes, passphrase_fd: int) -> tuple[Apqn, ...]:
        """Make the adapters of a backup again; returns which."""
        fds = PassedFds()
        parameters = {"backup": pack_data(backup), "passphrase": fds.add(passphrase_fd)}
        return self._call("RestoreAdapters", parameters, parse_apqns, fds.fds)

    def attach(self) -> socket.socket:
        """A connection that the daemon holds as long as it lives.

        A keystored that was started on demand ends when the last such connection does.
        """
        with self._connect() as client:
            self._ask(client, "Attach", {}, ())
            connection = client.detach()
        connection.settimeout(None)
        return connection

    def _share(self, method: str, parameters: Mapping[str, object], fds: Sequence[int]) -> str:
        passed = PassedFds()
        shares = {f"share{i}": passed.add(fd) for i, fd in enumerate(fds)}
        return self._call(method, {**parameters, **shares}, parse_mkvp, passed.fds)
