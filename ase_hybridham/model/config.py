"""The one list of the network's options and defaults; a checkpoint carries it."""

from typing import Literal

from e3nn.o3 import Irreps
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

__all__ = ["ModelConfig", "Stage1Config", "Stage2Config", "parse_irreps"]


def parse_irreps(irreps: str) -> tuple[int, ...]:
    """Multiplicities by l of natural irreps in e3nn's notation, e.g. ``"64x0e+32x1o+16x2e"`` -> (64, 32, 16)."""
    try:
        entries = Irreps(irreps)
    except ValueError as error:
        raise ValueError(f"irreps {irreps!r}: expected entries like 16x2e ({error})") from error
    multiplicities: dict[int, int] = {}
    for multiplicity, irrep in entries:
        if irrep.p != (-1) ** irrep.l:
            raise ValueError(f"irreps {irreps!r}: hidden features have parity (-1)^l, got {irrep}")
        multiplicities[irrep.l] = multiplicities.get(irrep.l, 0) + multiplicity
    if not multiplicities or sorted(multiplicities) != list(range(len(multiplicities))) or 0 in multiplicities.values():
        raise ValueError(f"irreps {irreps!r}: expected every l from 0 up, each at least once")
    return tuple(multiplicities[l] for l in sorted(multiplicities))


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Stage1Config(_Strict):
    """The equivariant stage."""

    irreps: str = Field("64x0e+32x1o+16x2e+8x3o+8x4e", description="hidden features of nodes and pairs, e3nn notation")
    n_blocks: int = Field(3, ge=1, description="node and edge updates")
    n_gaussians: int = Field(128, ge=2, description="radial basis of the weights, over the cutoff")
    radial_width: int = Field(64, ge=1, description="hidden width of the radial network")

    @field_validator("irreps")
    @classmethod
    def _irreps(cls, irreps: str) -> str:
        parse_irreps(irreps)
        return irreps

    @property
    def multiplicities(self) -> tuple[int, ...]:
        """Hidden multiplicities by l."""
        return parse_irreps(self.irreps)


class Stage2Config(_Strict):
    """The graph Transformer; names of the choices the paper leaves open are explained in docs/network.md."""

    frame: Literal["edge", "global"] = Field("edge", description="exactly equivariant, or the paper's reading")
    width: int = Field(64, ge=1)
    n_groups: int = Field(3, ge=1, description="P: each is fed with the features of one block of stage 1")
    n_blocks: int = Field(4, ge=1, description="W: attention blocks in a group")
    n_heads: int = Field(4, ge=1, description="H")
    alpha: float = Field(0.8, description="weight of stage 1's node features, Eq. 1")
    beta: float = Field(0.9, description="weight of the invariants, Eq. 1")
    lambda_: float = Field(0.4, alias="lambda", description="weight of stage 1's edge features, Eq. 1")
    invariants: Literal["density", "tuples"] = Field("density", description="Eq. 2: smooth, or the paper's tuples")
    residual: Literal["fused", "paper"] = Field("fused", description="Eq. 4-5 with our residuals, or literally")
    feature_shift: Literal[0, 1] = Field(0, description="1: group p gets block p-1's features, as Eq. 1 has it")
    n_gaussians: int = Field(32, ge=2)
    readout_channels: int = Field(32, ge=1, description="channels per order of the gated read-out")

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @model_validator(mode="after")
    def _heads(self) -> "Stage2Config":
        if self.width % self.n_heads:
            raise ValueError(f"width: expected a multiple of n_heads = {self.n_heads}, got {self.width}")
        return self


class ModelConfig(_Strict):
    """Both stages."""

    stage1: Stage1Config = Stage1Config()
    stage2: Stage2Config = Stage2Config()
    dtype: Literal["float32", "float64"] = Field("float32", description="of weights and training")

    @model_validator(mode="after")
    def _groups(self) -> "ModelConfig":
        if self.stage2.n_groups > self.stage1.n_blocks:
            raise ValueError(
                f"stage2.n_groups: expected at most stage1.n_blocks = {self.stage1.n_blocks}, "
                f"got {self.stage2.n_groups}"
            )
        return self
