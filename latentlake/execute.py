"""Computes partitions of a stage and publishes them; what is up to date is left as it is."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache, partial
from io import BytesIO
from itertools import chain
from time import monotonic
from typing import TypeVar

import polars as pl
import pyarrow as pa

from latentlake.calls.budget import Bill, Spent
from latentlake.calls.ledger import Asker, Ledger
from latentlake.catalog import Catalog, Consumed, Made, Publication
from latentlake.checks import Check, Checked, Result, checks_of
from latentlake.digest import digest, rows_digest
from latentlake.errors import LakeError
from latentlake.flow import Flow, Stage
from latentlake.keeping.beside import Beside
from latentlake.keeping.drop import DROPPABLE
from latentlake.keeping.weights import Weights
from latentlake.lake import Lake
from latentlake.origins import Origins
from latentlake.plan import Plan, Recipe, State, name_of
from latentlake.protocols import Answer, Asked, Handles
from latentlake.sections.models import LLMChoice
from latentlake.steering.pushes import Push
from latentlake.steering.steered import VERSION as STEERED_VERSION
from latentlake.steering.steered import Steered
from latentlake.study import Study
from latentlake.tables import TABLES
from latentlake.work import Ask, Compute, Progress, Shared, Tables, Work

T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """A partition that is now published, and what it was made from. ``is_computed``: false for one that was up to date.

    ``seconds``: from its beginning to its publication; partitions that are computed together share most of them.
    ``spent``: on the model calls that were made for it. ``frame(name)``: its rows of one of the stage's tables, or of an input
    (by the stage's name) what it was made from.
    """

    publication: Publication
    inputs: tuple[Consumed, ...]
    is_computed: bool
    frame: Callable[[str], pl.LazyFrame]
    seconds: float = 0.0
    spent: Spent = field(default_factory=Spent)


@dataclass(frozen=True)
class Executor:
    """Computes partitions of one study in one lake. ``launch``: the execution of a plan that the run is part of."""

    flow: Flow
    lake: Lake
    origins: Origins
    handles: Handles
    progress: Progress
    run: str
    launch: str

    def execute(self, name: str, keys: Sequence[str], compute: Compute) -> Iterator[Outcome]:
        """Compute and publish partitions of a stage, one after the other, skipping the ones that are up to date.

        Models are loaded when first needed and let go of at the end.

        Raises:
            LakeError: a partition that is read is not published, or one that was computed fails a check that protects
                data; it is then not committed.
        """
        stage = self.flow[name]
        plan, shared = Plan(self.flow, self.origins, Catalog(self.lake)), Shared()
        Catalog(self.lake).register(self.flow.study, list(self.flow.stages), self.origins.shards)
        self.progress.begin(name, len(keys))
        try:
            groups = (self._group(stage, group, plan, compute, shared) for group in _groups(stage, keys))
            publications = chain.from_iterable(groups)
            # A shard takes long to compute, and its rows long to write. Blocks would be hidden from readers for longer.
            for publish in ahead(publications) if stage.kind == "activations" else publications:
                outcome = publish()
                self.progress.done(outcome.publication.partition, outcome.is_computed)
                yield outcome
        finally:
            self.progress.end()
            self.handles.free()

    def check(self, name: str, keys: Sequence[str]) -> Iterator[tuple[Check, Result]]:
        """Make the checks of a stage over published partitions; the progress hears of the failed ones.

        ``keys``: every combination of some values of the dimensions, as in a range of partitions.
        """
        stage = self.flow[name]
        shards = Catalog(self.lake).order(list(self.origins.shards))

        def frame(of: Sequence[str], table: str) -> pl.LazyFrame:
            if table in stage.tables:
                return self._rows(stage, of, table)
            return self._input(stage, of, table, None, shards)

        plan = cache(lambda: Plan(self.flow, self.origins, Catalog(self.lake)))
        for check in checks_of(self.flow.study, stage):
            of = self._published(stage, shards) if check.is_of_all else keys
            beside = partial(self._beside, plan, of)
            result = check.find(Checked(self.flow.study, stage, of, partial(frame, of), beside))
            if not result.passed:
                self.progress.failed(f"{name}, {check.name}: {result}")
            yield check, result

    def _published(self, stage: Stage, shards: Sequence[str]) -> list[str]:
        """Partitions of a stage that are published, of those that the study has."""
        found = Catalog(self.lake).publications(stage.name)
        published = {partition for (_, partition), each in found.items() if each.is_published}
        return [key for key in self.flow.partitions(stage, shards) if key in published]

    def _beside(self, plan: Callable[[], Plan], keys: Sequence[str], name: str) -> pl.LazyFrame:
        """Rows of another stage, partitioned alike, under those of some keys under which it is up to date."""
        stage = self.flow[name]
        fresh = {each.partition for each in plan().of(stage) if each.state is State.FRESH}
        return self._rows(stage, [key for key in keys if key in fresh], stage.tables[0])

    def _group(
        self, stage: Stage, keys: list[str], plan: Plan, compute: Compute, shared: Shared
    ) -> Iterator[Callable[[], Outcome]]:
        """Partitions that are computed together; what is left to do for each is to publish it."""
        recipes = {key: plan.recipe(stage, key) for key in keys}
        stale = []
        for key in keys:
            if plan.is_fresh(stage, key, recipes[key]):
                published = plan.publications[stage.name, key]
                outcome = Outcome(published, recipes[key].inputs, False, self._reader(stage, key, plan))
                yield partial(_same, outcome)
            else:
                _require_present(stage, key, plan)
                stale.append(key)
        if stale:
            start = monotonic()
            begun = [self._begin(stage, key, recipes[key], plan) for key in stale]
            bills = [Bill() for _ in stale]
            askers = map(partial(self._asker, stage), stale, bills)
            works = [self.work(stage, key, plan, ask, shared) for key, ask in zip(stale, askers, strict=True)]
            for made, written, bill in zip(begun, compute(works), bills, strict=True):
                yield partial(self._publish, stage, made, written, plan, start, bill)

    def _begin(self, stage: Stage, key: str, recipe: Recipe, plan: Plan) -> Made:
        before = plan.publications.get((stage.name, key))
        publication = Publication(
            asset=stage.name,
            partition=key,
            attempt=before.attempt + 1 if before else 1,
            state="",
            recipe=recipe.digest,
            code_version=recipe.code_version,
            data_version=None,
            rows=0,
            retryable_failures=0,
            study=self.flow.study.digest,
            run=self.run,
            at=None,
        )
        return Catalog(self.lake).begin(Made(publication, recipe.inputs, stage.columns(stage.values(key)), {}))

    def _publish(self, stage: Stage, begun: Made, written: Tables, plan: Plan, start: float, bill: Bill) -> Outcome:
        """Check the rows, commit them, and only then say so."""
        catalog, publication = Catalog(self.lake), begun.publication
        self._require_standing(stage, publication.partition, plan)
        rows = {name: TABLES[name].conform(written[name]) for name in stage.tables}
        self._require_sound(stage, publication.partition, rows, plan)
        facts = {"asset": stage.name, "partition": publication.partition, "recipe": publication.recipe, "run": self.run}
        written_to = {
            name: self.lake.replace(name, each, begun.where, facts, lambda: catalog.require_current(begun))
            for name, each in rows.items()
        }
        publication = publication._replace(
            data_version=_data_version(rows, publication.recipe),
            rows=rows[stage.tables[0]].num_rows,
            retryable_failures=self._retryable(rows),
        )
        catalog.require_current(begun)
        published = catalog.publish(Made(publication, begun.inputs, begun.where, written_to))
        reader = self._reader(stage, publication.partition, plan)
        return Outcome(published, begun.inputs, True, reader, monotonic() - start, bill.total)

    def _require_standing(self, stage: Stage, key: str, plan: Plan) -> None:
        """Refuse what was made while rows that it reads were dropped: it may be made of a part of them."""
        for source in stage.inputs:
            if self.flow[source.stage].kind in DROPPABLE:
                states = Catalog(self.lake).publications(source.stage)
                for above in self.flow.upstream(stage, key, source, plan.shards):
                    if not states[source.stage, above].is_published:
                        raise LakeError(
                            f"{name_of(source.stage, above)} was dropped while {name_of(stage.name, key)} was made of it, "
                            "which is not published. Start again"
                        )

    def _require_sound(self, stage: Stage, key: str, rows: dict[str, pa.Table], plan: Plan) -> None:
        """Refuse rows that fail a check which protects data."""

        def frame(name: str) -> pl.LazyFrame:
            if name in rows:
                return pl.LazyFrame(rows[name])
            return self._input(stage, [key], name, None, plan.shards)

        for check in checks_of(self.flow.study, stage):
            checked = Checked(self.flow.study, stage, [key], frame, partial(self._beside, lambda: plan, [key]))
            if check.protects and not (result := check.find(checked)).passed:
                raise LakeError(
                    f"{name_of(stage.name, key)} is not published, for it fails the check {check.name}: {result}. "
                    f"{check.description} Correct latentlake/stages/{stage.kind}.py"
                )

    def _retryable(self, rows: dict[str, pa.Table]) -> int:
        """Rows that carry an error and whose call may succeed later."""
        calls = [
            call
            for each in rows.values()
            if {"call", "error"} <= set(each.column_names)
            for call, error in zip(each["call"].to_pylist(), each["error"].to_pylist(), strict=True)
            if error and call
        ]
        if not calls:
            return 0
        retryable = self.lake.scan("calls").filter(pl.col("is_retryable") & pl.col("key").is_in(calls))
        answered = self.lake.scan("calls").filter(~pl.col("is_retryable"))
        return int(retryable.join(answered, on="key", how="anti").select(pl.col("key").n_unique()).collect().item())

    def _reader(self, stage: Stage, key: str, plan: Plan) -> Callable[[str], pl.LazyFrame]:
        def frame(name: str) -> pl.LazyFrame:
            if name in stage.tables:
                return self.lake.scan(name, stage.columns(stage.values(key)))
            return self._input(stage, [key], name, None, plan.shards)

        return frame

    def work(self, stage: Stage, key: str, plan: Plan, ask: Ask, shared: Shared) -> Work:
        """What a stage is given to compute one partition; model calls go through ``ask``."""
        return Work(
            study=self.flow.study,
            stage=stage,
            values=stage.values(key),
            shards=self.flow.used_shards(plan.shards),
            origins=self.origins,
            handles=self.handles,
            progress=self.progress,
            read=lambda name, table: self._input(stage, [key], name, table, plan.shards),
            ask=ask,
            steer=partial(self._steer, stage, key),
            keep=Weights(self.lake).keep,
            put=lambda name, content: Beside(self.lake).put(name, BytesIO(content)),
            shared=shared,
        )

    def _input(
        self, stage: Stage, keys: Sequence[str], name: str, table: str | None, shards: Sequence[str]
    ) -> pl.LazyFrame:
        """Rows of an input, restricted to the partitions that some partitions depend on."""
        source = next((each for each in stage.inputs if each.stage == name), None)
        if source is None:
            raise KeyError(f"{stage.name} does not declare the input {name!r} in latentlake/flow.py")
        above = self.flow[source.stage]
        upstream = {each for key in keys for each in self.flow.upstream(stage, key, source, shards)}
        return self._rows(above, sorted(upstream), table or above.tables[0])

    def _rows(self, stage: Stage, keys: Sequence[str], table: str) -> pl.LazyFrame:
        """Rows of some partitions of a stage."""
        places = [stage.columns(stage.values(key)) for key in keys]
        where = {name: sorted({each[name] for each in places}) for name in (*stage.constants, *stage.dimensions)}
        return self.lake.scan(table, where)

    def _steer(self, stage: Stage, key: str, pushes: Mapping[str, Push], asked: Sequence[Asked]) -> list[Answer]:
        """What the subject says under pushes, out of the ledger or now. It is the study's own work, and no budget counts it."""
        dictionary = stage.values(key)["dictionary"]
        is_random = self.flow.study.dictionaries[dictionary].control == "model"
        choice, seed = self.flow.study.subject, self.flow.study.seed if is_random else None
        revision = digest([self.origins.subject.digest, choice.dtype, seed, STEERED_VERSION])
        asker = Asker("subject", revision, "subject", stage.name, dictionary)

        def report(made: int, remembered: int, share: float) -> None:
            self.progress.share(share)

        return Ledger(self.lake).ask(lambda: Steered(self.handles.subject(is_random), pushes), asker, asked, report)

    def _asker(self, stage: Stage, key: str, bill: Bill) -> Ask:
        dictionary = stage.values(key).get("dictionary", "")

        def report(made: int, remembered: int, share: float) -> None:
            self.progress.calls(made, remembered)
            self.progress.share(share)

        def ask(llm: str, asked: Sequence[Asked]) -> list[Answer]:
            choice = self.flow.study.llms[llm]
            revision = revision_of(self.flow.study, self.origins, llm)
            asker = Asker(llm, revision, choice.engine, stage.name, dictionary, self.launch)
            ledger = Ledger(self.lake, self.flow.study.budget, choice.price, self.handles.is_replay)
            try:
                return ledger.ask(lambda: self.handles.llm(llm), asker, as_put(choice, asked), report)
            finally:
                bill.add(ledger.spent)

        return ask


def ahead(items: Iterator[T]) -> Iterator[T]:
    """Items in order; while one is in use, the next is computed in a thread of its own.

    Where computing fails, what was computed before is given first.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="compute") as computer:
        following = computer.submit(next, items, None)
        while (item := following.result()) is not None:
            following = computer.submit(next, items, None)
            yield item


def _same(outcome: Outcome) -> Outcome:
    """What is up to date needs no making."""
    return outcome


def _require_present(stage: Stage, key: str, plan: Plan) -> None:
    dropped = plan.dropped_inputs(stage, key)
    if dropped:
        raise LakeError(
            f"{name_of(stage.name, key)} reads {name_of(*dropped[0])}, whose rows were dropped; materialize it first (`make run` "
            "does so in order)"
        )


def as_put(choice: LLMChoice, asked: Sequence[Asked]) -> Sequence[Asked]:
    """Calls as they are put to a model: to one that chats, prompts are what a user says."""
    if not choice.chat:
        return asked
    return [replace(each, call=replace(each.call, chat=each.call.chat or ())) for each in asked]


def revision_of(study: Study, origins: Origins, llm: str) -> str:
    """What the answers of a model follow from, for the ledger: its weights, and how they are run."""
    choice = study.llms[llm]
    return digest([origins.llm(llm).digest, choice.dtype, choice.engine, choice.engine_version])


def _groups(stage: Stage, keys: Sequence[str]) -> list[list[str]]:
    """Partitions that are computed together: forward passes over the same contexts serve all dictionaries."""
    if stage.kind == "reconstructions":
        return [list(keys)]
    if stage.kind != "activations":
        return [[key] for key in keys]
    groups: dict[str, list[str]] = {}
    for key in keys:
        groups.setdefault(stage.values(key)["shard"], []).append(key)
    return list(groups.values())


def _data_version(rows: dict[str, pa.Table], recipe: str) -> str:
    """Digest of the rows' identity; the recipe where a stage declares none (`activations`: too many rows to read)."""
    versions = {
        name: rows_digest(each, TABLES[name].identity, TABLES[name].keys)
        for name, each in rows.items()
        if TABLES[name].identity
    }
    return digest(versions) if versions else recipe
