"""Command lines of zkey on a repository, with an adapter behind them."""

import json
import platform
import shutil

import pytest

from fusecrypt.keystore.tokens import AesCipherToken
from tests.product import running
from tests.unit.keystore.samples import REAL_XTS_KEY
from tests.unit.keystore.test_repository import OF_ZKEY, make_info

PATTERN = "cd6b103236fbd87dba93e9001e29bc3d5e885d6abd1577e3e0e0a5f49e444894"


@pytest.fixture(scope="module")
def with_adapter(tmp_path_factory):
    with running(tmp_path_factory.mktemp("zkey")) as instance:
        instance.cli("adapter", "create", "03.0039")
        instance.write_file("clear", bytes(range(64)))
        yield instance


@pytest.fixture
def place(with_adapter):
    """An empty repository."""
    shutil.rmtree(with_adapter.directory / "zkey", ignore_errors=True)
    return with_adapter


def zkey(place, *words, stdin=b""):
    return place.cli("zkey", *words, stdin=stdin)


def keys(place, *filters):
    return [key["name"] for key in zkey(place, "list", "--json", *filters).json["keys"]]


def key(place, name):
    return zkey(place, "list", "-N", name, "--json").json["keys"][0]


def test_a_key_goes_out_of_the_repository_and_back(place):
    zkey(place, "gen", "-N", "a", "-c", "clear", "-x", "-K", "CCA-AESCIPHER")
    file = place.directory / "out"
    file.unlink(missing_ok=True)
    zkey(place, "export", "-N", "a", file)
    assert place.run("zkey", "export", "-N", "a", file).status == 5
    result = place.run("zkey", "import", "-N", "b", file, stdin=b"")
    assert result.status == 2, result  # made of clear components: asked, and nothing answered
    assert "clear components" in result.stderr
    assert keys(place) == ["a"]
    zkey(
        place, "import", "-N", "b", "-d", "back", "-S", "4096", "-t", "plain", file, stdin=b"yes\n"
    )
    got = key(place, "b")
    assert (got["pattern"], got["volume_type"], got["sector_size"]) == (PATTERN, "plain", 4096)
    assert got["description"] == "back"
    zkey(place, "validate", "-N", "b")


def test_an_imported_key_is_restricted_unless_it_is_to_be_exportable(place):
    file = place.directory / "exportable"
    file.unlink(missing_ok=True)
    zkey(place, "generate", "-K", "CCA-AESCIPHER", "--exportable", file)
    assert AesCipherToken.parse(file.read_bytes()).management1 == 0xF800
    zkey(place, "import", "-q", "-N", "strict", file)
    zkey(place, "import", "-N", "free", "--exportable", file)
    rules = {
        name: AesCipherToken.parse((place.directory / f"zkey/{name}.skey").read_bytes()).management1
        for name in ("strict", "free")
    }
    assert rules == {"strict": 0x08C8, "free": 0xF800}


def test_a_key_of_another_machine_is_imported_only_without_a_check(place):
    file = place.write_file("strange", REAL_XTS_KEY)
    result = place.run("zkey", "import", "-N", "s", file)
    assert result.status == 6, result
    assert "71ecf46a35bd8924" in result.stderr
    zkey(place, "import", "-N", "s", "--no-apqn-check", file)
    shown = zkey(place, "list").stdout
    assert "Verification pattern : (not available)" in shown
    assert "Clear key size       : 512 bits" in shown


