"""The LUKS2 format: reading, writing, formatting, showing."""

from __future__ import annotations

from .recovery import Luks2Header, NotLuksError, read_header

__all__ = ["Luks2Header", "NotLuksError", "read_header"]
