"""Label each row in a fixed form: every answer fits a schema, or is `None` with a recorded reason.

    OPENAI_API_KEY=… python examples/structured.py

One request for each row, and a retry for each answer that does not fit: 20,000 rows are 20,000 requests in 1 job, and
the retries are another job. OpenAI enforces the schema, so there are no retries as a rule.

Against the sandbox, start `distilabel-openai-batch serve` first and set OPENAI_BASE_URL=http://127.0.0.1:8000/v1.
To read a dataset from the Hub: load = LoadDataFromHub(name="load", repo_id="…", output_mappings={"…": "instruction"})
"""

from pathlib import Path
from typing import Literal

from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromFileSystem
from distilabel.steps.tasks import TextGeneration
from pydantic import BaseModel, Field

from distilabel_openai_batch import OpenAIBatchLLM

INSTRUCTIONS = Path(__file__).with_name("instructions.jsonl")


class Label(BaseModel):
    """Kind and difficulty of an instruction."""

    kind: Literal["writing", "explanation", "code", "mathematics", "advice", "other"]
    difficulty: int = Field(ge=1, le=5)
    needs_current_facts: bool


with Pipeline(name="batch-structured") as pipeline:
    load = LoadDataFromFileSystem(name="load", data_files=str(INSTRUCTIONS))
    label = TextGeneration(
        name="label",
        llm=OpenAIBatchLLM(model="gpt-6-luna", structured_output={"schema": Label}),
        template="Say what kind of instruction this is, and how difficult it is:\n\n{{ instruction }}",
        output_mappings={"generation": "label"},
    )
    load >> label

if __name__ == "__main__":
    distiset = pipeline.run()
    rows = distiset["default"]["train"]
    print([Label.model_validate_json(label) for label in rows["label"] if label][:10])
