"""Evaluate a model offline: the model answers the questions, and a judge scores each answer from 1 to 5 by a rubric.

    OPENAI_API_KEY=… python examples/evaluate.py

Two requests for each row: 1,000 questions are 2,000 requests in 2 jobs. To evaluate another model over the same
questions, change `model` in `answer` (or pass `--param answer.llm.model=…` to the YAML).

Against the sandbox, start `distilabel-openai-batch serve` first and set OPENAI_BASE_URL=http://127.0.0.1:8000/v1.
To read a dataset from the Hub: load = LoadDataFromHub(name="load", repo_id="…", output_mappings={"…": "instruction"})
"""

from pathlib import Path

from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromFileSystem
from distilabel.steps.tasks import PrometheusEval, TextGeneration

from distilabel_openai_batch import OpenAIBatchLLM

INSTRUCTIONS = Path(__file__).with_name("instructions.jsonl")

with Pipeline(name="batch-evaluate") as pipeline:
    load = LoadDataFromFileSystem(name="load", data_files=str(INSTRUCTIONS))
    answer = TextGeneration(
        name="answer", llm=OpenAIBatchLLM(model="gpt-6-luna"), output_mappings={"model_name": "evaluated_model"}
    )
    judge = PrometheusEval(
        name="judge",
        llm=OpenAIBatchLLM(model="gpt-6.1-terra", reasoning_effort="low"),
        mode="absolute",
        rubric="helpfulness",
        output_mappings={"model_name": "judge_model"},
    )
    load >> answer >> judge

if __name__ == "__main__":
    distiset = pipeline.run()
    scores = distiset["default"]["train"].to_pandas()["result"]
    print(f"Mean score {scores.mean():.2f} over {scores.count()} answers; {scores.isna().sum()} without a score.")
