import pytest

from fusecrypt.dmcrypt.luks2.model import Config
from fusecrypt.dmcrypt.luks2.requirement import check_requirements, find_unknown_flags
from fusecrypt.keystore.errors import UnsupportedError


def config(*requirements, flags=()):
    return Config(12288, 262144, flags, requirements)


@pytest.mark.parametrize(
    "name",
    [
        "online-reencrypt",
        "online-reencrypt-v2",
        "online-reencrypt-v3",
        "offline-reencrypt",
        "opal",
        "inline-hw-tags",
    ],
)
def test_requirements_that_change_the_data_forbid_even_reading(name):
    for read_only in (False, True):
        with pytest.raises(UnsupportedError, match=f"{name} is not supported"):
            check_requirements(config("foo", name), read_only=read_only)


def test_unknown_requirements_forbid_writing_by_name():
    check_requirements(config("foo", "bar"), read_only=True)
    with pytest.raises(UnsupportedError, match="foo, bar is not known"):
        check_requirements(config("foo", "bar"), read_only=False)
    check_requirements(config(), read_only=False)


def test_flags_that_nobody_knows_are_found():
    known = ("allow-discards", "same-cpu-crypt", "no-journal", "no-read-workqueue")
    assert find_unknown_flags(config(flags=(*known, "foo"))) == ("foo",)
