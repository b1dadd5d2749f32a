"""Request bodies that the SDK can write as JSON and orjson cannot."""

from __future__ import annotations

import datetime as dt

from pydantic import BaseModel


class Prediction(BaseModel):
    """Model with a default, as the SDK accepts in a body."""

    type: str = "content"
    content: str


SDK_BODIES = [
    ({"logit_bias": {50256: -100}}, '{"logit_bias":{"50256":-100}}'),
    ({"x": 2**70, "ü": None}, '{"x":1180591620717411303424,"ü":null}'),
    ({"x": Prediction(content="y")}, '{"x":{"content":"y"}}'),
    ({1: dt.date(2026, 1, 31)}, '{"1":"2026-01-31"}'),
]
"""Bodies, each with its JSON."""
