"""Write the commands of pyproject.toml into a development environment's bin folder.

usage: console_scripts.py BIN
"""

import sys
import tomllib
from pathlib import Path

folder = Path(sys.argv[1]).resolve()
scripts = tomllib.loads(Path("pyproject.toml").read_text())["project"]["scripts"]
for name, target in scripts.items():
    module, function = target.split(":")
    command = folder / name
    command.write_text(
        f"#!{folder / 'python3'}\n"
        "import sys\n\n"
        f"from {module} import {function}\n\n"
        f"sys.exit({function}())\n"
    )
    command.chmod(0o755)
