"""The study file: every choice that changes results or how they are judged, and nothing else.

What belongs here: choices, typed and validated. What does not: where and how things run (lake, device, batch sizes,
endpoints), which is configuration of resources and must not change results.
"""

from collections.abc import Mapping
from functools import cached_property, reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, Field, PrivateAttr, ValidationError, model_validator

from latentlake.choices import Choices, EmbedderName, EmbedderNameOrNone, Name, Positive, Refers
from latentlake.digest import digest
from latentlake.errors import StudyChangedError, StudyError, nearest
from latentlake.prompts import Prompt, read_prompt
from latentlake.registry import EXPLAINERS, SCORERS
from latentlake.scorers import NONE
from latentlake.study_comparisons import BETWEEN, Comparison, is_comparable, pairs_of
from latentlake.study_corpus import Corpus
from latentlake.study_dictionaries import Dictionary, Reconstruction
from latentlake.study_errors import explain, repeated_key
from latentlake.study_interventions import Intervention

SplitName = Literal["explain", "select", "score"]
NegativeSource = Literal[
    "random", "decoder_neighbours", "encoder_neighbours", "co_occurring_neighbours", "similar", "token_matched"
]
SOURCES: tuple[str, ...] = get_args(NegativeSource)


class SubjectChoice(Choices):
    """The language model that is interpreted: a directory, a GGUF file, ``package://name/file``, or a repository id on the
    Hugging Face hub with its ``revision`` (a branch, a tag or a commit).
    """

    model: str
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"


class Storage(Choices):
    """How exactly activations are kept. ``precision``: rounded to 11 significant bits, as float16 has them but of any size
    (``half``), or to 8 (``bfloat16``), which takes a sixth less room.
    """

    precision: Literal["half", "bfloat16"] = "half"


class Selection(Choices):
    """What a latent must have to be explained: in each split, ``min_windows`` windows where it fires.

    ``window``: tokens of a window, for samples that name no other length; none may be shorter. So many tokens in a row have
    one place in the corpus, and what one split holds of them no other does.
    """

    window: Positive = 32
    min_windows: dict[SplitName, Annotated[int, Field(ge=0)]] = {"explain": 20, "select": 10, "score": 10}


class Neighbours(Choices):
    """Which latents of a dictionary are near to one another. ``k``: how many of each kind are kept: nearest by decoder
    direction, by encoder direction, and those that fire on the same tokens most.
    """

    k: Annotated[int, Field(ge=1, le=1000)] = 10


class Logits(Choices):
    """What latents promote. ``k``: of how many tokens the logits are kept, of those that a latent's decoder direction promotes
    most, and of those that it suppresses most.
    """

    k: Annotated[int, Field(ge=1, le=1000)] = 20


class Search(Choices):
    """How explanations are found by meaning. ``embedder``: what makes vectors of them, and of what is looked for. ``query``: put
    before the latter, for embedders that want an instruction; explanations are embedded as they stand.
    """

    embedder: EmbedderName
    query: str = ""


class Report(Choices):
    """What the report shows; it changes nothing else. ``best``, ``worst``, ``random``: how many latents of each dictionary there
    are in full, the best and the worst explained, and of all by hash. They are ranked by ``scorer`` in its main metric, of the
    explanations of ``explainer``; by default by the study's first scorer that judges explanations, of the first explainer that it
    judges. ``listed``: how many latents of each dictionary the list has at most; where there are more, they are drawn by hash.
    """

    best: Annotated[int, Field(ge=0)] = 10
    worst: Annotated[int, Field(ge=0)] = 10
    random: Annotated[int, Field(ge=0)] = 10
    listed: Annotated[int, Field(ge=0)] = 2000
    scorer: Name | None = None
    explainer: Annotated[str | None, Refers("explainers")] = None


