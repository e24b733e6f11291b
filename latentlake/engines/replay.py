"""A language model that is not there: what it said is in the ledger, and nothing else is answered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from latentlake.errors import EngineError
from latentlake.protocols import Call, Reply


class Replay:
    """Stands where a model would; implements `latentlake.protocols.LLM`. The ledger asks a model only for what it does not hold,
    so that whatever comes here is refused: a study is rebuilt out of its ledger, or not at all.

    Args:
        name: of the model in the study.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def run(self, calls: Sequence[Call]) -> Iterator[list[tuple[int, Reply]]]:
        """Nothing, of no calls.

        Raises:
            EngineError: there are calls.
        """
        if calls:
            said = " ".join((calls[0].prefix + calls[0].suffix).split())
            raise EngineError(
                f"{len(calls)} calls of the model {self._name} are not in the ledger, and in a replay nobody is asked; the first "
                f"ends {said[-80:]!r}. Bring the whole ledger (the tables calls and prompts), or run without LATENTLAKE_REPLAY"
            )
        return iter(())
