"""`ModerateTexts`: a step that flags texts with harmful content."""

from typing import TYPE_CHECKING

from distilabel.steps import Step, StepInput
from pydantic import Field

from distilabel_openai_batch.plugin.checked_arguments import CheckedArguments
from distilabel_openai_batch.plugin.moderation import OpenAIBatchModeration
from distilabel_openai_batch.plugin.public_class import public_class

if TYPE_CHECKING:
    from distilabel.typing import StepOutput

_RESULTS = ("flagged", "categories", "category_scores")


@public_class
class ModerateTexts(CheckedArguments, Step):
    """Step that flags texts with harmful content, by a moderation model of OpenAI.

    All rows of the step go into one job, however small `input_batch_size` is. The request is free.

    {fields}

    Input columns:
        - text (`str`): text to moderate, or a list of parts with texts and images in the format of the API.

    Output columns:
        - flagged (`bool`): whether any category is flagged; `None` if the request failed.
        - categories (`dict`): whether each category is flagged.
        - category_scores (`dict`): score of each category, from 0 to 1.
        - model_name (`str`): name of the moderation model.

    Categories:
        - filtering

    Examples:
        Keep harmless texts:

        ```python
        from distilabel.pipeline import Pipeline
        from distilabel.steps import LoadDataFromDicts
        from distilabel_openai_batch import ModerateTexts, OpenAIBatchModeration

        with Pipeline() as pipeline:
            load = LoadDataFromDicts(data=[{"text": "Why is the sky blue?"}])
            load >> ModerateTexts(moderation_model=OpenAIBatchModeration())

        if __name__ == "__main__":
            rows = pipeline.run()["default"]["train"]
            harmless = rows.filter(lambda row: row["flagged"] is False)
        ```
    """

    moderation_model: OpenAIBatchModeration = Field(description="Client of the moderation model.")

    @property
    def inputs(self) -> list[str]:
        """Columns that the step needs."""
        return ["text"]

    @property
    def outputs(self) -> list[str]:
        """Columns that the step adds."""
        return [*_RESULTS, "model_name"]

    def load(self) -> None:
        """Load the client."""
        super().load()
        self.moderation_model.load()

    def process(self, inputs: StepInput) -> "StepOutput":
        """Moderate rows.

        Args:
            inputs: rows with the column `text`.

        Yields:
            The rows with the results.
        """
        results = self.moderation_model.moderate([row["text"] for row in inputs])
        for row, result in zip(inputs, results, strict=True):
            row.update({name: (result or {}).get(name) for name in _RESULTS})
            row["model_name"] = self.moderation_model.model_name
        yield inputs

    def unload(self) -> None:
        """Unload the client."""
        super().unload()
        self.moderation_model.unload()
