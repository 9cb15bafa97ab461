"""The command line: options anywhere, names as in cryptsetup, refusals by name."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusecrypt.daemon.cli.arguments import VOCABULARIES, Arguments, parse_arguments
from fusecrypt.daemon.cli.commands import COMMANDS, _resolve_group, run
from fusecrypt.daemon.cli.key_input import DEFAULT_TRIES
from fusecrypt.daemon.cli.options import CRYPTSETUP, OPTIONS
from fusecrypt.daemon.cli.output import Output, make_output
from fusecrypt.daemon.cli.refused_options import REFUSED
from fusecrypt.dmcrypt.luks2.format import FormatParams
from fusecrypt.dmcrypt.pbkdf import PbkdfParams
from fusecrypt.keystore.coprocessor import MODE_CCA
from fusecrypt.keystore.errors import ConfigError, MapperError, UnsupportedError
from fusecrypt.keystore.key_type import KeyType


def parse(line: str) -> Arguments:
    return parse_arguments(line.split())


@pytest.mark.parametrize(
    "line",
    [
        "--type plain -c aes -s 256 open -q img name",
        "open img --type=plain -qs256 name -caes",
        "-q open --type plain img -c=aes --key-size=256 name",
        "open img name --type plain -c aes -s 256 -q --",
    ],
)
def test_options_may_stand_anywhere_and_be_joined(line: str) -> None:
    args = parse(line)
    assert (args.verb, args.positionals) == ("open", ("img", "name"))
    assert args.options == {"type": "plain", "cipher": "aes", "key-size": "256", "batch-mode": ""}


def test_after_two_dashes_everything_is_an_argument() -> None:
    assert parse("open -- -img --name").positionals == ("-img", "--name")


def test_a_dash_is_an_argument_and_a_value() -> None:
    args = parse("luksFormat img - --key-file -")
    assert args.positionals == ("img", "-")
    assert args.text("key-file") == "-"


def test_old_names_of_options_are_known() -> None:
    assert parse("open --master-key-file k").text("volume-key-file") == "k"


@pytest.mark.parametrize("word", ["--nonsense", "-x", "--nonsense=1", "-qx", "--type-"])
def test_unknown_options_are_refused(word: str) -> None:
    with pytest.raises(ConfigError, match="unknown option"):
        parse_arguments(["open", word])


def test_abbreviations_are_not_options() -> None:
    with pytest.raises(ConfigError):
        parse("open --key-fil x")


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_cryptsetups_other_options_are_refused_as_not_supported(name: str) -> None:
    assert name not in OPTIONS
    with pytest.raises(UnsupportedError, match=f"--{name}: not supported: "):
        parse_arguments(["open", f"--{name}=1"])


def test_a_missing_value_and_one_too_many_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"--type: no value; wanted: TYPE"):
        parse("open --type")
    with pytest.raises(ConfigError, match=r"--readonly: takes no value"):
        parse("open --readonly=yes")


@pytest.mark.parametrize(("text", "value"), [("5", 5), ("0x1f", 31), ("010", 8), ("0", 0)])
def test_numbers(text: str, value: int) -> None:
    assert parse(f"open -S {text}").number("key-slot") == value


@pytest.mark.parametrize("text", ["x", "-1", "1k", "", "1_0", "08", "99999999999999999999", "٣"])
def test_bad_numbers(text: str) -> None:
    with pytest.raises(ConfigError, match="--key-slot: got"):
        parse_arguments(["open", "--key-slot", text]).number("key-slot")


@pytest.mark.parametrize(
    ("text", "value"), [("512", 512), ("2S", 1024), ("1K", 1024), ("1KiB", 1024), ("1KB", 1000)]
)
def test_sizes(text: str, value: int) -> None:
    assert parse(f"open --device-size {text}").size("device-size") == value


def test_bad_sizes_name_the_option() -> None:
    with pytest.raises(ConfigError, match="--device-size: "):
        parse("open --device-size 5X").size("device-size")


@pytest.mark.parametrize(
    ("line", "error", "message"),
    [
        ("", ConfigError, "no action"),
        ("dance", ConfigError, "dance: unknown action"),
        ("create n", ConfigError, "wanted: fusecrypt create NAME SOURCE"),
        ("create n s --type luks", ConfigError, "wanted: --type plain"),
        ("reencrypt x", UnsupportedError, "reencrypt: not supported"),
        ("open", ConfigError, "got 0 arguments; wanted: fusecrypt open"),
        ("close", ConfigError, "got 0 arguments"),
        ("close a b", ConfigError, "got 2 arguments"),
        ("close a --cipher x", ConfigError, "--cipher: not an option of close"),
        ("luksDump x --type plain", ConfigError, "--type: got 'plain'; wanted: luks,"),
        ("luksUUID x --type plain", ConfigError, "--type: got 'plain'; wanted: luks,"),
        ("plainOpen --type luks x y", ConfigError, "wanted: --type plain"),
        ("luksOpen --type plain x y", ConfigError, "wanted: --type luks"),
        ("open --type tcrypt x y", UnsupportedError, "--type tcrypt: not supported"),
        ("open --type ext4 x y", ConfigError, "--type: got 'ext4'"),
        ("open --cipher aes x y", ConfigError, "--cipher: only for --type plain"),
        ("open --type plain --header h x y", ConfigError, "--header: not for --type plain"),
        ("open --type plain -c aes-xts-plain64 x y", ConfigError, "defaults differ"),
        ("open --size 5 onlyname", ConfigError, "the crypttab line of onlyname decides"),
        ("open x a/b", ConfigError, "volume name"),
        ("crypttab list", ConfigError, "wanted: fusecrypt crypttab check"),
    ],
)
def test_refusals(line: str, error: type[MapperError], message: str, tmp_path: object) -> None:
    with pytest.raises(error, match=message):
        run(parse(f"{line} --runtime-dir {tmp_path}"), Output())


def test_every_option_of_an_action_is_described() -> None:
    for name, command in COMMANDS.items():
        vocabulary = VOCABULARIES.get(name.partition(" ")[0], CRYPTSETUP)
        assert command.all_options <= vocabulary.options.keys()


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_action_has_help_and_loads(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(parse(f"{name} --help"), Output()) == 0
    assert f"Usage: fusecrypt {name}" in capsys.readouterr().out
    assert callable(COMMANDS[name].load())


@pytest.mark.parametrize("verb", ["", *sorted({n.partition(" ")[0] for n in COMMANDS}), *COMMANDS])
def test_help_fits_into_80_columns(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(parse(f"{verb} --help"), Output()) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) < 80


@pytest.mark.parametrize(
    ("verb", "text"),
    [
        ("luksDump", "--volume-key-file FILE With --dump-volume-key: write the volume key to"),
        ("luksFormat", "--volume-key-file FILE Make a volume with the volume key in"),
        ("open", "--volume-key-file FILE Use the volume key in"),
        ("luksFormat", "--type TYPE luks, luks1 or luks2 (default: luks2)"),
        ("open", "--type TYPE luks, luks1, luks2, plain or loopaes (default: luks)"),
        ("luksDump", "--type TYPE luks, luks1 or luks2 "),
        ("open", f"may be typed (default: {DEFAULT_TRIES})"),
        ("luksFormat", f"may take here (default: {PbkdfParams().milliseconds})"),
        ("luksAddKey", f"or pbkdf2 (default: {PbkdfParams().type}; luks1: pbkdf2)"),
        ("luksFormat", f"Cipher (default: {FormatParams().cipher})"),
        ("luksFormat", f"digest and AF (default: {PbkdfParams().hash_name})"),
        ("luksFormat", f"volume key (default: {FormatParams().key_size * 8} for XTS, else 256)"),
        ("adapter create", f"(default: {MODE_CCA})"),
        ("zkey generate", "128, 192 or 256 (default: 256)"),
        ("zkey generate", f"(default: {KeyType.CCA_AESDATA})"),
    ],
)
def test_help_says_what_an_option_does_to_the_action_and_its_default(
    verb: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(parse(f"{verb} --help"), Output()) == 0
    assert text in " ".join(capsys.readouterr().out.split())


def test_help_of_one_action_only_is_for_actions_that_take_the_option() -> None:
    for vocabulary in (CRYPTSETUP, *VOCABULARIES.values()):
        for name, option in vocabulary.options.items():
            for verb in option.help_of:
                assert name in COMMANDS[verb].all_options, (name, verb)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("adapter", "adapter create | adapter add | adapter leave-imprint | adapter list | …"),
        ("adapter bakcup", "adapter backup | …"),
        ("adapter master-key genrate", "adapter master-key generate | …"),
    ],
)
def test_a_wrong_word_of_a_group_names_what_is_close(line: str, wanted: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run(parse(line), Output())
    assert str(caught.value).endswith(
        f": wanted: fusecrypt {wanted}; fusecrypt {line.split()[0]} --help says more"
    )


@pytest.mark.parametrize("name", [n for n, c in COMMANDS.items() if "usage" in c.all_options])
def test_every_action_shows_its_options_briefly(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(parse(f"{name} --usage"), Output()) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) < 80
    words = " ".join(shown.split())
    assert words.startswith("Usage: fusecrypt [")
    assert words.endswith(COMMANDS[name].usage)
    for option in COMMANDS[name].all_options:
        assert f"--{option}]" in words or f"--{option}=" in words or f"--{option}[=" in words


def test_a_command_line_can_be_checked_without_being_carried_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = f"--runtime-dir {tmp_path}/none --test-args"
    assert run(parse(f"open nowhere name {place}"), Output()) == 0
    assert capsys.readouterr().out == "No action taken: --test-args.\n"
    for line, message in (("open", "got 0 arguments"), ("close a -S 1", "not an option of close")):
        with pytest.raises(ConfigError, match=message):
            run(parse(f"{line} {place}"), Output())


def test_json_modes() -> None:
    for text, mode in (("--json", "short"), ("-j", "short"), ("--json=pretty", "pretty"),
                       ("--json=off", "off"), ("", "off")):  # fmt: skip
        assert make_output(parse(f"list {text}")).json_mode == mode
    with pytest.raises(ConfigError, match="--json: got"):
        make_output(parse("list --json=xml"))


@pytest.mark.parametrize(
    "line",
    [
        "zkey generate k -xk 256 -K CCA-AESDATA -c key",
        "--runtime-dir=r zkey gen k --xts --keyb=256 --key-t CCA-AESDATA --clear key",
        "zkey GENER -x -k256 -KCCA-AESDATA -c=key k",
    ],
)
def test_zkeys_options_are_its_own_and_may_be_cut_short(line: str) -> None:
    args = parse(line)
    assert args.verb == "zkey"
    assert args.options == {
        "xts": "", "keybits": "256", "key-type": "CCA-AESDATA", "clearkey": "key",
        **({"runtime-dir": "r"} if line.startswith("--") else {}),
    }  # fmt: skip
    assert _resolve_group(args).verb == "zkey generate"


@pytest.mark.parametrize(
    ("line", "error", "message"),
    [
        ("zkey", ConfigError, "wanted: fusecrypt zkey generate"),
        ("zkey kms list", UnsupportedError, "zkey kms: not supported"),
        ("zkey integritys", UnsupportedError, "zkey integritysetup: not supported"),
        ("zkey dance", ConfigError, "zkey dance: wanted: fusecrypt zkey"),
        ("zkey list --key-file x", ConfigError, "--key-file: not an option of zkey list"),
        ("zkey gen -N x -M", ConfigError, "--kms-bound: not an option of zkey generate"),
        ("zkey gen x --volume", ConfigError, "--volume: unknown option"),
        ("zkey list -x", ConfigError, "--xts: not an option of zkey list"),
        ("zkey generate", ConfigError, "wanted: --name, or the file name"),
        ("zkey gen f -N n", ConfigError, "--name: only for a key of the repository"),
        ("zkey gen f -K AES", ConfigError, "--key-type: got 'AES'"),
        ("zkey gen f -K pvsecret-aes", UnsupportedError, "--key-type PVSECRET-AES: not supported"),
        ("zkey gen -N n --no-apqn-check", ConfigError, "--no-apqn-check: only with --apqns"),
        ("zkey gen -N n -a 3", ConfigError, "APQN '3'"),
        ("zkey gen -N n -l v", ConfigError, "volume 'v': wanted PATH:DMNAME"),
        ("zkey validate f -N n", ConfigError, "--name: only for keys of the repository"),
        ("lszcrypt -b -d", ConfigError, "wanted: one of"),
        ("chzcrypt --poll-timeout 3", UnsupportedError, "--poll-timeout: not supported"),
        ("chzcrypt -q 3", UnsupportedError, "-q: not supported"),
        ("chzcrypt 3.39", ConfigError, "one of --enable, --disable"),
        ("chzcrypt -e -d 3.39", ConfigError, "one of --enable, --disable"),
        ("chzcrypt -e", ConfigError, "wanted: --all, or devices"),
        ("chzcrypt -e -a 3.39", ConfigError, "wanted: --all, or devices"),
        ("chzcrypt --config-off 3.39", ConfigError, "wanted: a CARD"),
        ("chzcrypt --se-bind 05", ConfigError, "APQN '05'"),
        ("chzcrypt --se-bind -a", ConfigError, "--se-bind: wanted: one CARD.DOMAIN"),
        ("chzcrypt --se-bind -e 5.11", ConfigError, "wanted: one of"),
        ("chzcrypt --se-unbind 5.11 5.12", ConfigError, "--se-unbind: wanted: one CARD.DOMAIN"),
        ("chzcrypt --se-associate first 5.11", ConfigError, "--se-associate: got 'first'"),
        ("pvsecret", ConfigError, "pvsecret: wanted: fusecrypt pvsecret create association"),
        ("pvsecret create", ConfigError, "wanted: fusecrypt pvsecret create association"),
        ("pvsecret create retrievable n", UnsupportedError, "no secret is given back"),
        ("pvsecret retrieve n", UnsupportedError, "pvsecret retrieve: not supported"),
        ("pvsecret add f -k host.crt", UnsupportedError, "-k: not supported: a request is for"),
        ("pvsecret create association n", ConfigError, "--output: wanted: a file"),
        ("adapter control-points 5.11 --set ALG_RSA", UnsupportedError, "XCP_CPB_ALG_RSA"),
        ("adapter control-points 5.11 --clear X", ConfigError, "control point 'X': unknown"),
        ("adapter master-key", ConfigError, "adapter master-key load"),
        ("adapter master-key x", ConfigError, "adapter master-key load"),
        ("adapter master-key load 3.39 f", ConfigError, "--part: wanted: first, middle, last"),
        ("adapter master-key load 3.39 f --part 1", ConfigError, "--part: got '1'"),
        ("adapter master-key clone 3.39 4.1 --register x", ConfigError, "--register: got 'x'"),
        ("adapter create 3.39 --card-type CEX9", ConfigError, "--card-type: got 'CEX9'"),
        ("adapter", ConfigError, "wanted: fusecrypt adapter create"),
        ("adapter add 3", ConfigError, "wanted CARD.DOMAIN"),
        ("adapter leave-imprint 3", ConfigError, "wanted CARD.DOMAIN"),
        ("adapter create 3.39 --mode x", ConfigError, "--mode: got 'x'"),
        ("adapter create 3", ConfigError, "wanted CARD.DOMAIN"),
    ],
)
def test_refusals_before_anybody_is_asked(
    line: str, error: type[MapperError], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        run(parse(f"--runtime-dir {tmp_path}/none {line}"), Output())
    assert not (tmp_path / "none").exists()


@given(st.lists(st.text(max_size=12) | st.sampled_from([f"--{n}" for n in OPTIONS])))
def test_any_words_parse_or_are_refused(words: list[str]) -> None:
    with contextlib.suppress(MapperError):
        args = parse_arguments(words)
        for name in args.options:
            for take in (args.number, args.size):
                with contextlib.suppress(ConfigError):
                    take(name)


def test_help_is_asked_for_in_any_way(capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for words in (["--help"], ["help"], ["-h"], ["luksFormat", "--help"], ["help", "luksFormat"]):
        assert run(parse_arguments(words), Output()) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1] == shown[2] != shown[3]
    assert shown[3] == shown[4]
