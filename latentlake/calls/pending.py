"""Calls that stages would make now: prepared by the stages' own code, asked of nobody.

Of partitions whose inputs are there the calls are known; those of others follow from answers that are yet to come.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NoReturn

from latentlake.calls.ledger import Ledger
from latentlake.execute import Executor, as_put, revision_of
from latentlake.flow import Flow, Stage
from latentlake.lake import Lake
from latentlake.origins import Origins
from latentlake.plan import Plan, State
from latentlake.protocols import LLM, Answer, Asked, Coder, Embedder, Reply, Subject
from latentlake.stages import explanations, scores
from latentlake.work import Shared, Silent

# The stages that ask language models, by kind.
ASKING = {"explanations": explanations.compute, "scores": scores.compute}


class _NoModelsError(Exception):
    """A stage wanted a model while its calls were counted: it has made them all."""


class _NoHandles:
    """Doors that stay shut."""

    is_replay = False

    def _refuse(self, *_: object) -> NoReturn:
        raise _NoModelsError

    def subject(self, is_random: bool = False) -> Subject:
        """Shut."""
        self._refuse(is_random)

    def coder(self, dictionary: str) -> Coder:
        """Shut."""
        self._refuse(dictionary)

    def llm(self, name: str) -> LLM:
        """Shut."""
        self._refuse(name)

    def embedder(self, name: str) -> Embedder:
        """Shut."""
        self._refuse(name)

    def free(self) -> None:
        """Nothing is open."""


class Pending:
    """The calls that a plan would make and that the ledger does not hold. No model is loaded."""

    def __init__(self, plan: Plan, flow: Flow, lake: Lake, origins: Origins) -> None:
        self._plan, self._flow, self._lake, self._origins = plan, flow, lake, origins
        self._executor = Executor(flow, lake, origins, _NoHandles(), Silent(), run="", launch="")

    def of(self, stage: Stage, partition: str) -> Mapping[str, Sequence[Asked]]:
        """Calls of one partition whose inputs are there, by model, as they would be put to it."""
        made = self.made(stage, partition)
        return {llm: Ledger(self._lake).missing(self.revision(llm), asked) for llm, asked in made.items()}

    def revision(self, llm: str) -> str:
        """What the answers of a model follow from, for the ledger."""
        return revision_of(self._flow.study, self._origins, llm)

    def made(self, stage: Stage, partition: str) -> Mapping[str, Sequence[Asked]]:
        """The same with those that the ledger holds: all calls that the partition is made with."""
        found: dict[str, list[Asked]] = {}

        def ask(llm: str, asked: Sequence[Asked]) -> list[Answer]:
            found.setdefault(llm, []).extend(as_put(self._flow.study.llms[llm], asked))
            return [Answer("", Reply(None, None, 0, 0, 0, None, 0.0, error="not_made")) for _ in asked]

        with suppress(_NoModelsError):
            ASKING[stage.kind](self._executor.work(stage, partition, self._plan, ask, Shared()))
        return found

    def all(self) -> Iterator[tuple[Stage, str, str, Sequence[Asked]]]:
        """Stage, partition, model and calls of every partition that would be computed now."""
        for each in self._plan.all:
            if each.stage.kind in ASKING and each.state is State.STALE:
                for llm, asked in self.of(each.stage, each.partition).items():
                    yield each.stage, each.partition, llm, asked
