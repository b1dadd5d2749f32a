"""Tests of whole pipelines, in the processes that distilabel starts, against the sandbox."""

# No `from __future__ import annotations`: distilabel looks for `StepInput` in a function's annotations themselves.

import itertools
import subprocess
import sys
import traceback
from datetime import datetime

import pytest
from distilabel.models.llms import MixtureOfAgentsLLM, OpenAILLM
from distilabel.pipeline import Pipeline, routing_batch_function
from distilabel.steps import GroupColumns, KeepColumns, LoadDataFromDicts, StepInput, step
from distilabel.steps.tasks import ChatGeneration, EvolInstruct, TextGeneration, UltraFeedback

from distilabel_openai_batch import (
    AuthenticationError,
    BatchFailedError,
    ConnectionFailedError,
    MissingSettingError,
    OpenAIBatchLLM,
    QuotaError,
    RequestsFailedError,
    RunError,
)
from distilabel_openai_batch.sandbox import BatchFault, Fault, RequestFailure
from tests.support.environment import API_KEY


@step(inputs=["instruction"], outputs=["instruction"])
def DropAll(inputs: StepInput):
    yield []


@step(inputs=["generation"], outputs=["length"])
def Measure(inputs: StepInput):
    yield [row | {"length": len(row["generation"] or "")} for row in inputs]


# distilabel saves the local variables around a routing function, which fails inside a test on Python 3.13.
@routing_batch_function()
def two_of_three(steps):
    turn = next(turns[0])
    return [steps[turn % 3], steps[(turn + 1) % 3]]


turns = [itertools.count()]


def batch_llm(**fields) -> OpenAIBatchLLM:
    return OpenAIBatchLLM(model="gpt-4o-mini", **{"min_poll_interval": 0.1, **fields})


def synchronous_llm() -> OpenAILLM:
    return OpenAILLM(model="gpt-4o-mini")


def generation_pipeline(llm, rows, tmp_path, **task) -> Pipeline:
    """Return the smallest pipeline: rows and one Task."""
    with Pipeline(name="generating", cache_dir=tmp_path) as pipeline:
        LoadDataFromDicts(data=rows) >> TextGeneration(name="generate", llm=llm, **task)
    return pipeline


def run(pipeline: Pipeline) -> list[dict]:
    return pipeline.run(use_cache=False)["default"]["train"].to_list()


def judged_dataset(llm_class, rows, tmp_path):
    """Return a dataset with two answers for each row, a judgement of both, and an instruction evolved twice."""
    with Pipeline(name="judged", cache_dir=tmp_path) as pipeline:
        load = LoadDataFromDicts(data=rows)
        generate = TextGeneration(name="generate", llm=llm_class(), num_generations=2, group_generations=True)
        judge = UltraFeedback(name="judge", llm=llm_class(), input_mappings={"generations": "generation"})
        load >> generate >> judge
        load >> EvolInstruct(name="evolve", llm=llm_class(), num_evolutions=2)
    distiset = pipeline.run(use_cache=False)
    return {name: split["train"].to_list() for name, split in distiset.items()}


def test_dataset_equals_that_of_the_synchronous_llm(sandbox, instructions, tmp_path):
    """Three Tasks submit one job for each round of calls."""
    dataset = judged_dataset(batch_llm, instructions, tmp_path)
    jobs = len(sandbox.books().batches)
    synchronous_dataset = judged_dataset(synchronous_llm, instructions, tmp_path)

    assert jobs == 1 + 1 + 2
    assert sandbox.books().sync == (1 + 1 + 2) * len(instructions)
    assert [len(dataset[leaf]) for leaf in ("judge", "evolve")] == [len(instructions)] * 2
    assert dataset["judge"] == synchronous_dataset["judge"]
    # The mutations are random, in another order if the first rounds of all groups run first.
    assert [row["instruction"] for row in dataset["evolve"]] == [
        row["instruction"] for row in synchronous_dataset["evolve"]
    ]
    assert all(row["evolved_instruction"] for row in dataset["evolve"])


def test_jobs_of_sibling_tasks_run_at_the_same_time(sandbox, tmp_path):
    sandbox.configure(in_progress_seconds=4.0)
    with Pipeline(name="siblings", cache_dir=tmp_path) as pipeline:
        load = LoadDataFromDicts(data=[{"instruction": f"Say {i}"} for i in range(5)])
        for name in ("first", "second", "third"):
            load >> TextGeneration(name=name, llm=batch_llm(), system_prompt=name)
    pipeline.run(use_cache=False)

    books = sandbox.books()
    assert len(books.batches) == 3
    assert books.max_jobs_in_flight == 3


