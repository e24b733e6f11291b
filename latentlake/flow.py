"""Which stage needs which, along which dimensions: declared once. Assets and the plan follow from here.

A stage is computed partition by partition. The partitions of its inputs follow from one rule: along a dimension that
both have, the same key, if the input has it (not every dictionary is trained); along one that only the input has, all its
keys; the keys listed in ``keys`` where given; for ``shard``, the shards in use, or the first so many that were registered. A
``pair`` is two dictionaries: of an input that is partitioned by dictionary it reads these two, and a dictionary reads the
pairs that hold it.

To change how a stage computes, change its code and raise its version here: whatever lies downstream is then recomputed.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import Any

from latentlake.choices import Choices
from latentlake.digest import digest
from latentlake.errors import LakeError, StudyError, nearest
from latentlake.explainers import Lender
from latentlake.scorers import NONE
from latentlake.sections.comparisons import BETWEEN, Comparison
from latentlake.study import Study

# choices of the corpus that decide how documents become contexts
_PACKING = ("context_length", "contexts", "long_documents", "bos", "separator", "deduplicate", "split")

# kinds of stages of which the report shows rows
_SHOWN = (
    *("subject", "llms", "dictionaries", "reconstructions", "contexts", "latents", "neighbours", "logits", "examples"),
    *("continuations", "explanations", "scores", "agreements", "alignments", "comparisons"),
)


@dataclass(frozen=True)
class Input:
    """A stage that another reads. ``keys``: along a dimension, the keys that are read, whatever the partition's own.

    ``shards``: of each dictionary, how many of the first shards are read, in the place of the shards in use.
    """

    stage: str
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    shards: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """A stage: an asset, once partitioned.

    ``name``: the asset's (``scores/default/detection``); ``kind``: the module that computes it (``scores``).
    ``dimensions``: what its partitions are made of. ``tables``: what it writes, the first being what is read
    downstream. ``constants``: partition columns that are the same in all its partitions. ``code_version``: version of
    its code and digest of the choices that hold for all its partitions. ``only``: the keys that it has along a dimension,
    where these are not all.
    """

    name: str
    kind: str
    dimensions: tuple[str, ...]
    inputs: tuple[Input, ...]
    tables: tuple[str, ...]
    code_version: str
    constants: Mapping[str, str] = field(default_factory=dict)
    only: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def key(self, values: Mapping[str, str]) -> str:
        """Key of a partition: its values joined by ``|`` in the order of the dimensions' names, as in the Dagster UI."""
        return "|".join(values[dimension] for dimension in sorted(self.dimensions))

    def values(self, key: str) -> dict[str, str]:
        """The values that a key is made of, by dimension."""
        parts = key.split("|") if self.dimensions else []
        if len(parts) != len(self.dimensions):
            raise LakeError(f"{key!r} is no partition of {self.name}, which has the dimensions {self.dimensions}")
        return dict(zip(sorted(self.dimensions), parts, strict=True))

    def columns(self, values: Mapping[str, str]) -> dict[str, str | int]:
        """Partition columns of the stage's tables, for one partition."""
        typed = {name: int(value) if name == "block" else value for name, value in values.items()}
        return {**self.constants, **typed}


