"""Where a network starts: at random, or at a trained one."""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from ase_hybridham.model import (
    Cascade,
    Domain,
    ModelConfig,
    PairGraph,
    TargetScale,
    TrainedModel,
    load_model,
    read_metadata,
)
from ase_hybridham.train.config import TrainConfig

__all__ = ["base_of", "fit_missing", "start"]

logger = logging.getLogger(__name__)

PARTS = ("stage1", "scale1", "stage2", "scale2")
SAME_RADIUS = 1e-3  # angstrom; where files tell none it follows from the longest pair, not to the last digit


def base_of(config: TrainConfig) -> tuple[TrainConfig, TrainedModel | None, str]:
    """The options, with the network of the model to start from unless they have their own; that model; its digest.

    Raises
    ------
    CheckpointError
        If there is no such model.
    ValueError
        If its network cannot be trained.
    """
    if config.init is None:
        return config, None, ""
    metadata = read_metadata(config.init)
    model = config.model if "model" in config.model_fields_set else ModelConfig(**metadata["config"])
    if model.stage1.readout == "free":
        raise ValueError(f"{config.init}: an imported network, whose H is not Hermitian; it cannot be trained further")
    digest = hashlib.sha256(json.dumps([metadata["config"], metadata["probe"]], sort_keys=True).encode()).hexdigest()
    base = load_model(config.init, "cpu", model.dtype)
    return config.model_copy(update={"model": model}), base, digest


def start(config: ModelConfig, domain: Domain, base: TrainedModel | None) -> tuple[Cascade, set[str]]:
    """A network, and which of its parts are wholly those of the model it starts from.

    Tensors of other shapes than in the model stay as they are drawn. A network whose weights are all those of the model
    has met what both training sets hold; one with weights that start anew only what the data hold.

    Parameters
    ----------
    config : ModelConfig
    domain : Domain
        Of the training set. The network knows the model's elements, which may be more.
    base : TrainedModel, optional

    Raises
    ------
    ValueError
        If an element of the data is new to the model, or its orbitals or the spin are others.
    """
    if base is None:
        return Cascade(config, domain), set()
    known = base.cascade.domain
    _compare(known, domain)
    if domain.reach > known.reach:
        logger.warning(
            "init: the model knows pairs up to %.3f angstrom, the data reach to %.3f: radial functions are stretched",
            known.reach,
            domain.reach,
        )
    cascade = Cascade(config, replace(known, reach=max(known.reach, domain.reach), coverage=domain.coverage))
    stages = {"stage1"} if config.stage2 is None else {"stage1", "stage2"}
    names = PARTS if base.cascade.hybrid else PARTS[:2]
    same = {name for name in names if _copy(name, getattr(base.cascade, name), getattr(cascade, name))}
    if stages <= same:
        both = None if known.coverage is None or domain.coverage is None else known.coverage.union(domain.coverage)
        cascade.domain = replace(cascade.domain, coverage=both)
    return cascade, same


def fit_missing(scale: TargetScale, graphs: Sequence[PairGraph], *, centered: bool = True) -> None:
    """Fit the scales of pairs of elements that the model never met, with or without means, and leave the others."""
    fresh = TargetScale(scale.vocabulary).to(scale.knots.device)
    fresh.zero = scale.zero
    fresh.fit(graphs, centered=centered)
    missing = (scale.knots[:, 0] == 0) & (fresh.knots[:, 0] > 0)
    for name in ("reach", "mean", "knots", "log_sigma"):
        getattr(scale, name)[missing] = getattr(fresh, name)[missing].to(getattr(scale, name))


def _compare(known: Domain, domain: Domain) -> None:
    if known.spin != domain.spin:
        raise ValueError(f"init: a model of spin {known.spin}, the data have spin {domain.spin}; train a new one")
    for symbol, atom in domain.basis.atoms.items():
        if symbol not in known.basis:
            raise ValueError(
                f"init: the model knows {', '.join(known.basis.atoms)}, the data have {symbol}; train a new one"
            )
        mine = known.basis[symbol]
        mine_r, data_r = mine.cutoff or 0.0, atom.cutoff or 0.0
        if mine.degrees != atom.degrees or abs(mine_r - data_r) > SAME_RADIUS:
            raise ValueError(
                f"init: {symbol} has shells {list(mine.degrees)} within {mine_r:.6g} angstrom in the model, "
                f"{list(atom.degrees)} within {data_r:.6g} in the data; train a new one"
            )


@torch.no_grad()
def _copy(name: str, source: nn.Module | None, target: nn.Module | None) -> bool:
    """Copy what has the same name and shape; returns whether that is all."""
    if source is None or target is None:
        return False
    given, wanted = source.state_dict(), target.state_dict()
    fitting = [key for key, tensor in wanted.items() if key in given and given[key].shape == tensor.shape]
    for key in fitting:
        wanted[key].copy_(given[key])
    if len(fitting) < len(wanted):
        logger.warning("init: %s: %d of %d tensors fit, the others start anew", name, len(fitting), len(wanted))
    return len(fitting) == len(wanted)
