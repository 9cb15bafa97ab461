"""Opening and closing, with an engine that only takes notes: no mount, no key."""

import os
import threading
from dataclasses import dataclass

import pytest
import trio
import trio.testing

from fusecrypt.daemon.backing import get_data_area
from fusecrypt.daemon.registry import Description, Ownership, Registry
from fusecrypt.daemon.tree import ROOT, Tree
from fusecrypt.keystore.errors import BusyError, EngineError, NotFoundError

SIZE = 1 << 20


class NotedEngine:
    """What the registry needs of an engine; remembers the calls."""

    def __init__(self):
        self.calls = []
        self.flush_fails = False
        self.hang = None

    def add_device(self, device, fds):
        self.calls.append(("add", device.node))
        assert len(fds) == 1
        return 0

    def remove_device(self, node):
        self.calls.append(("remove", node))
        if self.hang is not None:
            self.hang.wait()
        if self.flush_fails:
            raise EngineError("flushing the backing store: Input/output error")

    def invalidate(self, node, entries):
        self.calls.append(("invalidate", node, tuple(entries)))


@dataclass
class Spec:
    node: int
    size: int = SIZE
    sector_size: int = 512
    read_only: bool = False
    discards: bool = False
    segments: tuple = ()


@dataclass
class Table:
    read_only: bool = False

    def to_device(self, node):
        return Spec(node, read_only=self.read_only)


@pytest.fixture
def engine():
    return NotedEngine()


@pytest.fixture
def registry(engine):
    tree = Tree(0, 0)
    return Registry(engine, tree, Ownership(0, 6, 0o660))


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(bytes(SIZE))
    fd = os.open(path, os.O_RDWR)
    yield fd
    os.close(fd)


async def open_volume(registry, name, fd, *, read_only=False, uuid=None, start=0):
    with registry.reserve(name):
        area = get_data_area(fd, start, SIZE, is_read_only=read_only)
        registry.claim(name, area, "image")
        description = Description("LUKS2", "aes-xts-plain64", 512, 0, 0, "image", uuid=uuid)
        return await registry.add(name, Table(read_only), [fd], area, description)


def mapper_names(registry):
    mapper = registry.tree.find_child(ROOT, b"mapper")
    return [e.name.decode() for e in registry.tree.list_entries(mapper, 2)]


async def test_open_and_close(registry, engine, image):
    volume = await open_volume(registry, "v", image)
    node = volume.device.number
    assert mapper_names(registry) == ["v"]
    assert volume.device.mode & 0o777 == 0o660
    await registry.close("v")
    assert mapper_names(registry) == []
    assert len(registry) == 0
    kinds = [call[:2] for call in engine.calls]
    # The key goes first, then what the kernel remembers.
    assert kinds == [("add", node), ("remove", node), ("invalidate", node)]
    assert (ROOT, b"dm-0") in engine.calls[-1][2]


async def test_read_only_devices_lose_their_write_bits(registry, image):
    volume = await open_volume(registry, "v", image, read_only=True)
    assert volume.device.mode & 0o777 == 0o440


async def test_a_name_is_there_once(registry, image):
    await open_volume(registry, "v", image, read_only=True)
    with (
        pytest.raises(BusyError, match="v: is open already; wanted: another name"),
        registry.reserve("v"),
    ):
        pass
    with (
        registry.reserve("w"),
        pytest.raises(BusyError, match="is being opened"),
        registry.reserve("w"),
    ):
        pass


async def test_one_writer_and_many_readers(registry, image):
    await open_volume(registry, "r1", image, read_only=True)
    await open_volume(registry, "r2", image, read_only=True)
    with pytest.raises(BusyError, match="as volume r1"):
        await open_volume(registry, "w", image)
    await registry.close("r1")
    await registry.close("r2")
    await open_volume(registry, "w", image)
    with pytest.raises(BusyError, match="as volume w"):
        await open_volume(registry, "r", image, read_only=True)


async def test_areas_that_do_not_overlap_are_no_conflict(registry, image):
    await open_volume(registry, "low", image)
    await open_volume(registry, "high", image, start=SIZE)


async def test_an_unknown_name_is_named(registry):
    with pytest.raises(NotFoundError, match="nothing: no such volume"):
        await registry.close("nothing")


async def test_a_release_in_time_lets_the_close_go_on(registry, image, autojump_clock):  # noqa: ARG001
    volume = await open_volume(registry, "v", image)
    volume.device.opens = 1

    async def release():
        await trio.sleep(1.5)
        volume.device.opens = 0
        registry.note_idle(volume.device)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(release)
        await registry.close("v")
    assert len(registry) == 0


