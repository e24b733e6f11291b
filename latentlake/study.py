"""The study file: every choice that changes results, and nothing else.

What belongs here: choices, typed and validated. What does not: where and how things run (lake, device, batch sizes,
endpoints), which is configuration of resources and must not change results.
"""

import re
from collections.abc import Mapping
from functools import cached_property, reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, Field, PrivateAttr, ValidationError, field_validator, model_validator

from latentlake.choices import Choices, Name
from latentlake.digest import digest
from latentlake.errors import StudyChangedError, StudyError, nearest
from latentlake.prompts import Prompt, read_prompt
from latentlake.registry import CODERS, EXPLAINERS, SCORERS

SPLITS = ("explain", "select", "score")
Positive = Annotated[int, Field(ge=1)]
SplitName = Literal["explain", "select", "score"]


class Source(Choices):
    """Files of documents: JSON lines, plain or gzipped.

    ``path``: a glob, relative to the study file. ``text``: the field that holds the text. ``id``: the field that names
    the document (default: its place in the file).
    """

    path: str
    text: str = "text"
    id: str | None = None


class Split(Choices):
    """Shares of the contexts that explainers see, that choose between hypotheses, and that score."""

    explain: Positive = 4
    select: Positive = 1
    score: Positive = 5


class Corpus(Choices):
    """What the subject reads.

    ``context_length``: tokens of a context, BOS included. ``documents_per_shard``: a shard is that many documents of
    one file. ``refresh``: the shards that `latents` and everything after it reads as the corpus grows: the first 2^j
    in order of registration (``doubling``), ``all``, or the ones listed.
    """

    sources: dict[Name, Source] = Field(min_length=1)
    context_length: Annotated[int, Field(ge=8)] = 128
    documents_per_shard: Positive = 1000
    split: Split = Split()
    refresh: Literal["doubling", "all"] | tuple[str, ...] = "doubling"


class SubjectChoice(Choices):
    """The language model that is interpreted: a directory, a GGUF file or ``package://name/file``."""

    model: str
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"


class Dictionary(Choices):
    """A sparse coder on a hookpoint, and which of its latents are asked about.

    ``latents``: ``all``, a number (each block gives its share, by hash), or a list.
    """

    hookpoint: str
    coder: str
    format: str = "sparsify"
    latents: Literal["all"] | Positive | tuple[Annotated[int, Field(ge=0)], ...] = "all"

    @field_validator("format")
    @classmethod
    def _is_known(cls, name: str) -> str:
        known = CODERS.classes()
        if name not in known:
            raise ValueError(f"there is no coder format {name!r}{nearest(name, known)}")
        return name


class Selection(Choices):
    """What a latent must have to be explained: in each split, this many windows of ``window`` tokens where it fires."""

    window: Positive = 32
    min_windows: dict[SplitName, Annotated[int, Field(ge=0)]] = {"explain": 20, "select": 10, "score": 10}


class Sample(Choices):
    """Windows drawn for each latent from one split.

    ``sampler``: how activating windows are drawn: equally from each decile of strength (``quantiles``), the strongest
    (``top``), or uniformly (``random``). ``windows`` and ``negatives``: how many where the latent fires and where it
    never does. ``window``: tokens of a window; windows start at multiples of it.
    """

    split: SplitName
    sampler: Literal["quantiles", "top", "random"] = "quantiles"
    windows: Positive
    negatives: Annotated[int, Field(ge=0)] = 0
    window: Positive = 32


