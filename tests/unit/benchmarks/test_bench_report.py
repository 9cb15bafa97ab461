"""The arithmetic of the benchmark's report, on made-up samples."""

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def _benchmarks_on_the_path():
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture
def comparison():
    from report import Comparison
    from workloads import WORKLOADS, Sample

    made = Comparison(WORKLOADS, ["fusecrypt 512", "pass-through", "qemu luks", "qemu raw", "gone"])
    made.missing["gone"] = "not installed: gone"
    speeds = {"fusecrypt 512": 40.0, "pass-through": 44.0, "qemu luks": 10.0, "qemu raw": 20.0}
    for name, speed in speeds.items():
        for workload in WORKLOADS:
            # The median counts, not the mean: one run in three went wrong.
            for factor in (1.0, 1.0, 100.0):
                made.add(name, workload, Sample(speed * factor * 1e6, speed * factor, 9.0, 50.0))
    return made


def test_medians_ratios_and_verdicts(comparison):
    from report import verdicts

    workload = comparison.workloads[0]
    assert comparison.median("fusecrypt 512", workload) == 40.0
    assert comparison.median("gone", workload) is None
    assert comparison.ratio("fusecrypt 512", 10.0, workload) == 4.0
    judged = verdicts(comparison)
    assert judged
    assert all(verdict.is_kept for verdict in judged)
    assert any("CPU" in verdict.promise for verdict in judged)


def test_a_missed_promise_is_said_and_a_missing_peer_too(comparison):
    from report import as_text
    from workloads import Sample

    workload = next(w for w in comparison.workloads if w.name == "1 MiB read direct")
    comparison.samples["fusecrypt 512", workload.name] = [Sample(15e6, 15.0, 9.0, 1.0)]
    text = as_text(comparison)
    assert "missed 4 x qemu luks: fusecrypt 512, 1 MiB read direct: got 1.50" in text
    assert "not measured: gone: not installed: gone" in text


def test_the_document_has_every_workload_and_the_chart(comparison):
    from report import as_markdown

    text = as_markdown(comparison, {"cpus": 2, "cpu": "x", "kernel": "6", "load": 0.1}, "c.svg")
    assert "![Throughput](c.svg)" in text
    for workload in comparison.workloads:
        assert f"| {workload.name} |" in text


def test_json_keeps_every_run(comparison):
    from report import as_json

    value = as_json(comparison, {"cpus": 2})
    first = value["workloads"][0]["contenders"]["qemu luks"]
    assert first["runs"] == [10.0, 10.0, 1000.0]
    assert first["median"] == 10.0
    assert "gone" not in value["workloads"][0]["contenders"]


def test_the_chart_is_well_formed_and_has_a_bar_for_each_figure(comparison):
    from chart import svg

    root = ElementTree.fromstring(svg(comparison))
    bars = [r for r in root.iter("{http://www.w3.org/2000/svg}rect") if r.get("height") == "9"]
    assert len(bars) == 4 * len(comparison.workloads)


def test_every_workload_has_a_name_of_its_own_and_fio_arguments_without_file_creation(tmp_path):
    from workloads import WORKLOADS

    assert len({w.name for w in WORKLOADS}) == len(WORKLOADS) == 16
    for workload in WORKLOADS:
        words = workload.fio_arguments(tmp_path / "x", 1 << 20, 1.0)
        assert "--allow_file_create=0" in words
        assert ("--end_fsync=1" in words) == workload.is_write
