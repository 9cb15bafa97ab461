"""Print what pyproject.toml wants for development, one requirement a line."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
requirements = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
sys.stdout.write("\n".join(requirements) + "\n")
