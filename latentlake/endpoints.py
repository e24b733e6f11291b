"""Where models run that servers have: addresses and keys, out of the environment.

For the model ``judge`` of a study ``LATENTLAKE_ENDPOINTS_JUDGE`` counts, else ``LATENTLAKE_ENDPOINTS``: addresses with blanks
between them, such as ``http://one:8000/v1 http://two:8000/v1``, which all serve it. Its key is in ``LATENTLAKE_API_KEY_JUDGE`` or
``LATENTLAKE_API_KEY``, for OpenAI's own address also in ``OPENAI_API_KEY``. A key is read when it is needed, so that no
configuration holds it.
"""

import os
from collections.abc import Sequence

from latentlake.study import Study

_OPENAI = "https://api.openai.com/"


def endpoints_of(study: Study) -> dict[str, list[str]]:
    """Addresses for each model of a study that a server runs."""
    served = [name for name, choice in study.llms.items() if choice.is_served]
    return {name: (_own("LATENTLAKE_ENDPOINTS", name) or "").split() for name in served}


def key_of(name: str, endpoints: Sequence[str]) -> str | None:
    """The key for a model, if there is one."""
    is_theirs = bool(endpoints) and all(each.startswith(_OPENAI) for each in endpoints)
    return _own("LATENTLAKE_API_KEY", name) or (os.environ.get("OPENAI_API_KEY") if is_theirs else None)


def _own(variable: str, name: str) -> str | None:
    return os.environ.get(f"{variable}_{name.upper()}") or os.environ.get(variable)
