"""Base of the classes that users construct: a misspelt argument is reported with the probable name."""

from __future__ import annotations

from inspect import signature
from typing import Any

from pydantic import BaseModel, ValidationError

from distilabel_openai_batch.display.brief_errors import mark_brief
from distilabel_openai_batch.errors import InvalidSettingError
from distilabel_openai_batch.text import did_you_mean

_GENERATION_HINT = '. `{name}` is a generation parameter: pass `generation_kwargs={{"{name}": …}}`.'


class CheckedArguments(BaseModel):
    """Model whose constructor reports wrong arguments in one screen, without the values of the other arguments.

    Raises:
        InvalidSettingError: an argument is no field.
        ValidationError: a value does not fit its field.
    """

    def __init__(self, /, **arguments: Any) -> None:
        try:
            super().__init__(**arguments)
        except ValidationError as error:
            unknown = [line["loc"][0] for line in error.errors() if line["type"] == "extra_forbidden"]
            names = [str(name) for name in unknown if name in arguments]
            if not names:
                raise mark_brief(error) from None
            fields = [field.alias or name for name, field in type(self).model_fields.items()]
            # Clients of chats alone have the method and its parameters.
            generate = getattr(type(self), "agenerate", None)
            parameters = signature(generate).parameters if generate else {}
            sentences = [
                f"{type(self).__name__} has no argument `{name}`"
                + (_GENERATION_HINT.format(name=name) if name in parameters else did_you_mean(name, fields))
                for name in names
            ]
            raise InvalidSettingError(" ".join(sentences)) from None
