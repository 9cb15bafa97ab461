"""32 bytes that only this machine's TPM 2.0 gives back, optionally only in a known boot state.

Through tpm2-tools, which find the TPM by ``TPM2TOOLS_TCTI``, else /dev/tpmrm0. The primary key is
the storage hierarchy's ECC one, made anew each time from the TPM's seed (TCG TPM 2.0 Provisioning
Guidance, 7.5.1); the sealed object is loaded under it. What is sealed goes in and comes out by
pipes, and on the bus enciphered by a session that is salted with the primary key.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from .clear_bytes import wiped
from .errors import ConfigError, CoprocessorError

SECRET_SIZE: Final = 32
_PCRS: Final = re.compile(r"(?:sha1|sha256|sha384|sha512):\d{1,2}(?:,\d{1,2})*")
_PCR_MAX: Final = 23
_TIMEOUT: Final = 60  # seconds; slow chips take several for a primary key
_BLOB_MAX: Final = 4096


@dataclass(frozen=True, slots=True)
class TpmObject:
    """A sealed object outside the TPM; worth nothing without it."""

    public: bytes
    private: bytes
    pcrs: str  # like sha256:7; empty: whatever was booted


def check_pcrs(text: str) -> str:
    """A choice of PCRs, as tpm2-tools write them; numbers alone are of SHA-256.

    Raises:
        ConfigError: no such choice.
    """
    full = text if ":" in text or not text else f"sha256:{text}"
    if full and (
        not _PCRS.fullmatch(full)
        or any(int(number) > _PCR_MAX for number in full.partition(":")[2].split(","))
    ):
        raise ConfigError(f"PCRs {text!r}: wanted numbers from 0 to 23, like 7 or sha256:0,7")
    return full


def seal(secret: bytearray, pcrs: str = "") -> TpmObject:
    """An object that yields the 32 bytes; the caller wipes them.

    Raises:
        CoprocessorError: there is no TPM, no tpm2-tools, or the TPM refuses.
    """
    assert len(secret) == SECRET_SIZE
    with _Tools() as tools:
        tools.make_primary()
        attributes = "fixedtpm|fixedparent|noda" + ("" if pcrs else "|userwithauth")
        policy: Sequence[str] = ()
        if pcrs:
            tools.run("tpm2_startauthsession", "-S", "trial")
            tools.run("tpm2_policypcr", "-Q", "-S", "trial", "-l", pcrs, "-L", "policy")
            tools.run("tpm2_flushcontext", "trial")
            policy = ("-L", "policy")
        with tools.session("--hmac-session", "--enable-decrypt"):
            tools.run(
                *("tpm2_create", "-Q", "-C", "primary", "-P", "session:session"),
                *("-u", "public", "-r", "private", "-a", attributes, *policy, "-i", "-"),
                stdin=secret,
            )
        return TpmObject(tools.read("public"), tools.read("private"), pcrs)


def unseal(sealed: TpmObject) -> bytearray:
    """The 32 bytes; the caller wipes them.

    Raises:
        CoprocessorError: there is no TPM, another one, it was booted otherwise, or it refuses.
    """
    with _Tools() as tools:
        tools.write("public", sealed.public)
        tools.write("private", sealed.private)
        tools.make_primary()
        tools.run(
            "tpm2_load", "-Q", "-C", "primary", "-u", "public", "-r", "private", "-c", "object"
        )
        kind = "--policy-session" if sealed.pcrs else "--hmac-session"
        with tools.session(kind, "--enable-encrypt"):
            if sealed.pcrs:
                tools.run("tpm2_policypcr", "-Q", "-S", "session", "-l", sealed.pcrs)
            return tools.run(
                "tpm2_unseal", "-c", "object", "-p", "session:session", size=SECRET_SIZE
            )


class _Tools:
    """tpm2-tools in a directory of their own, which holds contexts and no secret."""

    def __init__(self) -> None:
        try:
            self._directory = tempfile.TemporaryDirectory(prefix="fusecrypt-tpm-")
        except OSError as error:
            raise CoprocessorError(f"TPM: no temporary directory: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._directory.cleanup()

    def read(self, name: str) -> bytes:
        return Path(self._directory.name, name).read_bytes()[: _BLOB_MAX + 1]

    def write(self, name: str, content: bytes) -> None:
        Path(self._directory.name, name).write_bytes(content)

    def make_primary(self) -> None:
        self.run(
            "tpm2_createprimary", "-Q", "-C", "o", "-g", "sha256", "-G", "ecc", "-c", "primary"
        )

    @contextlib.contextmanager
    def session(self, kind: str, direction: str) -> Generator[None, None, None]:
        self.run("tpm2_startauthsession", kind, "-c", "primary", "-S", "session")
        try:
            self.run("tpm2_sessionconfig", direction, "session")
            yield
        finally:
            self.run("tpm2_flushcontext", "session")

    def run(self, *words: str, stdin: bytearray | None = None, size: int = 0) -> bytearray:
        """What a tool prints, which must be ``size`` bytes; nobody looks at it if that is 0."""
        try:
            with subprocess.Popen(
                words,
                cwd=self._directory.name,
                stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                stdout=subprocess.PIPE if size else subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                bufsize=0,
            ) as process:
                return self._talk(process, words[0], stdin, size)
        except FileNotFoundError as error:
            raise CoprocessorError(f"TPM: {words[0]} is missing; wanted: tpm2-tools") from error
        except OSError as error:
            raise CoprocessorError(f"TPM: {words[0]}: {error.strerror}") from error

    def _talk(
        self,
        process: subprocess.Popen[bytes],
        program: str,
        stdin: bytearray | None,
        size: int,
    ) -> bytearray:
        length = 0
        with wiped(bytearray(size + 1)) as out:
            if stdin is not None:
                assert process.stdin is not None
                with contextlib.suppress(BrokenPipeError):
                    os.write(process.stdin.fileno(), stdin)
                process.stdin.close()
            if process.stdout is not None:
                while count := os.readv(process.stdout.fileno(), [memoryview(out)[length:]]):
                    length += count
            assert process.stderr is not None
            said = process.stderr.read().decode("utf-8", "replace").strip()
            try:
                status = process.wait(_TIMEOUT)
            except subprocess.TimeoutExpired as error:
                process.kill()
                raise CoprocessorError(f"TPM: {program}: no answer in {_TIMEOUT} s") from error
            if status == 0:
                self._flush(program)
            if status or length != size:
                why = said.splitlines()[-2:][0] if said else f"status {status}"
                raise CoprocessorError(f"TPM: {program}: {why.removeprefix('ERROR: ')}")
            return out[:size]

    def _flush(self, program: str) -> None:
        """Free what the tool left in a TPM without resource manager; nothing in one with it."""
        if program != "tpm2_flushcontext":
            self.run("tpm2_flushcontext", "-t")
