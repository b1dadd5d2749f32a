"""Augments a dataset every week: run it again when the file has grown, and only the new rows are bought.

    OPENAI_API_KEY=… python examples/weekly.py

A request for each new row, which asks for two paraphrases: 50,000 rows and then 1,000 more a week are 50,000 requests
in 1 job at first, and 1,000 requests in 1 job in each week after that. The dataset has all rows each time.

`use_cache=False` has it look at the rows themselves: distilabel's own cache knows a file by its name and the number of
its rows. What was bought stands in the ledger, which knows the questions, by the names of the pipeline and of the step:
keep those.

Against the sandbox, start `distilabel-openai-batch serve` first and set OPENAI_BASE_URL=http://127.0.0.1:8000/v1.
For a dataset on the Hub: load = LoadDataFromHub(name="load", repo_id="…", output_mappings={"…": "instruction"})
"""

from pathlib import Path

from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromFileSystem
from distilabel.steps.tasks import TextGeneration

from distilabel_openai_batch import OpenAIBatchLLM

INSTRUCTIONS = Path(__file__).with_name("instructions.jsonl")

with Pipeline(name="batch-weekly") as pipeline:
    load = LoadDataFromFileSystem(name="load", data_files=str(INSTRUCTIONS))
    paraphrase = TextGeneration(
        name="paraphrase",
        llm=OpenAIBatchLLM(model="gpt-4o-mini", generation_kwargs={"temperature": 1.0, "max_new_tokens": 256}),
        template="Say this in other words, as another person might ask for it:\n\n{{ instruction }}",
        num_generations=2,
        group_generations=True,
        output_mappings={"generation": "paraphrases"},
    )
    load >> paraphrase

if __name__ == "__main__":
    distiset = pipeline.run(use_cache=False)
    if distiset:  # It is empty after Ctrl+C: run it again, nothing is lost.
        print(distiset["default"]["train"].to_pandas()[["instruction", "paraphrases"]])
