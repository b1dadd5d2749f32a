"""Pass rows to the next step as their jobs end, while later jobs are in progress.

    OPENAI_API_KEY=… python examples/stream.py

Against the sandbox, start `distilabel-openai-batch serve` first and set OPENAI_BASE_URL=http://127.0.0.1:8000/v1.
"""

from pathlib import Path

from distilabel.pipeline import Pipeline
from distilabel.steps import KeepColumns
from distilabel.steps.tasks import TextGeneration

from distilabel_openai_batch import OpenAIBatchLLM, StreamBatchResults

INSTRUCTIONS = Path(__file__).with_name("instructions.jsonl")

with Pipeline(name="batch-stream") as pipeline:
    stream = StreamBatchResults(
        name="stream",
        task=TextGeneration(name="generate", llm=OpenAIBatchLLM(model="gpt-6-luna", max_requests_per_job=16)),
        data=str(INSTRUCTIONS),
        batch_size=16,
    )
    stream >> KeepColumns(name="keep", columns=["instruction", "generation"])

if __name__ == "__main__":
    distiset = pipeline.run()
    print(distiset["default"]["train"].to_pandas())
