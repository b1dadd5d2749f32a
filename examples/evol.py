"""Evolve instructions in two rounds, and answer the evolved instructions.

    OPENAI_API_KEY=… python examples/evol.py

Three requests for each row, each about the previous answer: 10,000 rows are 30,000 requests in 3 jobs, one after
another. Each job may take up to a day.

Against the sandbox, start `distilabel-openai-batch serve` first and set OPENAI_BASE_URL=http://127.0.0.1:8000/v1.
To read a dataset from the Hub: load = LoadDataFromHub(name="load", repo_id="…", output_mappings={"…": "instruction"})
"""

from pathlib import Path

from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromFileSystem
from distilabel.steps.tasks import EvolInstruct, TextGeneration

from distilabel_openai_batch import OpenAIBatchLLM

INSTRUCTIONS = Path(__file__).with_name("instructions.jsonl")

with Pipeline(name="batch-evol") as pipeline:
    load = LoadDataFromFileSystem(name="load", data_files=str(INSTRUCTIONS))
    evolve = EvolInstruct(name="evolve", llm=OpenAIBatchLLM(model="gpt-6-luna"), num_evolutions=2)
    answer = TextGeneration(
        name="answer",
        llm=OpenAIBatchLLM(model="gpt-6.1-terra"),
        input_mappings={"instruction": "evolved_instruction"},
        output_mappings={"generation": "answer"},
    )
    load >> evolve >> answer

if __name__ == "__main__":
    distiset = pipeline.run()
    print(distiset["default"]["train"].to_pandas()[["instruction", "evolved_instruction", "answer"]])