class Flow:
    """The stages of a study, in an order in which every stage comes after its inputs."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self._dimensions = {
            "llm": tuple(study.llms),
            "dictionary": tuple(study.dictionaries),
            "block": tuple(str(block) for block in range(study.blocks)),
            "pair": tuple(sorted({pair for name in study.comparisons for pair in study.pairs(name)})),
        }

    def __getitem__(self, name: str) -> Stage:
        if name not in self.stages:
            raise StudyError(f"study {self.study.name} has no asset {name!r}{nearest(name, self.stages)}")
        return self.stages[name]

    @cached_property
    def stages(self) -> dict[str, Stage]:
        """All stages by name."""
        stages = [*self._roots(), *self._data()]
        stages += [stage for name in self.study.interventions for stage in self._interventions(name)]
        stages += [self._alignments(name) for name in self.study.comparisons]
        stages += [self._explanations(name) for name in self._explainers()]
        stages += self._embeddings()
        stages += [self._comparisons(name) for name in self.study.comparisons]
        stages += [
            self._scores(explainer, name) for name, each in self.study.scorers.items() for explainer in each.judged
        ]
        stages += self._agreements(stages)
        return {stage.name: stage for stage in [*stages, *self._report(stages)]}

    def used_shards(self, shards: Sequence[str]) -> tuple[str, ...]:
        """The shards that `latents` and everything after it reads, of those registered, in order of registration."""
        refresh = self.study.corpus.refresh
        if refresh == "all":
            return tuple(shards)
        if refresh == "doubling":
            return tuple(shards[: 1 << (len(shards).bit_length() - 1)]) if shards else ()
        missing = [key for key in refresh if key not in shards]
        if missing:
            raise StudyError(f"corpus.refresh names shards that do not exist: {missing}{nearest(missing[0], shards)}")
        return tuple(refresh)

    def partitions(self, stage: Stage, shards: Sequence[str]) -> list[str]:
        """Keys of all partitions of a stage, given the registered shards."""
        return [key for key, _ in self.places(stage, shards)]

    def places(self, stage: Stage, shards: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
        """All partitions of a stage: key, and values in the order of its dimensions."""
        axes = [shards if name == "shard" else self.keys(name, stage) for name in stage.dimensions]
        order = [stage.dimensions.index(dimension) for dimension in sorted(stage.dimensions)]
        for values in product(*axes):
            yield "|".join([values[place] for place in order]), values

    def keys(self, dimension: str, stage: Stage) -> tuple[str, ...]:
        """Keys of a dimension that the study fixes (all but ``shard``), as far as a stage has them."""
        return stage.only.get(dimension, self._dimensions[dimension])

    def reads(self, stage: Stage, values: Mapping[str, str], source: Input) -> bool:
        """Whether a partition reads an input at all: not where the input lacks the partition's own key."""
        only = self[source.stage].only
        if "pair" in only and "dictionary" in values:
            return bool(self._pairs_with(values["dictionary"], source))
        return all(values[name] in keys for name, keys in only.items() if name in stage.dimensions)

    def _pairs_with(self, dictionary: str, source: Input) -> list[str]:
        """The pairs of an input that hold a dictionary."""
        pairs = source.keys.get("pair", self.keys("pair", self[source.stage]))
        return [pair for pair in pairs if dictionary in pair.split(BETWEEN)]

    def upstream(self, stage: Stage, key: str, source: Input, shards: Sequence[str]) -> list[str]:
        """Keys of the partitions of an input that a partition reads."""
        values, above = stage.values(key), self[source.stage]
        if not self.reads(stage, values, source):
            return []
        axes: list[Sequence[str]] = []
        for name in above.dimensions:
            if name == "pair" and "dictionary" in values:
                axes.append(self._pairs_with(values["dictionary"], source))
            elif name in values and name not in source.keys:
                axes.append([values[name]])
            elif name == "shard":
                first = source.shards.get(values.get("dictionary", ""))
                axes.append(self.used_shards(shards) if first is None else shards[:first])
            elif name == "dictionary" and "pair" in values:
                axes.append(values["pair"].split(BETWEEN))
            else:
                axes.append(source.keys.get(name, self.keys(name, above)))
        return [above.key(dict(zip(above.dimensions, each, strict=True))) for each in product(*axes)]

    def _roots(self) -> list[Stage]:
        """What stands outside the lake: its digests enter the recipes through `Origins`."""
        corpus = self.study.corpus
        packing = corpus.model_dump(include=set(_PACKING))
        return [
            Stage("subject", "subject", (), (), ("subject",), _version("1")),
            Stage("llms", "llms", ("llm",), (), ("llms",), _version("1")),
            Stage("selections", "selections", ("dictionary",), (), ("selections",), _version("1")),
            Stage(
                "contexts",
                "contexts",
                ("shard",),
                (Input("subject"),),
                ("contexts", "documents"),
                _version("2", packing),
            ),
            *self._coders(),
        ]

    def _coders(self) -> list[Stage]:
        """The coders that are trained, if any, and all dictionaries."""
        trained = {name: each.train.shards for name, each in self.study.dictionaries.items() if each.train is not None}
        reads = (Input("subject"), Input("contexts", shards=trained))
        training = Stage(
            "coder",
            "coder",
            ("dictionary",),
            reads,
            ("coders", "trainings"),
            _version("2"),
            only={"dictionary": tuple(trained)},
        )
        inputs = (Input("subject"), *([Input("coder")] if trained else []))
        tables = ("dictionaries", "planted")
        dictionaries = Stage("dictionaries", "dictionaries", ("dictionary",), inputs, tables, _version("2"))
        return [*([training] if trained else []), dictionaries]

    def _data(self) -> list[Stage]:
        study = self.study
        selection = {**study.selection.model_dump(), "blocks": study.blocks, "seed": study.seed}
        reads = (Input("activations"), Input("contexts"), Input("subject"))
        activations = Stage(
            "activations",
            "activations",
            ("dictionary", "shard"),
            (Input("subject"), Input("dictionaries"), Input("contexts")),
            ("activations",),
            _version("2", study.activations.model_dump()),
        )
        latents = Stage(
            "latents",
            "latents",
            ("dictionary", "block"),
            (Input("dictionaries"), Input("selections"), *reads),
            ("latents",),
            _version("2", selection),
        )
        return [
            *self._reconstructions(),
            activations,
            *self._neighbours(),
            latents,
            *self._logits(),
            *map(self._examples, study.samples),
        ]

    def _neighbours(self) -> list[Stage]:
        """Which latents are near to one another, where the study asks for it."""
        if self.study.neighbours is None:
            return []
        choices = {**self.study.neighbours.model_dump(), "blocks": self.study.blocks}
        inputs = (Input("dictionaries"), Input("activations"), Input("contexts"))
        code = _version("1", choices)
        return [Stage("neighbours", "neighbours", ("dictionary", "block"), inputs, ("neighbours",), code)]

    def _logits(self) -> list[Stage]:
        """What latents promote, where the study asks for it."""
        if self.study.logits is None:
            return []
        inputs = (Input("subject"), Input("dictionaries"), Input("latents"))
        code = _version("1", self.study.logits.model_dump())
        return [Stage("logits", "logits", ("dictionary", "block"), inputs, ("logits",), code)]

    def _examples(self, name: str) -> Stage:
        study, sample = self.study, self.study.samples[name]
        near = [Input("neighbours")] if any(source.endswith("neighbours") for source in sample.sources) else []
        choices = {
            **sample.model_dump(mode="json", exclude={"embedder"}),
            "window": study.selection.window,
            "has_bos": study.corpus.bos != "none",
            "seed": study.seed + sample.seed,
            **self._llms_of(sample),
        }
        return Stage(
            f"examples/{name}",
            "examples",
            ("dictionary", "block"),
            (*map(Input, ("latents", "activations", "contexts", "subject")), *near, *self._inputs(sample)),
            ("examples",),
            _version("2", choices),
            {"sample": name},
        )

    def _reconstructions(self) -> list[Stage]:
        """How well the coders reconstruct, where the study asks for it; planted latents have none."""
        if self.study.reconstruction is None:
            return []
        choices = {**self.study.reconstruction.model_dump(), "seed": self.study.seed}
        inputs = (Input("subject"), Input("dictionaries"), Input("contexts"))
        reconstructions = Stage(
            "reconstructions",
            "reconstructions",
            ("dictionary",),
            inputs,
            ("reconstructions",),
            _version("1", choices),
        )
        coders = tuple(name for name, each in self.study.dictionaries.items() if each.planted is None)
        if len(coders) < len(self.study.dictionaries):
            reconstructions = replace(reconstructions, only={"dictionary": coders})
        return [reconstructions] if coders else []

    def _interventions(self, name: str) -> list[Stage]:
        """Strengths, tokens that become likelier, and continuations of one intervention."""
        choice = self.study.interventions[name]
        # version, sample and choices of each stage; a target that is added changes no strength of the others
        stages: dict[str, tuple[str, str | None, tuple[str, ...]]] = {
            "strengths": ("1", choice.tune, ("kl", "shortest")),
            "token_changes": ("1", choice.show, ("shortest", "rising")),
            "continuations": ("2", choice.score, ("shortest", "tokens", "temperature")),
        }
        common = {"seed": self.study.seed, "bos": self.study.corpus.bos}
        return [
            Stage(
                f"{kind}/{name}",
                kind,
                ("dictionary", "block"),
                (
                    *map(Input, ("subject", "dictionaries")),
                    Input("latents" if kind == "strengths" else f"strengths/{name}"),
                    Input(f"examples/{sample}"),
                ),
                (kind,),
                _version(version, choice.model_dump(include=set(own)) | common),
                {"intervention": name},
            )
            for kind, (version, sample, own) in stages.items()
            if sample is not None
        ]

    def _explainers(self) -> list[str]:
        """Explainers in an order in which those that take over explanations come after the ones that have them."""
        return sorted(self.study.explainers, key=lambda name: bool(self.study.takes_over(name)))

    def _explanations(self, name: str) -> Stage:
        choice = self.study.explainers[name]
        return Stage(
            f"explanations/{name}",
            "explanations",
            ("dictionary", "block"),
            (Input("latents"), *map(Input, choice.reads), *self._inputs(choice), *self._lent(choice.lender)),
            ("explanations", "hypotheses"),
            self._method_version("1", choice),
            {"explainer": name},
        )

    def _lent(self, lender: Lender | None) -> list[Input]:
        """What an explainer reads that borrows."""
        if lender is None:
            return []
        blocks = {"block": self._dimensions["block"]}
        if lender.comparison is None or lender.dictionary is None:
            return [Input("neighbours", blocks), Input(f"explanations/{lender.explainer}", blocks)]
        pairs = self.study.pairs(lender.comparison)
        with_it = tuple(pair for pair in pairs if lender.dictionary in pair.split(BETWEEN))
        whole = {"dictionary": (lender.dictionary,), **blocks}
        return [
            Input(f"alignments/{lender.comparison}", {"pair": with_it}),
            Input(f"explanations/{lender.explainer}", whole),
        ]

    def _embeddings(self) -> list[Stage]:
        """Explanations as vectors, where the study asks for it; how they are looked for (`Search.query`) changes none."""
        search = self.study.search
        if search is None:
            return []
        models, code = self._inputs(search), _version("1", self._llms_of(search))
        return [
            Stage(
                f"embeddings/{name}",
                "embeddings",
                ("dictionary", "block"),
                (Input(f"explanations/{name}"), *models),
                ("embeddings",),
                code,
                {"explainer": name},
            )
            for name in self.study.explainers
        ]

    def _alignments(self, name: str) -> Stage:
        """Which latents of two dictionaries are which."""
        choice = self.study.comparisons[name]
        fires = [Input("activations"), Input("contexts")] if choice.by == "activations" else []
        inputs = (Input("dictionaries"), *fires)
        return Stage(
            f"alignments/{name}",
            "alignments",
            ("pair",),
            inputs,
            ("alignments",),
            _version("1", _how(choice)),
            {"comparison": name},
            {"pair": self.study.pairs(name)},
        )

    def _comparisons(self, name: str) -> Stage:
        """What alignments come to over all pairs, with the explanations of what is aligned."""
        choice, explainers = self.study.comparisons[name], sorted(self.study.compared(name))
        names = {each for pair in self.study.pairs(name) for each in pair.split(BETWEEN)}
        of = {"dictionary": tuple(sorted(names))}
        sources = ["dictionaries", "latents", *(f"embeddings/{each}" for each in explainers)]
        choices = {**_how(choice), "explainers": explainers, "seed": self.study.seed}
        return Stage(
            f"comparisons/{name}",
            "comparisons",
            (),
            (Input(f"alignments/{name}"), *(Input(source, of) for source in sources)),
            ("comparisons", "similarities"),
            _version("1", choices),
            {"comparison": name},
        )

    def _scores(self, explainer: str, name: str) -> Stage:
        choice = self.study.scorers[name]
        return Stage(
            f"scores/{explainer}/{name}",
            "scores",
            ("dictionary", "block"),
            (Input("latents" if explainer == NONE else f"explanations/{explainer}"), *self._inputs(choice)),
            ("scores", "judgements", "slices"),
            self._method_version("2", choice, {"seed": self.study.seed}),
            {"explainer": explainer, "scorer": name},
        )

    def _agreements(self, stages: Sequence[Stage]) -> list[Stage]:
        """How far scorers agree, where two judge the explanations of one explainer, or none; other scores are not read.

        Inputs are in the order of their names, which are part of the code: scorers may change places in the study, but not names.
        """
        scored = [stage for stage in stages if stage.kind == "scores"]
        judges = Counter(stage.constants["explainer"] for stage in scored)

        def is_paired(explainer: str) -> bool:
            return (len(scored) if explainer == NONE else judges[explainer] + judges[NONE]) > 1

        paired = {
            stage.name: self.study.scorers[stage.constants["scorer"]].metrics[0]
            for stage in scored
            if is_paired(stage.constants["explainer"])
        }
        inputs, code = tuple(map(Input, sorted(paired))), _version("1", paired)
        return [Stage("agreements", "agreements", ("dictionary",), inputs, ("agreements",), code)] if paired else []

    def _report(self, stages: Sequence[Stage]) -> list[Stage]:
        """The report, where the study asks for it. It shows all choices and code versions, and follows from them."""
        if self.study.report is None:
            return []
        inputs = tuple(Input(stage.name) for stage in stages if stage.kind in _SHOWN)
        code = _version("2", [self.study.digest, {stage.name: stage.code_version for stage in stages}])
        return [Stage("report", "report", (), inputs, ("reports",), code)]

    def _inputs(self, choice: Choices) -> tuple[Input, ...]:
        """The samples and models that a sample, explainer or scorer refers to, each once."""
        references = list(dict.fromkeys(choice.references()))
        samples = [Input(f"examples/{name}") for mark, name in references if mark.section == "samples"]
        samples += [Input(f"{mark.stage}/{name}") for mark, name in references if mark.stage is not None]
        llms = tuple(name for mark, name in references if mark.section == "llms")
        return (*samples, *([Input("llms", {"llm": llms})] if llms else []))

    def _method_version(self, stage: str, choice: Any, more: Mapping[str, Any] | None = None) -> str:
        """Version of a stage and its method: their code, the settings, and what these refer to by name, in full.

        ``explainers`` says which explanations a scorer judges, not how, so it does not count; and what ``files`` hold belongs to
        one dictionary each, and enters through `Origins`.
        """
        own = choice.model_dump(mode="json", exclude={"explainers", "files"})
        if own.get("stop", own) is None:  # as before there was such a setting
            del own["stop"]
        inlined: dict[str, Any] = {"settings": own, **(more or {})}
        for mark, name in choice.references():
            if mark.section == "prompts":
                inlined[f"prompt {name}"] = self.study.prompt(name).digest
        return _version(f"{stage}.{choice.version}", inlined | self._llms_of(choice))

    def _llms_of(self, choice: Choices) -> dict[str, Any]:
        """The models that something refers to, in full, but for what they are made of."""
        names = [name for mark, name in choice.references() if mark.section == "llms"]
        llms = {name: self.study.llms[name] for name in names}
        own = {"model", "revision", "price"}
        said = {
            name: llm.model_dump(mode="json", exclude=own if llm.chat else own | {"chat"}) for name, llm in llms.items()
        }
        return {f"llm {name}": [said[name], llm.engine_version] for name, llm in llms.items()}


def _how(choice: Comparison) -> dict[str, Any]:
    """How a comparison compares, not what."""
    return choice.model_dump(exclude={"dictionaries", "pairs", "explainers"})


def _version(code: str, choices: Any = None) -> str:
    """A code version: the hand-raised number, and the digest of the choices that hold for all partitions."""
    return code if choices is None else f"{code}-{digest(choices)[:16]}"