class LLMChoice(Choices):
    """A model that explains, judges or embeds: a directory, a GGUF file or ``package://name/file``, and its engine."""

    model: str
    engine: Literal["transformers", "sentence_transformers"]
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"


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
    ``seed``: of everything drawn by hash.
    """

    name: Name
    seed: int = 0
    blocks: Positive
    corpus: Corpus
    subject: SubjectChoice
    dictionaries: dict[Name, Dictionary] = Field(min_length=1)
    selection: Selection = Selection()
    samples: dict[Name, Sample] = {}
    llms: dict[Name, LLMChoice] = {}
    explainers: dict[Name, ExplainerChoice] = {}
    scorers: dict[Name, ScorerChoice] = {}

    _home: Path = PrivateAttr(default=Path())

    @property
    def home(self) -> Path:
        """The folder of the study file; relative paths in the study start here."""
        return self._home

    @cached_property
    def digest(self) -> str:
        """Digest of all choices; comments and layout of the file do not count."""
        return digest(self.model_dump(mode="json"))

    def prompt(self, name: str) -> Prompt:
        """A prompt by the name that an explainer or scorer gives it."""
        return read_prompt(name, self._home)

    @model_validator(mode="after")
    def _references_exist(self) -> "Study":
        for section, entries in (("explainers", self.explainers), ("scorers", self.scorers)):
            for name, entry in entries.items():
                self._check(f"{section}.{name}", entry)
        return self

    def _check(self, where: str, entry: Choices) -> None:
        for mark, name in entry.references():
            known = {} if mark.section == "prompts" else getattr(self, mark.section)
            if mark.section != "prompts" and name not in known:
                raise ValueError(f"{where} refers to {mark.section}.{name}, which is not there{nearest(name, known)}")
            if mark.section == "samples":
                self._check_sample(where, name, entry)
            if mark.section == "llms" and (known[name].engine == "sentence_transformers") != mark.is_embedder:
                wanted = "sentence_transformers, which embeds" if mark.is_embedder else "transformers, which completes"
                raise ValueError(f"{where} needs a model with the engine {wanted} texts; llms.{name} is none")

    def _check_sample(self, where: str, name: str, entry: Choices) -> None:
        """What explains never judges: explainers see the splits explain and select, scorers the split score."""
        sample = self.samples[name]
        is_scorer = where.startswith("scorers")
        if (sample.split == "score") != is_scorer:
            wanted = "score" if is_scorer else "explain or select"
            raise ValueError(
                f"{where} uses samples.{name} of the split {sample.split}; it needs one of the split {wanted}"
            )
        windows = getattr(entry, "windows", 0) if is_scorer else 0
        if windows > sample.windows:
            raise ValueError(f"{where} judges {windows} windows, but samples.{name} draws only {sample.windows}")


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
        tree, values = yaml.compose(text), yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise StudyError(f"{path} is not YAML: {error}") from error
    if tree is None or not isinstance(values, dict):
        raise StudyError(f"{path} holds no study: it must be a mapping with the keys name, corpus, subject, …")
    try:
        study = Study.model_validate(values)
    except ValidationError as error:
        raise StudyError("\n".join(_explain(path, tree, each) for each in error.errors())) from error
    study._home = path.resolve().parent
    _read_prompts(path, study)
    return study


def require_unchanged(study: Study, path: str | Path) -> None:
    """Refuse to go on where the file now says something else than the study that was read from it."""
    if load_study(path).digest != study.digest:
        raise StudyChangedError(
            f"{path} was edited after it was read; reload the code location and start the run again"
        )


def _read_prompts(path: Path, study: Study) -> None:
    """A prompt that is missing is bad input, found before any work."""
    for section in ("explainers", "scorers"):
        for name, entry in getattr(study, section).items():
            for mark, prompt in entry.references():
                if mark.section == "prompts":
                    try:
                        study.prompt(prompt)
                    except OSError as error:
                        raise StudyError(
                            f"{path}: {section}.{name} names a prompt that cannot be read: {error}"
                        ) from error


def _explain(path: Path, tree: yaml.Node, error: Any) -> str:
    """One validation error as one line: file, line, place, what is wrong, and the nearest valid key."""
    place, line = _find(tree, error["loc"])
    message = re.sub(r"^Value error, ", "", error["msg"])
    if error["type"] == "extra_forbidden":
        key = str(error["loc"][-1])
        message = f"unknown key {key!r}{nearest(key, _valid_keys(error['loc'][:-1]))}"
    elif error["type"] == "missing":
        message = f"the key {error['loc'][-1]!r} is missing"
    elif error["type"] in ("union_tag_invalid", "literal_error"):
        found = str(error["ctx"].get("tag", error["input"]))
        allowed = re.findall(r"'([^']+)'", error["ctx"].get("expected_tags") or error["ctx"]["expected"])
        message = f"{found!r} is none of {', '.join(allowed)}{nearest(found, allowed)}"
    return f"{path}, line {line}: {place or 'study'}: {message}"


def _find(node: yaml.Node, loc: tuple[Any, ...]) -> tuple[str, int]:
    """Dotted place and line (from 1) of an error, as deep as the file goes."""
    place, line = [], node.start_mark.line + 1
    for part in loc:
        entry = None
        if isinstance(node, yaml.MappingNode):
            entry = next(((key, value) for key, value in node.value if key.value == str(part)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            entry = (node.value[part], node.value[part])
        if entry is None:  # a tag of a union, or a key that is not there
            continue
        place.append(str(part))
        line, node = entry[0].start_mark.line + 1, entry[1]
    return ".".join(place), line


def _valid_keys(loc: tuple[Any, ...]) -> list[str]:
    """The keys that may stand at a place of the study."""
    models = _models(reduce(_inside, loc, Study))
    return list(models[0].model_fields) if len(models) == 1 else []


def _inside(annotation: Any, part: Any) -> Any:
    """What a part of a place leads to: a field of a model, an entry of a mapping, or one method of several."""
    if get_origin(annotation) is dict:
        return get_args(annotation)[1]
    models = _models(annotation)
    tagged = [model for model in models if _tag(model) == part]
    if tagged:
        return tagged[0]
    return models[0].model_fields[part].annotation if len(models) == 1 and part in models[0].model_fields else annotation


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models that an annotation allows."""
    return [leaf for leaf in _leaves(annotation) if isinstance(leaf, type) and issubclass(leaf, BaseModel)]


def _leaves(annotation: Any) -> list[Any]:
    """The classes in an annotation, inside dicts, unions and Annotated."""
    args = get_args(annotation)
    return [leaf for each in args for leaf in _leaves(each)] if args else [annotation]


def _tag(model: type[BaseModel]) -> str | None:
    """The method that a class of explainers or scorers stands for."""
    field = model.model_fields.get("method")
    return str(get_args(field.annotation)[0]) if field and get_args(field.annotation) else None
