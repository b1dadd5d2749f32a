"""Fields of an LLM that decide the endpoint and the parameters of its chats."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from distilabel.mixins.runtime_parameters import RuntimeParameter
from pydantic import Field, PrivateAttr, field_validator

from distilabel_openai_batch.api.model_traits import ModelTraits, TokenLimitParameter
from distilabel_openai_batch.display.advice import describe_small_limit
from distilabel_openai_batch.engine.calls import APICall
from distilabel_openai_batch.engine.cut_answers import OnTruncated
from distilabel_openai_batch.engine.settings import SessionSettings
from distilabel_openai_batch.plugin.flex import FlexClient
from distilabel_openai_batch.plugin.model_parameters import Endpoint, adapt_call, choose_endpoint, find_traits
from distilabel_openai_batch.plugin.reasoning import ReasoningEffort, find_small_limit


class ChatClient(FlexClient):
    """Base of an `LLM` whose chats go through the Batch API."""

    endpoint: RuntimeParameter[Endpoint] | None = Field(
        default=None,
        description=(
            "Endpoint for chats: `chat` (`/v1/chat/completions`) or `responses` (`/v1/responses`). `None`: `responses`"
            " for models that only this endpoint serves, such as `gpt-5.5-pro`, and `chat` for all others."
        ),
    )
    token_limit_parameter: RuntimeParameter[TokenLimitParameter] | None = Field(
        default=None,
        description="Name under which `max_new_tokens` is sent. `None`: the name that OpenAI uses for the model.",
    )
    reasoning_effort: RuntimeParameter[ReasoningEffort] | None = Field(
        default=None,
        description=(
            "Effort that a model spends on reasoning: less effort is faster and cheaper. `None`: the model's own"
            " default. `generation_kwargs` may set the effort too."
        ),
    )
    is_reasoning_model: RuntimeParameter[bool] | None = Field(
        default=None,
        description=(
            "Whether the model reasons before each answer. Without `max_new_tokens`, a model that reasons gets a limit"
            " of 25,000 tokens in place of distilabel's 128. `None`: the price list, the model's name or a refusal of"
            " the server decides."
        ),
    )

    keep_reasoning: RuntimeParameter[bool] = Field(
        default=False,
        description=(
            "Add a column `reasoning_<step name>` with the reasoning and the tool calls of each row's answer: a"
            " dictionary with `reasoning` and `tool_calls`; `None` in rows without either. The Responses API is asked"
            " for summaries of the reasoning."
        ),
    )
    on_truncated: RuntimeParameter[OnTruncated] = Field(
        default="keep",
        description=(
            "Treatment of an answer that the limit of tokens cut. `keep`: its text is kept, and reported. `fail`: the"
            " generation is `None`. `retry`: the request is submitted again with twice the limit, up to three times and"
            " within the budget."
        ),
    )

    _warned_limits: set[int] = PrivateAttr(default_factory=set)

    @field_validator("on_truncated", "keep_reasoning", mode="before")
    @classmethod
    def _refuse_missing(cls, value: object) -> object:
        return cls._refuse_none(value)

    def session_settings(self) -> SessionSettings:
        """Build the settings of a session, with the treatment of cut answers."""
        return replace(super().session_settings(), on_truncated=self.on_truncated)

    def _warn_of_small_limit(self, kwargs: dict[str, Any]) -> None:
        """Log a warning of a limit that reasoning probably spends, once for each limit."""
        limit = self.small_limit(kwargs)
        if limit and limit not in self._warned_limits:
            self._warned_limits.add(limit)
            self._logger.warning(f"⚠️ {describe_small_limit(str(self.model), limit)}")

    def small_limit(self, generation_kwargs: dict[str, Any]) -> int | None:
        """Return the user's limit of an answer's tokens if reasoning probably spends most of it; else `None`.

        Args:
            generation_kwargs: parameters of `generate`, perhaps with `max_new_tokens`.
        """
        return find_small_limit(self._traits(), generation_kwargs, self.reasoning_effort)

    def _adapt(self, call: APICall) -> APICall:
        """Change a call to the endpoint and the parameters that the model takes, see `adapt_call`."""
        # The user denies that the model reasons → a refusal changes the name of the limit alone.
        call.has_default_limit = call.has_default_limit and self.is_reasoning_model is not False
        return adapt_call(
            call, self._endpoint(), self._traits(), self.token_limit_parameter, wants_summary=self.keep_reasoning
        )

    def _endpoint(self) -> Endpoint:
        return choose_endpoint(str(self.model), self.endpoint)

    def _traits(self) -> ModelTraits:
        return find_traits(str(self.model), self.base_url or "", self.token_limit_parameter, self.is_reasoning_model)
