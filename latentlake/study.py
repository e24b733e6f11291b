"""The study file: every choice that changes results or how they are judged, and nothing else.

What belongs here: choices, typed and validated. What does not: where and how things run (lake, device, batch sizes,
endpoints), which is configuration of resources and must not change results.
"""

from collections.abc import Mapping
from functools import cached_property, reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from pydantic import BaseModel, Field, PrivateAttr, ValidationError, model_validator

from latentlake.choices import Choices, Name, Positive
from latentlake.digest import digest
from latentlake.errors import StudyChangedError, StudyError, nearest
from latentlake.prompts import Prompt, read_prompt
from latentlake.registry import EXPLAINERS, SCORERS
from latentlake.scorers import NONE
from latentlake.sections.comparisons import BETWEEN, Comparison, is_comparable, pairs_of
from latentlake.sections.corpus import Corpus
from latentlake.sections.dictionaries import Dictionary, Reconstruction
from latentlake.sections.interventions import Intervention
from latentlake.sections.latents import Logits, Neighbours, Selection, Storage
from latentlake.sections.mistakes import explain, repeated_key
from latentlake.sections.models import COMPLETING, Budget, LLMChoice, SubjectChoice
from latentlake.sections.results import Checks, Report, Search
from latentlake.sections.samples import Sample


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
            if self.explainers[lender.explainer].lender is not None:
                raise ValueError(
                    f"explainers.{name} borrows from explainers.{lender.explainer}, which borrows itself; name one that explains"
                )
            if lender.comparison is None or lender.dictionary is None:
                if self.neighbours is None:
                    raise ValueError(
                        f"explainers.{name} borrows from near latents, but `neighbours` is null; leave that out, or name a "
                        "comparison"
                    )
                continue
            if self.comparisons[lender.comparison].by != "directions":
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
    try:
        loader = _Loader(text)
        tree = loader.get_single_node()
        repeated = repeated_key(tree) if tree else None
        values = loader.construct_document(tree) if tree else None
    except yaml.YAMLError as error:
        raise StudyError(f"{path} is not YAML: {_in_words(text) or error}") from error
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


def _in_words(text: str) -> yaml.YAMLError | None:
    """What is wrong of a YAML text, with the line and the place in it, which the fast reader does not show."""
    try:
        yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError as error:
        return error
    return None


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
