"""Submit jobs and end; `load.py` collects the answers.

    OPENAI_API_KEY=… python examples/submit.py

Against the sandbox, start `distilabel-openai-batch serve` first and set OPENAI_BASE_URL=http://127.0.0.1:8000/v1.
"""

from pathlib import Path

from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromFileSystem
from distilabel.steps.tasks import TextGeneration

from distilabel_openai_batch import OpenAIBatchLLM, SubmitBatch

INSTRUCTIONS = Path(__file__).with_name("instructions.jsonl")

with Pipeline(name="batch-submit") as pipeline:
    load = LoadDataFromFileSystem(name="load", data_files=str(INSTRUCTIONS))
    submit = SubmitBatch(
        name="submit",
        task=TextGeneration(name="generate", llm=OpenAIBatchLLM(model="gpt-6-luna")),
        run_name="instructions",
    )
    load >> submit

if __name__ == "__main__":
    distiset = pipeline.run()
    print(distiset["default"]["train"].to_pandas()[["run_name", "batch_id", "requests", "status"]])
