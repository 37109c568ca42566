"""Radial functions of shells, as their programs know them: contracted Gaussians, or samples on a mesh.

Lengths are in the bohr of the program that made the function, which the function carries: two programs' bohr differ
by up to 1e-7, and an overlap feels it.
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["GaussianRadial", "Radial", "SampledRadial"]

LARGEST = 1e8  # bohr^-3/2; the most of all elements is 2 Z^(3/2) = 2000


@dataclass(frozen=True)
class GaussianRadial:
    """A contraction of Gaussians r^l sum_c coefficient_c exp(-exponent_c r^2).

    Parameters
    ----------
    exponents : tuple of float
        In bohr^-2.
    coefficients : tuple of float
        Of normalized primitives; the contraction is normalized when it is evaluated.
    """

    exponents: tuple[float, ...]
    coefficients: tuple[float, ...]
    bohr: ClassVar[float] = 0.52917721092  # angstrom; CODATA 2010, which PySCF uses
    rule: ClassVar[str] = "gaussian"

    def __post_init__(self) -> None:
        for name in ("exponents", "coefficients"):  # plain numbers: the digest is of their words
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))
        if len(self.exponents) != len(self.coefficients) or not self.exponents:
            raise ValueError(
                f"Gaussian contraction: expected as many coefficients as exponents, "
                f"got {len(self.coefficients)} and {len(self.exponents)}"
            )
        if not all(0 < exponent < np.inf for exponent in self.exponents):
            raise ValueError(f"Gaussian contraction: exponents must be positive, got {self.exponents}")
        if not np.isfinite(self.coefficients).all():
            raise ValueError("Gaussian contraction: expected finite coefficients")

    @cached_property
    def digest(self) -> str:
        """Hash of all that decides its integrals."""
        return hashlib.sha256(repr((self.exponents, self.coefficients)).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class SampledRadial:
    """R(r) on a mesh, with the rule by which its program interpolates and integrates it.

    phi = R(r) Y_lm; R itself, neither r R nor R / r^l. Neither normalized nor orthogonalized: programs do not either.

    Parameters
    ----------
    mesh : array, shape (n,)
        r in bohr, ascending.
    values : array, shape (n,)
        R at the mesh, bohr^-3/2.
    cutoff : float
        Radius in bohr beyond which the function is zero.
    rule : str
        A key of `overlap.rules.RULES`.
    bohr : float
        Angstrom per bohr of the program.
    settings : tuple of (str, float)
        What the rule may be told, e.g. ``(("energy_cutoff", 3600.0),)``; its defaults otherwise.
    """

    mesh: NDArray[np.float64]
    values: NDArray[np.float64]
    cutoff: float
    rule: str
    bohr: float
    settings: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        for name in ("mesh", "values"):
            array = np.array(getattr(self, name), dtype=np.float64)
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        for name in ("cutoff", "bohr"):  # plain numbers: the digest is of their words
            object.__setattr__(self, name, float(getattr(self, name)))
        object.__setattr__(self, "settings", tuple((str(key), float(value)) for key, value in self.settings))
        if self.mesh.ndim != 1 or self.mesh.shape != self.values.shape or len(self.mesh) < 4:
            raise ValueError(
                f"radial function: expected as many values as radii, at least 4, "
                f"got shapes {self.mesh.shape} and {self.values.shape}"
            )
        largest = float(np.abs(self.values).max())
        if not (np.isfinite(self.mesh).all() and 0 < largest < LARGEST):
            raise ValueError(f"radial function: expected finite numbers, not all 0, got up to {largest:g}")
        if self.mesh[0] < 0 or not (np.diff(self.mesh) > 0).all():
            raise ValueError("radial function: expected radii that ascend from 0 or more")
        if self.rule == GaussianRadial.rule:
            raise ValueError(f"radial function: the rule {self.rule!r} is not one of samples")
        if not 0 < self.cutoff < 1e3 or not 0 < self.bohr < 1e3:
            raise ValueError(f"radial function: expected a positive cutoff and bohr, got {self.cutoff} and {self.bohr}")

    @cached_property
    def digest(self) -> str:
        """Hash of all that decides its integrals."""
        head = repr((self.cutoff, self.rule, self.bohr, self.settings))
        return hashlib.sha256(head.encode() + self.mesh.tobytes() + self.values.tobytes()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SampledRadial) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


Radial = GaussianRadial | SampledRadial


def radial_to_dict(radial: Radial, meshes: list[str]) -> dict[str, Any]:
    """Entries of a shell in plain JSON types; a mesh that many shells share is kept once, in `meshes`."""
    if isinstance(radial, GaussianRadial):
        return {"gaussians": {"exponents": list(radial.exponents), "coefficients": list(radial.coefficients)}}
    mesh = _packed(radial.mesh)
    if mesh not in meshes:
        meshes.append(mesh)
    return {
        "samples": {
            "mesh": meshes.index(mesh),
            "values": _packed(radial.values),
            "cutoff": radial.cutoff,
            "rule": radial.rule,
            "bohr": radial.bohr,
            "settings": dict(radial.settings),
            "digest": radial.digest,
        }
    }


def radial_from_dict(entry: Mapping[str, Any], meshes: list[str]) -> Radial | None:
    """The radial function that `radial_to_dict` described, None if the shell has none.

    Raises
    ------
    ValueError
        If its samples are not those that were written, or make no sense.
    LookupError, TypeError, AttributeError
        If an entry is not there, or is something else.
    """
    gaussians, samples = entry.get("gaussians"), entry.get("samples")
    if gaussians:
        return GaussianRadial(tuple(gaussians["exponents"]), tuple(gaussians["coefficients"]))
    if not samples:
        return None
    radial = SampledRadial(
        _unpacked(meshes[samples["mesh"]]),
        _unpacked(samples["values"]),
        samples["cutoff"],
        str(samples["rule"]),
        samples["bohr"],
        tuple(samples["settings"].items()),
    )
    if radial.digest != samples["digest"]:
        raise ValueError("radial function: its samples have changed since they were written")
    return radial


def _packed(array: NDArray[np.float64]) -> str:
    return base64.b64encode(array.astype("<f8").tobytes()).decode()


def _unpacked(word: str) -> NDArray[np.float64]:
    return np.frombuffer(base64.b64decode(word, validate=True), "<f8").astype(np.float64)
