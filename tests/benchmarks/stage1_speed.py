"""Stage 1 of the network against the same function on e3nn's tensor product: time, memory, start-up, profile.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.stage1_speed [--quick]

Both hold the same weights, of DeepH-E3's default widths, on twisted bilayer graphene with s2p2d1 carbon and pairs up
to 7.2 angstrom; H is compared first. Inside the times: everything from the distances and vectors of pairs to the
outputs. Made before: the list of pairs, and for ours the graph with the rotations into the frames of its edges, whose
time is printed, too. Times are processor times of one thread, or of the clock on a GPU, the best of alternating
repeats, in single precision. --quick: a small network, to see that it runs; only H counts.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ase_hybridham.model import Cascade, Domain, ModelConfig, PairGraph, Stage1, TrainedModel, save_model
from ase_hybridham.model.deephe3 import import_deephe3
from ase_hybridham.system import AtomBasis, Basis, PairList
from tests.benchmarks.bilayers import LATTICE, twisted_bilayer
from tests.benchmarks.costs import Action, best, print_shares, resident_memory, shares, tensor_memory, timed
from tests.benchmarks.report import Report, processor
from tests.model.deephe3_folders import blocks_from_outputs, build_arguments, write_folder
from tests.model.deephe3_reference import DeepHE3Reference, reference_of

ROOT = Path(__file__).parents[2]
SHELLS = (0, 0, 1, 1, 2)
SAME = {torch.float64: 1e-11, torch.float32: 1e-5}
# the project's promises
FORWARD, STEP, MEMORY, PER_EDGE, LARGEST_GIB, READY_SECONDS = 13, 10, 8, 1.2, 4, 3
START_UP = """
import sys, time
from ase_hybridham import HybridHamCalculator
first = time.process_time()
import ase_hybridham.model
imported = time.process_time()
HybridHamCalculator(sys.argv[1], device="cpu")
print(first, imported - first, time.process_time() - imported)
"""


@dataclass(frozen=True)
class Size:
    """Network, structures (twists of `twisted_bilayer`), repeats."""

    irreps: str = "64x0e+32x1o+16x2e+8x3o+8x4e"
    n_scalars: int = 64
    n_blocks: int = 3
    cutoff: float = 7.2
    twists: tuple[int, ...] = (1, 4, 10)  # 28, 244 and 1324 atoms
    repeats: int = 5


QUICK = Size("6x0e+4x1o+3x2e+2x3o+2x4e", 6, 2, 4.0, (1, 2), 1)


def pairs_of(i: int, cutoff: float) -> PairList:
    """Pairs of a bilayer whose geometry is checked."""
    atoms = twisted_bilayer(i)
    pairs = PairList.from_atoms(atoms, {6: cutoff / 2})
    assert len(atoms) == 4 * (3 * i * i + 3 * i + 1)
    np.testing.assert_allclose(pairs.distances[pairs.hopping].min(), LATTICE / np.sqrt(3))
    return pairs


@dataclass
class Contestants:
    """Both networks, and a bilayer of 28 atoms."""

    slow: DeepHE3Reference
    model: TrainedModel
    pairs: PairList

    def outputs(self, device: str = "cpu", dtype: torch.dtype = torch.float32) -> tuple[Action, Action]:
        """What the slow network and ours give, as functions, with the networks moved there."""
        species = torch.zeros(self.pairs.n_atoms, dtype=torch.long, device=device)
        index = torch.from_numpy(np.stack([self.pairs.i, self.pairs.j])).to(device)
        vectors = torch.from_numpy(self.pairs.vectors).to(device, dtype)
        slow, cascade = self.slow.to(device, dtype), self.model.cascade.to(device, dtype)
        return lambda: [slow(species, index, vectors).out], outputs_of(cascade.stage1, cascade.graph(self.pairs))


def contestants(size: Size, folder: Path) -> Contestants:
    arguments = build_arguments(
        {6: SHELLS}, size.irreps, embed=size.n_scalars, n_blocks=size.n_blocks, r_max=size.cutoff
    )
    nets: list[DeepHE3Reference] = []
    torch.manual_seed(0)
    seconds = timed(lambda: nets.append(reference_of(arguments, optimize=True)))
    print(f"      code that e3nn generates for its network: {seconds:.1f} s")
    with torch.no_grad():  # nothing is trivial, yet sums over neighbors do not grow from block to block
        for name, parameter in nets[0].named_parameters():
            if ".fc." not in name and ("bias" in name or "norm" in name):
                parameter.add_(0.2 * torch.randn_like(parameter))
    model = import_deephe3(write_folder(folder, nets[0], arguments, {6: SHELLS}))
    model.cascade.requires_grad_(True)
    return Contestants(nets[0], model, pairs_of(1, size.cutoff))


def own_default(size: Size) -> Cascade:
    """The network that `hybridham train` makes where nothing else is asked for, untrained."""
    carbon = AtomBasis.from_degrees("C", SHELLS, valence=4, cutoff=size.cutoff / 2)
    stage1 = {"irreps": size.irreps, "n_blocks": size.n_blocks}
    config = ModelConfig(stage1=stage1, stage2={"n_groups": size.n_blocks})
    return Cascade(config, Domain(Basis.of(carbon), size.cutoff, n_neighbors=109.0))


def outputs_of(stage1: Stage1, graph: PairGraph) -> Callable[[], list[Tensor]]:
    def run() -> list[Tensor]:
        out = stage1(graph)
        return [out.node_out, out.edge_out]

    return run


def forward(net: Action) -> Action:
    return torch.no_grad()(net)


def step(net: Action, module: nn.Module) -> Action:
    """Forward and backward; all gradients are made anew."""

    def run() -> None:
        torch.stack([part.square().sum() for part in net()]).sum().backward()
        module.zero_grad(set_to_none=True)

    return run


def compare(both: Contestants, report: Report) -> None:
    """All blocks of H, as each network's outputs mean them."""
    for dtype, limit in SAME.items():
        slow, _ = both.outputs(dtype=dtype)
        (out,) = forward(slow)()
        wanted = np.stack(blocks_from_outputs(out.double().numpy(), [(6, 6)] * len(both.pairs), {6: SHELLS}))
        found = both.model.cascade.predict(both.pairs).values.reshape(wanted.shape)
        varying = np.abs(wanted - wanted.mean(0)).max()  # from pair to pair
        error = np.abs(found - wanted).max() / varying
        line = f"H in {str(dtype)[6:]} differs by {error:.1e} of its largest element less its mean over pairs"
        report.check(line, error <= limit, f"{limit:.0e}", always=True)