class Sample(Choices):
    """Windows drawn for each latent from one split.

    ``sampler``: how activating windows are drawn: equally from each decile of strength (``quantiles``), the strongest
    (``top``), uniformly (``random``), or ``mix``: a share ``top`` of the strongest, the rest by quantiles of the others.
    ``windows``: how many. ``seed``: another draw.

    ``length``: tokens of a window (None: ``selection.window``). ``alignment``: windows begin at multiples of ``stride`` (None:
    their length) in their context (``grid``), or stand around the strongest token of each ``stride``, a quarter of the window
    after it (``centred``).

    ``negatives``: how many windows in which the latent never fires: a number, of random ones, or numbers by source:
    ``random``; where a latent near to it fires (``decoder_neighbours``, ``encoder_neighbours``, ``co_occurring_neighbours``);
    ``similar`` to its own by ``embedder``; ``token_matched``, with the token on which it fires in its own.
    """

    split: SplitName
    sampler: Literal["quantiles", "top", "random", "mix"] = "quantiles"
    windows: Positive
    top: Annotated[float, Field(gt=0, lt=1)] = 0.25
    length: Positive | None = None
    stride: Positive | None = None
    alignment: Literal["grid", "centred"] = "grid"
    negatives: Annotated[int, Field(ge=0)] | dict[NegativeSource, Positive] = 0
    embedder: EmbedderNameOrNone = None
    seed: int = 0

    @property
    def sources(self) -> dict[str, int]:
        """How many negatives of each source."""
        if isinstance(self.negatives, dict):
            return {str(source): number for source, number in self.negatives.items()}
        return {"random": self.negatives} if self.negatives else {}

    @model_validator(mode="after")
    def _embeds_what_it_compares(self) -> "Sample":
        if ("similar" in self.sources) != (self.embedder is not None):
            raise ValueError("negatives that are `similar` need an `embedder`, and nothing else does")
        return self


# Raised by hand whenever an engine would answer otherwise than before: it is part of the key of every call.
ENGINE_VERSIONS = {"transformers": "1", "sentence_transformers": "1", "openai": "1", "vllm": "1"}
COMPLETING = tuple(name for name in ENGINE_VERSIONS if name != "sentence_transformers")


class Price(Choices):
    """What a model charges for a million tokens, in any one currency: read anew, read from its cache (None: the same), and
    written.
    """

    input: Annotated[float, Field(ge=0)]
    output: Annotated[float, Field(ge=0)]
    cached: Annotated[float, Field(ge=0)] | None = None


class Budget(Choices):
    """What one launch may spend on model calls, None being any number: calls, tokens read and written, money."""

    calls: Annotated[int, Field(ge=0)] | None = None
    tokens: Annotated[int, Field(ge=0)] | None = None
    money: Annotated[float, Field(ge=0)] | None = None


class LLMChoice(Choices):
    """A model that explains, judges or embeds, and its engine: a directory, a GGUF file, ``package://name/file``, or a
    repository id on the Hugging Face hub with its ``revision``.

    Engines run it here (``transformers``, ``vllm``; ``sentence_transformers`` embeds), or ask a server for it (``openai``:
    any that speaks the OpenAI API). Then ``model`` is its name there, and since nobody can look at its weights, ``revision``
    says when they became others. ``chat``: prompts are not texts to go on with, but what a user says. ``price``: what its
    calls cost; changes no result.
    """

    model: str
    revision: str | None = None
    engine: Literal["transformers", "vllm", "openai", "sentence_transformers"]
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    chat: bool = False
    price: Price | None = None

    @property
    def is_served(self) -> bool:
        """Whether it runs elsewhere, and its weights are not to be seen."""
        return self.engine == "openai"

    @property
    def engine_version(self) -> str:
        """Version of the engine's code."""
        return ENGINE_VERSIONS[self.engine]


def _one_of(classes: Mapping[str, type[BaseModel]]) -> Any:
    """The union of the registered methods, told apart by ``method``."""
    union = reduce(or_, classes.values())
    return Annotated[union, Field(discriminator="method")] if len(classes) > 1 else union


