"""`OpenAIBatchImageGeneration`: images through the same jobs and ledger as an LLM's answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from distilabel.mixins.runtime_parameters import RuntimeParameter
from distilabel.models.image_generation.openai import OpenAIImageGeneration
from pydantic import Field, PositiveInt

from distilabel_openai_batch.plugin.base import BatchClient
from distilabel_openai_batch.plugin.item_calls import submit_items
from distilabel_openai_batch.plugin.public_class import public_class

_ENDPOINT = "/v1/images/generations"

# Models that always return images in base64, and refuse `response_format`, and distilabel's defaults of `quality` and
# `style` too. https://platform.openai.com/docs/api-reference/images/create
_GPT_IMAGE = re.compile(r"(.*/)?(chat)?gpt-image")


@public_class
class OpenAIBatchImageGeneration(BatchClient, OpenAIImageGeneration):
    """OpenAI image generation through the Batch API, at half the price of the synchronous endpoint.

    `OpenAIBatchImageGeneration` replaces `OpenAIImageGeneration`, with the Task `ImageGeneration`. A row whose request
    failed has `None` for its image; the log gives the reason. Images are requested in base64: the address of an image
    is valid for an hour, and a batch may take a day.

    {fields}

    Examples:
        Generate images:

        ```python
        from distilabel.pipeline import Pipeline
        from distilabel.steps import LoadDataFromDicts
        from distilabel.steps.tasks import ImageGeneration
        from distilabel_openai_batch import OpenAIBatchImageGeneration

        model = OpenAIBatchImageGeneration(model="gpt-image-1.5", generation_kwargs={"quality": "low"})

        with Pipeline() as pipeline:
            load = LoadDataFromDicts(data=[{"prompt": "a white siamese cat"}])
            load >> ImageGeneration(image_generation_model=model)

        if __name__ == "__main__":
            distiset = pipeline.run()
        ```
    """

    max_requests_per_job: RuntimeParameter[PositiveInt] = Field(
        default=500,
        description="Maximum number of requests in one job. An image has some megabytes, and a job one file of them.",
    )

    def __del__(self) -> None:
        """Close the event loop as distilabel does; an object with invalid arguments has no event loop."""
        if getattr(self, "__pydantic_private__", None) is not None:
            super().__del__()

    async def agenerate(
        self,
        input: str,
        num_generations: int = 1,
        quality: str | None = None,
        size: str | None = None,
        style: str | None = None,
        background: str | None = None,
        output_format: str | None = None,
        output_compression: int | None = None,
        moderation: str | None = None,
        response_format: str | None = None,
    ) -> list[dict[str, Any]]:
        """Generate images for one prompt.

        Args:
            input: the prompt.
            num_generations: the number of images. Defaults to `1`.
            quality: the quality of the images. Defaults to `None`, the default of the API.
            size: the size of the images, as in `1024x1024`. Defaults to `None`, the default of the API.
            style: the style of the images, for DALL·E models. Defaults to `None`, the default of the API.
            background: the background of the images. Defaults to `None`, the default of the API.
            output_format: the format of the images. Defaults to `None`, the default of the API.
            output_compression: the compression in percent. Defaults to `None`, the default of the API.
            moderation: the level of moderation. Defaults to `None`, the default of the API.
            response_format: has no effect: images are always requested in base64. Defaults to `None`.

        Returns:
            A list of one dictionary with the images in base64; an empty list of images if the request failed.
        """
        parameters = {
            "quality": quality,
            "size": size,
            "style": style,
            "background": background,
            "output_format": output_format,
            "output_compression": output_compression,
            "moderation": moderation,
        }
        [images] = await self._submit([input], num_generations, parameters)
        return [{"images": images or []}]

    def generate(self, inputs: list[str], num_generations: int = 1, **kwargs: Any) -> list[list[dict[str, Any]]]:
        """Generate `num_generations` images for each prompt, in as few batch jobs as possible.

        Args:
            inputs: the prompts.
            num_generations: the number of images for each prompt. Defaults to `1`.
            **kwargs: the parameters of `agenerate`, and other parameters of the API.

        Returns:
            For each prompt, in order, a list of one dictionary with the images in base64; an empty list of images if
            the request failed.

        Raises:
            RunError: the run as a whole cannot go on.
        """
        images = self.wait_for(partial(self._submit, inputs, num_generations, kwargs))
        return [[{"images": group or []}] for group in images]

    async def _submit(
        self, prompts: list[str], num_generations: int, parameters: Mapping[str, Any]
    ) -> list[list[str] | None]:
        is_gpt_image = _GPT_IMAGE.match(self.model) is not None
        body = {
            "model": self.model,
            "n": num_generations,
            **({} if is_gpt_image else {"response_format": "b64_json"}),
            **{name: value for name, value in parameters.items() if value is not None and name != "response_format"},
        }
        return await submit_items(self, _ENDPOINT, body, "prompt", prompts, _images, "image")


def _images(body: Mapping[str, Any]) -> list[str] | None:
    """Return the images of an answer's body in base64; `None` for a body without any."""
    data = body.get("data")
    images = [item.get("b64_json") for item in data if isinstance(item, dict)] if isinstance(data, list) else []
    return [image for image in images if isinstance(image, str) and image] or None
