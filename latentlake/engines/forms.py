"""Whether a reply is of the form that was asked for."""

from __future__ import annotations

import json

from latentlake.protocols import Generate


def formed(sampling: Generate, text: str) -> str | None:
    """A text as the reply that a sampling asks for, None where it is none: one of the choices, also written as a JSON string, or
    JSON that the schema allows; where no form is asked for, the text.
    """
    if sampling.choice:
        return next((each for each in (text, text.strip(), _json_string(text)) if each in sampling.choice), None)
    if sampling.schema is None:
        return text
    from jsonschema import ValidationError, validate

    try:
        validate(json.loads(text), json.loads(sampling.schema))
    except (ValueError, ValidationError):
        return None
    return text


def _json_string(text: str) -> str | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, str) else None
