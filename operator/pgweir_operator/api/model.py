"""What all models of the API have in common. Called by pooler (what a user writes) and pooler_status (what is answered)."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class ApiModel(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        frozen=True,
        strict=True,
        extra="ignore",
        hide_input_in_errors=True,
    )


def choice(**kwargs: Any) -> Any:
    """A field whose value is written as a string: lax for this one field, since strict mode would want the member."""
    return Field(strict=False, **kwargs)