if TYPE_CHECKING:
    from latentlake.explainers import Explainer as ExplainerChoice
    from latentlake.scorers import Scorer as ScorerChoice
else:
    ExplainerChoice = _one_of(EXPLAINERS.classes())
    ScorerChoice = _one_of(SCORERS.classes())


class Checks(Choices):
    """Bounds beyond which a check fails; they change what is said of results, and no result.

    ``failed_calls``: share of explanations, and of judgements, that may fail. ``control``: how far from 0.5 the mean
    AUROC of shuffled explanations may be. ``variance_unexplained``: share of the variance that a coder may leave out of what
    it reconstructs.
    """

    failed_calls: Annotated[float, Field(ge=0, le=1)] = 0.05
    control: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    variance_unexplained: Annotated[float, Field(ge=0)] = 0.5


class Study(Choices):
    """A study: one corpus, one subject, dictionaries, samples, models, explainers and scorers, all by name.

    ``blocks``: into how many ranges of latents each dictionary is divided; the unit of recomputing.
    ``seed``: of everything drawn by hash. ``reconstruction``: how coders are checked on real activations; null: not at all.
    ``neighbours``: which latents are near to one another; ``logits``: which tokens they promote; ``search``: explanations as
    vectors, to be found by meaning; null: that is not asked. ``comparisons``: which dictionaries are held against one another.
    ``report``: what the study's report shows; null: none is made.
    """

    name: Name
    seed: int = 0
    blocks: Positive
    corpus: Corpus
    subject: SubjectChoice
    dictionaries: dict[Name, Dictionary] = Field(min_length=1)
    activations: Storage = Storage()
    reconstruction: Reconstruction | None = Reconstruction()
    selection: Selection = Selection()
    neighbours: Neighbours | None = Neighbours()
    logits: Logits | None = Logits()
    samples: dict[Name, Sample] = {}
    interventions: dict[Name, Intervention] = {}
    llms: dict[Name, LLMChoice] = {}
    explainers: dict[Name, ExplainerChoice] = {}
    scorers: dict[Name, ScorerChoice] = {}
    search: Search | None = None
    comparisons: dict[Name, Comparison] = {}
    report: Report | None = Report()
    budget: Budget = Budget()
    checks: Checks = Checks()

    _path: Path = PrivateAttr(default=Path())
    _prompts: dict[str, Prompt] = PrivateAttr(default_factory=dict)

    @property
    def home(self) -> Path:
        """The folder of the study file; relative paths in the study start here."""
        return self._path.parent

    @property
    def path(self) -> Path:
        """The study file."""
        return self._path

    @cached_property
    def digest(self) -> str:
        """Digest of all choices, prompts in full; comments and layout of the file do not count."""
        prompts = {name: prompt.digest for name, prompt in self._prompts.items()}
        return digest([self.model_dump(mode="json"), prompts])

    @property
    def prompts(self) -> Mapping[str, Prompt]:
        """The study's prompts, by the names that explainers and scorers give them."""
        return self._prompts

    def prompt(self, name: str) -> Prompt:
        """A prompt by the name that an explainer or scorer gives it, as it was when the study was read."""
        return self._prompts[name]

    def with_sections(self, **sections: Any) -> "Study":
        """The study with other sections in the place of its own, as its file would give them; prompts as they were read."""
        study = Study.model_validate({**self.model_dump(exclude_unset=True), **sections})
        study._path, study._prompts = self._path, self._prompts
        return study

    @model_validator(mode="after")
    def _windows_fit(self) -> "Study":
        if self.selection.window > self.corpus.context_length:
            raise ValueError(
                f"selection.window is {self.selection.window}, longer than a context ({self.corpus.context_length})"
            )
        return self

    def length_of(self, sample: Sample) -> int:
        """Tokens of a sample's windows."""
        return sample.length or self.selection.window

    @model_validator(mode="after")
    def _samples_fit(self) -> "Study":
        for name, sample in self.samples.items():
            length, shortest, context = self.length_of(sample), self.selection.window, self.corpus.context_length
            if not shortest <= length <= context:
                raise ValueError(
                    f"samples.{name}.length is {length}; it must be from {shortest} (selection.window) to {context} (a context)"
                )
            near = [source for source in sample.sources if source.endswith("neighbours")]
            if near and self.neighbours is None:
                raise ValueError(
                    f"samples.{name} draws {near[0]}, but `neighbours` is null; leave that out, or give a `k`"
                )
        return self

    @model_validator(mode="after")
    def _references_exist(self) -> "Study":
        sections: dict[str, Mapping[str, Choices]] = {
            "samples": self.samples,
            "interventions": self.interventions,
            "explainers": self.explainers,
            "scorers": self.scorers,
            "comparisons": self.comparisons,
        }
        for section, entries in sections.items():
            for name, entry in entries.items():
                self._check(f"{section}.{name}", entry)
        if self.search is not None:
            self._check("search", self.search)
        if self.report is not None:
            self._check("report", self.report)
        return self

    @model_validator(mode="after")
    def _report_is_ranked(self) -> "Study":
        """By a scorer that there is, of explanations that it judges."""
        scorer, explainer = (self.report.scorer, self.report.explainer) if self.report else (None, None)
        if scorer is not None and scorer not in self.scorers:
            raise ValueError(f"report.scorer names {scorer}, which is not in scorers{nearest(scorer, self.scorers)}")
        judged = {name: each.judged for name, each in self.scorers.items() if scorer in (None, name)}
        if explainer is not None and not any(explainer in each for each in judged.values()):
            raise ValueError(
                f"report.explainer is {explainer}, whose explanations {scorer or 'no scorer'} does not judge; name another, "
                "or add it to the scorer's `explainers`"
            )
        return self

    @model_validator(mode="after")
    def _comparisons_compare(self) -> "Study":
        for name, comparison in self.comparisons.items():
            named = dict.fromkeys([*(comparison.dictionaries or ()), *sum(comparison.pairs, ())])
            for each in named:
                if each not in self.dictionaries:
                    raise ValueError(
                        f"comparisons.{name} names the dictionary {each!r}, which is not there{nearest(each, self.dictionaries)}"
                    )
                if not is_comparable(comparison.by, self.dictionaries[each].model_dump()):
                    raise ValueError(
                        f"comparisons.{name} compares directions, and dictionaries.{each} has none; leave it out, or compare "
                        "`by: activations`"
                    )
            if not self.pairs(name):
                raise ValueError(
                    f"comparisons.{name} finds no two dictionaries that can be compared by {comparison.by}; add one, or leave "
                    "the comparison out"
                )
            if comparison.explainers and self.search is None:
                raise ValueError(
                    f"comparisons.{name} compares explanations by their vectors; name an embedder for these: "
                    "`search: {embedder: …}`"
                )
        return self

    @model_validator(mode="after")
    def _lenders_lend(self) -> "Study":
        """What is borrowed is another explainer's own, and reached by directions."""
        for name, entry in self.explainers.items():
            if (lender := entry.lender) is None:
                continue
            comparison = self.comparisons[lender.comparison]
            if self.explainers[lender.explainer].lender is not None:
                raise ValueError(
                    f"explainers.{name} borrows from explainers.{lender.explainer}, which borrows itself; name one that explains"
                )
            if comparison.by != "directions":
                raise ValueError(
                    f"explainers.{name} borrows along comparisons.{lender.comparison}, which compares no directions; name one "
                    "that does"
                )
            if not any(lender.dictionary in pair.split(BETWEEN) for pair in self.pairs(lender.comparison)):
                raise ValueError(
                    f"explainers.{name} borrows from dictionaries.{lender.dictionary}, of which comparisons.{lender.comparison} "
                    "has no pair; add one to it"
                )
        return self

    def pairs(self, comparison: str) -> tuple[str, ...]:
        """The pairs of dictionaries of a comparison, by name."""
        dictionaries = {name: each.model_dump() for name, each in self.dictionaries.items()}
        return pairs_of(self.comparisons[comparison].model_dump(), dictionaries)

    def compared(self, comparison: str) -> tuple[str, ...]:
        """The explainers whose explanations a comparison compares."""
        named = self.comparisons[comparison].explainers
        if named is not None:
            return named
        return tuple(self.explainers) if self.search is not None else ()

    @model_validator(mode="after")
    def _explainers_have_what_they_read(self) -> "Study":
        for name, entry in self.explainers.items():
            missing = [section for section in entry.reads if getattr(self, section) is None]
            if missing:
                raise ValueError(
                    f"explainers.{name} reads {missing[0]}, but `{missing[0]}` is null; leave that out, or name another method"
                )
        return self

    @model_validator(mode="after")
    def _no_explainer_is_none(self) -> "Study":
        if NONE in self.explainers:
            raise ValueError(f"explainers.{NONE} stands for no explainer in the tables; call it otherwise")
        return self

    def takes_over(self, explainer: str) -> list[str]:
        """The explainers whose explanations one reads."""
        return [name for mark, name in self.explainers[explainer].references() if mark.section == "explainers"]

    @model_validator(mode="after")
    def _nothing_is_taken_over_twice(self) -> "Study":
        for name in self.explainers:
            for other in self.takes_over(name):
                if self.takes_over(other):
                    raise ValueError(
                        f"explainers.{name} takes over what explainers.{other} takes over itself; name where that comes from"
                    )
        return self

    @model_validator(mode="after")
    def _interventions_reach(self) -> "Study":
        """What takes a target of an intervention takes one that it has; and tokens that become likelier are looked for."""
        for section, entries in (("explainers", self.explainers), ("scorers", self.scorers)):
            for name, entry in entries.items():
                for mark, of in entry.references():
                    if mark.section == "interventions":
                        self._check_target(f"{section}.{name}", of, getattr(entry, "target"), mark.stage)  # noqa: B009
        return self

    @model_validator(mode="after")
    def _prompts_fit(self) -> "Study":
        """Windows are as long as the shortest prompt that an intervention makes of them."""
        for name, choice in self.interventions.items():
            for sample in (choice.tune, choice.show, choice.score):
                if sample is not None and choice.shortest > (length := self.length_of(self.samples[sample])):
                    raise ValueError(
                        f"interventions.{name}.shortest is {choice.shortest}, but windows of samples.{sample} have {length} "
                        "tokens and make no prompt; name fewer, or a sample of longer windows"
                    )
        return self

    def _check_target(self, where: str, name: str, target: float, stage: str | None) -> None:
        choice = self.interventions[name]
        if target not in choice.kl:
            known = ", ".join(f"{each:g}" for each in choice.kl)
            raise ValueError(
                f"{where} takes the target {target:g}, but interventions.{name}.kl has {known}; name one of these"
            )
        if stage == "token_changes" and choice.show is None:
            raise ValueError(
                f"{where} reads which tokens become likelier, but interventions.{name}.show names no sample; name one of the "
                "split explain"
            )

    @model_validator(mode="after")
    def _planted_fit(self) -> "Study":
        """Planted latents fire by the texts, which must be there."""
        planted = [name for name, each in self.dictionaries.items() if each.planted is not None]
        silent = [name for name, source in self.corpus.sources.items() if source.tokens is not None]
        if planted and silent:
            raise ValueError(
                f"dictionaries.{planted[0]} is planted in texts, but corpus.sources.{silent[0]} gives tokens; "
                "leave one of them out"
            )
        return self

    def _check(self, where: str, entry: Choices) -> None:
        for mark, name in entry.references():
            known = {} if mark.section == "prompts" else getattr(self, mark.section)
            if mark.section != "prompts" and name not in known:
                raise ValueError(f"{where} refers to {mark.section}.{name}, which is not there{nearest(name, known)}")
            if mark.section == "samples":
                self._check_sample(where, name, mark.split, entry)
            if mark.section == "llms" and (known[name].engine == "sentence_transformers") != mark.is_embedder:
                wanted = (
                    "sentence_transformers, which embeds"
                    if mark.is_embedder
                    else f"{', '.join(COMPLETING)}, which complete"
                )
                raise ValueError(f"{where} needs a model with the engine {wanted} texts; llms.{name} has none such")
            if mark.reads_prompt and known[name].is_served and known[name].chat:
                raise ValueError(
                    f"{where} needs the log-probabilities of a prompt's tokens, which a chat over the OpenAI API does not give; "
                    f"in the place of llms.{name}, name a model with `chat: false`, or the engine vllm or transformers"
                )

    def _check_sample(self, where: str, name: str, split: str | None, entry: Choices) -> None:
        """What explains does not select or judge; and a sample has as many windows as are asked of it."""
        sample, needs = self.samples[name], getattr(entry, "needs", 0)
        if sample.split != split:
            raise ValueError(
                f"{where} uses samples.{name} of the split {sample.split}; it needs one of the split {split}"
            )
        compares = split != "explain" or hasattr(entry, "negatives")
        others, drawn = getattr(entry, "needs_negatives", True), sum(sample.sources.values())
        if compares and others and not drawn:
            raise ValueError(f"{where} compares windows with others, but samples.{name} has no negatives")
        if needs > sample.windows:
            raise ValueError(
                f"{where} judges {needs} windows, but samples.{name} draws only {sample.windows}; let it draw more `windows`"
            )
        if compares and others > drawn:
            raise ValueError(
                f"{where} needs {others} windows in which the latent does not fire, but samples.{name} draws only {drawn}; "
                "let it draw more `negatives`"
            )


