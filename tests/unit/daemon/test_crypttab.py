"""The crypttab reader: lines, options, whose line it is, and a problem for each kind of mistake."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusecrypt.daemon.config import CrypttabSource
from fusecrypt.daemon.crypttab import Crypttab, CrypttabEntry, load_crypttabs, parse_crypttab
from fusecrypt.daemon.crypttab_options import Verdict, split_options
from fusecrypt.daemon.crypttab_values import parse_time_span, parse_unsigned
from fusecrypt.keystore.errors import ConfigError, MapperError, NotFoundError, UnsupportedError

PLAIN = "plain,cipher=aes-xts-plain64,size=512"


def parse(text: str, *, whole: bool = True) -> Crypttab:
    return parse_crypttab(text, "tab", whole=whole)


def parse_one(line: str) -> CrypttabEntry:
    (entry,) = parse(line).entries
    return entry


def parse_with(options: str) -> CrypttabEntry:
    return parse_one(f"vol /img none {options}")


def test_empty_files_and_comments_are_nothing() -> None:
    for text in ("", "\n\n", "# a b c\n   # d e\n", " \t\v\n", "\0\r\n"):
        assert parse(text) == Crypttab(files=("tab",))


def test_a_comment_starts_only_where_a_line_starts() -> None:
    entry = parse_one("vol /img none luks#x")
    assert [p.option for p in entry.problems] == ["luks#x"]


def test_fields_may_stand_between_any_white_space() -> None:
    entry = parse_one(" vol\t/img \v none\fluks,readonly\r")
    assert (entry.name, entry.source, entry.key_file) == ("vol", "/img", None)
    assert entry.options.read_only
    assert entry.type == "luks"


@pytest.mark.parametrize("unset", ["none", "-", ""])
def test_none_dash_and_nothing_unset_key_and_options(unset: str) -> None:
    entry = parse_one(f"vol /img {unset} {unset}")
    assert entry.key_file is None
    assert entry.problems == ()


def test_one_field_is_an_error_and_the_other_lines_count() -> None:
    table = parse("alone\nvol /img\n")
    assert [str(p) for p in table.problems] == [
        "tab:1: alone: one field; wanted: NAME SOURCE [KEY [OPTIONS]]"
    ]
    assert [e.name for e in table.entries] == ["vol"]


def test_line_numbers_count_as_systemd_counts_them() -> None:
    table = parse("a /1\r\nb /2\n\rc /3\0d /4\n\ne /5\rf /6")
    assert [(e.name, e.line) for e in table.entries] == [
        ("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 6), ("f", 7),
    ]  # fmt: skip


def test_text_after_the_options_is_ignored_with_a_warning() -> None:
    entry = parse_one("vol /img none luks and more")
    assert [(p.verdict, p.message) for p in entry.problems] == [
        (Verdict.WARNING, "text after the options ignored: and")
    ]
    entry.check()


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("/img", "/img"),
        ("UUID=aB-1", "/dev/disk/by-uuid/aB-1"),
        ('LABEL="q/x"', "/dev/disk/by-label/q\\x2fx"),
        ("PARTUUID=1-2", "/dev/disk/by-partuuid/1-2"),
        ("PARTLABEL=ü", "/dev/disk/by-partlabel/ü"),
    ],
)
def test_sources_by_tag_are_udevs_links(source: str, path: str) -> None:
    entry = parse_one(f"vol {source}")
    assert entry.source_path == path
    entry.check()


@pytest.mark.parametrize("source", ["img", "ID=5", "./img"])
def test_a_source_that_is_neither_path_nor_tag_is_refused(source: str) -> None:
    with pytest.raises(ConfigError, match="wanted: an absolute path"):
        parse_one(f"vol {source}").check()


@pytest.mark.parametrize("name", [".", "..", "a/b", "control", "x" * 128, "a\x07b"])
def test_a_name_must_be_a_plain_file_name(name: str) -> None:
    with pytest.raises(ConfigError, match="volume name"):
        parse_one(f"{name} /img").check()


@pytest.mark.parametrize("key", ["/key:UUID=1-2", "/key:/dev/sdb1", "/a:b:LABEL=x"])
def test_a_key_on_another_device_is_not_supported(key: str) -> None:
    with pytest.raises(UnsupportedError, match=r"tab:1: vol: key file .* not supported"):
        parse_one(f"vol /img {key}").check()


def test_a_colon_alone_is_part_of_the_key_files_name() -> None:
    assert parse_one("vol /img /key:foo").key_file == "/key:foo"


def test_a_relative_key_file_is_ignored_with_a_warning_as_systemd_does() -> None:
    entry = parse_one("vol /img keys/vol")
    assert entry.key_file is None
    assert [p.verdict for p in entry.problems] == [Verdict.WARNING]


def test_every_honoured_option_is_read() -> None:
    o = parse_with(
        "luks,header=/hdr,keyslot=3,keyfile-offset=0x10,keyfile-size=32,readonly,nofail,"
        "tries=5,timeout=1min30s,headless"
    ).options
    assert (o.type, o.header, o.key_slot, o.keyfile_offset, o.keyfile_size) == (
        "luks", "/hdr", 3, 16, 32,
    )  # fmt: skip
    assert (o.read_only, o.nofail, o.tries, o.timeout, o.headless) == (True, True, 5, 90.0, True)
    o = parse_with(f"{PLAIN},hash=sha256,sector-size=4096,offset=8,skip=16").options
    assert (o.cipher, o.key_bits, o.hash) == ("aes-xts-plain64", 512, "sha256")
    assert (o.sector_size, o.offset, o.skip) == (4096, 8, 16)
    assert (o.lease, o.idle) == (None, None)
    o = parse_with("x-fusecrypt,x-fusecrypt-lease=1h,x-fusecrypt-idle=0").options
    assert (o.lease, o.idle) == (3600, 0)


@pytest.mark.parametrize(
    "option",
    ["x-fusecrypt-lease=soon", "x-fusecrypt-lease", "x-fusecrypt-idle=0.5", "x-fusecrypt-iddle=5"],
)
def test_a_lease_that_is_none_costs_the_line(option: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(option)):
        parse_with(f"luks,{option}").check()


@pytest.mark.parametrize(
    "options",
    [
        "same-cpu-crypt", "submit-from-crypt-cpus", "no-read-workqueue", "no-write-workqueue",
        "_netdev", "x-systemd.device-timeout=5", "x-initrd.attach", "x-anything", "noauto", "auto",
        "initramfs", "loud", "quiet", "noearly", "keyfile-erase=no", "try-empty-password=0",
        "password-cache=no", "password-echo=masked", "headless=off", ",,luks,,", "timeout=0",
    ],
)  # fmt: skip
def test_options_that_change_nothing_here_pass_silently(options: str) -> None:
    assert parse_with(options).problems == ()


REFUSED = [
    "swap", "tmp", "tmp=ext4", "bitlk", "fvault2", "tcrypt", "tcrypt-hidden", "tcrypthidden",
    "tcrypt-system", "tcrypt-veracrypt", "veracrypt", "tcrypt-keyfile=/k", "veracrypt-pim=5",
    "verify", "keyfile-erase", "keyfile-erase=yes",
    "keyfile-timeout=5", "try-empty-password", "try-empty-password=1", "link-volume-key=@u::k",
    "fixate-volume-key=00", "token-timeout=5", "pkcs11-uri=auto", "fido2-device=auto",
    "fido2-cid=x", "fido2-rp=x", "fido2-pin=no", "fido2-up=no", "fido2-uv=no", "tpm2-device=auto",
    "tpm2-pcrs=7", "tpm2-pin=yes", "tpm2-signature=/s", "tpm2-pcrlock=/p", "tpm2-measure-pcr=yes",
    "tpm2-measure-bank=sha256", "tpm2-measure-keyslot-nvpcr=yes", "keyscript=/bin/x", "check",
    "check=ext2", "checkargs=x", "password-echo=yes", "password-cache=yes",
    "password-cache=read-only", "loopaes",
]  # fmt: skip


@pytest.mark.parametrize("option", REFUSED)
def test_known_options_that_we_do_not_have_are_refused_by_name(option: str) -> None:
    table = parse(f"other /img\nvol /img none luks,{option},nofail\nthird /img\n")
    with pytest.raises(UnsupportedError) as caught:
        table.entries[1].check()
    assert str(caught.value).startswith(f"tab:2: vol: {option}: not supported")
    for entry in (table.entries[0], table.entries[2]):
        entry.check()


@pytest.mark.parametrize("option", ["foo", "foo=1", "luks=1", "cipher", "Luks", "size"])
def test_unknown_options_are_warned_about_and_ignored(option: str) -> None:
    entry = parse_with(option)
    assert [str(p) for p in entry.problems] == [f"tab:1: vol: {option}: unknown option, ignored"]
    entry.check()


@pytest.mark.parametrize(
    "option",
    [
        "tries=many",
        "key-slot=-1",
        "keyfile-size=",
        "timeout=soon",
        "keyfile-offset=1k",
        "tries=1e3",
    ],
)
def test_bad_numbers_are_warned_about_and_ignored(option: str) -> None:
    entry = parse_with(option)
    assert [(p.verdict, p.option) for p in entry.problems] == [(Verdict.WARNING, option)]
    assert entry.options.tries == 3


@pytest.mark.parametrize("option", ["size=255", "size=0", "sector-size=1536", "sector-size=8192"])
def test_bad_sizes_are_ignored_too(option: str) -> None:
    name, _, _ = option.partition("=")
    entry = parse_with(option)
    assert [(p.verdict, p.option) for p in entry.problems] == [(Verdict.WARNING, option)]
    value = {"size": entry.options.key_bits, "sector-size": entry.options.sector_size}[name]
    assert value is None


@pytest.mark.parametrize("option", ["offset=x", "skip=", "skip=-1", "offset=99999999999999999999"])
def test_bad_offset_and_skip_cost_the_line(option: str) -> None:
    with pytest.raises(ConfigError, match=r"512-byte sectors|bits"):
        parse_with(option).check()


@pytest.mark.parametrize("options", ["header=hdr", "header=/a,header=/b"])
def test_bad_headers_cost_the_line(options: str) -> None:
    with pytest.raises(ConfigError, match="header="):
        parse_with(options).check()


def test_a_header_on_another_device_is_not_supported() -> None:
    with pytest.raises(UnsupportedError, match="header=/h:UUID=1: not supported"):
        parse_with("header=/h:UUID=1").check()


def test_the_last_of_two_types_counts_and_key_slot_means_luks() -> None:
    assert parse_with("luks,plain").type == "plain"
    assert parse_with("plain,luks").type == "luks"
    assert parse_with("plain,key-slot=1").type == "luks"


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ("plain", "cipher=, size=, hash="),
        ("plain,cipher=aes-xts-plain64,hash=plain", "size="),
        ("plain,size=256,hash=sha256", "cipher="),
        (PLAIN, "hash="),
    ],
)
def test_plain_without_its_parameters_is_refused_naming_the_defaults(
    options: str, missing: str
) -> None:
    with pytest.raises(ConfigError, match=r"ripemd160.*sha256") as caught:
        parse_with(options).check()
    assert f"plain without {missing}:" in str(caught.value)


def test_plain_with_a_key_file_needs_no_hash_and_reads_as_much_as_the_key() -> None:
    entry = parse_one(f"vol /img /dev/urandom {PLAIN},keyfile-size=5")
    entry.check()
    assert entry.keyfile_size == 64
    assert [p.verdict for p in entry.problems] == [Verdict.WARNING]


def test_plain_with_a_key_file_and_a_hash_is_refused_because_tools_differ() -> None:
    parse_one(f"vol /img /key {PLAIN},hash=plain").check()
    with pytest.raises(ConfigError, match="systemd would hash the file, cryptsetup would not"):
        parse_one(f"vol /img /key {PLAIN},hash=sha256").check()


def test_plain_parameters_of_a_luks_line_are_warned_about() -> None:
    entry = parse_with("cipher=aes-xts-plain64,offset=5")
    assert "add plain" in str(entry.problems[0])
    entry.check()


def test_in_etc_crypttab_only_lines_with_x_fusecrypt_are_ours() -> None:
    table = parse(
        "a /1 - luks\nb /2 - x-fusecrypt,noauto\nc /3 - x-fusecrypt=noauto,noauto\n"
        "d /4 - tpm2-device=auto\nbroken\ne /5 - x-fusecrypt\n",
        whole=False,
    )
    assert [e.name for e in table.own_entries] == ["b", "c", "e"]
    assert [e.opens_at_start for e in table.own_entries] == [True, False, True]
    (warning,) = table.own_problems  # nothing about lines that are not ours
    assert "without noauto systemd opens this volume too" in str(warning)
    entry = table.find("a")
    assert entry is not None
    assert not entry.opens_at_start


def test_in_a_file_of_ours_noauto_speaks_to_us_unless_x_fusecrypt_is_there() -> None:
    table = parse("a /1\nb /2 - noauto\nc /3 - noauto,x-fusecrypt\nd /4 - x-fusecrypt=noauto\n")
    assert [e.opens_at_start for e in table.own_entries] == [True, False, True, False]


def test_another_value_of_x_fusecrypt_is_refused_and_not_opened() -> None:
    (entry,) = parse("a /1 - x-fusecrypt=yes", whole=False).own_entries
    assert not entry.opens_at_start
    with pytest.raises(ConfigError, match="x-fusecrypt=noauto"):
        entry.check()


def test_nofail_entries_are_not_required() -> None:
    table = parse("a /1\nb /2 - nofail\nc /3 - nofail,fail\nd /4 - noauto\n")
    assert [e.is_required for e in table.entries] == [True, False, True, False]


def test_the_first_line_for_a_name_counts_and_the_second_is_an_error() -> None:
    table = parse("a /1\na /2\n")
    assert [e.source for e in table.entries] == ["/1"]
    assert str(table.problems[0]) == "tab:2: a: this name was given at tab:1; line not used"


def test_files_are_put_together_and_ours_beat_others(tmp_path: Path) -> None:
    system, own = tmp_path / "crypttab", tmp_path / "own"
    system.write_text("a /1\nb /2 - x-fusecrypt,noauto\n")
    own.write_text("a /3\nb /4\n")
    table = load_crypttabs(
        [
            CrypttabSource(system, whole=False, required=False),
            CrypttabSource(own, whole=True, required=False),
            CrypttabSource(tmp_path / "missing", whole=True, required=False),
        ]
    )
    assert [(e.name, e.source) for e in table.own_entries] == [("a", "/3"), ("b", "/2")]
    assert len(table.problems) == 1


def test_a_file_that_the_user_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file"):
        load_crypttabs([CrypttabSource(tmp_path / "no", whole=True, required=True)])


def test_bytes_that_are_not_utf_8_cost_at_most_their_line(tmp_path: Path) -> None:
    path = tmp_path / "tab"
    path.write_bytes(b"a\xff /img\nb /i\xfemg none luks,\xfd\n")
    table = load_crypttabs([CrypttabSource(path, whole=True, required=True)])
    with pytest.raises(ConfigError, match="not UTF-8") as caught:
        table.entries[0].check()
    str(caught.value).encode()
    table.entries[1].check()
    assert table.entries[1].source_path.encode("utf-8", "surrogateescape") == b"/i\xfemg"


@given(st.text())
def test_any_text_parses_and_any_entry_passes_or_is_refused(text: str) -> None:
    for whole in (True, False):
        table = parse_crypttab(text, "tab", whole=whole)
        for problem in table.own_problems:
            assert str(problem).startswith("tab:")
        for entry in table.entries:
            assert isinstance(entry.source_path, str)
            try:
                entry.check()
            except MapperError as error:
                str(error).encode()


@given(st.text(alphabet="a=,\\ \n#-/:0123456789splainkey", max_size=80))
def test_text_made_of_what_matters_parses_too(text: str) -> None:
    parse(text)


@given(st.lists(st.text(min_size=1).filter(lambda w: "\n" not in w)))
def test_escaped_commas_and_backslashes_come_back(words: list[str]) -> None:
    escaped = [w.replace("\\", "\\\\").replace(",", "\\,") for w in words]
    assert split_options(",".join(escaped)) == words


@pytest.mark.parametrize("field", ["a\\x", "a\\", "\\ "])
def test_another_escape_is_an_error(field: str) -> None:
    with pytest.raises(ValueError, match="backslash"):
        split_options(field)


def test_numbers_are_read_as_systemd_reads_them() -> None:
    texts = ["10", "0x1F", "010", "0b11", "0o17", "+5", " 7"]
    assert [parse_unsigned(text) for text in texts] == [10, 31, 8, 3, 15, 5, 7]
    for bad in ["", "x", "-1", "1.5", "08", "4294967296", "1_0", "0x"]:
        with pytest.raises(ValueError, match=r"number|bits"):
            parse_unsigned(bad)


def test_time_spans_are_read_as_systemd_reads_them() -> None:
    spans = ["5", "5s", "1min30s", "1.5h", "2 min", "500ms", "1d", "infinity", "0"]
    assert [parse_time_span(span) for span in spans] == [
        5.0, 5.0, 90.0, 5400.0, 120.0, 0.5, 86400.0, None, None,
    ]  # fmt: skip
    for bad in ["", "x", "5x", "-1"]:
        with pytest.raises(ValueError, match="time span"):
            parse_time_span(bad)


GENERATOR = Path("/lib/systemd/system-generators/systemd-cryptsetup-generator")


@pytest.mark.skipif(not GENERATOR.exists(), reason="no systemd-cryptsetup-generator")
@pytest.mark.skipif(shutil.which("systemd-escape") is None, reason="no systemd-escape")
@pytest.mark.parametrize(
    "text",
    [
        "a /dev/x\nb\nc-d UUID=ABC none luks,noauto\ne /dev/y /key:foo bar,baz extra\n",
        "#f /dev/z\n  #g /dev/z\n\n\t\ni /dev/y rel\n",
        'k /img - luks\\,x,_netdev\nm "LABEL=a b"\nn LABEL="q/x y"\r\n',
        "o /x\vnone\fluks\rp /p\n\rq\t/q",
        "r /dev/r none x\\y\n-s /dev/s\n\0t /dev/q /dev/urandom\n",
        "# only comments\n",
        "",
    ],
)
def test_the_real_systemd_takes_the_same_lines(text: str, tmp_path: Path) -> None:
    table = tmp_path / "crypttab"
    table.write_bytes(text.encode())
    dirs = [tmp_path / name for name in ("normal", "early", "late")]
    for directory in dirs:
        directory.mkdir()
    subprocess.run(
        [GENERATOR, *dirs],
        env={"SYSTEMD_CRYPTTAB": str(table)},
        check=False,
        capture_output=True,
    )
    units = [path.name for path in dirs[0].glob("systemd-cryptsetup@*.service")]
    theirs = {
        subprocess.run(
            ["systemd-escape", "--unescape", unit.removeprefix("systemd-cryptsetup@")[:-8]],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.rstrip("\n")
        for unit in units
    }
    sources = {e.name for e in parse(text).entries}
    assert sources == theirs


@pytest.mark.parametrize(
    ("options", "verdict", "text"),
    [
        ("cipher=aes-foo,size=256", Verdict.UNSUPPORTED, "aes-foo"),
        ("cipher=rot13-cbc-plain,size=256", Verdict.UNSUPPORTED, "rot13"),
        ("cipher=aes-xts-plain64,size=264", Verdict.WRONG, "264"),
    ],
)
def test_what_plain_mode_would_refuse_is_a_problem_of_its_line(
    options: str, verdict: Verdict, text: str
) -> None:
    (problem,) = parse_one(f"v /img /key plain,{options}").problems
    assert (problem.verdict, text in problem.message) == (verdict, True)


def test_problems_are_in_the_order_of_files_and_lines(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("x /i - nonsense\nalone\ny /j - nonsense\n")
    (tmp_path / "a").write_text("alone\nz /k - nonsense\n")
    sources = [CrypttabSource(tmp_path / name, whole=True, required=True) for name in "ba"]
    problems = load_crypttabs(sources).own_problems
    lines = [(Path(p.file).name, p.line) for p in problems]
    assert lines == [("b", 1), ("b", 2), ("b", 3), ("a", 1), ("a", 2)]


def test_lines_that_are_not_ours_are_counted() -> None:
    table = parse("# no\nv /i - x-fusecrypt\nalone\nw /j\nw /k\n", whole=False)
    assert (table.foreign_lines, len(table.own_entries)) == (3, 1)
