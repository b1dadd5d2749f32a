"""Generate answers to three prompts without a pipeline, and write the answers as JSON.

script.py OUTPUT
"""

import json
import sys
from pathlib import Path

from distilabel_openai_batch import OpenAIBatchLLM

if __name__ == "__main__":
    llm = OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.05)
    llm.load()
    print("begins", flush=True)
    prompts = [[{"role": "user", "content": f"Say number {i}."}] for i in range(3)]
    answers = [output["generations"] for output in llm.generate(prompts)]
    Path(sys.argv[1]).write_text(json.dumps(answers), encoding="utf-8")
