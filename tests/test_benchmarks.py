"""Benchmarks run in their short form, on the structures they name, and notice wrong numbers."""

import re
import subprocess
import sys
from ast import literal_eval
from inspect import getsource
from pathlib import Path

import numpy as np
import pytest
import torch

from ase_hybridham.overlap import assembly
from tests.benchmarks import inference, overlap_speed, stage2_speed, whole_job
from tests.benchmarks.bilayers import twisted_bilayer
from tests.benchmarks.costs import tensor_memory
from tests.benchmarks.stage1_speed import QUICK, Report, compare, contestants, main


def test_quick_run_prints_every_section(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick"]) == 0
    printed = capfd.readouterr().out
    assert "FAIL" not in printed
    for words in ("H in float64", "forward: e3nn", "backward: e3nn", "GEMM", "HybridHamCalculator", "edge;"):
        assert words in printed


def test_a_wrong_network_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both, report = contestants(QUICK, tmp_path / "deephe3"), Report(quick=True)
    with torch.no_grad():
        both.model.cascade.stage1.node_updates[0].convolution.hopping.weights[0][0] *= 1.01
    compare(both, report)
    assert report.failed
    assert "FAIL" in capsys.readouterr().out


def test_quick_run_of_stage2_prints_every_section(capfd: pytest.CaptureFixture[str]) -> None:
    assert stage2_speed.main(["--quick"]) == 0
    printed = capfd.readouterr().out
    assert "FAIL" not in printed
    for words in ("float64", "backward, Eq. 3-5", "stage 1, once", "frame global", "turning", "GEMM"):
        assert words in printed


def test_whole_job_tells_its_parts(capfd: pytest.CaptureFixture[str]) -> None:
    assert whole_job.main(["--npoints", "2", "--states", "20"]) == 0
    printed = capfd.readouterr().out
    for words in ("28 atoms, 364 orbitals", "\nH  ", "H(k) and S(k)", "states, with", "0 states missing"):
        assert words in printed


def test_another_softmax_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    cascade = stage2_speed.network(stage2_speed.QUICK)
    good, report = torch.softmax, Report(quick=True)
    monkeypatch.setattr(torch, "softmax", lambda scores, dim: good(1.01 * scores, dim))
    stage2_speed.compare(cascade, stage2_speed.pairs_of(1, stage2_speed.QUICK), report)
    assert report.failed
    assert capsys.readouterr().out.count("FAIL") == 2


def test_quick_run_of_overlaps_prints_every_section(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyscf.gto")
    assert overlap_speed.main(["--quick"]) == 0
    printed = capfd.readouterr().out
    for words in ("faster than PySCF", "faster than the loop", "76 atoms, 6168 pairs", "tables from disk"):
        assert words in printed


def test_quick_run_of_inference_tells_time_and_memory(capfd: pytest.CaptureFixture[str]) -> None:
    assert inference.main(["--quick"]) == 0
    rows = [line.split() for line in capfd.readouterr().out.splitlines() if re.match(r" +(28|76) ", line)]
    assert [row[:2] for row in rows] == [["28", "2268"], ["76", "6168"]]
    for _, _, *figures in rows:
        in_parts, rest, per_atom, relative, memory, told = map(float, figures)
        assert min(in_parts, per_atom, memory, told) > 0
        assert rest >= 0
        assert 0.3 < relative < 3


def test_a_wrong_overlap_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyscf.gto")
    good = assembly.gaunt
    monkeypatch.setattr(assembly, "gaunt", lambda *degrees: good(*degrees) * (1 + 1e-6 * (degrees == (1, 2, 3))))
    report = Report(quick=True)
    overlap_speed.race(overlap_speed.QUICK, report)
    assert report.failed
    assert capsys.readouterr().out.count("FAIL") == 2


@pytest.mark.parametrize("i", range(1, 4))
def test_bilayer_is_two_turned_layers_of_graphene(i: int) -> None:
    atoms = twisted_bilayer(i)
    n = 3 * i * i + 3 * i + 1
    assert len(atoms) == 4 * n
    bonds = []
    for z in np.unique(atoms.positions[:, 2].round(6)):
        layer = atoms[np.isclose(atoms.positions[:, 2], z)]
        assert len(layer) == 2 * n
        vectors = layer.get_distances(0, range(len(layer)), mic=True, vector=True)
        nearest = vectors[np.isclose(np.linalg.norm(vectors, axis=1), 2.46 / np.sqrt(3))]
        assert len(nearest) == 3
        bonds.append(nearest[:, :2] @ (1, 1j))
    turn = np.angle((bonds[1][0] / bonds[0][0]) ** 6) / 6  # modulo 60 degrees: bonds of either sublattice
    twist = np.arccos(1 - 1 / (2 * n))
    assert np.isclose(abs(turn), min(twist, np.pi / 3 - twist))


def largest_moment() -> None:
    first = torch.ones(2**24)  # 64 MiB, more than glibc keeps when it is given back
    second = first + 1  # 128
    del first, second
    torch.ones(2**24)


def test_memory_is_that_of_the_largest_moment() -> None:
    assert tensor_memory(largest_moment) == pytest.approx(128, abs=1)
    # in a process of its own, as the benchmarks do: what ran before leaves holes in the heap, which count
    lines = (
        "import torch",
        getsource(largest_moment),
        "largest_moment()",
        "from tests.benchmarks.costs import resident_memory",
    )
    code = "\n".join([*lines, "print(resident_memory(largest_moment))"])
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True, text=True)
    if (found := literal_eval(done.stdout)) is not None:
        assert found[1] == pytest.approx(128, abs=4)
        assert found[0] > found[1]
