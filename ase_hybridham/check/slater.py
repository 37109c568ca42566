"""How deep the valence states of an atom lie: Slater's rules, scaled to density-functional eigenvalues.

J. C. Slater, Phys. Rev. 36, 57 (1930), doi:10.1103/PhysRev.36.57: an electron sees the nucleus less what the others
screen, and binds with 13.6 eV (Z_eff / n*)^2. For the outer s electrons local density functionals give 0.4 of that,
within a third for all elements: enough to see hartree or rydberg taken for eV.
"""

from functools import cache

from ase.units import Rydberg

__all__ = ["has_f_electrons", "outer_depth", "outer_electrons", "possible_valences"]

DENSITY_FUNCTIONAL = 0.4
EFFECTIVE_N = (0.0, 1.0, 2.0, 3.0, 3.7, 4.0, 4.2, 4.3)
SHELLS = (
    (1, 0),
    (2, 0),
    (2, 1),
    (3, 0),
    (3, 1),
    (4, 0),
    (3, 2),
    (4, 1),
    (5, 0),
    (4, 2),
    (5, 1),
    (6, 0),
    (4, 3),
    (5, 2),
)
FILLING = (*SHELLS, (6, 1), (7, 0), (5, 3), (6, 2), (7, 1))  # Madelung's order


def outer_electrons(number: int) -> int:
    """Electrons outside closed shells of an element: s and p, and d while that shell is open."""
    return possible_valences(number)[0]


@cache
def possible_valences(number: int) -> tuple[int, ...]:
    """Electrons that pseudopotentials of an element may leave: the outer ones, then with one closed shell more each."""
    filled = _configuration(number)
    n = max((shell[0] for shell in filled), default=0)
    outer = {(n, 0), (n, 1)}
    if (n, 1) not in filled and filled.get((n - 1, 2), 0) < 10:
        outer.add((n - 1, 2))
    counts = [sum(filled.get(shell, 0) for shell in outer)]
    for shell in sorted(set(filled) - outer, reverse=True):
        counts.append(counts[-1] + filled[shell])
    return tuple(counts)


def has_f_electrons(number: int) -> bool:
    """Whether an element is one of those that fill an f shell, where Slater's rules say little."""
    return 57 <= number <= 71 or 89 <= number <= 103


@cache
def outer_depth(number: int) -> float:
    """Energy in eV by which density functionals bind the outermost s electrons of an atom, roughly."""
    filled = _configuration(number)
    n = max(shell[0] for shell in filled)
    same = sum(filled.get((n, l), 0) for l in (0, 1)) - 1
    next_inner = sum(count for (m, _), count in filled.items() if m == n - 1)
    inner = sum(count for (m, _), count in filled.items() if m < n - 1)
    screened = (0.30 if n == 1 else 0.35) * same + 0.85 * next_inner + inner
    # 4f and 5f count with n - 2, and (n, d) or (n, f) never belong to the outermost shell
    return DENSITY_FUNCTIONAL * Rydberg * ((number - screened) / EFFECTIVE_N[n]) ** 2


def _configuration(number: int) -> dict[tuple[int, int], int]:
    """(n, l) -> electrons of the neutral atom by Madelung's rule."""
    filled: dict[tuple[int, int], int] = {}
    left = number
    for n, l in FILLING:
        if left <= 0:
            break
        filled[n, l] = min(left, 2 * (2 * l + 1))
        left -= filled[n, l]
    return filled
