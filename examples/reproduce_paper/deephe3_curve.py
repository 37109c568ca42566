"""Test error of DeepH-E3 against the CPU time it has trained: the other side of the comparison.

    python deephe3_curve.py DEEPHE3 DATA -o curve.json [--budget 3600]

Runs in an environment of DeepH-E3's own (torch, torch_geometric, e3nn 0.3.5, pymatgen, pathos, tensorboard), with
the program untouched: DEEPHE3 is a clone of github.com/Xiaoxun-Gong/DeepH-E3, DATA a folder of structures in DeepH's
layout named by number. id % 8 = 3 is for testing, 7 for validation, the rest for training, as everywhere here.
What a new torch lacks is stood in for from outside: torch_scatter (its function is in torch_geometric now), one
tracer for a graph of torch.fx, and loading pickled files.

An error is the mean over test structures of the mean |H_pred - H_DFT| over all elements, of the weights that were
best on the validation structures so far (before the end of the first epoch, of the last). Its own time does not
count; validation after every epoch, which is part of the program, does.
"""

import argparse
import copy
import json
import os
import sys
import tempfile
import time
import types
from pathlib import Path

MARKS = [24, 70, 141, 243, 600, 1200, 1800, 2700, 3600]
WIDTHS = {"half": "32x0e+16x1o+8x2e+4x3o+4x4e", "default": "64x0e+32x1o+16x2e+8x3o+8x4e"}
INI = """[basic]
device = cpu
save_dir = {out}
seed = {seed}
[data]
processed_data_dir = {data}
save_graph_dir = {graphs}
dataset_name = data
[train]
num_epoch = 1000000
min_lr = -1
[hyperparameters]
learning_rate = {rate}
scheduler_type = 1
scheduler_params = (factor=0.5, cooldown=40, patience=120, threshold=0.05)
[network]
irreps_embed = {embed}
irreps_mid = {mid}
"""


def prepare(folder: Path) -> None:
    """Make the program importable on a new torch."""
    import torch
    import torch.fx
    from torch_geometric.utils import scatter

    sys.modules["torch_scatter"] = types.SimpleNamespace(scatter=scatter)
    init = torch.fx.Proxy.__init__

    def with_tracer_of_graph(self, node, tracer=None):
        if tracer is None:
            if not hasattr(node.graph, "one_tracer"):
                node.graph.one_tracer = torch.fx.proxy.GraphAppendingTracer(node.graph)
            tracer = node.graph.one_tracer
        init(self, node, tracer)

    torch.fx.Proxy.__init__ = with_tracer_of_graph
    load = torch.load
    torch.load = lambda *args, **options: load(*args, **{"weights_only": False, **options})
    sys.path.insert(0, str(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", type=Path, help="clone of DeepH-E3")
    parser.add_argument("data", type=Path, help="folder of structures in DeepH's layout")
    parser.add_argument("-o", "--output", type=Path, default=Path("deephe3.json"))
    parser.add_argument("--budget", type=float, default=3600.0, help="CPU seconds")
    parser.add_argument("--width", choices=WIDTHS, default="half")
    parser.add_argument("--rate", type=float, default=0.002, help="learning rate; the program's default")
    parser.add_argument("--first", type=int, help="train on the first so many structures only")
    parser.add_argument("--seed", type=int, default=42)
    args = parser.parse_args()
    prepare(args.program)
    import torch
    from deephe3 import DeepHE3Kernel
    from deephe3.graph import Collater
    from torch.utils.data import DataLoader, SubsetRandomSampler

    torch.set_num_threads(1)
    rows: list[dict] = []
    marks = [mark for mark in MARKS if mark <= args.budget]

    class Kernel(DeepHE3Kernel):
        """The program, with our splits and a look at the clock."""

        began = None  # of the first step: reading data and building the network do not count
        outside = 0.0  # seconds of evaluation
        best, best_loss = None, float("inf")

        def get_loader(self):
            rest = [int(name) % 8 for name in self.dataset.data.stru_id]
            named = {kind: [k for k, r in enumerate(rest) if r == kind] for kind in (3, 7)}
            train = [k for k, r in enumerate(rest) if r not in (3, 7)]
            by_id = sorted(train, key=lambda k: int(self.dataset.data.stru_id[k]))[: args.first]

            def loader(indices):
                sampler = SubsetRandomSampler(indices)
                return DataLoader(self.dataset, batch_size=1, sampler=sampler, collate_fn=Collater())

            kernel, train_loader = self, loader(by_id)

            class Watched:
                """The training structures, with a look at the clock before each."""

                def __iter__(self):
                    for batch in train_loader:
                        kernel.look()
                        yield batch

            self.test_loader = loader(named[3])
            self.sizes = {"train": len(by_id), "val": len(named[7]), "test": len(named[3])}
            return Watched(), loader(named[7]), None, self.test_loader

        def record_train(self):
            super().record_train()
            loss = self.train_info.val_losses.avg
            if loss < self.best_loss:
                self.best_loss, self.best = loss, copy.deepcopy(self.net.state_dict())

        def look(self):
            start = time.process_time()
            self.began = start if self.began is None else self.began
            seconds = start - self.began - self.outside
            if marks and seconds >= marks[0]:
                while marks and seconds >= marks[0]:
                    marks.pop(0)
                self.measure(seconds)
                self.outside += time.process_time() - start
            if not marks:
                raise KeyboardInterrupt  # how the program itself is ended early

        @torch.no_grad()
        def measure(self, seconds):
            now = copy.deepcopy(self.net.state_dict())
            if self.best is not None:
                self.net.load_state_dict(self.best)
            self.net.eval()
            errors = {}
            for batch in self.test_loader:
                _, edge = self.net(batch)
                difference = (self.construct_kernel.get_H(edge) - batch.label).abs()
                errors[batch.stru_id[0]] = 1e3 * float(difference[batch.mask].mean())
            self.net.load_state_dict(now)
            self.net.train()
            values = list(errors.values())
            rows.append(
                {
                    "cpu_s": round(seconds, 1),
                    "epochs": self.train_info.epoch + 1 if self.train_info else 0,
                    "mae_all_meV": sum(values) / len(values),
                    "mae_cha_meV": max(values),
                }
            )
            setting = {"width": WIDTHS[args.width], "rate": args.rate, "seed": args.seed, **self.sizes}
            setting["parameters"] = sum(p.numel() for p in self.net.parameters() if p.requires_grad)
            args.output.write_text(json.dumps({"program": "DeepH-E3", **setting, "rows": rows}, indent=1))

    with tempfile.TemporaryDirectory() as folder:
        ini = Path(folder, "train.ini")
        mid = WIDTHS[args.width]
        ini.write_text(
            INI.format(
                out=Path(folder, "out"),
                data=args.data.resolve(),
                graphs=Path(folder, "graphs"),
                embed=mid.split("+")[0],
                mid=mid,
                rate=args.rate,
                seed=args.seed,
            )
        )
        os.environ["OMP_NUM_THREADS"] = "1"
        Kernel().train(str(ini))


if __name__ == "__main__":
    main()