def race(both: Contestants, size: Size, report: Report, device: str) -> None:
    """Both networks in turn; then ours as it is by default."""
    slow, ours = both.outputs(device)
    own, graph = own_default(size).stage1.to(device), both.model.cascade.graph(both.pairs)
    default = outputs_of(own, graph)
    forwards = [forward(net) for net in (slow, ours, default)]
    steps = [step(slow, both.slow), step(ours, both.model.cascade.stage1), step(default, own)]
    for action in (forwards + steps) * 3:  # PyTorch compiles the slow network in its first calls
        action()
    for name, actions, target in [("forward", forwards, FORWARD), ("forward and backward", steps, STEP)]:
        a, b, c = (1e3 * seconds for seconds in best(actions, size.repeats, device))
        line = f"{name}: e3nn {a:.1f} ms, ours {b:.2f} ms, ratio {a / b:.1f}"
        report.check(line, a / b >= target, f"{target}")
        print(f"      {name} of our default network, norm: local: {c:.2f} ms")
    a, b, c = (tensor_memory(action, device) for action in steps)
    line = f"memory of forward and backward, tensors: e3nn {a:.0f} MiB, ours {b:.0f} MiB, ratio {a / b:.1f}"
    report.check(line, a / b >= MEMORY, f"{MEMORY}")
    print(f"      tensors of our default network: {c:.0f} MiB")


def resident(both: Contestants, which: int) -> float | None:
    """MiB that forward and backward add to the process, of the slow network or of ours."""
    action = step(both.outputs()[which], (both.slow, both.model.cascade.stage1)[which])
    for _ in range(3):
        action()
    found = resident_memory(action)
    return None if found is None else found[1]


def compare_resident(both: Contestants, quick: bool, report: Report) -> None:
    """Each network in a process of its own: what ran before leaves holes in the heap, which count."""
    if quick:
        found = [resident(both, which) for which in (0, 1)]
    else:
        command = [sys.executable, "-m", "tests.benchmarks.stage1_speed", "--resident"]
        children = (
            subprocess.run([*command, which], capture_output=True, text=True, check=True, cwd=ROOT) for which in "01"
        )
        found = [json.loads(child.stdout.splitlines()[-1]) for child in children]
    a, b = found
    if a is None or b is None:
        print("      memory of the process: not known on this system")
        return
    line = f"memory of forward and backward, process: e3nn {a:.0f} MiB, ours {b:.0f} MiB, ratio {a / b:.1f}"
    report.check(line, a / b >= MEMORY, f"{MEMORY}")


