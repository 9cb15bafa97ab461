"""The name space, without a mount."""

import itertools

import pytest

from fusecrypt.daemon.tree import ROOT, Device, Directory, Symlink, Times, Tree, encode_label


@pytest.fixture
def tree():
    return Tree(1000, 100, now=itertools.count(1).__next__)


def make_device(tree, name, minor):
    device = Device(tree.get_node_number(), 0o100600, 1000, 100, Times(1, 1, 1), size=4096)
    tree.add_device(device, name, minor)
    return device


def names(tree, number, after=0):
    return [entry.name for entry in tree.list_entries(tree.find(number), after)]


def number_of(tree, *path):
    number = ROOT
    for name in path:
        number = tree.find_child(number, name).number
    return number


def test_a_new_tree_is_laid_out_as_dev(tree):
    assert names(tree, ROOT) == [b".", b"..", b"mapper", b"disk", b"pkey"]
    assert names(tree, number_of(tree, b"disk")) == [b".", b"..", b"by-uuid", b"by-label"]
    root = tree.find(ROOT)
    assert isinstance(root, Directory)
    assert root.links == 5


def test_a_device_has_two_names_and_one_number(tree):
    device = make_device(tree, "v", 3)
    assert tree.find_child(number_of(tree, b"mapper"), b"v") is device
    assert tree.find_child(ROOT, b"dm-3") is device
    assert tree.find(device.number) is device
    assert device.links == 2
    gone = tree.remove_device(device, "v", 3)
    assert gone == [(number_of(tree, b"mapper"), b"v"), (ROOT, b"dm-3")]
    assert tree.find(device.number) is None
    assert tree.find_child(ROOT, b"dm-3") is None


def test_numbers_are_never_used_twice(tree):
    first = make_device(tree, "v", 0)
    tree.remove_device(first, "v", 0)
    second = make_device(tree, "v", 0)
    assert second.number > first.number


def test_names_that_come_and_go_do_not_move_the_others(tree):
    devices = [make_device(tree, f"v{n}", n) for n in range(4)]
    mapper = number_of(tree, b"mapper")
    entries = list(tree.list_entries(tree.find(mapper), 0))
    seen = entries[3]  # ".", "..", "v0", "v1"
    tree.remove_device(devices[0], "v0", 0)
    tree.remove_device(devices[2], "v2", 2)
    make_device(tree, "v0", 0)
    assert names(tree, mapper, seen.cookie) == [b"v3", b"v0"]


def test_dots_lead_where_they_should(tree):
    disk = number_of(tree, b"disk")
    assert tree.find_child(disk, b".").number == disk
    assert tree.find_child(disk, b"..").number == ROOT
    assert tree.find_child(ROOT, b"..").number == ROOT
    device = make_device(tree, "v", 0)
    assert tree.find_child(device.number, b"x") is None


def test_links_by_uuid_and_label(tree):
    make_device(tree, "v", 7)
    made = tree.add_disk_links(7, uuid="1-2", label="a b/c")
    link = tree.find_child(number_of(tree, b"disk", b"by-label"), rb"a\x20b\x2fc")
    assert isinstance(link, Symlink)
    assert link.target == b"../../dm-7"
    assert link.size == len(link.target)
    # The first one has the name; no link without a name.
    assert tree.add_disk_links(8, uuid="1-2", label="") == []
    tree.remove_links(made)
    assert names(tree, number_of(tree, b"disk", b"by-uuid")) == [b".", b".."]
    assert len(tree.add_disk_links(8, uuid="1-2", label="")) == 1


def test_changes_show_in_the_directorys_times(tree):
    mapper = tree.find(number_of(tree, b"mapper"))
    before = mapper.times.mtime_ns
    device = make_device(tree, "v", 0)
    added = mapper.times.mtime_ns
    tree.remove_device(device, "v", 0)
    assert before < added < mapper.times.mtime_ns


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("plain-1.2:3=@_#+", "plain-1.2:3=@_#+"),
        ("a b", r"a\x20b"),
        ("../x", r"..\x2fx"),
        ("back\\slash", r"back\x5cslash"),
        ("Müller", "Müller"),
        ("\n", r"\x0a"),
    ],
)
def test_labels_are_spelt_as_udev_does(label, name):
    assert encode_label(label) == name
