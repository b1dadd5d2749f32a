"""Generate two answers to each instruction, and rate both, at half the price.

    OPENAI_API_KEY=… python examples/pipeline.py

Against the sandbox, start `distilabel-openai-batch serve` first and set OPENAI_BASE_URL=http://127.0.0.1:8000/v1.
"""

from pathlib import Path

from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromFileSystem
from distilabel.steps.tasks import TextGeneration, UltraFeedback

from distilabel_openai_batch import OpenAIBatchLLM

INSTRUCTIONS = Path(__file__).with_name("instructions.jsonl")

with Pipeline(name="batch-demo") as pipeline:
    load = LoadDataFromFileSystem(name="load", data_files=str(INSTRUCTIONS))
    generate = TextGeneration(
        name="generate", llm=OpenAIBatchLLM(model="gpt-6-luna"), num_generations=2, group_generations=True
    )
    judge = UltraFeedback(
        name="judge", llm=OpenAIBatchLLM(model="gpt-6-luna"), input_mappings={"generations": "generation"}
    )
    load >> generate >> judge

if __name__ == "__main__":
    distiset = pipeline.run()
    print(distiset["default"]["train"].to_pandas()[["instruction", "generation", "ratings"]])
