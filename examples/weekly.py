"""Augment a dataset every week: run the script again when the file has grown, to submit only the new rows.

    OPENAI_API_KEY=… python examples/weekly.py

One request for each new row, for two paraphrases: 50,000 rows and then 1,000 more a week are 50,000 requests in 1 job
at first, and 1,000 requests in 1 job in each further week. The dataset has all rows each time.

With `use_cache=False` distilabel reads the rows again: its own cache identifies a file by name and number of rows. The
ledger identifies a request by the names of pipeline and Task, the server and the body: keep both names.

Against the sandbox, start `distilabel-openai-batch serve` first and set OPENAI_BASE_URL=http://127.0.0.1:8000/v1.
To read a dataset from the Hub: load = LoadDataFromHub(name="load", repo_id="…", output_mappings={"…": "instruction"})
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
        llm=OpenAIBatchLLM(model="gpt-6-luna", reasoning_effort="low"),
        template="Say this in other words, as another person might ask for it:\n\n{{ instruction }}",
        num_generations=2,
        group_generations=True,
        output_mappings={"generation": "paraphrases"},
    )
    load >> paraphrase

if __name__ == "__main__":
    distiset = pipeline.run(use_cache=False)
    print(distiset["default"]["train"].to_pandas()[["instruction", "paraphrases"]])