async def test_a_volume_in_use_stays_as_it_was(registry, engine, image, autojump_clock):  # noqa: ARG001
    volume = await open_volume(registry, "v", image)
    volume.device.opens = 2
    with pytest.raises(BusyError, match="v: in use, 2 open handles"):
        await registry.close("v")
    assert not volume.device.is_closing
    assert mapper_names(registry) == ["v"]
    assert [call[0] for call in engine.calls] == ["add"]


async def test_no_new_handles_while_a_close_waits(registry, image, autojump_clock):  # noqa: ARG001
    volume = await open_volume(registry, "v", image)
    volume.device.opens = 1

    async def look():
        await trio.sleep(1)
        assert volume.device.is_closing
        with pytest.raises(BusyError, match="is being closed"):
            await registry.close("v")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        with pytest.raises(BusyError):
            await registry.close("v")


async def test_a_deferred_close_waits_for_the_last_handle(registry, image, nursery):
    nursery.start_soon(registry.close_deferred)
    volume = await open_volume(registry, "v", image)
    volume.device.opens = 1
    await registry.close("v", is_deferred=True)
    assert mapper_names(registry) == ["v"]
    volume.device.opens = 0
    registry.note_idle(volume.device)
    with trio.fail_after(5):
        while len(registry):
            await trio.testing.wait_all_tasks_blocked(0.01)


async def test_a_deferred_volume_can_be_closed_by_hand_meanwhile(registry, engine, image, nursery):
    nursery.start_soon(registry.close_deferred)
    volumes = [await open_volume(registry, name, image, read_only=True) for name in "ab"]
    for volume in volumes:
        volume.device.opens = 1
        await registry.close(volume.name, is_deferred=True)
    engine.hang = threading.Event()
    for volume in volumes:
        volume.device.opens = 0
        registry.note_idle(volume.device)
    await trio.testing.wait_all_tasks_blocked()
    # "a" hangs in the deferred close; "b" is closed by somebody else.
    nursery.start_soon(registry.close, "b")
    await trio.testing.wait_all_tasks_blocked()
    engine.hang.set()
    with trio.fail_after(5):
        while len(registry):
            await trio.testing.wait_all_tasks_blocked(0.01)
    assert [call[0] for call in engine.calls].count("remove") == 2


async def test_a_failed_flush_is_told_and_the_volume_is_gone(registry, engine, image):
    await open_volume(registry, "v", image)
    engine.flush_fails = True
    with pytest.raises(EngineError, match="Input/output error"):
        await registry.close("v")
    assert len(registry) == 0
    assert engine.calls[-1][0] == "invalidate"


async def test_the_end_does_not_wait_for_a_hanging_store(registry, engine, image, caplog):
    await open_volume(registry, "v", image)
    engine.hang = threading.Event()
    with trio.fail_after(5):
        assert await registry.close_all(trio.current_time() + 0.1) == ["v"]
    assert "v: not flushed" in caplog.text
    engine.hang.set()


async def test_the_end_closes_what_is_in_use_as_well(registry, image):
    for number in range(3):
        volume = await open_volume(registry, f"v{number}", image, read_only=True)
        volume.device.opens = number
    assert await registry.close_all(trio.current_time() + 5) == []
    assert len(registry) == 0


async def test_the_end_tells_what_could_not_be_flushed(registry, engine, image, caplog):
    for name in "ab":
        await open_volume(registry, name, image, read_only=True)
    engine.flush_fails = True
    assert sorted(await registry.close_all(trio.current_time() + 5)) == ["a", "b"]
    assert "a: flushing the backing store: Input/output error" in caplog.text


async def test_a_deleted_file_needs_no_flush(registry, engine, image, tmp_path, caplog):
    await open_volume(registry, "v", image)
    (tmp_path / "image").unlink()
    engine.flush_fails = True
    await registry.close("v")
    assert "image: deleted or replaced while open" in caplog.text


async def test_device_numbers_are_the_lowest_free_ones(registry, image):
    for name in "abc":
        await open_volume(registry, name, image, read_only=True)
    await registry.close("b")
    assert (await open_volume(registry, "d", image, read_only=True)).minor == 1


async def test_a_link_goes_to_the_next_volume_with_this_uuid(registry, image):
    await open_volume(registry, "a", image, read_only=True, uuid="u")
    second = await open_volume(registry, "b", image, read_only=True, uuid="u")
    await registry.close("a")
    disk = registry.tree.find_child(ROOT, b"disk")
    by_uuid = registry.tree.find_child(disk.number, b"by-uuid")
    link = registry.tree.find_child(by_uuid.number, b"u")
    assert link.target == f"../../dm-{second.minor}".encode()


async def test_a_deleted_image_is_told_once(registry, image, tmp_path, caplog):
    volume = await open_volume(registry, "v", image)
    assert not volume.backing.is_deleted()
    (tmp_path / "image").unlink()
    assert volume.backing.is_deleted()
    assert volume.backing.is_deleted()
    assert caplog.text.count("deleted or replaced") == 1