def test_failed_request_is_none_in_its_row_only(sandbox, tmp_path):
    """Rows before and after, in the same row group and in others, have their own answers."""
    rows = [{"instruction": f"Say number {i}."} for i in range(20)]
    expected = run(generation_pipeline(synchronous_llm(), rows, tmp_path))
    sandbox.configure(
        failures=[RequestFailure(contains="number 7.", status=400, message="That number is not allowed.")]
    )

    dataset = run(generation_pipeline(batch_llm(), rows, tmp_path, input_batch_size=5))

    assert dataset[7]["generation"] is None
    assert [row for i, row in enumerate(dataset) if i != 7] == [row for i, row in enumerate(expected) if i != 7]


def test_log_names_jobs_failures_and_tokens(sandbox, tmp_path, caplog):
    sandbox.configure(
        failures=[RequestFailure(contains="number 7.", status=400, message="That number is not allowed.")]
    )
    rows = [{"instruction": f"Say number {i}."} for i in range(10)]

    log = log_of_run(generation_pipeline(batch_llm(), rows, tmp_path))

    assert "Submitted job 1, batch batch_" in log
    assert "10 requests" in log
    assert "1 request failed: That number is not allowed." in log
    assert "The first custom_ids: " in log
    assert "[generate] 🏁 9 of 10 requests answered, 1 failed, 0 retried" in log
    assert "tokens in" in log


def log_of_run(pipeline: Pipeline) -> str:
    """Run a pipeline, and return the text of its log file."""
    pipeline.run(use_cache=False)
    return pipeline._cache_location["log_file"].read_text()


def test_request_with_a_server_error_is_submitted_again(sandbox, tmp_path):
    """The retry costs one more job and no row."""
    sandbox.configure(failures=[RequestFailure(contains="number 3.", status=500, message="Oops", times=2)])
    rows = [{"instruction": f"Say number {i}."} for i in range(6)]

    dataset = run(generation_pipeline(batch_llm(), rows, tmp_path))

    assert all(row["generation"] for row in dataset)
    assert [batch["request_counts"]["total"] for batch in batches_by_age(sandbox)] == [6, 1, 1]


def test_request_is_given_up_after_max_attempts(sandbox, tmp_path):
    """The row of the request is `None`."""
    sandbox.configure(failures=[RequestFailure(contains="number 3.", status=500, message="Oops")])
    rows = [{"instruction": f"Say number {i}."} for i in range(6)]

    dataset = run(generation_pipeline(batch_llm(max_attempts=2), rows, tmp_path))

    assert [row["generation"] is None for row in dataset] == [i == 3 for i in range(6)]
    assert [batch["request_counts"]["total"] for batch in batches_by_age(sandbox)] == [6, 1]


def batches_by_age(sandbox) -> list[dict]:
    return sorted(sandbox.books().batches, key=lambda batch: batch["created_at"])


RUN_ERRORS = {
    "wrong key": (
        lambda sandbox: sandbox.configure(api_keys=["sk-another"]),
        AuthenticationError,
        "Incorrect API key provided",
    ),
    "no right to batches": (
        lambda sandbox: sandbox.add_fault(
            Fault(
                call="batches.create",
                kind="status",
                status=403,
                body={"error": {"message": "You may not.", "code": "forbidden"}},
            )
        ),
        AuthenticationError,
        "You may not.",
    ),
    "no money": (
        lambda sandbox: sandbox.add_fault(
            Fault(
                call="batches.create",
                kind="status",
                status=429,
                body={"error": {"message": "You exceeded your current quota.", "code": "insufficient_quota"}},
            )
        ),
        QuotaError,
        "You exceeded your current quota.",
    ),
    "unknown model": (
        lambda sandbox: sandbox.configure(models=["another"]),
        BatchFailedError,
        "The provided model 'gpt-4o-mini' is not supported by the Batch API.",
    ),
    "refused by validation": (
        lambda sandbox: sandbox.add_fault(
            BatchFault(kind="fail", value={"code": "invalid_request", "message": "It is not so."})
        ),
        BatchFailedError,
        "invalid_request: It is not so.",
    ),
    "every request fails alike": (
        lambda sandbox: sandbox.configure(
            failures=[RequestFailure(contains="", status=404, message="No such model.", code="model_not_found")]
        ),
        RequestsFailedError,
        "All 3 requests failed: No such model.",
    ),
}


