"""sd_notify."""

import socket

from fusecrypt.daemon.notify import notify


def test_assignments_are_lines_of_one_datagram(monkeypatch, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notify("READY=1", "STATUS=two\nlines")
        assert manager.recv(100) == b"READY=1\nSTATUS=two lines"


def test_abstract_sockets_are_reached(monkeypatch):
    name = "fusecrypt-test-notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        notify("STOPPING=1")
        assert manager.recv(100) == b"STOPPING=1"


def test_nobody_asked(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", "relative")
    notify("READY=1")


def test_a_manager_that_is_gone_is_no_failure(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notify("READY=1")
    assert "does not listen" in caplog.text