_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a tenth of the time, where PyYAML was built with it


def load_study(path: str | Path) -> Study:
    """Read and validate a study file.

    Raises:
        StudyError: the file is missing or not valid; the message names the lines and the nearest valid keys.
    """
    path = Path(path)
    if not path.is_file():
        raise StudyError(f"there is no study file {path}; name one with LATENTLAKE_STUDY")
    text = path.read_text(encoding="utf-8")
    loader = _Loader(text)
    try:
        tree = loader.get_single_node()
        repeated = repeated_key(tree) if tree else None
        values = loader.construct_document(tree) if tree else None
    except yaml.YAMLError as error:
        raise StudyError(f"{path} is not YAML: {error}") from error
    if repeated is not None:
        raise StudyError(f"{path}, line {repeated.start_mark.line + 1}: the key {repeated.value!r} is given twice")
    if tree is None or not isinstance(values, dict):
        raise StudyError(f"{path} holds no study: it must be a mapping with the keys name, corpus, subject, …")
    try:
        study = Study.model_validate(values)
    except ValidationError as error:
        raise StudyError("\n".join(explain(path, tree, each, Study) for each in error.errors())) from error
    study._path = path.resolve()
    _read_prompts(path, study)
    return study


def require_unchanged(study: Study) -> None:
    """Refuse to go on where the file now says something else than the study that was read from it."""
    if load_study(study.path).digest != study.digest:
        raise StudyChangedError(
            f"{study.path} was edited after it was read; reload the code location and start the run again"
        )


def _read_prompts(path: Path, study: Study) -> None:
    """Read every prompt once: a missing one is found before any work, and an edit cannot slip into a run under way."""
    for section in ("explainers", "scorers"):
        for name, entry in getattr(study, section).items():
            for mark, prompt in entry.references():
                if mark.section == "prompts":
                    try:
                        study._prompts[prompt] = read_prompt(prompt, study.home)
                        study._prompts[prompt].require_places(mark.places)
                        if mark.apart is not None:
                            study._prompts[prompt].between(*mark.apart)
                    except (OSError, ValueError) as error:
                        raise StudyError(
                            f"{path}: {section}.{name} names a prompt that cannot be read: {error}"
                        ) from error