def test_what_is_said_of_a_key_is_changed(place):
    zkey(place, "gen", "-N", "k", "-x", "-l", "a.img:a")
    change = ("change", "-N", "k")
    zkey(place, *change, "-d", "", "-l", "+b.img:b", "-S", "4096", "-a", "3.39")
    got = key(place, "k")
    assert [v.rpartition("/")[2] for v in got["volumes"]] == ["a.img:a", "b.img:b"]
    assert (got["sector_size"], got["apqns"]) == (4096, ["03.0039"])
    zkey(place, *change, "-l", "-a.img:a", "--gen-dummy-passphrase")
    got = key(place, "k")
    assert [v.rpartition("/")[2] for v in got["volumes"]] == ["b.img:b"]
    word = place.directory / "zkey/k.pass"
    assert got["dummy_passphrase"] == str(word)
    assert len(word.read_bytes()) == 16
    assert place.run("zkey", *change, "--gen-dummy-passphrase").status == 5
    assert place.run("zkey", *change, "--remove-dummy-passphrase", stdin=b"no\n").status == 2
    zkey(place, *change, "--remove-dummy-passphrase", stdin=b"Y\n")
    place.write_file("word", b"a\0\n")
    zkey(place, *change, "--set-dummy-passphrase", "word", "-t", "luks2")
    assert word.read_bytes() == b"a\0\n"
    zkey(place, *change, "-t", "plain")
    assert not word.exists()


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ([], 1, "nothing to change"),
        (["-a", "04.0001"], 6, "does not exist"),
        (["-a", "-04.0001"], 1, "is not there"),
        (["-l", "+"], 1, "something after +"),
        (["-d", "x", "--no-apqn-check"], 1, "only with --apqns"),
        (["-S", "1000"], 1, "sector size 1000"),
        (["-t", "integrity"], 1, "plain or luks2"),
        (["--gen-dummy-passphrase", "--remove-dummy-passphrase"], 1, "not together"),
        (["--gen-dummy-passphrase", "-t", "plain"], 1, "luks2 only"),
    ],
)
def test_a_change_that_is_refused_says_why(place, words, status, message):
    zkey(place, "gen", "-N", "k")
    result = place.run("zkey", "change", "-N", "k", *words)
    assert (result.status, message in result.stderr) == (status, True), result


def test_keys_are_renamed_copied_and_removed(place):
    zkey(place, "gen", "-N", "k", "-x", "-l", "a.img:a", "-t", "plain")
    assert "crypttab" in zkey(place, "ren", "-N", "k", "-w", "new").stderr
    zkey(place, "copy", "-N", "new", "-w", "other", "-l", "b.img:b")
    assert place.run("zkey", "copy", "-N", "new", "-w", "other").status == 5
    assert keys(place) == ["new", "other"]
    declined = place.run("zkey", "remove", "-N", "new", stdin=b"\n")
    assert declined.status == 2, declined
    assert "a.img:a" in declined.stderr
    zkey(place, "rem", "-N", "new", stdin=b"y\n")
    zkey(place, "remove", "-F", "-N", "other")
    assert keys(place) == []
    assert place.run("zkey", "remove", "-F", "-N", "other").status == 4
    zkey(place, "gen", "-N", "l", "-x", "-l", "c.img:c,d.img:d")
    declined = place.run("zkey", "remove", "-N", "l", stdin=b"\n")
    assert "/c.img:c, " in declined.stderr
    assert "/d.img:d keep the copies in their headers only" in declined.stderr
    zkey(place, "remove", "-F", "-N", "l")
    for words in (["remove"], ["rename", "-N", "k"], ["copy", "-w", "k"], ["export", "f"]):
        assert "wanted: --n" in place.run("zkey", *words).stderr


def test_filters_and_other_kinds_of_keys(place):
    zkey(place, "gen", "-N", "k", "-x", "-l", "a.img:a", "-a", "3.39")
    repository = place.directory / "zkey"
    ep11 = bytes.fromhex("0000015006000100") + bytes(8) + bytes(32) + b"\7" * 16 + bytes(16)
    halves = [ep11 + b"\x12\x34" + bytes([number]) * 254 for number in range(2)]
    (repository / "ep11.skey").write_bytes(b"".join(halves))
    other = {**dict(OF_ZKEY), "key-type": "EP11-AES", "kms": "KMIP", "kms-key-label": "label"}
    (repository / "ep11.info").write_text(make_info(*other.items()))
    shown = zkey(place, "list", "-N", "ep*").stdout
    for row in ("Secure key size      : 672 bytes", "Clear key size       : 512 bits",
                "Key type             : EP11-AES", "KMS                  : KMIP",
                "KMS key label        : label"):  # fmt: skip
        assert row in shown
    assert keys(place) == ["ep11", "k"]
    assert keys(place, "-L") == ["k"]
    assert keys(place, "-M") == ["ep11"]
    assert keys(place, "-K", "ep11-aes") == ["ep11"]
    assert keys(place, "-l", "*a.img") == keys(place, "-l", "*:a") == ["k"]
    assert keys(place, "-l", "a.img") == keys(place, "-l", "a.img:?") == ["k"]
    assert keys(place, "-l", "b.img") == keys(place, "-l", "a.img:b") == []
    assert keys(place, "-a", "3.39") == ["k"]
    result = place.run("zkey", "validate")
    assert result.status == 1, result
    assert "1 keys are valid, 1 keys are invalid" in result.stdout