@pytest.mark.parametrize("case", RUN_ERRORS)
def test_error_of_the_run_is_raised_with_the_message_of_the_api(sandbox, tmp_path, case):
    """`pipeline.run` raises the error itself: no empty Distiset, no group of exceptions."""
    prepare, error, words = RUN_ERRORS[case]
    prepare(sandbox)

    with pytest.raises(error, match=words.replace(".", r"\.")) as raised:
        run(generation_pipeline(batch_llm(), [{"instruction": f"Say {i}"} for i in range(3)], tmp_path))

    assert raised.type is error


@pytest.mark.parametrize("position", ["leaf", "in the middle", "beside another"])
def test_error_of_the_run_stops_the_pipeline_from_any_step(sandbox, tmp_path, position):
    """A Task beside the failing one could continue, and is stopped too."""
    sandbox.configure(models=["another"])

    with Pipeline(name="stopping", cache_dir=tmp_path) as pipeline:
        load = LoadDataFromDicts(data=[{"instruction": "Say it"}])
        generate = TextGeneration(name="generate", llm=batch_llm())
        if position == "in the middle":
            load >> generate >> Measure()
        elif position == "beside another":
            load >> generate
            load >> TextGeneration(llm=OpenAIBatchLLM(model="another")) >> Measure()
        else:
            load >> generate

    with pytest.raises(BatchFailedError):
        pipeline.run(use_cache=False)


ROWS = [{"instruction": f"Say number {number}."} for number in range(6)]


def mixture_pipeline(tmp_path, rows, **fields) -> Pipeline:
    llm = MixtureOfAgentsLLM(aggregator_llm=batch_llm(**fields), proposers_llms=[batch_llm(**fields)], rounds=1)
    with Pipeline(name="mixture", cache_dir=tmp_path) as pipeline:
        LoadDataFromDicts(data=rows, batch_size=2) >> TextGeneration(name="generate", llm=llm, input_batch_size=2)
    return pipeline


def test_error_of_the_run_is_raised_from_a_mixture_of_llms(sandbox, tmp_path):
    """Otherwise the dataset would have `None` in each row."""
    sandbox.add_fault(Fault(call="files.create", kind="status", status=401, times=-1))
    with pytest.raises(AuthenticationError, match="HTTP 401"):
        mixture_pipeline(tmp_path, ROWS).run(use_cache=False)


def test_mixture_of_llms_that_does_not_wait_continues_in_each_run(sandbox, tmp_path):
    """A run that submits and stops does not count as complete."""
    input_rows, jobs = ROWS[:4], []
    for number in range(6):
        # distilabel cannot read such a pipeline from its cache, so each run has a cache of its own.
        found = mixture_pipeline(tmp_path / str(number), input_rows, wait=False).run()
        rows = found["default"]["train"].to_list() if found else []
        jobs.append(len(sandbox.books().batches))
        if len(rows) == len(input_rows):
            break
    assert [row["instruction"] for row in rows] == [row["instruction"] for row in input_rows]
    assert all(row["generation"] for row in rows)
    assert set(sandbox.books().billed.values()) == {1}
    assert jobs[:2] == [1, 2]


def test_unreachable_server_is_named_in_the_error(sandbox, tmp_path, monkeypatch):
    """The error comes after the retries that `max_retries` allows."""
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")

    with pytest.raises(ConnectionFailedError, match=r"http://127\.0\.0\.1:9/v1"):
        run(generation_pipeline(batch_llm(max_retries=1), [{"instruction": "Say it"}], tmp_path))


