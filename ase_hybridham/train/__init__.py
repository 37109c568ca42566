"""How do networks learn, and how good are they? Data, the two phases, metrics, evaluation."""

from ase_hybridham.train.config import Phase2Config, PhaseConfig, TrainConfig, read_config
from ase_hybridham.train.data import majority_up
from ase_hybridham.train.evaluate import Evaluation, StructureErrors, evaluate, evaluate_system, rotation_error
from ase_hybridham.train.loop import train
from ase_hybridham.train.metrics import HamiltonianError, hamiltonian_error

__all__ = [
    "Evaluation",
    "HamiltonianError",
    "Phase2Config",
    "PhaseConfig",
    "StructureErrors",
    "TrainConfig",
    "evaluate",
    "evaluate_system",
    "hamiltonian_error",
    "majority_up",
    "read_config",
    "rotation_error",
    "train",
]
