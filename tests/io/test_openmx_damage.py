"""Damaged .scfout files: refused in one line that names the file, or read as what they were."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from ase_hybridham.io import read_openmx
from tests.io.mutations import assert_survives, mutants
from tests.io.scfout import sections
from tests.io.structures import caught

SAMPLES = ["H2O_across_boundary", "O2_triplet_collinear_v38", "O2_spin_orbit", "graphene_moved"]
N_RAW, N_COMPRESSED = 90, 30  # of each sample


def content_of(golden: Path, sample: str) -> bytes:
    return gzip.decompress((golden / "openmx" / sample / "openmx.scfout.gz").read_bytes())


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize("compressed", [False, True])
def test_a_damaged_file_is_refused_or_read_as_it_was(golden, tmp_path, sample, compressed):
    content = content_of(golden, sample)
    original = read_openmx(golden / "openmx" / sample / "openmx.scfout.gz")
    whole = gzip.compress(content) if compressed else content
    head = 64 if compressed else sections(content)["operators"][0]
    path = tmp_path / ("x.scfout.gz" if compressed else "x.scfout")
    refused = 0
    for damage, damaged in mutants(whole, N_COMPRESSED if compressed else N_RAW, head=head):
        path.write_bytes(damaged)
        refused += assert_survives(read_openmx, f"{sample}: {damage}", path, original, caught)
    assert refused > (N_COMPRESSED if compressed else N_RAW) // 4


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_damaged_text_or_result_is_refused_or_read_as_it_was(golden, tmp_path, sample):
    content = content_of(golden, sample)
    original = read_openmx(golden / "openmx" / sample / "openmx.scfout.gz")
    start = sections(content)["solver"][0]
    path = tmp_path / "x.scfout"
    for damage, damaged in mutants(content[start:], 60, seed=1):
        path.write_bytes(content[:start] + damaged)
        assert_survives(read_openmx, f"{sample}: {damage}", path, original, caught)


@pytest.mark.parametrize("number", [2**30, 2**31 - 1, -1])
def test_no_count_of_the_header_is_believed(golden, tmp_path, number):
    content = content_of(golden, "H2O_across_boundary")
    original = read_openmx(golden / "openmx/H2O_across_boundary/openmx.scfout.gz")
    path = tmp_path / "x.scfout"
    parts = sections(content)
    for part in ("header", "counts", "neighbors", "lines"):
        start, end, _ = parts[part]
        for at in range(start, end, 4):
            path.write_bytes(content[:at] + np.int32(number).tobytes() + content[at + 4 :])
            assert assert_survives(read_openmx, f"{part} at {at}", path, original, caught)
            path.write_bytes(gzip.compress(path.read_bytes(), 1))
            assert assert_survives(read_openmx, f"compressed, {part} at {at}", path, original, caught)
