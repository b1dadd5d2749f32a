"""Preprocess a large dataset: rewrite each prompt, as people type prompts, into a prompt for training.

    OPENAI_API_KEY=… python examples/preprocess.py

One request for each row: 200,000 rows are 200,000 requests in 4 jobs of 50,000. A row whose request failed for good has
`None`; `pipeline.run(use_cache=False)` submits these requests again, and no others.

Against the sandbox, start `distilabel-openai-batch serve` first and set OPENAI_BASE_URL=http://127.0.0.1:8000/v1.
To read a dataset from the Hub: load = LoadDataFromHub(name="load", repo_id="…", output_mappings={"…": "instruction"})
"""

from pathlib import Path

from distilabel.pipeline import Pipeline
from distilabel.steps import KeepColumns, LoadDataFromFileSystem
from distilabel.steps.tasks import TextGeneration

from distilabel_openai_batch import OpenAIBatchLLM

INSTRUCTIONS = Path(__file__).with_name("instructions.jsonl")

with Pipeline(name="batch-preprocess") as pipeline:
    load = LoadDataFromFileSystem(name="load", data_files=str(INSTRUCTIONS), batch_size=1000)
    rewrite = TextGeneration(
        name="rewrite",
        llm=OpenAIBatchLLM(model="gpt-6-luna", reasoning_effort="low"),
        system_prompt="You edit prompts for a training set. You keep their language and what they ask for.",
        template="Rewrite this prompt so that it is clear and free of mistakes. Only the prompt:\n\n{{ instruction }}",
        output_mappings={"generation": "rewritten"},
    )
    keep = KeepColumns(name="keep", columns=["instruction", "rewritten"])
    load >> rewrite >> keep

if __name__ == "__main__":
    distiset = pipeline.run()
    print(distiset["default"]["train"].to_pandas())
