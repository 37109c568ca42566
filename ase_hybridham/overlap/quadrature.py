"""Spherical Bessel transforms F(k) = int r^2 j_l(kr) R(r) dr, by the rules of the programs that made R(r).

A two-center integral is a sum over k of products of two transforms. Which k, with which weights, and how R is read
between its samples is what a program's numbers depend on (at 1e-5 for OpenMX), so every program is one `Rule`.
All lengths in bohr.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import spherical_jn

from ase_hybridham.errors import OverlapError
from ase_hybridham.system import AtomBasis, Radial, SampledRadial, Shell

__all__ = ["RULES", "Quadrature", "Rule", "bohr_of", "common_rule", "hermite", "overlap_range"]


@dataclass(frozen=True, eq=False)
class Quadrature:
    """int f(k) dk = sum_n weights[n] f(points[n]), for k in 1/bohr.

    Parameters
    ----------
    points, weights : arrays, shape (n_k,)
    """

    points: NDArray[np.float64]
    weights: NDArray[np.float64]


@dataclass(frozen=True)
class Rule:
    """How a program integrates.

    Parameters
    ----------
    quadrature : callable
        ``(shells, reach) -> Quadrature``: one for all `shells`, good for distances up to `reach`.
    transform : callable
        ``(shells, degrees, power, quadrature) -> F``, shape (n_shells, n_k): int r^(2 + power) j_l(kr) R(r) dr with
        l of `degrees` at the points of the quadrature. `power` is 0 and `degrees` those of the shells but for matrix
        elements of the position.
    """

    quadrature: Callable[[Sequence[Shell], float], Quadrature]
    transform: Callable[[Sequence[Shell], Sequence[int], int, Quadrature], NDArray[np.float64]]


def common_rule(*atoms: AtomBasis) -> Rule:
    """The rule of all shells.

    Raises
    ------
    OverlapError
        If a shell has no radial function, or the functions follow different rules, settings or bohr.
    """
    found: dict[tuple, str] = {}
    for atom in atoms:
        for n, shell in enumerate(atom.shells):
            if shell.radial is None:
                raise OverlapError(
                    f"overlap: shell {shell.label or n} of {atom.symbol} has no radial function; give the overlap "
                    "(a file, a folder or PairBlocks), or attach the basis files"
                )
            settings = getattr(shell.radial, "settings", ())
            found.setdefault((shell.radial.rule, shell.radial.bohr, tuple(sorted(settings))), atom.symbol)
    (rule, *one), *others = found
    for other in others:
        raise OverlapError(
            f"overlap: expected radial functions of one origin, got {found[rule, *one]} by {_described(rule, *one)} "
            f"and {found[other]} by {_described(*other)}; take the basis files of one program with one set of settings"
        )
    if rule not in RULES:
        raise OverlapError(f"overlap: unknown rule {rule!r} of {found[rule, *one]}, only {', '.join(RULES)}; update")
    return RULES[rule]


def _described(rule: str, bohr: float, settings: Sequence[tuple[str, float]]) -> str:
    return ", ".join([f"the rule of {rule}", f"bohr = {bohr:.10g} angstrom", *(f"{k} = {v:g}" for k, v in settings)])


def bohr_of(atom: AtomBasis) -> float:
    """Angstrom per bohr of the radial functions of an atom, which `common_rule` has checked."""
    radial = atom.shells[0].radial
    assert radial is not None
    return radial.bohr


def overlap_range(first: AtomBasis, second: AtomBasis) -> float:
    """Distance in bohr beyond which no shells of two atoms overlap (Gaussians: by 1e-16)."""
    return sum(max(_radius(shell.radial) for shell in atom.shells if shell.radial) for atom in (first, second))


def _radius(radial: Radial) -> float:
    # e^-55 leaves room for the powers of r of two g shells
    return radial.cutoff if isinstance(radial, SampledRadial) else float(np.sqrt(55 / min(radial.exponents)))


def hermite(mesh: NDArray, values: NDArray, at: NDArray) -> NDArray[np.float64]:
    """OpenMX's local cubic interpolation (RadialF.c): slopes at the nodes from parabolas through three of them.

    Parameters
    ----------
    mesh : array, shape (n,)
        Ascending.
    values : array, shape (..., n)
    at : array, shape (m,)

    Returns
    -------
    array, shape (..., m)
        Zero past the last node; below the first its value, which is right for s functions only.
    """
    m = np.clip(np.searchsorted(mesh, at, side="left"), 2, len(mesh) - 1)
    last = m == len(mesh) - 1
    h1, h2 = mesh[m - 1] - mesh[m - 2], mesh[m] - mesh[m - 1]
    f1, f2, f3 = values[..., m - 2], values[..., m - 1], values[..., m]
    after = np.minimum(m + 1, len(mesh) - 1)
    h3 = np.where(last, -(h1 + h2), mesh[after] - mesh[m])
    f4 = np.where(last, f1, values[..., after])
    g1 = ((f3 - f2) * h1 / h2 + (f2 - f1) * h2 / h1) / (h1 + h2)
    g2 = ((f4 - f3) * h2 / h3 + (f3 - f2) * h3 / h2) / (h2 + h3)
    y1, y2 = (at - mesh[m - 1]) / h2, (at - mesh[m]) / h2
    out = y2**2 * (3 * f2 + h2 * g1 + (2 * f2 + h2 * g1) * y2) + y1**2 * (3 * f3 - h2 * g2 - (2 * f3 - h2 * g2) * y1)
    out = np.where(at > mesh[-1], 0.0, out)
    return np.where(at < mesh[0], values[..., :1], out)


def _openmx_settings(shells: Sequence[Shell]) -> tuple[float, int, int]:
    """kmax, intervals in k, intervals in r; OpenMX's defaults (Input_std.c) unless the input told others."""
    settings = dict(_sampled(shells[0]).settings)
    kmax = float(np.sqrt(settings.get("energy_cutoff", 3600.0)))
    return kmax, int(settings.get("k_points", 900)), int(settings.get("radial_points", 900))


