"""Stage 2 against the same function on joined features, and against stage 1; what stage 1 costs in phase 2.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.stage2_speed [--quick]

Twisted bilayer graphene with s2p2d1 carbon and pairs up to 7.2 angstrom, networks of default widths without training.
The joined form holds the same weights and writes Eq. 1 and 3-5 as they stand: features of atoms are copied to every
pair, joined with those of the pair, and one matrix acts on each joined row; torch-geometric makes softmax and sums.
Corrections are compared first. Both forms share the read-out. Features of stage 1 are given, as in training. Times are
processor times of one thread, or of the clock on a GPU, the best of alternating repeats, in single precision. --quick:
a small network, to see that it runs; only the comparison counts.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch
from torch_geometric.utils import scatter, softmax

from ase_hybridham.model import Cascade, Domain, ModelConfig, PairGraph, Stage1Output, Stage2
from ase_hybridham.model.convolution import smooth_envelope
from ase_hybridham.model.pairrows import PairRows
from ase_hybridham.model.transformer import NEGLIGIBLE
from ase_hybridham.system import AtomBasis, Basis, PairBlocks, PairList
from ase_hybridham.train import Phase2Config
from ase_hybridham.train.data import add_stage1, rotated
from ase_hybridham.train.phase import Phase, stage2_task
from tests.benchmarks.bilayers import twisted_bilayer
from tests.benchmarks.costs import Action, best, print_shares, resident_memory, shares, tensor_memory
from tests.benchmarks.report import Report, processor

SHELLS = (0, 0, 1, 1, 2)
SAME = {torch.float64: 1e-10, torch.float32: 1e-4}
# the project's promises
JOINED, STAGE1, SHARE, LARGEST_GIB = 1.8, 1.0, 5.0, 4.0


@dataclass(frozen=True)
class Size:
    """Networks, structures (twists of `twisted_bilayer`), repeats."""

    irreps: str = "64x0e+32x1o+16x2e+8x3o+8x4e"
    width: int = 64
    n_blocks: int = 4
    cutoff: float = 7.2
    large: int = 10  # 1324 atoms
    repeats: int = 5


QUICK = Size("6x0e+4x1o+3x2e+2x3o+2x4e", 8, 1, 4.0, 2, 1)


def pairs_of(twist: int, size: Size) -> PairList:
    return PairList.from_atoms(twisted_bilayer(twist), {6: size.cutoff / 2})


def network(size: Size, frame: str = "edge") -> Cascade:
    """Of default options but for the size; random numbers stand in place of zeros, so that all parts matter."""
    torch.manual_seed(0)
    carbon = AtomBasis.from_degrees("C", SHELLS, valence=4, cutoff=size.cutoff / 2)
    stage2 = {"frame": frame, "width": size.width, "n_blocks": size.n_blocks}
    config = ModelConfig(stage1={"irreps": size.irreps}, stage2=stage2)
    cascade = Cascade(config, Domain(Basis.of(carbon), size.cutoff, n_neighbors=109.0))
    with torch.no_grad():
        for parameter in cascade.stage2.parameters():
            if not parameter.any():
                parameter.add_(0.1 * torch.randn_like(parameter))
        graph = cascade.graph(pairs_of(1, size))
        cascade.stage2.fit_inputs([(graph, cascade.stage1(graph))])
    return cascade


def joined_block(block: nn.Module, node: Tensor, edge: Tensor, i: Tensor, j: Tensor, bias: Tensor) -> list[Tensor]:
    """Eq. 3-5."""
    linear, heads, size = nn.functional.linear, (len(i), block.n_heads, -1), node.shape[1] // block.n_heads
    key_value = torch.cat([block.key_value_node.weight, block.key_value_edge.weight], 1)
    key, value = linear(torch.cat([node[j], edge], 1), key_value).chunk(2, 1)
    score = (block.query(node)[i] * key).view(*heads).sum(2) * size**-0.5
    weight = softmax(score + bias, i, num_nodes=len(node))
    mixed = scatter((value.view(*heads) * weight[:, :, None]).flatten(1), i, dim=0, dim_size=len(node))
    middle = block.node_norm(block.out(mixed) + node)
    node = middle + block.node_mlp(middle)
    update = torch.cat([block.edge_i.weight, block.edge_j.weight, block.edge_own.weight], 1)
    hidden = linear(torch.cat([node[i], node[j], edge], 1), update, block.edge_own.bias)
    return [node, block.edge_norm(edge + block.edge_out(nn.functional.silu(hidden)))]


def joined_form(stage2: Stage2, graph: PairGraph, output: Stage1Output) -> list[Tensor]:
    """Corrections of on-site blocks and hoppings."""
    body, linear, n = stage2.transformer, nn.functional.linear, graph.num_nodes
    c, atoms = body.config, torch.arange(n, device=graph.species.device)
    i, j = torch.cat([graph.edge_index[0], atoms]), torch.cat([graph.edge_index[1], atoms])
    envelope = smooth_envelope(graph.distance, body.pair_reach[graph.element_pair]).clamp(min=NEGLIGIBLE)
    bias = torch.cat([torch.log(envelope), envelope.new_zeros(n)])[:, None]
    invariants, node = body.invariants(graph), body.node_embedding(graph.species)
    hopping = body.distance(body.gaussians(graph.distance)) + body.pair_embedding(graph.element_pair)
    edge = torch.cat([hopping, body.onsite_embedding(graph.species)])
    told = stage2.inputs(graph, output)
    for p in range(c.n_groups):
        maps = (body.node_maps[p], body.edge_maps[p], body.onsite_maps[p])
        nodes, edges, onsite = (linear(m.statistics(rows), m.weight) for rows, m in zip(told[p], maps, strict=True))
        node = node + c.alpha * nodes + c.beta * invariants
        edge = edge + c.lambda_ * torch.cat([edges, onsite])
        for block in body.blocks[p * c.n_blocks : (p + 1) * c.n_blocks]:
            node, edge = joined_block(block, node, edge, i, j, bias)
    hopping, onsite = edge.split([len(envelope), n])
    chunks = graph.frames(stage2.layout.lmax).chunks(len(graph.reverse))
    return list(stage2.frame.read_out(graph, output, chunks, onsite, [hopping]))


def split_form(stage2: Stage2, graph: PairGraph, output: Stage1Output) -> list[Tensor]:
    return list(stage2(graph, output))


def blocks_of(stage2: Stage2, graph: PairGraph) -> tuple[Action, Action]:
    """Eq. 3-5 of all blocks in a row, on random rows that need a gradient: joined and ours."""
    body, n = stage2.transformer, graph.num_nodes
    (pairs,) = (PairRows(graph, chunk) for chunk in graph.frames(1).chunks(len(graph.reverse)))
    i, j, like = pairs.i, pairs.j, graph.distance
    node, edge = (torch.randn(rows, body.config.width).to(like).requires_grad_() for rows in (n, len(i)))

    def joined() -> list[Tensor]:
        rows, bias = [node, edge], like.new_zeros(len(i), 1)
        for block in body.blocks:
            rows = joined_block(block, *rows, i, j, bias)
        return rows

    def split() -> list[Tensor]:
        atoms, rows, bias = node, [edge], like.new_zeros(n, 1, pairs.padding.shape[1])
        bias = bias.masked_fill(pairs.missing[:, None], -torch.inf)
        for block in body.blocks:
            atoms, rows = block([pairs], atoms, rows, [bias])
        return [atoms, *rows]

    return joined, split


def stage1_alone(cascade: Cascade, graph: PairGraph) -> list[Tensor]:
    output = cascade.stage1(graph)
    return [output.node_out, output.edge_out]


def step(outputs: Action, module: nn.Module) -> Action:
    """Forward and backward; all gradients are made anew."""

    def run() -> None:
        torch.stack([part.square().sum() for part in outputs()]).sum().backward()
        module.zero_grad(set_to_none=True)

    return run


@torch.no_grad()
def compare(cascade: Cascade, pairs: PairList, report: Report) -> None:
    """Corrections of both forms."""
    for dtype, limit in SAME.items():
        cascade.to(dtype)
        graph = cascade.graph(pairs)
        output = cascade.stage1(graph)
        both = [torch.cat(form(cascade.stage2, graph, output)) for form in (split_form, joined_form)]
        error = float((both[0] - both[1]).abs().max() / both[1].abs().max())
        line = f"corrections in {str(dtype)[6:]} differ by {error:.1e} of the largest"
        report.check(line, error <= limit, f"{limit:.0e}", always=True)


def race(cascade: Cascade, pairs: PairList, size: Size, report: Report, device: str) -> None:
    """Both forms and stage 1 in turn."""
    stage2, graph = cascade.to(device).stage2, cascade.graph(pairs)
    with torch.no_grad():
        output = cascade.stage1(graph)
    outputs = [partial(form, stage2, graph, output) for form in (joined_form, split_form)]
    outputs += [partial(stage1_alone, cascade, graph), *blocks_of(stage2, graph)]
    modules = [stage2, stage2, cascade.stage1, stage2, stage2]
    steps = [step(o, m) for o, m in zip(outputs, modules, strict=True)]
    forwards = [torch.no_grad()(o) for o in outputs]
    for action in (forwards + steps) * 2:
        action()
    for name, actions in (("forward", forwards), ("forward and backward", steps)):
        joined, ours, stage1, *blocks = (1e3 * seconds for seconds in best(actions, size.repeats, device))
        line = f"{name}, Eq. 3-5: joined {blocks[0]:.1f} ms, ours {blocks[1]:.1f} ms, ratio {blocks[0] / blocks[1]:.2f}"
        report.check(line, name == "forward" or blocks[0] / blocks[1] >= JOINED, f"{JOINED} with backward")
        print(f"      {name}, all of stage 2: joined {joined:.1f} ms, ours {ours:.1f} ms, ratio {joined / ours:.2f}")
        line = f"{name}: stage 1 {stage1:.1f} ms, stage 2 {ours:.1f} ms, ratio {stage1 / ours:.2f}"
        report.check(line, stage1 / ours >= STAGE1, f"{STAGE1:.0f}")
    a, b, c = (tensor_memory(action, device) for action in steps[:3])
    print(f"      memory of forward and backward, tensors: joined {a:.0f} MiB, ours {b:.0f} MiB, stage 1 {c:.0f} MiB")
    stage2.edges_per_chunk = 512
    chunked, whole = (tensor_memory(steps[1], device), b)
    print(f"      ours with edges_per_chunk: 512: {chunked:.0f} MiB of {whole:.0f} MiB")
    stage2.edges_per_chunk = None
    if device == "cpu":
        print_shares("our forward and backward", shares(steps[1], size.repeats))


def phase2(size: Size, frame: str, report: Report) -> None:
    """An epoch over four small bilayers: what of it is stage 1, and what is turning."""
    cascade, small = network(size, frame), twisted_bilayer(1)
    graphs, rng = [], np.random.default_rng(0)
    for _ in range(4):
        atoms = small.copy()
        atoms.positions += 0.02 * rng.normal(size=atoms.positions.shape)
        pairs = PairList.from_atoms(atoms, {6: size.cutoff / 2})
        zeros = PairBlocks.zeros(pairs, cascade.domain.basis)
        hamiltonian = zeros.with_values(rng.normal(size=zeros.values.shape)).hermitian_part()
        graphs.append(PairGraph.with_targets((hamiltonian,), cascade.vocabulary, cascade.lmax))
    (caching,) = best([lambda: add_stage1([graph.clone() for graph in graphs], cascade)], size.repeats)
    add_stage1(graphs, cascade)
    config = Phase2Config()
    phase = Phase(
        config, cascade.stage2, stage2_task(cascade), cascade, graphs, graphs[:1], seed=0, augment=frame == "global"
    )
    phase.run_epoch()
    (epoch,) = best([phase.run_epoch], size.repeats)
    once = 100 * caching / epoch
    share = once / config.epochs
    line = (
        f"frame {frame}: epoch of phase 2 {epoch:.2f} s; stage 1, once, {caching:.2f} s, over {config.epochs} epochs "
        f"{share:.2f} %"
    )
    report.check(line, share <= SHARE, f"{SHARE:.0f} %")
    if frame == "global":
        batch = Batch.from_data_list(graphs[:1])
        (turning,) = best([lambda: rotated(batch, cascade, rng)], size.repeats)
        print(f"      turning what is stored: {100 * turning * len(graphs) / epoch:.1f} % of an epoch")


def prediction(size: Size, report: Report) -> None:
    """Both stages of a large bilayer, without derivatives."""
    cascade, pairs = network(size), pairs_of(size.large, size)
    cascade.has_stage2.fill_(True)
    graph = cascade.graph(pairs)
    found = resident_memory(lambda: torch.no_grad()(cascade)(graph))
    if found is not None:
        line = f"process at the peak, both stages of {pairs.n_hoppings} hoppings: {found[0] / 1024:.2f} GiB"
        report.check(line, found[0] / 1024 <= LARGEST_GIB, f"{LARGEST_GIB:.0f} GiB")


def run(quick: bool) -> bool:
    """Whether all targets that count were met."""
    size, report = QUICK if quick else Size(), Report(quick)
    cascade, pairs = network(size), pairs_of(1, size)
    n_weights = [sum(p.numel() for p in stage.parameters()) for stage in (cascade.stage1, cascade.stage2)]
    print(f"{processor()}, torch {torch.__version__}; weights of the stages: {n_weights[0]} and {n_weights[1]}")
    print(f"twisted bilayer, {pairs.n_atoms} atoms, {pairs.n_hoppings} hoppings up to {size.cutoff} angstrom")
    compare(cascade, pairs, report)
    race(cascade, pairs, size, report, "cpu")
    if torch.cuda.is_available():
        print(f"{torch.cuda.get_device_name()}: the same there, no targets")
        race(cascade, pairs, size, Report(quick=True), "cuda")
    for frame in ("edge", "global"):
        phase2(size, frame, report)
    prediction(size, report)
    return not report.failed


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="stage 2 against its equations on joined features")
    parser.add_argument("--quick", action="store_true", help="a small network; only the comparison counts")
    options = parser.parse_args(arguments)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return 0 if run(options.quick) else 1
    finally:
        torch.set_num_threads(n_threads)


if __name__ == "__main__":
    sys.exit(main())
