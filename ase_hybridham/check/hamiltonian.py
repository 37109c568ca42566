"""Does H stand in the orbital order of S, on the same R?

H is no two-center integral, but most of it is: what is left over of its hoppings is a quarter of them in rich basis
sets and less in small ones. An order in which clearly less were left over is the one that H really has.
"""

from ase_hybridham.check.covariance import Bonds, strongest_bonds
from ase_hybridham.check.diagnosis import ShellBlocks, sample
from ase_hybridham.check.hypotheses import program_orders
from ase_hybridham.check.report import Finding
from ase_hybridham.symmetry import quaternion_from_spinor
from ase_hybridham.system import LCAOSystem, PairBlocks
from ase_hybridham.system.pairs import pair_vectors

__all__ = ["check_hamiltonian_order"]

NAME = "H order"
# Left over by the best other order over what is left over as it stands: 1.00 to 300 in right data of six programs,
# where 1.00 are orders that symmetry makes the same.
CLEARLY_LESS = 0.75
EXACT = 1e-9
SAMPLE = 40  # bonds


def check_hamiltonian_order(system: LCAOSystem) -> Finding:
    """Whether another order of the orbitals, or -R, makes H more of a two-center integral."""
    bonds = sample(strongest_bonds(_without_spin(system.hamiltonian[0])), SAMPLE)
    shells = ShellBlocks.of(bonds)
    left = shells.residual({})
    lmax = max((l for b in bonds for l in (*b.table.rows, *b.table.columns)), default=0)
    if not lmax or left < EXACT:
        return Finding(NAME, "skipped", "no hopping has shells beyond s")
    tried = [(shells.residual(orbitals.orders), f"in H {orbitals.words}") for orbitals in program_orders(lmax)]
    tried.append((ShellBlocks.of(_reversed(system, bonds)).residual({}), "R of H has the sign opposite to that of S"))
    least, words = min(tried)
    message = f"{left:.2f} of the hoppings of H are no two-center integral"
    if least > CLEARLY_LESS * left:
        message += ", not clearly less in any other order of the orbitals"
        return Finding(NAME, "ok", message, least / left, "", CLEARLY_LESS)
    advice = "H and S are in different conventions; read them with the same"
    return Finding(NAME, "failed", f"{message}, only {least:.2f} if {words}", least / left, "", CLEARLY_LESS, advice)


def _without_spin(blocks: PairBlocks) -> PairBlocks:
    if not blocks.spinor:
        return blocks.with_values(blocks.values.real)
    stacks = {elements: quaternion_from_spinor(stack)[:, 0].real for elements, _, stack in blocks.groups()}
    return PairBlocks.from_groups(blocks.pairs, blocks.basis, stacks)


def _reversed(system: LCAOSystem, bonds: list[Bonds]) -> list[Bonds]:
    pairs = system.pairs
    vectors = pair_vectors(system.atoms, pairs.i, pairs.j, -pairs.shifts)
    return [b.with_vectors(vectors[b.rows]) for b in bonds]
