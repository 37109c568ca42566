"""What a reader should know of a model before trusting it."""

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["CardErrors", "ModelCard"]


class CardErrors(BaseModel):
    """Errors on some structures that were not trained on, in meV; means over structures unless said."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    structures: str = Field(min_length=1, description="what they are")
    n: int = Field(ge=1, description="how many")
    mae: float = Field(ge=0, description="of H, mean over its elements")
    mae_worst: float = Field(ge=0, description="of the worst structure")
    gauge_free: float | None = Field(ge=0, description="mae without the best mu S; none without S")
    bands_1eV: float | None = Field(ge=0, description="mean of the bands within 1 eV of E_F, both Fermi levels at zero")
    bands_2eV: float | None = Field(ge=0, description="the same within 2 eV")
    fermi: float | None = Field(ge=0, description="of the Fermi level")


class ModelCard(BaseModel):
    """Where a model comes from, how good it is, and where it ends."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    summary: str = Field(min_length=1, description="for what it is")
    method: str = Field(min_length=1, description="code, functional, basis, pseudopotentials, k-points of the data")
    data: str = Field(min_length=1, description="structures it was trained on")
    training: str = Field(min_length=1, description="settings and cost")
    license: str = Field(min_length=1, description="of the weights")
    limits: tuple[str, ...] = Field(min_length=1, description="what it is not for")
    errors: tuple[CardErrors, ...] = Field((), description="measured when the model was packed")
