"""Parameters without effect, which are left out of bodies and belong to digests."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distilabel_openai_batch.api.no_ops import restore_no_ops, without_no_ops
from distilabel_openai_batch.plugin.model_parameters import adapt_body
from tests.unit.plugin.stubs import MESSAGES, completion, synchronous_llm

ALL_NO_OPS = {"logprobs": None, "top_logprobs": None, "stop": None, "echo": False}
SENT = {"messages": [], "logprobs": False, "max_tokens": 128, "temperature": 1.0}
IMAGE = [{"role": "user", "content": [{"type": "text", "text": "Look"}]}]


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (SENT, {"logprobs"}),
        ({"logprobs": True, "top_logprobs": 5, "stop": ["a"], "echo": True}, set()),
        (ALL_NO_OPS, set(ALL_NO_OPS)),
        ({"logprobs": 0, "echo": 0, "stop": "", "n": 1, "temperature": 1.0, "seed": None}, set()),
    ],
    ids=["defaults of a chat", "values with an effect", "all defaults", "values that only look alike"],
)
def test_only_parameters_without_effect_on_any_server_are_no_ops(body, names):
    assert body.keys() - without_no_ops(body).keys() == names


@given(
    st.sampled_from([MESSAGES, IMAGE, "Once upon"]),
    st.fixed_dictionaries({}, optional={"top_logprobs": st.integers(1, 5), "temperature": st.floats(0, 2)}),
    st.sampled_from(["gpt-4o-mini", "o3-mini"]),
)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_body_of_an_input_file_is_restored(input, kwargs, model):
    """A body that `OpenAILLM` built is the same after its parameters were left out and restored."""
    llm, sent = synchronous_llm(completion("fine"))
    llm.generate([input], **kwargs)
    [(_, body)] = sent
    if not isinstance(input, str):
        body = dict(adapt_body(body | {"model": model}))
    assert restore_no_ops(without_no_ops(body)) == body


@pytest.mark.parametrize("body", [{"model": "m", "messages": MESSAGES}, {"model": "m", "input": "a"}, {"n": 1}])
def test_a_body_that_openaillm_did_not_build_stays_unchanged(body):
    assert restore_no_ops(body) == body
