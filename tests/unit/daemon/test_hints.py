"""What messages tell people to type: with fusecrypt in front, or there is no such command."""

import ast
import re
from pathlib import Path

from fusecrypt import daemon, dmcrypt, keystore

_ACTION = re.compile(r"'(?:adapter|audit|master-key|pvsecret|zkey|zkey-cryptsetup) [a-z]")


def test_commands_in_messages_can_be_typed():
    packages = (daemon, dmcrypt, keystore)
    files = [file for p in packages for path in p.__path__ for file in Path(path).rglob("*.py")]
    assert len(files) > 100
    wrong = [
        f"{path}:{node.lineno}: {node.value}"
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and _ACTION.search(node.value)
    ]
    assert wrong == []