def _openmx_quadrature(shells: Sequence[Shell], reach: float) -> Quadrature:
    """Trapezoids from 1e-6 to kmax (Set_OLP_Kin.c), whatever the reach."""
    kmax, _, n = _openmx_settings(shells)
    points = 1e-6 + np.arange(n + 1) * (kmax - 1e-6) / n
    weights = np.full(n + 1, (kmax - 1e-6) / n)
    weights[[0, -1]] *= 0.5
    return Quadrature(points, weights)


def _openmx_transform(
    shells: Sequence[Shell], degrees: Sequence[int], power: int, quadrature: Quadrature
) -> NDArray[np.float64]:
    """Trapezoids in r on OpenMX's own table of k (FT_PAO.c), which is then interpolated like a radial function."""
    kmax, n_k, n_r = _openmx_settings(shells)
    table = np.arange(n_k) * kmax / n_k
    out = np.empty((len(shells), len(quadrature.points)))
    for l in sorted(set(degrees)):
        for n in np.flatnonzero(np.equal(degrees, l)):
            radial = _sampled(shells[n])
            r = np.linspace(radial.mesh[0], radial.cutoff + 0.5, n_r + 1)
            weights = np.full(n_r + 1, r[1] - r[0])
            weights[[0, -1]] *= 0.5
            f = hermite(radial.mesh, radial.values, r) * weights * r ** (2 + power)
            out[n] = hermite(table, spherical_jn(l, np.outer(table, r)) @ f, quadrature.points)
    return out


def _sampled(shell: Shell) -> SampledRadial:
    assert isinstance(shell.radial, SampledRadial)
    return shell.radial


RULES = {"openmx": Rule(_openmx_quadrature, _openmx_transform)}
