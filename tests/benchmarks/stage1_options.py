"""Stage 1's norms, gates and maps of pairs: time of a training step and of a prediction.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.stage1_options DATA.h5 [--irreps IRREPS] [--repeats N]

On the first structure of the split `train`. Processor times of one thread, the best of alternating repeats.
"""

import argparse
import time
from collections.abc import Callable

import torch

from ase_hybridham.model import Cascade, ModelConfig, PairGraph
from ase_hybridham.store import DataSet
from ase_hybridham.train.data import domain_of, graphs_of

OPTIONS: dict[str, dict[str, object]] = {
    "default": {},
    "norm: graph": {"norm": "graph"},
    "gates: order": {"gates": "order"},
    "envelope: false": {"envelope": False},
    "pair_maps: separate": {"pair_maps": "separate"},
}


def contestant(cascade: Cascade, graph: PairGraph) -> tuple[Callable[[], None], Callable[[], None]]:
    """A step of training, and a prediction."""
    optimizer = torch.optim.AdamW(cascade.stage1.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        node, edge = cascade(graph, "stage1")
        loss = (node - graph.node_target).abs().mean() + (edge - graph.edge_target).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    @torch.no_grad()
    def predict() -> None:
        cascade(graph, "stage1")

    return step, predict


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", metavar="DATA.h5")
    parser.add_argument("--irreps", default="24x0e+16x1o+10x2e+6x3o+4x4e")
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    networks, actions = [], []
    with DataSet(arguments.data) as data:
        names = data.split("train")
        domain = domain_of(data, names)
        for options in OPTIONS.values():
            torch.manual_seed(0)
            config = ModelConfig(stage1={"irreps": arguments.irreps, **options}, stage2=None)
            cascade = Cascade(config, domain)
            graphs = graphs_of(data, names[:1], cascade)
            cascade.scale1.fit(graphs)
            networks.append(cascade.stage1)
            actions.append(contestant(cascade, graphs[0]))
    best = [[float("inf")] * 2 for _ in actions]
    for repeat in range(arguments.repeats + 1):
        for row, pair in zip(best, actions, strict=True):
            for k, action in enumerate(pair):
                start = time.process_time()
                action()
                if repeat:  # the first warms up
                    row[k] = min(row[k], time.process_time() - start)
    print(f"{names[0]}: {len(graphs[0].species)} atoms, {len(graphs[0].distance)} hoppings; milliseconds")
    print(f"{'':>20}{'parameters':>12}{'step':>8}{'prediction':>12}")
    for name, network, (step, prediction) in zip(OPTIONS, networks, best, strict=True):
        n_parameters = sum(p.numel() for p in network.parameters())
        print(f"{name:>20}{n_parameters:12d}{1e3 * step:8.1f}{1e3 * prediction:12.1f}")


if __name__ == "__main__":
    main()
