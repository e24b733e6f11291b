"""What a run would cost, before it runs: model calls with the ledger's answers taken off, tokens, time, money, disk.

Calls of partitions whose inputs are there are counted by preparing them: the stage's own code builds its prompts, and
what the ledger lacks is counted. Of partitions that wait for others only a bound is known. Tokens, time and bytes are
means of the past.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from latentlake.calls.budget import price_of
from latentlake.calls.ledger import call_key
from latentlake.calls.pending import ASKING, Pending
from latentlake.digest import digest
from latentlake.flow import Flow, Stage
from latentlake.lake import Lake
from latentlake.origins import Origins
from latentlake.plan import Plan, Planned, State
from latentlake.protocols import Reply
from latentlake.scorers import WindowScorer

_PREPARED = 8  # partitions of a stage whose calls are counted; from more, the rest follows
_SCHEMA = {
    "asset": pl.String, "to_compute": pl.Int64, "waiting": pl.Int64, "up_to_date": pl.Int64, "calls": pl.Int64,
    "calls_are": pl.String, "tokens": pl.Int64, "seconds": pl.Float64, "money": pl.Float64, "bytes": pl.Int64,
}  # fmt: skip


@dataclass
class _Calls:
    """Calls by model. ``kind``: `exact`, `about` (some partitions prepared, the rest like them) or `at most`."""

    by_llm: Counter[str] = field(default_factory=Counter)
    kind: str = "exact"


class Estimator:
    """Estimates for one plan. No model is loaded."""

    def __init__(self, plan: Plan, flow: Flow, lake: Lake, origins: Origins) -> None:
        self._plan, self._flow, self._lake, self._origins = plan, flow, lake, origins
        self._pending = Pending(plan, flow, lake, origins)
        self._counted: set[str] = (
            set()
        )  # keys of calls; an empty explanation is held against a window by several partitions
        self._past = self._past_calls()
        self._seconds = self._past_seconds()

    def table(self) -> pl.DataFrame:
        """A row an asset, in the order of the flow. Columns: partitions ``to_compute``, ``waiting`` (for what is computed
        before them, and perhaps up to date after it) and ``up_to_date``; ``calls`` to be made and what ``calls_are``
        (`exact`, `about`, `at most`), ``tokens``, ``seconds``, ``money``, ``bytes`` to be written; null where the past says
        nothing.
        """
        by_asset: dict[str, list[Planned]] = {name: [] for name in self._flow.stages}
        for each in self._plan.all:
            by_asset[each.stage.name].append(each)
        rows = [self._row(self._flow[name], planned) for name, planned in by_asset.items()]
        return pl.DataFrame(rows, schema=_SCHEMA)

    def _row(self, stage: Stage, planned: Sequence[Planned]) -> dict[str, object]:
        counts = Counter(each.state for each in planned)
        wanted = counts[State.STALE] + counts[State.WAITING]
        calls = self._calls(stage, planned) if stage.kind in ASKING else _Calls()
        return {
            "asset": stage.name,
            "to_compute": counts[State.STALE],
            "waiting": counts[State.WAITING],
            "up_to_date": counts[State.FRESH],
            "calls": calls.by_llm.total(),
            "calls_are": calls.kind,
            "tokens": self._sum(stage, calls, "tokens"),
            "seconds": self._time(stage, calls, wanted),
            "money": self._sum(stage, calls, "money"),
            "bytes": self._bytes(stage, wanted),
        }

    def _calls(self, stage: Stage, planned: Sequence[Planned]) -> _Calls:
        stale = [each for each in planned if each.state is State.STALE]
        waiting = [each for each in planned if each.state is State.WAITING]
        if self._in_a_row(stage) > 1:  # what is prepared is but the first token's
            waiting, stale = [*stale, *waiting], []
        calls = self._prepared(stage, stale)
        if calls.by_llm.total() and self._may_stop(stage):
            calls.kind = "at most"
        most = self._most(stage, waiting)
        if most:
            calls.by_llm.update(most)
            calls.kind = "at most"
        return calls

    def _may_stop(self, stage: Stage) -> bool:
        """Whether the answers may make some of the calls needless; as they are counted, all fail, and decide nothing."""
        return stage.kind == "scores" and self._flow.study.scorers[stage.constants["scorer"]].may_stop

    def _prepared(self, stage: Stage, stale: Sequence[Planned]) -> _Calls:
        """Calls of partitions whose inputs are there; of many, of some drawn by hash."""
        drawn = sorted(stale, key=lambda each: digest(list(each.key)))[:_PREPARED]
        counted: Counter[str] = Counter()
        for each in drawn:
            counted.update(self._count(stage, each.partition))
        if len(drawn) == len(stale):
            return _Calls(counted)
        factor = len(stale) / len(drawn)
        return _Calls(Counter({llm: round(n * factor) for llm, n in counted.items()}), "about")

    def _count(self, stage: Stage, key: str) -> Counter[str]:
        """Calls that one partition would make, but for those that one before it makes too: its stage runs, and what it asks is
        counted, not answered."""
        found: Counter[str] = Counter()
        for llm, asked in self._pending.of(stage, key).items():
            keys = {call_key(self._pending.revision(llm), each.call) for each in asked}
            found[llm] = len(keys - self._counted)
            self._counted |= keys
        return found

    def _in_a_row(self, stage: Stage) -> int:
        """Calls that follow from one another, for each that a method counts: one a token, where a scorer asks by token."""
        study = self._flow.study
        scorer = study.scorers[stage.constants["scorer"]] if stage.kind == "scores" else None
        if not isinstance(scorer, WindowScorer) or not scorer.is_by_token:
            return 1
        return study.length_of(study.samples[scorer.sample])

    def _most(self, stage: Stage, waiting: Sequence[Planned]) -> dict[str, int]:
        study, is_scorer = self._flow.study, stage.kind == "scores"
        choice = (
            study.scorers[stage.constants["scorer"]] if is_scorer else study.explainers[stage.constants["explainer"]]
        )
        llms = [name for mark, name in choice.references() if mark.section == "llms" and not mark.is_embedder]
        if not llms or not choice.most_calls:
            return {}
        latents = sum(self._latents(stage.values(each.partition)) for each in waiting)
        targets = [
            len(study.interventions[name].kl) for mark, name in choice.references() if mark.stage == "continuations"
        ]
        times = self._in_a_row(stage) * max(targets, default=1)
        return {llms[0]: latents * choice.most_calls * times} if latents else {}

    def _latents(self, values: Mapping[str, str]) -> int:
        """Latents of a block that are asked about, at most."""
        name, blocks = values["dictionary"], self._flow.study.blocks
        chosen = self._flow.study.dictionaries[name].latents
        width = self._origins.dictionary(name).facts.width
        if chosen == "all":
            return -(-width // blocks)
        if isinstance(chosen, int):
            return -(-chosen // blocks)
        return sum(latent * blocks // width == int(values["block"]) for latent in chosen)

    def _sum(self, stage: Stage, calls: _Calls, what: str) -> float | None:
        """Tokens or money of calls, by the mean of past calls of the same asset and model, else of the model."""
        total = 0.0
        for llm, n in calls.by_llm.items():
            mean = self._past.get((stage.name, llm)) or self._past.get(("", llm))
            if n and mean is None:
                return None
            if what == "money" and self._flow.study.llms[llm].price is None:
                return None
            total += n * (mean or {what: 0.0})[what]
        return round(total) if what == "tokens" else total

    def _time(self, stage: Stage, calls: _Calls, wanted: int) -> float | None:
        if not wanted:
            return 0.0
        if calls.by_llm.total():
            return self._sum(stage, calls, "seconds")
        return None if stage.name not in self._seconds else wanted * self._seconds[stage.name]

    def _bytes(self, stage: Stage, wanted: int) -> int | None:
        """Bytes of as many partitions as are wanted, by the mean of what the stage's tables hold."""
        published = sum(self._plan.count(each) for each in self._flow.stages.values() if each.tables == stage.tables)
        if not wanted or not published:
            return 0 if not wanted else None
        return round(wanted * sum(self._lake.bytes(table) for table in stage.tables) / published)

    def _past_calls(self) -> dict[tuple[str, str], dict[str, float]]:
        """Means over answered calls in the ledger, by asset and model, and by model alone (asset empty)."""
        calls = self._lake.scan("calls").filter(pl.col("error").is_null())
        tokens = (pl.col("tokens_in") + pl.col("tokens_out")).alias("tokens")
        means = [
            calls.group_by(asset, "model").agg(tokens.mean(), *map(pl.mean, _MEANS))
            for asset in (pl.col("asset"), pl.lit("").alias("asset"))
        ]
        return {
            (row["asset"], row["model"]): {**row, "money": self._money(row)}
            for row in pl.concat(means).collect().iter_rows(named=True)
        }

    def _money(self, mean: Mapping[str, float]) -> float:
        llm = self._flow.study.llms.get(str(mean["model"]))
        reply = Reply(None, None, **{name: mean[name] for name in _MEANS[:3]}, finish_reason=None, seconds=0.0)  # type: ignore[arg-type]
        return (price_of(reply, llm.price) or 0.0) if llm else 0.0

    def _past_seconds(self) -> dict[str, float]:
        """Mean seconds from beginning to publication, by asset."""
        rows = self._lake.scan("partitions").select("asset", "partition", "attempt", "run", "state", "at")
        begun, done = rows.filter(state="building"), rows.filter(state="published")
        took = begun.join(done, on=["asset", "partition", "attempt", "run"], suffix="_done")
        seconds = (pl.col("at_done") - pl.col("at")).dt.total_microseconds() / 1e6
        return dict(took.group_by("asset").agg(seconds.mean().alias("s")).collect().iter_rows())


_MEANS = ("tokens_in", "tokens_cached", "tokens_out", "seconds")
