"""The one list of the network's options and defaults; a checkpoint carries it."""

from typing import Literal

from e3nn.o3 import Irreps
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ase_hybridham.model.layout import FeatureLayout

__all__ = ["ModelConfig", "Stage1Config", "Stage2Config", "parse_irreps"]


def parse_irreps(irreps: str) -> FeatureLayout:
    """Irreps in e3nn's notation, e.g. ``"64x0e+32x1o+16x2e"``.

    Raises
    ------
    ValueError
        If they are no irreps, or there are no scalars.
    """
    try:
        entries = Irreps(irreps)
    except ValueError as error:
        raise ValueError(f"irreps {irreps!r}: expected entries like 16x2e ({error})") from error
    channels = {(ir.l, ir.p): sum(mul for mul, other in entries if other == ir) for _, ir in entries}
    lmax = max((l for (l, _), mul in channels.items() if mul), default=0)
    natural = tuple(channels.get((l, (-1) ** l), 0) for l in range(lmax + 1))
    unnatural = tuple(channels.get((l, -((-1) ** l)), 0) for l in range(lmax + 1))
    if not natural[0]:
        raise ValueError(f"irreps {irreps!r}: expected at least one scalar, 0e")
    return FeatureLayout(natural, unnatural if any(unnatural) else ())


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Stage1Config(_Strict):
    """The equivariant stage. The last options are for networks of other programs."""

    irreps: str = Field("64x0e+32x1o+16x2e+8x3o+8x4e", description="hidden features of nodes and pairs, e3nn notation")
    n_blocks: int = Field(3, ge=1, description="node and edge updates")
    n_gaussians: int = Field(128, ge=2, description="radial basis of the weights, over the cutoff")
    radial_width: int = Field(64, ge=1, description="hidden width of the radial network")
    gates: Literal["channel", "order"] = Field("channel", description="one per channel, or one per order of a channel")
    norm: Literal["local", "graph"] = Field("local", description="graph: DeepH-E3's, over the whole structure")
    pair_maps: Literal["sum", "separate"] = Field(
        "sum", description="of element i and j; or one for every pair of them"
    )
    envelope: bool = Field(True, description="messages vanish smoothly where pairs end; without, sums are not scaled")
    readout: Literal["hermitian", "free"] = Field("hermitian", description="free: every component, as the net gives it")
    n_embedding: int | None = Field(None, ge=2, description="scalars of the first features; as in irreps")
    edge_reach: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="range of the first pair features, angstrom; the cutoff"
    )
    block_irreps: tuple[tuple[str, str], ...] | None = Field(
        None, description="of nodes and pairs after every block; as irreps"
    )

    @model_validator(mode="after")
    def _irreps(self) -> "Stage1Config":
        free = self.readout == "free"
        if (self.n_embedding or self.layout.n_scalars) < 2:
            raise ValueError(
                f"irreps {self.irreps!r}: expected at least two scalars, which stand for the distance first"
            )
        if self.block_irreps is not None and (len(self.block_irreps) != self.n_blocks or not free):
            raise ValueError("block_irreps: expected one pair of irreps per block, of a net with a free read-out")
        for layout in [parse_irreps(self.irreps), *(layout for pair in self.layouts for layout in pair)]:
            if not free and layout.unnatural:
                raise ValueError(f"irreps {self.irreps!r}: hidden features have parity (-1)^l")
            if not free and 0 in layout.natural:
                raise ValueError(f"irreps {self.irreps!r}: expected every l from 0 up, each at least once")
        return self

    @property
    def layout(self) -> FeatureLayout:
        """Hidden features."""
        return parse_irreps(self.irreps)

    @property
    def layouts(self) -> list[tuple[FeatureLayout, FeatureLayout]]:
        """Features of nodes and pairs after every block."""
        given = self.block_irreps or ((self.irreps, self.irreps),) * self.n_blocks
        return [(parse_irreps(nodes), parse_irreps(pairs)) for nodes, pairs in given]


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
    selection: bool = Field(True, description="components that no local potential gives are left out")

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @model_validator(mode="after")
    def _heads(self) -> "Stage2Config":
        if self.width % self.n_heads:
            raise ValueError(f"width: expected a multiple of n_heads = {self.n_heads}, got {self.width}")
        if self.frame == "edge" and not self.selection:
            raise ValueError("selection: false is for frame: global; in the frame of an edge mirrors forbid the rest")
        return self


class ModelConfig(_Strict):
    """Both stages."""

    stage1: Stage1Config = Stage1Config()
    stage2: Stage2Config | None = Field(Stage2Config(), description="null: stage 1 only")
    dtype: Literal["float32", "float64"] = Field("float32", description="of weights and training")
    scale_targets: bool = Field(True, description="outputs in units fitted to the training set; without, in eV")

    @model_validator(mode="after")
    def _groups(self) -> "ModelConfig":
        if self.stage2 is not None and self.stage1.block_irreps is not None:
            raise ValueError("stage2: does not know the features of a stage 1 with block_irreps")
        if self.stage2 is not None and self.stage2.n_groups > self.stage1.n_blocks:
            raise ValueError(
                f"stage2.n_groups: expected at most stage1.n_blocks = {self.stage1.n_blocks}, "
                f"got {self.stage2.n_groups}"
            )
        return self
