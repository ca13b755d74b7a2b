"""What every run model shares: unknown keys are refused, values are checked, nothing changes."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A part of a run's configuration: immutable, checked, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class RunConfig(Section):
    """A whole run's configuration.

    Attributes:
        reference: Figures of a published run, kept beside the settings that should give them.
            Free-form; nothing reads it but people and benchmark tables.
    """

    reference: dict[str, Any] = Field(
        default_factory=dict, description="published figures, for comparison"
    )
