"""What `fusecrypt list` and `status` make of the daemon's answers."""

import errno

from fusecrypt.daemon.cli.status import format_io_errors, format_listing
from fusecrypt.daemon.control.answers import EntryState, Listing, VolumeStats


def test_why_entries_failed_stands_below_the_table() -> None:
    states = (EntryState("late", "closed"), EntryState("v", "failed", "x" * 300))
    heading, late, failed, error = format_listing(Listing((), states))
    assert heading.split()[-1] == "SOURCE"
    assert late.split() == ["late", "closed", *"-----"]
    assert failed.split() == ["v", "failed", *"-----"]
    assert error == f"v: {'x' * 300}"


def test_nothing_to_list_is_no_line() -> None:
    assert format_listing(Listing((), ())) == []


def test_the_last_io_error_is_named() -> None:
    assert format_io_errors(VolumeStats()) == []
    stats = VolumeStats(errors=2, last_error=errno.ENOSPC)
    assert format_io_errors(stats) == ["  errors:  2, the last: No space left on device"]
