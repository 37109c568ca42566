"""H and S as matrices of pairs: complete, hermitian, real, normalized, and on the same pairs."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ase_hybridham.check.report import Finding, Verdict
from ase_hybridham.system import LCAOSystem, PairBlocks

__all__ = ["check_operators"]

# Asymmetry: OpenMX leaves 1e-8 eV in H and 2e-10 in S, float32 storage 4e-6 eV, grids of other programs 1e-4. Past
# the first limit bands move by what people plot, past the second something was assembled wrongly.
HERMITIAN_H = (1e-4, 1e-2)  # eV: warning, failed
HERMITIAN_S = (1e-6, 1e-3)
# S_aa: 1.0136 for Mo7.0 of OpenMX, 0.38 for orbitals of GPAW that its PAW corrections weaken
NORMALIZED = (0.3, 3.0)
IMPOSSIBLE = (0.01, 100.0)
NEGLIGIBLE_S = 1e-10  # of the largest |S|: not stored rather than small
FELT_H = 1e-3  # eV
FELT_S = 1e-6


def check_operators(system: LCAOSystem) -> Iterator[Finding]:
    """Findings about single matrix elements and their partners."""
    yield _pairs(system)
    names = [""] if len(system.hamiltonian) == 1 else [" up", " down"]
    for name, operator in zip(names, system.hamiltonian, strict=False):
        yield _hermitian(f"H{name} hermitian", operator, "eV", HERMITIAN_H, bool(system.provenance.get("predicted")))
    if system.overlap is None:
        yield Finding("S known", "note" if system.basis.orthogonal else "warning", _no_overlap(system))
        return
    yield _hermitian("S hermitian", system.overlap, "", HERMITIAN_S, False)
    yield _normalized(system.overlap)
    if system.hamiltonian:
        yield _same_pairs(system)


def _no_overlap(system: LCAOSystem) -> str:
    if system.basis.orthogonal:
        return "no S: the basis is orthogonal by definition"
    return "no S: orbital order, positions and energies cannot be checked; add it, or compute it from the basis"


def _pairs(system: LCAOSystem) -> Finding:
    pairs = system.pairs
    n = pairs.n_atoms
    reverse = pairs.reverse
    partners = (
        (reverse >= 0).all()
        and np.array_equal(pairs.i[reverse], pairs.j)
        and not (pairs.shifts[reverse] + pairs.shifts).any()
    )
    onsite = np.array_equal(pairs.i[:n], np.arange(n)) and not pairs.shifts[:n].any()
    finite = all(np.isfinite(blocks.values).all() for blocks in system.operators)
    if partners and onsite and finite:
        return Finding("pairs", "ok", f"{len(pairs)} pairs, each with its reverse, {n} of them on-site")
    lacking = "a reverse pair" if not partners else "an on-site block" if not onsite else "a finite matrix element"
    return Finding("pairs", "failed", f"{lacking} is missing", advice="convert the structure again")


def _hermitian(name: str, blocks: PairBlocks, unit: str, limits: tuple[float, float], predicted: bool) -> Finding:
    warn, fail = limits
    error, p = _worst_asymmetry(blocks)
    verdict: Verdict = "ok" if error <= warn else "warning" if error <= fail else "failed"
    message = f"|M - M^dagger| at most {error:.1e} {unit}".rstrip()
    if verdict == "ok":
        return Finding(name, "ok", message, error, unit, fail)
    message += f", worst in pair {pair_name(blocks, p)}"
    advice = "the hermitian part is what solvers see; read all spin blocks and both triangles again"
    if predicted:
        verdict, advice = "note", "a network may predict this; solvers see the hermitian part"
    elif blocks.spinor and (cause := _plus_conjugate(blocks, error)):
        message, advice = f"{message}: {cause}", "build down-up as the adjoint of the up-down block of the reverse pair"
    elif cause := _one_triangle(blocks, error):
        message, advice = f"{message}: {cause}", "fill the other triangle from the transposed reverse blocks"
    return Finding(name, verdict, message, error, unit, fail, advice)


def pair_name(blocks: PairBlocks, p: int) -> str:
    """A pair in words."""
    pairs = blocks.pairs
    return f"({pairs.i[p]}, {pairs.j[p]}, R={pairs.shifts[p].tolist()})"


def _worst_asymmetry(blocks: PairBlocks) -> tuple[float, int]:
    difference = np.abs(blocks.values - blocks.adjoint().values)
    if not len(difference):
        return 0.0, 0
    at = int(difference.argmax())
    return float(difference[at]), int(np.searchsorted(blocks.offsets, at, side="right")) - 1


def _plus_conjugate(blocks: PairBlocks, error: float) -> str:
    """Whether down-up is the conjugate of up-down of the same block: it belongs to the reverse pair."""
    for _, _, stack in blocks.groups():
        half_i, half_j = (n // 2 for n in stack.shape[1:])
        ud, du = stack[:, :half_i, half_j:], stack[:, half_i:, :half_j]
        if np.abs(du - ud.conj()).max(initial=0.0) > 1e-3 * error:
            return ""
    return "down-up is +conj(up-down) of the same block"


def _one_triangle(blocks: PairBlocks, error: float) -> str:
    """Whether of every pair only one direction is filled."""
    partner = blocks.adjoint().values
    off = np.abs(blocks.values - partner) > 1e-3 * error
    empty = (blocks.values == 0) | (partner == 0)
    return "one of the two is zero, only one triangle is filled" if empty[off].mean() > 0.9 else ""


def _normalized(overlap: PairBlocks) -> Finding:
    """Diagonal of S on the atoms."""
    name = "S on-site"
    if np.iscomplexobj(overlap.values):
        imaginary = float(np.abs(overlap.values.imag).max(initial=0.0))
        if imaginary > HERMITIAN_S[0]:
            advice = "orbitals are real, and so is S: read it again"
            return Finding(name, "failed", f"S is complex, by {imaginary:.1e}", imaginary, "", HERMITIAN_S[0], advice)
    diagonal = np.concatenate([np.diag(overlap.block(n)).real for n in range(overlap.pairs.n_atoms)])
    low, high = float(diagonal.min(initial=np.inf)), float(diagonal.max(initial=-np.inf))
    message = f"norms of the orbitals {low:.4f} to {high:.4f}"
    error = max(abs(low - 1), abs(high - 1))
    if NORMALIZED[0] <= low and high <= NORMALIZED[1]:
        return Finding(name, "ok", message, error)
    verdict: Verdict = "warning" if IMPOSSIBLE[0] <= low and high <= IMPOSSIBLE[1] else "failed"
    advice = "orbitals are normalized in S; is this S, and not H or another matrix?"
    return Finding(name, verdict, message, error, advice=advice)


def _same_pairs(system: LCAOSystem) -> Finding:
    """Pairs whose S vanishes although their H does not, and the other way round."""
    assert system.overlap is not None
    s = largest_of_pairs(system.overlap)
    h = np.maximum.reduce([largest_of_pairs(blocks) for blocks in system.hamiltonian])
    without_s = (s <= NEGLIGIBLE_S * s.max(initial=0.0)) & (h > FELT_H)
    without_h = (h == 0) & (s > FELT_S)
    name = "H and S pairs"
    if without_h.any() and not (~without_h).any():
        return Finding(name, "failed", "H is zero everywhere", advice="read H again")
    n_s, n_h = int(without_s.sum()), int(without_h.sum())
    if not n_s and not n_h:
        return Finding(name, "ok", "H and S are felt on the same pairs")
    words = []
    if n_s:
        p = int(np.argmax(np.where(without_s, h, 0)))
        words.append(
            f"S is zero on {n_s} of {len(s)} pairs where H is not, up to {h[p]:.2g} eV in pair "
            f"{pair_name(system.overlap, p)}"
        )
    if n_h:
        words.append(f"H is zero on {n_h} of {len(s)} pairs where S is not")
    severe = (n_s > 0 and h[without_s].max() > 0.1) or (n_h > 0 and s[without_h].max() > 0.01)
    advice = "S and H come from different pair lists or cutoffs; take both from one run" if severe else ""
    return Finding(name, "warning" if severe else "note", "; ".join(words), float(n_s + n_h), "pairs", None, advice)


def largest_of_pairs(blocks: PairBlocks) -> NDArray[np.float64]:
    """Largest |element| of every block, shape (n_pairs,)."""
    if not len(blocks.pairs):
        return np.zeros(0)
    return np.maximum.reduceat(np.abs(blocks.values), blocks.offsets[:-1])