def test_missing_key_is_raised_without_the_traceback_of_the_step(sandbox, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")

    with pytest.raises(MissingSettingError, match="export OPENAI_API_KEY") as caught:
        run(generation_pipeline(batch_llm(), [{"instruction": "Say it"}], tmp_path))

    assert "step_wrapper" not in "".join(traceback.format_exception(caught.value))


def test_unknown_generation_kwarg_is_an_error_before_any_request(sandbox, tmp_path):
    """Otherwise the dataset would have `None` in each row."""
    with pytest.raises(RunError, match="temprature"):
        run(generation_pipeline(batch_llm(generation_kwargs={"temprature": 1}), [{"instruction": "Say it"}], tmp_path))

    assert sandbox.calls() == []


def test_no_rows_make_no_job_and_the_pipeline_ends(sandbox, tmp_path):
    """With `OpenAILLM` such a pipeline never ends."""
    with Pipeline(name="empty", cache_dir=tmp_path) as pipeline:
        load = LoadDataFromDicts(data=[{"instruction": "Say it"}])
        again = TextGeneration(llm=batch_llm(), input_mappings={"instruction": "generation"})
        load >> DropAll() >> TextGeneration(llm=batch_llm()) >> Measure() >> again
    distiset = pipeline.run(use_cache=False)

    assert not distiset
    assert sandbox.calls() == []


UNUSUAL_PROMPTS = {
    "empty": "",
    "200 kB of emoji and control characters": "🦜\u2028\u0085\x1f\x00\x7f\n" * 20_000,
    "the wire's own words": '{"custom_id": "x"}\n{"response": null}\r\n',
}


@pytest.mark.parametrize("case", UNUSUAL_PROMPTS)
def test_unusual_prompts_are_answered(sandbox, tmp_path, case):
    rows = [{"instruction": "Say it"}, {"instruction": UNUSUAL_PROMPTS[case]}, {"instruction": "Say that"}]

    assert run(generation_pipeline(batch_llm(), rows, tmp_path)) == run(
        generation_pipeline(synchronous_llm(), rows, tmp_path)
    )


def test_prompt_above_the_byte_limit_fails_alone(sandbox, tmp_path):
    """The prompt is never sent."""
    rows = [{"instruction": "Say it"}, {"instruction": "x" * 5_000}, {"instruction": "Say that"}]

    pipeline = generation_pipeline(batch_llm(max_bytes_per_job=4_000), rows, tmp_path)
    log = log_of_run(pipeline)

    assert "The request is too large: " in log
    assert "2 of 3 requests answered" in log


def test_zero_generations_raise_the_error_of_the_api(sandbox, tmp_path):
    with pytest.raises(RequestsFailedError, match="'n'"):
        run(generation_pipeline(batch_llm(), [{"instruction": "Say it"}], tmp_path, num_generations=0))


def test_jobs_of_one_request_make_the_same_dataset(sandbox, tmp_path):
    rows = [{"instruction": f"Say {i}"} for i in range(7)]

    dataset = run(generation_pipeline(batch_llm(max_requests_per_job=1, max_jobs=3), rows, tmp_path))

    assert dataset == run(generation_pipeline(synchronous_llm(), rows, tmp_path))
    assert len(sandbox.books().batches) == 7
    assert sandbox.books().max_jobs_in_flight <= 3


def test_routed_batches_are_joined(sandbox, tmp_path):
    """The joining step gets the routed batches one by one."""

    def routed(llm_class):
        turns[0] = itertools.count()
        with Pipeline(name="routed", cache_dir=tmp_path) as pipeline:
            load = LoadDataFromDicts(data=[{"instruction": f"Say {i}"} for i in range(20)], batch_size=5)
            tasks = [TextGeneration(name=f"task_{k}", llm=llm_class(), input_batch_size=5) for k in range(3)]
            group = GroupColumns(columns=["generation"], output_columns=["generations"], input_batch_size=5)
            load >> two_of_three >> tasks >> group
        return run(pipeline)

    assert routed(batch_llm) == routed(synchronous_llm)


def test_rows_reach_a_task_without_a_change_of_type(sandbox, tmp_path):
    """Dictionaries of one column keep their own keys and types: the sandbox's answers depend on each message."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    users = [{"content": "Say 1."}, {"content": "Say 2.", "name": "Ada"}, {"content": [image]}]
    rows = [{"messages": [{"role": "user", **user}]} for user in users]

    def chats(llm_class):
        with Pipeline(name="chats", cache_dir=tmp_path) as pipeline:
            again = TextGeneration(
                llm=llm_class(), input_mappings={"instruction": "generation"}, output_mappings={"generation": "again"}
            )
            keep = KeepColumns(columns=["generation", "again"])
            LoadDataFromDicts(data=rows) >> ChatGeneration(llm=llm_class()) >> again >> keep
        return run(pipeline)

    assert chats(batch_llm) == chats(synchronous_llm)
    books = sandbox.books()
    assert len(books.billed_bodies) == len(books.sync_bodies) == 6


def test_yaml_holds_the_fields_without_the_key(sandbox, tmp_path):
    llm = OpenAIBatchLLM(model="gpt-4o-mini", api_key="sk-in-the-code", max_jobs=3, min_poll_interval=0.1)
    with Pipeline(name="yaml", cache_dir=tmp_path) as pipeline:
        TextGeneration(name="generate", llm=llm)
    pipeline.save(tmp_path / "pipeline.yaml", format="yaml")

    text = (tmp_path / "pipeline.yaml").read_text()
    loaded = Pipeline.from_yaml(tmp_path / "pipeline.yaml").dag.get_step("generate")["step"].llm

    assert "sk-" not in text
    assert "module: distilabel_openai_batch\n" in text
    assert isinstance(loaded, OpenAIBatchLLM)
    assert loaded.dump() == llm.dump()


def test_runtime_parameters_set_fields_of_the_llm(sandbox, tmp_path):
    pipeline = generation_pipeline(batch_llm(), [{"instruction": f"Say {i}"} for i in range(4)], tmp_path)

    pipeline.run(parameters={"generate": {"llm": {"max_requests_per_job": 2}}}, use_cache=False)

    assert len(sandbox.books().batches) == 2


PIPELINE_WITHOUT_A_CLIENT = """
import sys
import traceback
from distilabel.models.llms import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration
if "with" in sys.argv:
    from distilabel_openai_batch import OpenAIBatchLLM
if __name__ == "__main__":
    with Pipeline(name="without", cache_dir=sys.argv[1]) as pipeline:
        load = LoadDataFromDicts(data=[{"instruction": f"Say {i}"} for i in range(120)])
        load >> TextGeneration(name="generate", llm=OpenAILLM(model="gpt-4o-mini"))
    print(pipeline.signature, pipeline.get_load_stages(), pipeline.dag.get_step("generate")["step"].is_global)
    distiset = pipeline.run(use_cache=False)
    print(distiset["default"]["train"].to_list(), file=sys.stderr)
"""


def test_pipeline_without_a_batch_client_is_not_changed_by_the_import(sandbox, tmp_path):
    """Signature, stages, calls and rows are equal with and without the import of this package."""
    outputs, calls = [], []
    for imported in ("without", "with"):
        ran = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", PIPELINE_WITHOUT_A_CLIENT, str(tmp_path / imported), imported],
            capture_output=True,
            text=True,
            check=True,
        )
        # distilabel logs to the standard output; the rows are the last line of the other.
        outputs.append((ran.stdout.splitlines()[0], ran.stderr.splitlines()[-1]))
        calls.append(sorted(call.name for call in sandbox.calls()))
        sandbox.reset()

    assert outputs[0] == outputs[1]
    assert calls[0] == calls[1] == ["chat.completions"] * 120


def test_key_is_in_no_file(sandbox, tmp_path):
    """The files are distilabel's cache, the log, and the dataset."""
    run(generation_pipeline(batch_llm(), [{"instruction": "Say it"}], tmp_path))

    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    assert not [path for path in written if API_KEY.encode() in path.read_bytes()]


@pytest.mark.parametrize("changed", [datetime(1969, 7, 20), float("nan"), (1, 2), [{"at": (1,)}]], ids=repr)
def test_continued_run_makes_equal_requests_of_rows_that_json_would_change(sandbox, tmp_path, changed):
    """distilabel caches rows as JSON: the changed rows would make other requests."""
    rows = [{"value": value, "id": number} for number, value in enumerate([changed] * 3)]

    def pipeline(wait: bool) -> Pipeline:
        with Pipeline(name="carried-on", cache_dir=tmp_path) as made:
            load = LoadDataFromDicts(data=rows, batch_size=2)
            load >> TextGeneration(
                name="generate",
                llm=batch_llm(wait=wait),
                template="What of {{ value }}, {{ id }}?",
                columns=["value", "id"],
            )
        return made

    assert not pipeline(wait=False).run(use_cache=True)
    found = pipeline(wait=False).run(use_cache=True)["default"]["train"].to_list()

    assert [row["id"] for row in found] == [0, 1, 2]
    assert all(row["generation"] for row in found)
    assert isinstance(found[0]["value"], list if isinstance(changed, tuple) else type(changed))
    [batch] = sandbox.books().batches
    assert batch["request_counts"]["total"] == 3
