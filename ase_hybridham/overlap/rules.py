"""The rule of every program, and which one the shells of some atoms follow."""

from collections.abc import Sequence

from ase_hybridham.errors import OverlapError
from ase_hybridham.overlap.quadrature import Rule
from ase_hybridham.overlap.rules_gaussian import GAUSSIAN, gaussian_radius
from ase_hybridham.overlap.rules_openmx import OPENMX
from ase_hybridham.overlap.rules_uniform import ABACUS, SIESTA
from ase_hybridham.system import AtomBasis, SampledRadial

__all__ = ["RULES", "bohr_of", "common_rule", "overlap_range"]

LARGEST_L = 7
CUTOFFS = 0.5, 100.0  # bohr; the meshes of some rules grow with its square

RULES = {"abacus": ABACUS, "gaussian": GAUSSIAN, "openmx": OPENMX, "siesta": SIESTA}


def common_rule(*atoms: AtomBasis) -> Rule:
    """The rule of all shells.

    Raises
    ------
    OverlapError
        If a shell has no radial function or l > 7, or the functions follow different rules, settings or bohr.
    """
    found: dict[tuple, str] = {}
    for atom in atoms:
        for n, shell in enumerate(atom.shells):
            if shell.radial is None:
                raise OverlapError(
                    f"overlap: shell {shell.label or n} of {atom.symbol} has no radial function; "
                    "take them from basis files (--basis-dir), or give the overlap (overlap=)"
                )
            if shell.l > LARGEST_L:
                raise OverlapError(f"overlap: expected l of at most {LARGEST_L}, got {shell.l} for {atom.symbol}")
            if isinstance(shell.radial, SampledRadial) and not CUTOFFS[0] <= shell.radial.cutoff <= CUTOFFS[1]:
                raise OverlapError(
                    f"overlap: expected cutoff radii of {CUTOFFS[0]:g} to {CUTOFFS[1]:g} bohr, got "
                    f"{shell.radial.cutoff:g} for {atom.symbol}; check the basis files"
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
    """Distance in bohr beyond which no shells of two atoms overlap (Gaussians: by more than 1e-16)."""
    return sum(_radius(atom) for atom in (first, second))


def _radius(atom: AtomBasis) -> float:
    cutoffs = [shell.radial.cutoff for shell in atom.shells if isinstance(shell.radial, SampledRadial)]
    return max(cutoffs) if cutoffs else gaussian_radius(atom)
