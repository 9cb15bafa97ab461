"""What the methods take and return: packed and parsed alike, and everything checked."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusecrypt.daemon.control.answers import (
    Arena,
    EntryState,
    Info,
    KeyStatus,
    Listing,
    SessionAnswer,
    Volume,
    VolumeStats,
)
from fusecrypt.daemon.control.fields import ParameterError, PassedFds
from fusecrypt.daemon.control.messages import (
    KeyInput,
    OpenEntryRequest,
    OpenRequest,
    PassedFile,
    PlainOptions,
    VolumeKeyInput,
)
from fusecrypt.daemon.control.volume_requests import (
    CloseRequest,
    RefreshRequest,
    ResizeRequest,
    ResumeRequest,
    StatusRequest,
    SuspendRequest,
)
from fusecrypt.keystore.errors import ConfigError, MapperError

LUKS = OpenRequest(
    name="vol",
    type="luks2",
    source=PassedFile(10, "/img"),
    header=PassedFile(11, "/hdr"),
    key=KeyInput(12, "all", keyfile=True, offset=1, size=2),
    key_slot=0,
    read_only=True,
)
PLAIN = OpenRequest(
    name="vol",
    type="plain",
    source=PassedFile(10, "/img"),
    key=KeyInput(11, "line", keyfile=False),
    plain=PlainOptions("aes-xts-plain64", 512, "sha256", 8, 16, 24, 4096, True, 20),
)
WITH_KEY = OpenRequest(
    name="vol",
    type="luks",
    source=PassedFile(10, "/img"),
    volume_key=VolumeKeyInput(11, 64),
    lease=60,
    idle=0,
)
VOLUME = Volume(
    name="vol", state="active", path="/p", dm_path="/d", type="LUKS2", cipher="aes-xts-plain64",
    key_bits=512, key_location="engine", source="/img", sector_size=4096, offset=32768,
    iv_offset=0, size=1 << 40, read_only=False, in_use=2, deleted=True, uuid="u", keyslot=0,
    stats=VolumeStats(reads=5),
    key=KeyStatus("secure", "forgotten", "why", "CCA-AESDATA", "ab", "03.0039", 9, 2, 60, 7),
)  # fmt: skip


@pytest.mark.parametrize("request_", [LUKS, PLAIN, WITH_KEY], ids=["luks", "plain", "volume key"])
def test_an_open_request_comes_back(request_: OpenRequest) -> None:
    fds = PassedFds()
    parameters = request_.pack(fds)
    assert OpenRequest.parse(parameters, fds.fds) == request_


def test_the_small_requests_come_back() -> None:
    fds = PassedFds()
    entry = OpenEntryRequest("vol", KeyInput(5, "all", keyfile=False))
    assert OpenEntryRequest.parse(entry.pack(fds), fds.fds) == entry
    assert OpenEntryRequest.parse({"name": "vol"}, []) == OpenEntryRequest("vol")
    close = CloseRequest("vol", deferred=True)
    assert CloseRequest.parse(close.pack()) == close
    assert StatusRequest.parse(StatusRequest("vol").pack()) == StatusRequest("vol")
    suspend = SuspendRequest("vol", fail_io=True)
    assert SuspendRequest.parse(suspend.pack()) == suspend
    for size in (None, 4096):
        assert ResizeRequest.parse(ResizeRequest("vol", size).pack()) == ResizeRequest("vol", size)
    refresh = RefreshRequest("vol", allow_discards=True)
    assert RefreshRequest.parse(refresh.pack()) == refresh
    fds = PassedFds()
    resume = ResumeRequest("vol", PassedFile(7, "/img"), KeyInput(8, "all", keyfile=True), 3)
    assert ResumeRequest.parse(resume.pack(fds), [7, 8]) == resume
    assert fds.fds == [7, 8]


def test_answers_come_back() -> None:
    assert Volume.parse(json.loads(json.dumps(VOLUME.pack()))) == VOLUME
    listing = Listing((VOLUME,), (EntryState("a", "failed", "why"), EntryState("b", "open")))
    assert Listing.parse(json.loads(json.dumps(listing.pack()))) == listing
    info = Info("1", 1, 2, "/r", "/m", Arena("mlock", 5, 3), "seccomp", 4, 4, 128, "1.10", 0)
    assert Info.parse(info.pack()) == info
    session = SessionAnswer(("a", "b"), ("c",))
    assert SessionAnswer.parse(json.loads(json.dumps(session.pack()))) == session


@pytest.mark.parametrize(
    ("change", "parameter"),
    [
        ({"name": None}, "parameters.name"),
        ({"name": "a\0b"}, "parameters.name"),
        ({"type": "luks3"}, "parameters.type"),
        ({"lease": -1}, "parameters.lease"),
        ({"idle": 1 << 32}, "idle"),
        ({"source": "x"}, "parameters.source"),
        ({"source": {"fd": 9, "path": "/x"}}, "parameters.source.fd"),
        ({"source": {"fd": -1, "path": "/x"}}, "parameters.source.fd"),
        ({"source": {"fd": True, "path": "/x"}}, "parameters.source.fd"),
        ({"source": {"fd": 0}}, "parameters.source.path"),
        ({"read_only": "yes"}, "parameters.read_only"),
        ({"key_slot": -1}, "parameters.key_slot"),
        ({"key": {"fd": 0, "mode": "some"}}, "parameters.key.mode"),
        ({"key": None}, "key"),
        ({"volume_key": {"fd": 0}}, "key"),
        ({"type": "plain"}, "plain"),
        ({"plain": {"cipher": "a", "key_bits": 8}}, "plain"),
        ({"plain": {"cipher": "a", "key_bits": "8"}}, "parameters.plain.key_bits"),
    ],
)
def test_each_bad_parameter_is_named(change: dict[str, object], parameter: str) -> None:
    fds = PassedFds()
    parameters = LUKS.pack(fds) | change
    with pytest.raises(ParameterError) as caught:
        OpenRequest.parse(parameters, fds.fds)
    assert caught.value.parameter == parameter


def test_a_bad_volume_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="volume name"):
        StatusRequest.parse({"name": "../x"})


def test_no_more_descriptors_than_a_message_may_carry() -> None:
    fds = PassedFds()
    assert [fds.add(fd) for fd in range(10, 18)] == list(range(8))
    with pytest.raises(ParameterError):
        fds.add(18)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
FIELDS = st.sampled_from([*LUKS.pack(PassedFds()), "plain", "volume_key", "deferred", "volumes"])


@given(st.dictionaries(FIELDS, JSON))
def test_hostile_parameters_are_refused_or_taken(parameters: dict[str, object]) -> None:
    fds = PassedFds()
    for content in (parameters, LUKS.pack(fds) | parameters):
        for parse in (
            lambda c: OpenRequest.parse(c, fds.fds),
            lambda c: OpenEntryRequest.parse(c, fds.fds),
            lambda c: ResumeRequest.parse(c, fds.fds),
            CloseRequest.parse,
            SuspendRequest.parse,
            RefreshRequest.parse,
            ResizeRequest.parse,
            StatusRequest.parse,
            Volume.parse,
            Listing.parse,
            Info.parse,
        ):
            with contextlib.suppress(MapperError):
                parse(content)
