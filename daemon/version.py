"""Which version this is."""

from __future__ import annotations

import importlib.metadata


def get_version() -> str:
    """The version of the installed package."""
    try:
        return importlib.metadata.version("fusecrypt")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"  # run from a source tree
