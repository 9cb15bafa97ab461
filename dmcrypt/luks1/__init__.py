"""LUKS1: header and key material at the start of the device, data behind."""

from __future__ import annotations

from .header import Luks1Header, read_header

__all__ = ["Luks1Header", "read_header"]