def profiles(both: Contestants, size: Size) -> None:
    _, ours = both.outputs()
    print_shares("our forward", shares(forward(ours), size.repeats))
    print_shares("our forward and backward", shares(step(ours, both.model.cascade.stage1), size.repeats))


def scaling(name: str, cascade: Cascade, size: Size, report: Report) -> None:
    """Forward of small and large structures, in stretches of similar length."""
    pairs = [pairs_of(i, size.cutoff) for i in size.twists]
    largest = resident_memory(lambda: forward(outputs_of(cascade.stage1, cascade.graph(pairs[-1])))())
    graphs = [cascade.graph(p) for p in pairs]
    n_edges = [len(graph.distance) for graph in graphs]
    counts = [-(-n_edges[-1] // (3 * n)) for n in n_edges]
    actions = [forward(outputs_of(cascade.stage1, graph)) for graph in graphs]
    repeated = [lambda a=a, n=n: [a() for _ in range(n)] and None for a, n in zip(actions, counts, strict=True)]
    for action in actions:
        action()
    seconds = np.array(best(repeated, -(-size.repeats // 2))) / counts
    per_edge = seconds / n_edges
    words = [f"{p.n_atoms} atoms {t:.3f} s, {1e6 * e:.1f}" for p, t, e in zip(pairs, seconds, per_edge, strict=True)]
    ratio = per_edge.max() / per_edge.min()
    line = f"forward, {name}: {'; '.join(words)} us an edge; ratio {ratio:.2f}"
    report.check(line, ratio <= PER_EDGE, f"{PER_EDGE}")
    if largest is not None:
        peak = largest[0] / 1024
        line = f"process at the peak, graph and forward of {n_edges[-1]} edges: {peak:.2f} GiB"
        report.check(line, peak <= LARGEST_GIB, f"{LARGEST_GIB} GiB")


def start_up(size: Size, folder: Path, report: Report) -> None:
    cascade, path = own_default(size), folder / "model.hham"
    cascade.has_stage2.fill_(True)
    save_model(path, TrainedModel(cascade))
    done = subprocess.run([sys.executable, "-c", START_UP, path], capture_output=True, text=True, check=True)
    first, imports, ready = map(float, done.stdout.split())
    line = (
        f"HybridHamCalculator(checkpoint): {imports + ready:.2f} s, of which import of torch and model {imports:.2f} s"
    )
    report.check(line, imports + ready <= READY_SECONDS, f"{READY_SECONDS} s")
    print(f"      before it, python and import of the calculator: {first:.2f} s")


def run(quick: bool) -> bool:
    """Whether all targets that count were met."""
    size, report = QUICK if quick else Size(), Report(quick)
    print(f"{processor()}, torch {torch.__version__}; {size.irreps}, {size.n_blocks} blocks")
    with tempfile.TemporaryDirectory() as scratch:
        both = contestants(size, Path(scratch) / "deephe3")
        n_atoms = both.pairs.n_atoms
        print(f"twisted bilayer, {n_atoms} atoms, {len(both.pairs) - n_atoms} hoppings up to {size.cutoff} angstrom")
        compare(both, report)
        race(both, size, report, "cpu")
        compare_resident(both, quick, report)
        cascade = both.model.cascade
        made, list_made = best([lambda: cascade.graph(both.pairs), lambda: pairs_of(1, size.cutoff)], size.repeats)
        print(f"      once per structure: list of pairs {1e3 * list_made:.1f} ms, our graph {1e3 * made:.1f} ms")
        profiles(both, size)
        start_up(size, Path(scratch), report)
        if torch.cuda.is_available():
            print(f"{torch.cuda.get_device_name()}: the same there, no targets")
            race(both, size, Report(quick=True), "cuda")
            cascade.cpu()
        del both.slow
        scaling("norm: graph", cascade, size, report)
        scaling("norm: local", own_default(size), size, report)
    return not report.failed


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="stage 1 against e3nn's tensor product")
    parser.add_argument("--quick", action="store_true", help="a small network; only the comparison of H counts")
    parser.add_argument("--resident", choices=["0", "1"], help=argparse.SUPPRESS)  # in a process of its own
    options = parser.parse_args(arguments)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if options.resident:
            with tempfile.TemporaryDirectory() as scratch:
                print(json.dumps(resident(contestants(Size(), Path(scratch) / "deephe3"), int(options.resident))))
            return 0
        return 0 if run(options.quick) else 1
    finally:
        torch.set_num_threads(n_threads)


if __name__ == "__main__":
    sys.exit(main())
