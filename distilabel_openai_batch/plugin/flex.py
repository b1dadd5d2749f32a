"""Fields of LLMs for OpenAI's flex tier, which answers synchronously at the price of a batch."""

from __future__ import annotations

from dataclasses import replace

from distilabel.mixins.runtime_parameters import RuntimeParameter
from pydantic import Field, NonNegativeInt, field_validator

from distilabel_openai_batch.engine.lanes import Lane, LaneSettings
from distilabel_openai_batch.plugin.base import BatchClient


class FlexClient(BatchClient):
    """Client of the Batch API whose endpoint has the flex tier."""

    lane: RuntimeParameter[Lane] = Field(
        default="batch",
        description=(
            "Way of the requests to the server. `batch`: jobs of the Batch API, at half price. `flex`: the synchronous"
            " endpoint with the flex tier, at the price of a batch, within minutes if there is capacity; requests that"
            " flex cannot answer go into a batch. `auto`: `flex` for rounds below `flex_below`, `batch` for others."
            " `sync`: the synchronous endpoint at full price, for servers without a Batch API, such as vLLM."
        ),
    )
    flex_below: RuntimeParameter[NonNegativeInt] = Field(
        default=2_000, description='Number of requests below which a round goes to flex with `lane="auto"`.'
    )
    flex_fallback: RuntimeParameter[bool] | None = Field(
        default=None,
        description=(
            "Whether a request for which flex has no capacity is sent at full price. `None`: only requests of"
            " `deadline`, `sync_below`, `preflight` and dry runs."
        ),
    )
    supports_flex: RuntimeParameter[bool] | None = Field(
        default=None,
        description=(
            "Whether the model has the flex tier. `None`: the price list or the model's name decides, and a refusal of"
            " the server."
        ),
    )

    @field_validator("lane", "flex_below", mode="before")
    @classmethod
    def _refuse_missing_lane(cls, value: object) -> object:
        return cls._refuse_none(value)

    def lane_settings(self, wait: bool) -> LaneSettings:
        """Return the settings of lanes, with the settings of flex."""
        return replace(
            super().lane_settings(wait),
            flex_below=self.flex_below,
            flex_fallback=self.flex_fallback,
            supports_flex=self.supports_flex,
        )
