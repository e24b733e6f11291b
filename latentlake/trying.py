"""One latent, explained and scored before a study is run: by the study's own stages, on the first documents of its corpus, in a
lake that is deleted again.

Draws follow from hashes of latent and window, and not from other latents: of the same documents the study makes the same
windows, explanation and scores. A control takes the explanation of the next chosen latent in the block, which is explained
therefore, but not scored. Borrowed explanations are left out, and comparisons with them: they are of other latents.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar, cast

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from latentlake.choices import Choices
from latentlake.corpus import Shard
from latentlake.errors import InputError, nearest
from latentlake.execute import Executor
from latentlake.flow import Flow, Stage
from latentlake.handles import LazyHandles, Settings, settings_from_environment
from latentlake.lake import Lake
from latentlake.origins import Origins
from latentlake.protocols import Handles
from latentlake.reading.trace import Trace, trace
from latentlake.reading.view import View
from latentlake.scorers import NONE, Scorer
from latentlake.stages import (
    activations,
    contexts,
    continuations,
    examples,
    explanations,
    latents,
    logits,
    neighbours,
    roots,
    scores,
    strengths,
    token_changes,
)
from latentlake.study import Study, load_study
from latentlake.work import Compute, Progress, Silent, Tables, Work, block_range, each

DOCUMENTS = 1000  # that are read where nobody says how many
_COMPUTES: Mapping[str, Compute] = {
    "subject": each(roots.subject),
    "llms": each(roots.llms),
    "selections": each(roots.selections),
    "contexts": each(contexts.compute),
    "dictionaries": each(roots.dictionaries),
    "activations": activations.compute,
    "neighbours": each(neighbours.compute),
    "latents": each(latents.compute),
    "logits": each(logits.compute),
    "examples": each(examples.compute),
    "strengths": each(strengths.compute),
    "token_changes": each(token_changes.compute),
    "continuations": each(continuations.compute),
    "explanations": each(explanations.compute),
    "scores": each(scores.compute),
}
# what shows whether a latent fires, and which others the study would explain
_CHOOSING = ("subject", "selections", "contexts", "dictionaries", "activations", "latents")
_WINDOWS = ("examples/", "continuations/")  # stages whose rows are what a latent is judged by
T = TypeVar("T", bound=Choices)
Opening = Callable[[Study, Origins, Lake], Handles]


@dataclass(frozen=True)
class Trial(Trace):
    """What became of a latent, and what was read for it: ``documents``, and their ``tokens`` with BOS and separators."""

    documents: int
    tokens: int


def try_latent(
    study: Study | str | Path,
    dictionary: str,
    latent: int,
    *,
    documents: int = DOCUMENTS,
    text: str | Path | None = None,
    explainer: str | None = None,
    scorer: str | None = None,
    opening: Opening | None = None,
    progress: Progress | None = None,
    cache: Path | None = None,
) -> Trial:
    """Explain and score one latent of a study, or of the study in a file. What is kept is what ``cache`` remembers of files.

    ``documents``: how many of the corpus are read, from the first; of a file ``text`` in its place. ``explainer``, ``scorer``: of
    these alone. ``opening``: opens the doors to models; by default to real ones, which run as the environment says.

    Raises:
        InputError: there is no such dictionary, latent, explainer or scorer; or the latent fires too rarely in what was read.
    """
    if documents < 1:
        raise InputError(f"{documents} documents were to be read; --documents takes 1 or more")
    settings = settings_from_environment()
    folder = Path(settings.cache) if cache is None else cache
    study = study if isinstance(study, Study) else load_study(study)
    small = _reduced(study, dictionary, explainer, scorer)
    if text is not None:
        small = small.with_sections(corpus=_corpus(small, sources=_file(Path(text)), refresh="all"))
    _require_latent(Origins(small, folder), dictionary, latent)
    shards = _first(small, folder, documents)
    with TemporaryDirectory() as scratch:
        trying = _Trying(
            small.with_sections(corpus=_corpus(small, refresh="all")),
            dictionary,
            latent,
            shards,
            Lake(f"{scratch}/lake", small.name),
            opening or partial(_real, settings),
            progress or Silent(),
            folder,
        )
        return trying.run()


def _real(settings: Settings, study: Study, origins: Origins, lake: Lake) -> Handles:
    return LazyHandles(study, origins, lake, settings)


def _first(study: Study, cache: Path, documents: int) -> dict[str, Shard]:
    """So many documents, from the first, of the shards that the study would read; the last of them perhaps not to its end."""
    listed = Origins(study, cache).shards
    found = {}
    for key in Flow(study).used_shards(list(listed)):
        if documents > 0:
            found[key] = replace(listed[key], documents=min(listed[key].documents, documents))
            documents -= listed[key].documents
    return found


class _Reading(Origins):
    """The outside of a study that reads some shards and no others."""

    def __init__(self, study: Study, cache: Path, shards: Mapping[str, Shard]) -> None:
        super().__init__(study, cache)
        self._read = dict(shards)

    @cached_property
    def shards(self) -> dict[str, Shard]:
        """These."""
        return self._read


@dataclass(frozen=True)
class _Trying:
    """A latent under way. ``study``: what is left of it that concerns the latent."""

    study: Study
    dictionary: str
    latent: int
    shards: Mapping[str, Shard]
    lake: Lake
    opening: Opening
    progress: Progress
    cache: Path

    def run(self) -> Trial:
        """Whether the latent fires, and which others the study would explain; then all that follows of the latent."""
        self._compute(self.study, _CHOOSING)
        view = View(self.lake)
        tokens = int(view.contexts.select(pl.col("tokens").list.len().sum()).collect().item())
        documents = sum(shard.documents for shard in self.shards.values())
        rows = view.latents.select("latent", "is_chosen", "triage", "reason", "n_tokens").collect()
        _require_fires(rows.row(by_predicate=pl.col("latent") == self.latent, named=True), documents, tokens)
        entry = self.study.dictionaries[self.dictionary].model_dump(exclude_unset=True)
        entry["latents"] = self._with_partner(rows.filter("is_chosen")["latent"].to_list())
        self._compute(self.study.with_sections(dictionaries={self.dictionary: entry}))
        found = trace(View(self.lake), self.dictionary, self.latent)
        return Trial(**vars(found), documents=documents, tokens=tokens)

    def _with_partner(self, chosen: Sequence[int]) -> list[int]:
        """The latent, and the one whose explanation is its control, where the block has another."""
        named = {latent: str(latent) for latent in {*chosen, self.latent}}  # as if each were explained in its own way
        partner = scores.partners(named, self.study.seed).get(self.latent)
        return [self.latent] if partner is None else [self.latent, partner]

    def _compute(self, study: Study, kinds: Sequence[str] = tuple(_COMPUTES)) -> None:
        """The stages of some kinds, of the latent's block alone."""
        flow, origins = Flow(study), _Reading(study, self.cache, self.shards)
        width = origins.dictionary(self.dictionary).facts.width
        block = str(self.latent * study.blocks // width)
        handles = self.opening(study, origins, self.lake)
        executor = Executor(flow, self.lake, origins, handles, self.progress, run="", launch="")
        for stage in flow.stages.values():
            if stage.kind in kinds:
                keys = [
                    key
                    for key in flow.partitions(stage, list(self.shards))
                    if stage.values(key).get("block", block) == block
                ]
                own = block_range(int(block), study.blocks, width)
                deque(executor.execute(stage.name, keys, self._computing(stage, own)), maxlen=0)

    def _computing(self, stage: Stage, block: range) -> Compute:
        """How a stage is computed; of activations those of the block are kept, where nothing asks for others."""
        if stage.kind == "activations" and self.study.neighbours is None:
            return partial(_activations_of, block)
        return each(partial(_scores_of, self.latent)) if stage.kind == "scores" else _COMPUTES[stage.kind]


def _activations_of(latents: range, works: Sequence[Work]) -> Iterator[Tables]:
    for tables in activations.compute(works):
        rows = cast(pa.Table, tables["activations"])
        column = pc.field("latent")
        yield {"activations": rows.filter((column >= latents.start) & (column < latents.stop))}


def _scores_of(latent: int, work: Work) -> Tables:
    """Scores of one latent: of the other there is an explanation, but no window to judge it by."""

    def read(name: str, table: str | None) -> pl.LazyFrame:
        rows = work.read(name, table)
        return rows.filter(pl.col("latent") == latent) if name.startswith(_WINDOWS) else rows

    return scores.compute(replace(work, read=read))


def _file(path: Path) -> dict[str, Any]:
    return {"text": {"path": path.resolve().as_posix()}}


def _corpus(study: Study, **changes: Any) -> dict[str, Any]:
    return study.corpus.model_dump(exclude_unset=True) | changes


def _reduced(study: Study, dictionary: str, explainer: str | None, scorer: str | None) -> Study:
    """What of a study concerns one dictionary, explainer and scorer: what these refer to, and nothing that is for all."""
    for section, name in (("dictionaries", dictionary), ("explainers", explainer), ("scorers", scorer)):
        known = getattr(study, section)
        if name is not None and name not in known:
            raise InputError(f"the study has no {section}.{name}{nearest(name, known)}")
    if study.dictionaries[dictionary].train is not None:
        raise InputError(
            f"dictionaries.{dictionary} is trained by the study; run it, or name the coder that was trained"
        )
    own = {name for name, each in study.explainers.items() if each.lender is None}
    if explainer is not None and explainer not in own:
        raise InputError(
            f"explainers.{explainer} borrows what is said of other latents, which a try does not explain; name another of them"
        )
    wanted = {*own, NONE} if explainer is None else {explainer}
    scorers = _scorers(study, wanted, scorer)
    judged = {name for each in scorers.values() for name in each.judged} if scorer else wanted
    judged |= {other for name in judged if name in study.explainers for other in study.takes_over(name)}
    explainers = {name: each for name, each in study.explainers.items() if name in judged}
    asking = [*explainers.values(), *scorers.values()]
    interventions = _named("interventions", study.interventions, asking)
    asking += interventions.values()
    samples = _named("samples", study.samples, asking)
    near = any(source.endswith("neighbours") for sample in samples.values() for source in sample.sources)
    return study.with_sections(
        dictionaries=_dumped({dictionary: study.dictionaries[dictionary]}),
        samples=_dumped(samples),
        interventions=_dumped(interventions),
        llms=_dumped(_named("llms", study.llms, [*asking, *samples.values()])),
        explainers=_dumped(explainers),
        scorers=_dumped(scorers),
        reconstruction=None,
        comparisons={},
        search=None,
        neighbours=study.neighbours.model_dump() if near and study.neighbours else None,
    )


def _named(section: str, entries: Mapping[str, T], asking: Sequence[Choices]) -> dict[str, T]:
    """The entries of a section that something refers to."""
    named = {name for each in asking for mark, name in each.references() if mark.section == section}
    return {name: entry for name, entry in entries.items() if name in named}


def _scorers(study: Study, explainers: Set[str], scorer: str | None) -> dict[str, Scorer]:
    """Scorers as the study has them, with those explainers that are asked about."""
    found: dict[str, Scorer] = {}
    for name, choice in study.scorers.items():
        judged = tuple(each for each in choice.judged if each in explainers)
        if scorer in (None, name) and judged:
            found[name] = choice if choice.judged == (NONE,) else choice.model_copy(update={"explainers": judged})
    if scorer is not None and not found:
        names = " or ".join(sorted(explainers - {NONE}))
        raise InputError(
            f"scorers.{scorer} does not judge explainers.{names}; name one that it judges, or add it there"
        )
    return found


def _dumped(entries: Mapping[str, Choices]) -> dict[str, Any]:
    return {name: entry.model_dump(exclude_unset=True) for name, entry in entries.items()}


def _require_latent(origins: Origins, dictionary: str, latent: int) -> None:
    width = origins.dictionary(dictionary).facts.width
    if not 0 <= latent < width:
        raise InputError(f"dictionaries.{dictionary} has no latent {latent}; its latents are 0 to {width - 1:,}")


def _require_fires(row: Mapping[str, Any], documents: int, tokens: int) -> None:
    """Refuse to go on with a latent of which too little was seen."""
    if row["triage"] in ("dead", "rare"):
        how = f"fires on {row['n_tokens']:,} tokens, and has {row['reason']}" if row["n_tokens"] else "never fires"
        raise InputError(
            f"latent {row['latent']} {how}, in the {documents:,} documents that were read ({tokens:,} tokens). Read more with "
            "--documents, or other texts with --text; or ask for fewer windows in selection.min_windows of the study"
        )