def test_crypttab_lines_are_zkeys(place):
    zkey(place, "gen", "-N", "p", "-x", "-l", "/dev/p:pp", "-t", "plain", "-S", "4096")
    zkey(place, "gen", "-N", "c", "-l", "/dev/c:cc", "-t", "plain")
    zkey(place, "gen", "-N", "l", "-x", "-l", "/dev/l:ll")
    zkey(place, "gen", "-N", "d", "-x", "-l", "/dev/d:dd", "--gen-dummy-passphrase")
    at = place.directory / "zkey"
    ours = "" if platform.machine() == "s390x" else ",noauto,x-fusecrypt"
    lines = {
        "p": f"pp\t/dev/p\t{at}/p.skey\tplain,cipher=paes-xts-plain64,size=1024,sector-size=4096"
        f"{ours}",
        "c": f"cc\t/dev/c\t{at}/c.skey\tplain,cipher=paes-cbc-plain64,size=512{ours}",
        "l": f"ll\t/dev/l\tnone\tluks{ours}",
        "d": f"dd\t/dev/d\t{at}/d.pass\tluks{ours}",
    }
    shown = zkey(place, "cryptt").stdout.splitlines()
    assert shown == [lines[name] for name in "cdlp"]
    assert zkey(place, "crypttab", "-t", "luks2", "-l", "/dev/l").stdout == lines["l"] + "\n"
    assert json.loads(zkey(place, "crypttab", "--json", "-l", "*:pp").stdout) == {
        "lines": [lines["p"]]
    }
    words = ("--key-file", "/k", "--keyfile-offset", "1", "--keyfile-size", "2", "--tries", "5")
    got = zkey(place, "crypttab", "-l", "*:dd", *words).stdout
    assert got == f"dd\t/dev/d\t/k\tluks,keyfile-offset=1,keyfile-size=2,tries=5{ours}\n"
    assert place.run("zkey", "crypttab", "--keyfile-size", "2").status == 1
    # and the daemon's own parser takes them
    table = place.write_file("table", "".join(line + "\n" for line in shown).encode())
    checked = place.run("crypttab", "check", table)
    assert " error" not in checked.stderr, checked


def test_commands_for_cryptsetup_are_zkeys(place):
    zkey(place, "gen", "-N", "p", "-x", "-l", "/dev/p:pp", "-t", "plain", "-S", "4096")
    zkey(place, "gen", "-N", "l", "-x", "-l", "/dev/l:ll")
    at = place.directory / "zkey"
    tool = "cryptsetup" if shutil.which("cryptsetup") else "fusecrypt"
    opener = tool if platform.machine() == "s390x" else "fusecrypt"
    form = (
        f"{tool} luksFormat {{}}--type luks2 --volume-key-file '{at}/l.skey' --key-size 1024 "
        "--cipher paes-xts-plain64 --pbkdf argon2i --pbkdf-memory 32 --pbkdf-force-iterations 4 "
        "{}/dev/l"
    )
    plain = (
        f"{opener} plainOpen --key-file '{at}/p.skey' --key-size 1024 --cipher paes-xts-plain64 "
        "--sector-size 4096 /dev/p pp"
    )
    show = ("cryptsetup",)
    assert zkey(place, *show).stdout.splitlines() == [
        form.format("", ""), "fusecrypt zkey-cryptsetup setvp /dev/l", plain
    ]  # fmt: skip
    assert zkey(place, *show, "--format").stdout.splitlines() == [
        form.format("", ""), "fusecrypt zkey-cryptsetup setvp /dev/l"
    ]  # fmt: skip
    assert zkey(place, *show, "--open", "-l", "*:ll", "--tries", "2").stdout == (
        f"{opener} luksOpen --tries 2 /dev/l ll\n"
    )
    zkey(place, "change", "-N", "l", "--gen-dummy-passphrase", "-S", "512")
    key = f"--key-file '{at}/l.pass' "
    assert zkey(place, "crypts", "-q", "-V", "-t", "luks2").stdout.splitlines() == [
        form.format("-q -v ", f"{key}--sector-size 512 "),
        f"fusecrypt zkey-cryptsetup setvp /dev/l {key}-V",
    ]
    words = ("--key-file", "/a b", "--keyfile-offset", "1", "--keyfile-size", "2")
    assert zkey(place, *show, "--open", "-t", "luks2", *words).stdout == (
        f"{opener} luksOpen --key-file '/a b' --keyfile-offset 1 --keyfile-size 2 /dev/l ll\n"
    )
    assert place.run("zkey", *show, "--open", "--format").status == 1


