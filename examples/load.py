"""Load the answers to the requests of `submit.py`, on the same machine or on another machine.

    OPENAI_API_KEY=… python examples/load.py

Against the sandbox, start `distilabel-openai-batch serve` first and set OPENAI_BASE_URL=http://127.0.0.1:8000/v1.
"""

from distilabel.pipeline import Pipeline
from distilabel.steps import KeepColumns
from distilabel.steps.tasks import TextGeneration

from distilabel_openai_batch import LoadBatchResults, OpenAIBatchLLM

with Pipeline(name="batch-load") as pipeline:
    load = LoadBatchResults(
        name="load",
        task=TextGeneration(name="generate", llm=OpenAIBatchLLM(model="gpt-6-luna")),
        run_name="instructions",
    )
    load >> KeepColumns(name="keep", columns=["instruction", "generation", "batch_failure"])

if __name__ == "__main__":
    distiset = pipeline.run()
    print(distiset["default"]["train"].to_pandas())
