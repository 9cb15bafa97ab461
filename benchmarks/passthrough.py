"""fusecryptd without a cipher: plain volumes become LINEAR segments, all else is as ever.

What the encrypting daemon loses against this one is what encryption costs.

Usage: as fusecryptd.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from fusecrypt.daemon.__main__ import main
from fusecrypt.dmcrypt import open_volume
from fusecrypt.dmcrypt.engine.messages import TargetKind

if TYPE_CHECKING:
    from typing import Any

    from fusecrypt.dmcrypt.open_volume import OpenedVolume

_open_plain = open_volume.open_plain


def open_linear(*arguments: Any, **options: Any) -> OpenedVolume:  # noqa: ANN401 (passed on)
    """A plain volume that is opened as always, its cipher then left out."""
    opened = _open_plain(*arguments, **options)
    segments = tuple(
        replace(segment, target=TargetKind.LINEAR, cipher="", key=None)
        for segment in opened.table.segments
    )
    return replace(opened, table=replace(opened.table, segments=segments))


if __name__ == "__main__":
    open_volume.open_plain = open_linear
    sys.exit(main())
