"""OpenMX in a process of its own: writes its input, runs it, reads the .scfout.

The program and its data (pseudo-atomic orbitals and pseudopotentials, the folder DFT_DATA19 of the distribution) must
be installed; the environment variables OPENMX and OPENMX_DFT_DATA_PATH (ASE's name for it) tell where.
"""

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculatorSetupError, SCFError
from numpy.typing import NDArray

from ase_hybridham.io import read_openmx
from ase_hybridham.io.openmx_input import BOHR, parse_species, shells_of
from ase_hybridham.scf.box import Box, check_distances, k_mesh_of_length
from ase_hybridham.scf.engine import check_numbers
from ase_hybridham.system import AtomBasis, Basis, LCAOSystem, SpinKind

__all__ = ["OpenMXEngine"]

FUNCTIONALS = {"lda": ("LSDA-CA", "CA"), "pbe": ("GGA-PBE", "PBE")}  # OpenMX's word, that of its pseudopotentials
SPINS = {"none": "off", "collinear": "on", "spinor": "nc"}
DATA = "OPENMX_DFT_DATA_PATH"
NOT_CONVERGED = "was not fully achieved"
SAME = 1e-6  # angstrom; what printing the positions may cost


@dataclass(frozen=True)
class OpenMXEngine:
    """LDA or PBE with OpenMX's orbitals, any spin.

    Parameters
    ----------
    xc : {"lda", "pbe"}
    basis : str, optional
        Names joined by a slash, as in ``"C6.0-s2p2d1/H6.0-s2p1"``; elements that are not named get ASE's choice.
    spin : {"none", "collinear", "spinor"}
        Starts from the initial magnetic moments of the atoms, along z.
    spin_orbit : bool
        Needs ``spin="spinor"``.
    energy_cutoff : float
        Rydberg, of the real-space grid.
    kpts : sequence of 3 int, optional
        Mesh along each cell vector; by default from `k_length`.
    k_length : float
        Angstrom: k-points times height of the cell.
    temperature : float
        Kelvin, of the occupations.
    vacuum : float
        Length in angstrom of the box along axes that have no cell vector.
    conv_tol : float
        Change of the band energy, hartree.
    max_cycles : int
    keywords : mapping, optional
        More of OpenMX's keywords with their values as text; of a block, ``"<Name"``, its lines.
    command : str, optional
        By default that of the environment variable OPENMX, else the program openmx; `mpirun -np 4 openmx` is one too.
    data : str, optional
        OpenMX's folder with PAO and VPS; by default that of the environment variable OPENMX_DFT_DATA_PATH.
    folder : str, optional
        Keeps the files of the runs, numbered.
    """

    xc: Literal["lda", "pbe"] = "pbe"
    basis: str = ""
    spin: SpinKind = "none"
    spin_orbit: bool = False
    energy_cutoff: float = 200.0
    kpts: Sequence[int] | None = None
    k_length: float = 17.0
    temperature: float = 300.0
    vacuum: float = 16.0
    conv_tol: float = 1e-8
    max_cycles: int = 200
    keywords: Mapping[str, str] = field(default_factory=dict)
    command: str | None = None
    data: str | None = None
    folder: str | None = None

    def __post_init__(self) -> None:
        if self.xc not in FUNCTIONALS:
            raise ValueError(f"xc: expected one of {', '.join(FUNCTIONALS)}, got {self.xc!r}")
        if self.spin not in SPINS or (self.spin_orbit and self.spin != "spinor"):
            raise ValueError(f"spin: expected one of {', '.join(SPINS)}, spinor with spin_orbit; got {self.spin!r}")
        positive = ("energy_cutoff", "k_length", "temperature", "vacuum", "conv_tol", "max_cycles")
        check_numbers(self, positive, ("kpts",))

    @property
    def name(self) -> str:
        """``"openmx"``."""
        return "openmx"

    def settings(self) -> dict[str, Any]:
        """The parameters that decide the result, as plain JSON types; paths of this machine are none."""
        names = "xc basis spin spin_orbit energy_cutoff kpts k_length temperature vacuum conv_tol max_cycles keywords"
        values = {name: getattr(self, name) for name in names.split()}
        values.update(kpts=None if self.kpts is None else list(self.kpts), keywords=dict(self.keywords))
        data = self.data or os.environ.get(DATA)
        return {**values, "data": Path(data).name if data else None, "engine": self.name}

    def basis_for(self, symbols: Iterable[str]) -> Basis:
        """The basis that chemical symbols get, with valence electrons and cutoff radii.

        Raises
        ------
        ValueError
            If the data have no such orbitals or no pseudopotential for an element.
        ase.calculators.calculator.CalculatorSetupError
            If nothing tells where OpenMX's data are.
        """
        atoms = []
        chosen = self._species(symbols)
        for symbol, (basis, pseudopotential) in chosen.items():
            species = parse_species("basis", [symbol, basis, pseudopotential])
            valence = _number_in(self._data() / "VPS" / f"{pseudopotential}.vps", "valence.electron")
            radius = _number_in(self._data() / "PAO" / f"{basis.partition('-')[0]}.pao", "radial.cutoff.pao")
            atoms.append(AtomBasis(symbol, shells_of(species.primitive), valence, radius * BOHR))
        return Basis.of(*atoms, name="/".join(sorted(basis for basis, _ in chosen.values())))

    def for_structures(self, structures: Sequence[Atoms]) -> list["OpenMXEngine"]:
        """This engine for each structure.

        Raises
        ------
        ValueError
            If one of them cannot be treated; the message names it by its number.
        """
        for n, atoms in enumerate(structures):
            try:
                self._box(atoms)
            except ValueError as error:
                raise ValueError(f"structure {n + 1} of {len(structures)}: {error}") from None
        return [self] * len(structures)

    def run(self, atoms: Atoms) -> LCAOSystem:
        """H(R), S(R), Fermi level and electrons of a structure.

        Parameters
        ----------
        atoms : ase.Atoms
            Any pbc; neutral. Atoms outside the cell stay there.

        Returns
        -------
        LCAOSystem
            On the pairs that OpenMX lists.

        Raises
        ------
        ase.calculators.calculator.SCFError
            If `max_cycles` do not suffice, or the program ends with an error.
        ase.calculators.calculator.CalculatorSetupError
            If the program or its data are not there.
        ValueError
            If an element lacks orbitals or pseudopotential, or the vacuum is too small.
        """
        text = self.input_text(atoms)
        command = self._command()
        with ExitStack() as stack:
            if self.folder is None:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="openmx-")))
            else:
                Path(self.folder).mkdir(parents=True, exist_ok=True)
                folder = Path(tempfile.mkdtemp(prefix="run-", dir=self.folder))
            (folder / "openmx.dat").write_text(text, encoding="ascii")
            printed = _execute([*command, "openmx.dat"], folder)
            if NOT_CONVERGED in printed:
                raise SCFError(f"openmx: not converged in {self.max_cycles} cycles; raise max_cycles, or change mixing")
            if not (folder / "openmx.scfout").exists():
                raise SCFError(f"openmx: ended without openmx.scfout: {_last_line(printed)}")
            system = read_openmx(folder / "openmx.scfout")
        if np.abs(system.atoms.positions - atoms.positions).max() > SAME or any(system.atoms.numbers != atoms.numbers):
            raise SCFError("openmx: the .scfout holds other atoms than the input")
        across = system.atoms.pbc & ~np.asarray(atoms.pbc)
        if across.any():
            raise ValueError(
                f"structure: images interact along axis {int(np.flatnonzero(across)[0])}, which has no pbc"
            )
        made_by = {**system.provenance, "engine": self.name, "box": system.atoms.cell.tolist()}
        return replace(system, atoms=atoms.copy(), provenance=made_by)

    def input_text(self, atoms: Atoms) -> str:
        """The input of a run, which names its files openmx.*."""
        chosen = self._species(atoms.symbols)
        box, cell = self._box(atoms)
        kpts = box.along_cell(k_mesh_of_length(box, self.k_length) if self.kpts is None else box.k_mesh(self.kpts))
        basis = self.basis_for(atoms.symbols)
        moments = atoms.get_initial_magnetic_moments() if self.spin != "none" else np.zeros(len(atoms))
        rows = []
        for n, (atom, moment) in enumerate(zip(atoms, moments, strict=True)):
            valence = basis[atom.symbol].valence or 0.0
            x, y, z = (f"{value:.15g}" for value in atom.position)
            rows.append(f"{n + 1} {atom.symbol} {x} {y} {z} {(valence + moment) / 2:.8f} {(valence - moment) / 2:.8f}")
        if self.spin == "spinor":
            rows = [f"{row} 0.0 0.0 0.0 0.0 0 off" for row in rows]
        values = {
            "System.CurrrentDirectory": "./",  # their spelling
            "System.Name": "openmx",
            "DATA.PATH": str(self._data().resolve()),
            "level.of.stdout": "1",
            "level.of.fileout": "0",
            "HS.fileout": "on",
            "scf.restart": "off",
            "scf.XcType": FUNCTIONALS[self.xc][0],
            "scf.SpinPolarization": SPINS[self.spin],
            "scf.SpinOrbit.Coupling": "on" if self.spin_orbit else "off",
            "scf.ElectronicTemperature": f"{self.temperature:g}",
            "scf.energycutoff": f"{self.energy_cutoff:g}",
            "scf.maxIter": str(self.max_cycles),
            "scf.EigenvalueSolver": "band",
            "scf.Kgrid": " ".join(map(str, kpts)),
            "scf.Mixing.Type": "rmm-diisk",
            "scf.criterion": f"{self.conv_tol:g}",
            "MD.Type": "nomd",
            "Species.Number": str(len(chosen)),
            "Atoms.Number": str(len(atoms)),
            "Atoms.SpeciesAndCoordinates.Unit": "Ang",
            "Atoms.UnitVectors.Unit": "Ang",
        }
        theirs = {key.lower() for key in self.keywords}
        lines = [f"{key} {value}" for key, value in values.items() if key.lower() not in theirs]
        for key, value in self.keywords.items():
            lines += _block(key[1:], value.splitlines()) if key.startswith("<") else [f"{key} {value}"]
        lines += _block("Definition.of.Atomic.Species", [f"{symbol} {b} {v}" for symbol, (b, v) in chosen.items()])
        lines += _block("Atoms.SpeciesAndCoordinates", rows)
        lines += _block("Atoms.UnitVectors", [" ".join(f"{value:.15g}" for value in vector) for vector in cell])
        return "\n".join(lines) + "\n"

    def _box(self, atoms: Atoms) -> tuple[Box, NDArray[np.float64]]:
        """The box, and the cell of the input, once it is known that the engine can treat the structure."""
        check_distances(atoms)
        if atoms.get_initial_charges().any():
            raise ValueError("structure: the engine knows no charge; remove initial charges")
        if self.spin == "none" and atoms.get_initial_magnetic_moments().any():
            raise ValueError("structure: has initial moments, but spin is 'none'; remove them or choose collinear")
        box = Box.of(atoms, self.vacuum, 2 * max(self.basis_for(atoms.symbols).cutoffs().values()))
        cell = np.empty((3, 3))
        cell[box.axes] = box.lattice
        given = atoms.cell.array.any(axis=1)
        cell[given] = atoms.cell.array[given]
        return box, cell

    def _species(self, symbols: Iterable[str]) -> dict[str, tuple[str, str]]:
        """Symbol -> names of basis and pseudopotential."""
        from ase.calculators.openmx.default_settings import default_dictionary

        named = {parse_species("basis", ["?", name, "?"]).symbol: name for name in self.basis.split("/") if name}
        chosen = {}
        for symbol in sorted(set(symbols)):
            default = default_dictionary.get(symbol)
            if symbol not in named and default is None:
                raise ValueError(f"basis: none is known for {symbol}; name one, as in C6.0-s2p2d1/H6.0-s2p1")
            suffix = default["pseudo-potential suffix"] if default else ""
            if symbol not in named:
                shells = "".join(f"{l}{n}" for l, n in zip("spdf", default["orbitals used"], strict=False))
                named[symbol] = f"{symbol}{float(default['cutoff radius']):.1f}{suffix}-{shells}"
            kind = FUNCTIONALS[self.xc][1]
            pattern = re.compile(rf"{symbol}_{kind}\d+{suffix}\.vps")
            found = sorted(file.stem for file in self._data().glob("VPS/*.vps") if pattern.fullmatch(file.name))
            if not found:
                raise ValueError(f"{self._data() / 'VPS'}: no pseudopotential {symbol}_{kind}*.vps of {symbol}")
            chosen[symbol] = (named[symbol], found[-1])
        return chosen

    def _data(self) -> Path:
        data = self.data or os.environ.get(DATA)
        if not data or not all((Path(data) / name).is_dir() for name in ("PAO", "VPS")):
            raise CalculatorSetupError(
                f"openmx: expected a folder with PAO and VPS, got {data or 'none'}; set {DATA} to its DFT_DATA19"
            )
        return Path(data)

    def _command(self) -> list[str]:
        words = shlex.split(self.command or os.environ.get("OPENMX") or "openmx")
        if not words or shutil.which(words[0]) is None:
            raise CalculatorSetupError(
                f"openmx: no program {words[0] if words else ''!r}; install OpenMX (openmx-square.org) and set OPENMX"
            )
        return [str(Path(shutil.which(words[0]) or "").resolve()), *words[1:]]


def _execute(command: list[str], folder: Path) -> str:
    """What the program printed; its files lie in the folder."""
    environment = {"OMP_NUM_THREADS": "1", **os.environ}  # several threads on few cores take far longer than one
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    printed = done.stdout.decode("utf-8", "replace")
    (folder / "openmx.log").write_text(printed, encoding="utf-8")
    if done.returncode:
        raise SCFError(f"openmx: ended with status {done.returncode}: {_last_line(printed)}")
    return printed


def _last_line(printed: str) -> str:
    return next((line.strip() for line in reversed(printed.splitlines()) if line.strip()), "it printed nothing")


def _block(name: str, lines: list[str]) -> list[str]:
    return [f"<{name}", *lines, f"{name}>"]


def _number_in(path: Path, keyword: str) -> float:
    """The value of a keyword in a file of OpenMX's data."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return next(float(line.split()[1]) for line in file if line.split()[:1] == [keyword])
    except (OSError, StopIteration, IndexError, ValueError):
        raise ValueError(f"{path}: expected a file of OpenMX's data with {keyword}") from None
