"""The secure guest and control points as administrators meet them: commands, files, exit codes."""

import os
import stat

import pytest

from fusecrypt.keystore.ep11_session import make_session_id
from tests.product import running

OK, WRONG, MISSING, BUSY, UNAVAILABLE, DAMAGED, POLICY, UNSUPPORTED = 0, 1, 4, 5, 6, 7, 8, 9
APQN = "05.0011"


@pytest.fixture(scope="module")
def place(scratch):
    """An instance with an adapter of each kind, without any daemon."""
    with running(scratch) as instance:
        instance.cli("adapter", "create", APQN, "--mode", "ep11")
        instance.cli("adapter", "create", "03.0039")
        instance.cli("adapter", "create", "04.0000", "--mode", "accel")
        yield instance


def make_request(place, name, *options):
    path = place.directory / f"{name}.request"
    place.cli("pvsecret", "create", "association", "-o", path, *options, name)
    return path


def test_a_secret_goes_from_one_guest_to_the_next(place, scratch):
    secret = place.directory / "secret"
    request = make_request(place, "first", "--output-secret", secret)
    assert stat.S_IMODE(secret.stat().st_mode) == stat.S_IMODE(request.stat().st_mode) == 0o600
    assert secret.stat().st_size == 32
    assert secret.read_bytes().hex() not in request.read_text()
    listed = place.cli("pvsecret", "add", request, "--json").json
    index = len(listed["secrets"]) - 1
    assert place.run("pvsecret", "add", request).status == BUSY
    place.cli("chzcrypt", "--se-bind", APQN)
    place.cli("chzcrypt", "--se-associate", str(index), "5.11")
    (adapter,) = (
        one
        for one in place.cli("adapter", "list", "--json").json["adapters"]
        if one["apqn"] == APQN
    )
    session = make_session_id(bytearray(secret.read_bytes())).hex()
    assert (adapter["se_state"], adapter["session"]) == ("usable", session)
    shown = place.cli("adapter", "show", APQN).stdout
    assert f"guest:       usable, with secret {index}\n" in shown
    assert f"session:     {session}\n" in shown
    assert f"  EP11 session {session}\n" in place.cli("pvsecret", "list").stdout
    place.cli("chzcrypt", "--se-unbind", APQN)
    with running(scratch) as other:
        assert other.run("pvsecret", "add", request).status in (UNAVAILABLE, DAMAGED)
        again = make_request(other, "second", "--input-secret", secret)
        other.cli("pvsecret", "add", again)
        other.cli("adapter", "create", APQN, "--mode", "ep11")
        other.cli("chzcrypt", "--se-bind", APQN)
        other.cli("chzcrypt", "--se-associate", "0", APQN)
        assert session in other.cli("adapter", "show", APQN).stdout


def test_files_are_not_overwritten_and_none_is_left_behind(place):
    there = place.write_file("there", b"something")
    fresh, secret = place.directory / "fresh.request", place.directory / "fresh.secret"
    create = ("pvsecret", "create", "association")
    for words, status in (
        (("name", "-o", there, "--output-secret", secret), BUSY),
        (("name", "-o", fresh, "--output-secret", there), BUSY),
        (("name", "-o", fresh, "--input-secret", there), WRONG),
        (("name", "-o", fresh, "--input-secret", place.directory / "none"), MISSING),
        (("n" * 256, "-o", fresh, "--output-secret", secret), WRONG),
    ):
        done = place.run(*create, *words)
        assert done.status == status, done
        assert not fresh.exists()
        assert not secret.exists()
    assert there.read_bytes() == b"something"
    for content in (b"", b"{}", os.urandom(5000)):
        assert place.run("pvsecret", "add", place.write_file("bad", content)).status == DAMAGED


def test_what_there_is_not_is_refused_by_name(place):
    for words, status in (
        (("chzcrypt", "--se-bind", "3.39"), UNSUPPORTED),
        (("chzcrypt", "--se-bind", "4.0"), UNSUPPORTED),
        (("chzcrypt", "--se-bind", "9.9"), MISSING),
        (("chzcrypt", "--se-unbind", APQN), UNAVAILABLE),
        (("chzcrypt", "--se-associate", "0", APQN), UNAVAILABLE),
    ):
        done = place.run(*words)
        assert done.status == status, (words, done)


def test_sestat_is_told_where_a_domain_can_be_bound(place):
    def sestat(*options):
        head, _, *rows = place.cli("lszcrypt", *options).stdout.splitlines()
        return head.split()[-1], {row.split()[0]: row.split()[-1] for row in rows}

    assert sestat("-V") == (
        "SESTAT",
        {"03": "-", "03.0039": "illicit", "04": "-", "04.0000": "illicit", "05": "-",
         APQN: "unbound"},
    )  # fmt: skip
    assert sestat()[0] == "REQUESTS"
    assert sestat("-V", "--ccaonly")[0] == "DRIVER"


def test_control_points_are_turned_off_shown_and_turned_on(place):
    control = ("adapter", "control-points", APQN)
    lines = place.cli(*control, "--clear", "keygen_symm", "--clear", "CPACF_PK").stdout.splitlines()
    states = {name: (int(bit), state) for bit, name, state in map(str.split, lines)}
    assert states["XCP_CPB_KEYGEN_SYMM"] == (13, "off")
    assert states["XCP_CPB_ALLOW_NONSESSION"] == (48, "on")
    assert (
        "forbidden:   XCP_CPB_KEYGEN_SYMM, XCP_CPB_CPACF_PK\n"
        in place.cli("adapter", "show", APQN).stdout
    )
    key = place.directory / "forbidden.key"
    done = place.run("zkey", "generate", key, "-K", "EP11-AES")
    assert (done.status, "XCP_CPB_KEYGEN_SYMM is off" in done.stderr) == (UNAVAILABLE, True)
    assert not key.exists()
    for words, status in (
        (("--set", "ALG_RSA"), UNSUPPORTED),
        (("--set", "CPACF_PK", "--clear", "CPACF_PK"), WRONG),
    ):
        assert place.run(*control, *words).status == status
    assert place.run("adapter", "control-points", "3.39").status == UNSUPPORTED
    on = place.cli(*control, "--set", "KEYGEN_SYMM", "--set", "XCP_CPB_CPACF_PK", "--json").json
    assert set(on["control_points"].values()) == {True}
    place.cli("zkey", "generate", key, "-K", "EP11-AES")


def test_no_more_secrets_are_taken_once_they_are_locked(place):
    request = make_request(place, "late")
    place.cli("pvsecret", "lock")
    assert place.run("pvsecret", "add", request).status == POLICY
    assert "No more are taken until the next boot." in place.cli("pvsecret", "list").stdout
