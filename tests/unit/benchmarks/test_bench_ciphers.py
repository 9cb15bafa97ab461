import sys
from pathlib import Path

import pytest

from tests.unit.engine.crypto_library import lib, start

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture(scope="module")
def ciphers():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import ciphers

        yield ciphers
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_every_case_is_a_cipher_of_the_engine(ciphers):
    start()
    for case in ciphers.CASES:
        assert lib.cipher_check(case.spec.encode(), case.key_size) == 0, case


def test_the_worse_direction_counts_and_a_kindred_peer_promises_nothing(ciphers):
    same, kindred = ciphers.CASES[0], next(case for case in ciphers.CASES if case.note)
    slow = ciphers.Speed(same, 512, (950.0, 450.0), (1000.0, 500.0))
    assert (slow.ratio, slow.is_kept) == (0.9, True)
    missed = ciphers.Speed(same, 512, (880.0, 450.0), (1000.0, 500.0))
    assert missed.is_kept is False
    other = ciphers.Speed(kindred, 4096, (1.0, 1.0), (9.0, 9.0))
    assert other.is_kept is None
    table = ciphers.as_text([slow, missed, other]).splitlines()
    assert [line.split(" | ")[-1] for line in table[2:]] == [
        *("kept |", "MISSED |", f"peer: {kindred.note} |")
    ]
    assert [row["kept"] for row in ciphers.as_json([slow, missed, other])] == [True, False, None]


def test_the_program_is_built_and_measures(ciphers, tmp_path, monkeypatch):
    chosen = [ciphers.CASES[0], next(case for case in ciphers.CASES if "adiantum" in case.spec)]
    monkeypatch.setattr(ciphers, "CASES", chosen)
    speeds = ciphers.measure(tmp_path, milliseconds=20)
    assert [speed.sector_size for speed in speeds] == [512, 4096] * 2
    for speed in speeds:
        assert min(*speed.ours, *speed.peer) > 1
