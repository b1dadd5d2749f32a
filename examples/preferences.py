"""Make preference data: two models answer each instruction, a third model rates both answers, and rows fit DPO.

    OPENAI_API_KEY=… python examples/preferences.py

Three requests for each row: 10,000 rows are 30,000 requests in 3 jobs. The two models' jobs run side by side, and the
judge's job begins when both have ended. If two answers have the same rating, `chosen` and `rejected` are the same
answer: the last lines drop such rows.

Against the sandbox, start `distilabel-openai-batch serve` first and set OPENAI_BASE_URL=http://127.0.0.1:8000/v1.
To read a dataset from the Hub: load = LoadDataFromHub(name="load", repo_id="…", output_mappings={"…": "instruction"})
"""

from pathlib import Path

from distilabel.pipeline import Pipeline
from distilabel.steps import FormatTextGenerationDPO, GroupColumns, LoadDataFromFileSystem
from distilabel.steps.tasks import TextGeneration, UltraFeedback

from distilabel_openai_batch import OpenAIBatchLLM

INSTRUCTIONS = Path(__file__).with_name("instructions.jsonl")

with Pipeline(name="batch-preferences") as pipeline:
    load = LoadDataFromFileSystem(name="load", data_files=str(INSTRUCTIONS))
    small = TextGeneration(name="small", llm=OpenAIBatchLLM(model="gpt-6-luna"))
    large = TextGeneration(name="large", llm=OpenAIBatchLLM(model="gpt-6.1-terra"))
    group = GroupColumns(
        name="group",
        columns=["generation", "model_name"],
        output_columns=["generations", "generation_models"],
    )
    judge = UltraFeedback(
        name="judge",
        llm=OpenAIBatchLLM(model="gpt-6.1-sol", reasoning_effort="low"),
        output_mappings={"model_name": "judge_model"},
    )
    form = FormatTextGenerationDPO(name="form")
    load >> [small, large] >> group >> judge >> form

if __name__ == "__main__":
    distiset = pipeline.run()
    rows = distiset["default"]["train"].to_pandas()
    pairs = rows[rows["chosen_rating"] > rows["rejected_rating"]]
    print(pairs[["prompt", "chosen_model", "chosen_rating", "rejected_rating"]])