def test_commands_for_cryptsetup_are_run(place):
    image = place.write_file("run.img", b"")
    with image.open("wb") as file:
        file.truncate(18 << 20)
    zkey(
        place, "gen", "-N", "l", "-x", "-l", f"{image}:ll", "-c", "clear", "--gen-dummy-passphrase"
    )
    result = zkey(place, "cryptsetup", "--run", "-q", "--format")
    assert result.stdout.count("Executing: ") == 2
    assert result.stdout.count("exit code: 0") == 2
    word = place.directory / "zkey/l.pass"
    shown = place.cli("zkey-cryptsetup", "validate", image, "-d", word).stdout
    assert f"Verification pattern:  {PATTERN[:32]}" in shown
    place.cli("open", "--test-passphrase", "-d", word, image)
    image.unlink()
    failed = place.run("zkey", "cryptsetup", "--run", "-q")
    assert failed.status == 4, failed
    assert failed.stdout.count("Executing: ") == 1


def test_damaged_keys_do_not_hide_the_others(place):
    for name in "abc":
        zkey(place, "gen", "-N", name, "-x", "-l", f"/{name}:{name}")
    directory = place.directory / "zkey"
    (directory / "a.info").write_text("key-type=CCA-AESDATA\n")
    (directory / "b.skey").unlink()
    listed = place.run("zkey", "list", "--json")
    assert listed.status == 7, listed
    assert [key["name"] for key in listed.json["keys"]] == ["c"]
    assert [key["name"] for key in listed.json["damaged"]] == ["a", "b"]
    assert "key 'b' is in an inconsistent state" in listed.stderr
    assert place.run("zkey", "list", "-N", "a").status == 7
    assert keys(place, "-N", "[!ab]") == ["c"]
    assert place.run("zkey", "validate").stdout.endswith(
        "1 keys are valid, 2 keys are invalid, 1 warnings\n"
    )
    done = place.run("zkey", "reencipher")
    assert (done.status, "0 keys skipped, 3 keys failed" in done.stdout) == (1, True), done
    for command in ("crypttab", "cryptsetup"):  # half a list would be taken for a whole one
        result = place.run("zkey", command)
        assert (result.status, result.stdout) == (7, ""), result
    plan = place.run("master-key", "plan", "--json")
    assert plan.status == 10, plan
    assert {item["name"]: item["state"] for item in plan.json["items"]} == {
        "a": "unknown", "b": "unknown", "c": "done", "/c": "unknown"
    }  # fmt: skip


def test_a_key_in_a_file_is_made_by_the_adapters_that_are_named(place):
    place.cli("adapter", "create", "06.0001")
    try:
        (place.directory / "k").unlink(missing_ok=True)
        refused = place.run("zkey", "gen", "k", "-x")
        assert (refused.status, "wanted: --apqns" in refused.stderr) == (6, True), refused
        zkey(place, "gen", "k", "-x", "-a", "06.0001")
        shown = zkey(place, "validate", "k", "--json").json
        assert shown["usable_by"] == ["06.0001"]
    finally:
        place.cli("adapter", "remove", "-q", "06.0001")


def test_an_accelerator_is_called_one(place):
    place.cli("adapter", "create", "--mode", "accel", "06.0001")
    try:
        result = place.run("zkey", "gen", "-N", "a", "-x", "-a", "03.0039,06.0001")
    finally:
        place.cli("adapter", "remove", "-q", "06.0001")
    assert (result.status, "06.0001 is an accelerator" in result.stderr) == (6, True), result


def test_what_scripts_for_zkey_say(place):
    """Options that ask for what is so anyway; and lists with two signs, which are a mistake."""
    zkey(place, "gen", "-N", "a", "-x", "-L", "-l", "/a:a,/b:b")
    for text in ("+/c:c,-/a:a", "+/c:c,+/d:d", "/c:c,-/a:a"):
        result = place.run("zkey", "change", "-N", "a", "-l", text)
        assert (result.status, "in front of the list" in result.stderr) == (1, True), result
    assert key(place, "a")["volumes"] == ["/a:a", "/b:b"]
    zkey(place, "con", "-N", "a", "-K", "CCA-AESCIPHER", "-F", "--no-apqn-check")
    listed = place.cli("lszcrypt", "0x03", "0x03.0x39", "0X3.0039")
    assert listed.stdout.count("03.0039") == 1
    assert place.run("lszcrypt", "0x").status == 1
    result = place.run("zkey", "c")
    assert (result.status, "zkey convert | " in result.stderr) == (1, True), result
