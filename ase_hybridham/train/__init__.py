"""How do networks learn, and how good are they? Data, the two phases, metrics, evaluation."""

from ase_hybridham.train.config import Phase2Config, PhaseConfig, TrainConfig, read_config, read_options
from ase_hybridham.train.data import majority_up, refuse_other_kinds
from ase_hybridham.train.evaluate import evaluate, evaluate_system
from ase_hybridham.train.learn import LearnConfig, Learned, Round, learn, pick
from ase_hybridham.train.loop import train
from ase_hybridham.train.metrics import HamiltonianError, hamiltonian_error
from ase_hybridham.train.noise import LabelNoise, known_noise, measured_noise
from ase_hybridham.train.report import Evaluation, StructureErrors
from ase_hybridham.train.rotations import is_equivariant, rotation_error

__all__ = [
    "Evaluation",
    "HamiltonianError",
    "LabelNoise",
    "LearnConfig",
    "Learned",
    "Phase2Config",
    "PhaseConfig",
    "Round",
    "StructureErrors",
    "TrainConfig",
    "evaluate",
    "evaluate_system",
    "hamiltonian_error",
    "is_equivariant",
    "known_noise",
    "learn",
    "majority_up",
    "measured_noise",
    "pick",
    "read_config",
    "read_options",
    "refuse_other_kinds",
    "rotation_error",
    "train",
]
