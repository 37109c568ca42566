"""How does a network turn a structure into a Hamiltonian? Both stages, their targets, and the checkpoint."""

from ase_hybridham.model.card import CardErrors, ModelCard
from ase_hybridham.model.cascade import Cascade, Domain, Stage, Stage2
from ase_hybridham.model.checkpoint import (
    TrainedModel,
    find_model,
    load_model,
    read_metadata,
    save_model,
    select_device,
)
from ase_hybridham.model.config import ModelConfig, Stage1Config, Stage2Config
from ase_hybridham.model.coverage import Coverage
from ase_hybridham.model.ensemble import Ensemble, Spread, load_ensemble
from ase_hybridham.model.equivariant import Stage1, Stage1Output
from ase_hybridham.model.graph import PairGraph, blocks_from_components, turn_components
from ase_hybridham.model.targets import TargetScale
from ase_hybridham.model.vocabulary import Vocabulary

__all__ = [
    "CardErrors",
    "Cascade",
    "Coverage",
    "Domain",
    "Ensemble",
    "ModelCard",
    "ModelConfig",
    "PairGraph",
    "Spread",
    "Stage",
    "Stage1",
    "Stage1Config",
    "Stage1Output",
    "Stage2",
    "Stage2Config",
    "TargetScale",
    "TrainedModel",
    "Vocabulary",
    "blocks_from_components",
    "find_model",
    "load_ensemble",
    "load_model",
    "read_metadata",
    "save_model",
    "select_device",
    "turn_components",
]
