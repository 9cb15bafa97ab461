"""Which error gives which exit code: public and stable."""

import pytest

from fusecrypt.daemon.exitcodes import (
    ExitCode,
    ReportedError,
    get_exit_code,
    get_kind,
    parse_exit_code,
)
from fusecrypt.dmcrypt.luks2 import NotLuksError
from fusecrypt.keystore import errors

CODES = {
    errors.MapperError: 1,
    errors.FormatError: 7,
    errors.UnsupportedError: 9,
    errors.UnlockError: 2,
    errors.NoKeyError: 2,
    errors.DigestMismatchError: 2,
    errors.BusyError: 5,
    errors.PolicyError: 8,
    errors.NotFoundError: 4,
    errors.AccessError: 4,
    errors.ConfigError: 1,
    errors.EngineError: 1,
    errors.EngineMemoryError: 3,
    errors.CoprocessorError: 6,
    errors.MasterKeyChangedError: 6,
    errors.ProtectedKeyExpiredError: 6,
}


@pytest.mark.parametrize(("kind", "code"), CODES.items(), ids=lambda v: getattr(v, "__name__", v))
def test_each_error_has_its_code(kind: type[errors.MapperError], code: int) -> None:
    assert get_exit_code(kind("x")) == code
    assert get_kind(kind("x")) == kind.__name__


def test_every_error_is_in_this_table() -> None:
    known = {
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.MapperError)
    }
    assert known == set(CODES)


def test_errors_of_the_system_have_codes_too() -> None:
    assert get_exit_code(OSError(2, "x")) == 4
    assert get_exit_code(MemoryError()) == 3
    assert get_exit_code(KeyboardInterrupt()) == 130
    assert get_exit_code(RuntimeError()) == 1


def test_no_luks_volume_is_1_as_with_cryptsetup() -> None:
    assert get_exit_code(NotLuksError("x")) == 1


def test_a_reported_error_keeps_what_it_was() -> None:
    error = ReportedError("x", ExitCode.BUSY, "BusyError")
    assert (get_exit_code(error), get_kind(error)) == (5, "BusyError")
    assert parse_exit_code(99) is ExitCode.WRONG_PARAMETERS
