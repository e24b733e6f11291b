"""What a study names outside the lake (models, checkpoints, corpus files): found, verified and digested.

The digests enter the recipes of the partitions that have no inputs. Nothing here imports torch until
`Origins.verify`, so that an up-to-date run never does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path

from latentlake import corpus, imported
from latentlake.coders import planted
from latentlake.coders.controls import KINDS, needs_k
from latentlake.coders.neurons import neurons
from latentlake.coders.opening import Control, Source, facts, format_of, locate
from latentlake.coders.parameters import TRANSCODERS, Facts, facts_of
from latentlake.coders.reading import require_k
from latentlake.coders.training import require_trainer
from latentlake.digest import digest
from latentlake.engines import checkpoint
from latentlake.errors import InputError, nearest
from latentlake.explainers.pinned import Pinned
from latentlake.files import FileFacts
from latentlake.hookpoints import neutral, site_of, written_by
from latentlake.registry import CODERS
from latentlake.sampling.similar import require_index
from latentlake.sections.dictionaries import Dictionary, Training
from latentlake.study import Study

# kinds of stages that take something from outside the lake
OUTSIDE_KINDS = ("subject", "llms", "coder", "dictionaries", "selections", "contexts", "explanations", "scores")
_METHODS = {"explanations": ("explainers", "explainer"), "scores": ("scorers", "scorer")}
_SAYINGS = {"explainers": imported.EXPLANATION, "scorers": imported.RATING}


@dataclass(frozen=True)
class ModelFacts:
    """A resolved model: where it lies, and the digest of its files.

    Of a model that a server runs no files are to be ``found``, and the digest is of its name and of the revision that the study
    gives.
    """

    reference: str
    found: Path | None
    digest: str

    @property
    def revision(self) -> str:
        """The commit of a snapshot from the hub; of others, the start of their digest."""
        is_snapshot = self.found is not None and self.found.parent.name == "snapshots"
        return self.path.name if is_snapshot else self.digest[:12]

    @property
    def path(self) -> Path:
        """Where its files lie.

        Raises:
            InputError: it has none here.
        """
        if self.found is None:
            raise InputError(f"the model {self.reference} runs on a server, and has no files here")
        return self.found


@dataclass(frozen=True)
class CoderFacts:
    """A dictionary's coder, looked at without loading it.

    ``source``: its checkpoint; None for neurons, a coder that is trained, and planted latents. ``digest``: of its files and
    of how they are read; of a coder that is trained, of how the files are read.
    """

    format: str
    source: Source | None
    control: Control | None
    digest: str
    facts: Facts


class Origins:
    """The outside of one study. ``cache``: a folder for remembered digests and converted models; it can be deleted.
    ``endpoints``: addresses for each model that a server runs; None where they do not matter.
    """

    def __init__(self, study: Study, cache: Path, endpoints: Mapping[str, Sequence[str]] | None = None) -> None:
        self.study = study
        self._endpoints = endpoints
        self.cache = cache
        self._facts = FileFacts(cache)

    @cached_property
    def shards(self) -> dict[str, corpus.Shard]:
        """The shards that the corpus files make now, by key."""
        return {shard.key: shard for shard in corpus.list_shards(self.study.corpus, self.study.home, self._facts)}

    @cached_property
    def subject(self) -> ModelFacts:
        """The subject's files."""
        return self._model(self.study.subject.model, self.study.subject.revision)

    def llm(self, name: str) -> ModelFacts:
        """The files of a model of the study."""
        choice = self.study.llms[name]
        if choice.is_served:
            return ModelFacts(choice.model, None, digest(["served", choice.model, choice.revision]))
        return self._model(choice.model, choice.revision)

    @cache  # noqa: B019 - one Origins lives as long as a run
    def dictionary(self, name: str) -> CoderFacts:
        """The coder of a dictionary: its checkpoint read and verified (once: what it was found to be is remembered), its files
        digested.

        Raises:
            InputError: there is no such checkpoint, it is not complete, or it does not fit what the study says.
        """
        choice = self.study.dictionaries[name]
        try:
            if choice.planted is not None:
                return self._planted(name)
            if choice.coder is None or choice.is_neurons:
                return self._without_files(name, choice)
            return self._checkpoint(choice, choice.coder)
        except InputError as error:
            said = str(error).removeprefix(f"dictionaries.{name}: ")
            raise InputError(f"dictionaries.{name}: {said}") from error

    @cache  # noqa: B019 - as above
    def rules(self, name: str) -> list[planted.Rule]:
        """The rules of a planted dictionary: read once, so that what fires is what was digested.

        Raises:
            InputError: they cannot be read.
        """
        choice = self.study.dictionaries[name]
        assert choice.planted is not None
        return planted.read_rules(self.study.home / choice.planted)

    def _planted(self, name: str) -> CoderFacts:
        rules = self.rules(name)
        own = Facts(len(rules), 0, 0, "", kind="planted")
        made = digest(["planted", planted.VERSION, [rule.model_dump() for rule in rules]])
        return CoderFacts("planted", None, None, made, own)

    @cache  # noqa: B019 - as above
    def imported(self, section: str, method: str, dictionary: str) -> imported.File | None:
        """The file that a method has of a dictionary, looked at from end to end: of an explainer one of explanations, of a scorer
        one of ratings; None where it has none.

        Raises:
            InputError: the file cannot be read, or speaks of a latent that is not there.
        """
        choice = getattr(self.study, section)[method]
        name = getattr(choice, "files", {}).get(dictionary)
        if name is None:
            return None
        where = f"{section}.{method}.files.{dictionary}"
        saying = imported.PIN if isinstance(choice, Pinned) else _SAYINGS[section]
        try:
            file = imported.look(self.study.home / name, saying, self._facts)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
        width = self.dictionary(dictionary).facts.width
        if file.last >= width:
            raise InputError(
                f"{where}: {file.path} {saying.does} the latent {file.last:,}, and the dictionary has {width:,}; "
                "name the file made for it"
            )
        return file

    def _checkpoint(self, choice: Dictionary, reference: str) -> CoderFacts:
        path = locate(reference, self.study.home, choice.revision)
        kind = choice.format or format_of(path, reference)
        files = CODERS[kind].files(path)
        if not files:
            raise InputError(
                f"the coder {reference!r} cannot be of the format {kind}, whose files are called otherwise"
            )
        control = Control(choice.control, self.study.seed, choice.k) if choice.control in KINDS else None
        source = Source(path, reference, choice.k, is_control=control is not None)
        missing = [file for file in files if not file.is_file()]
        if missing:
            raise InputError(f"the coder {reference!r} is not of the format {kind}: there is no {missing[0]}")
        read = digest([self._digest(path if path.is_dir() else path.parent, files), kind, CODERS[kind].version])
        own = self._facts_of(kind, source, control, read)
        return CoderFacts(kind, source, control, digest([read, own.k, self._drawn(choice)]), own)

    def _drawn(self, choice: Dictionary) -> list[str | int] | None:
        """What of a dictionary is drawn at random, and by which seed."""
        return None if choice.control is None else [choice.control, self.study.seed]

    def _facts_of(self, kind: str, source: Source, control: Control | None, read: str) -> Facts:
        """Facts, remembered by the checkpoint's content and its name, which of some formats says more than the files."""
        key = digest([read, source.reference, source.k, sorted(Facts.__annotations__)])
        own = Facts(**self._facts.of_content(f"coder:{key}", lambda: asdict(facts(kind, source))))
        if control is not None:
            if control.k is not None:
                require_k(control.k, own.width, source.reference)
            return replace(own, k=control.k or own.k, family="topk" if control.k else own.family, l0=None)
        if source.k is not None and own.k != source.k:
            raise InputError(
                f"k is {source.k} in the study, and {own.k or 'not fixed'} in the coder {source.reference}"
            )
        return own

    def _without_files(self, name: str, choice: Dictionary) -> CoderFacts:
        """Neurons, or a coder that is trained: what they are follows from the study and the subject."""
        d_in = self._width(name, choice.hookpoint)
        if choice.train is None:
            assert choice.k is not None
            parameters, stated = neurons(d_in, choice.k)
            made = digest(["neurons", d_in, choice.k, self._drawn(choice)])
            return CoderFacts("neurons", None, None, made, facts_of(parameters, stated))
        written = written_by(choice.hookpoint, choice.writes)
        is_transcoder = written != neutral(choice.hookpoint)
        kind = "sae" if not is_transcoder else "skip transcoder" if choice.train.skip else "transcoder"
        d_out = self._width(name, written)
        own = Facts(choice.train.latents, d_in, d_out, choice.train.activation, choice.train.k, kind)
        read = digest(["sparsify", CODERS["sparsify"].version, self._drawn(choice)])
        return CoderFacts("sparsify", None, None, read, own)

    def _width(self, name: str, hookpoint: str) -> int:
        width = self._verify_hookpoint(name, hookpoint)
        if width is None:
            raise InputError(f"how wide {hookpoint} is cannot be seen from the model's configuration; name a coder")
        return width

    def digest_of(self, kind: str, values: dict[str, str]) -> str | None:
        """Digest of what a partition takes from outside the lake; None where it takes nothing."""
        if kind == "subject":
            return digest([self.subject.digest, self.subject.reference, self.study.subject.dtype])
        if kind == "llms":
            facts = self.llm(values["llm"])
            return digest([facts.digest, facts.reference, self.study.llms[values["llm"]].engine])
        if kind == "dictionaries":
            choice = self.study.dictionaries[values["dictionary"]]
            read = self.dictionary(values["dictionary"]).digest
            return digest([read, *_hookpoints(choice), choice.control])
        if kind in _METHODS:
            section, of = _METHODS[kind]
            file = self.imported(section, values[of], values["dictionary"])
            return None if file is None else file.sha256
        if kind == "coder":
            choice = self.study.dictionaries[values["dictionary"]]
            assert choice.train is not None
            return digest([choice.train.model_dump(), *_hookpoints(choice), self._drawn(choice)])
        if kind == "selections":
            latents = self.study.dictionaries[values["dictionary"]].latents
            return digest(list(latents) if isinstance(latents, tuple) else latents)
        if kind == "contexts":
            return self.shards[values["shard"]].digest
        return None

    def verify(self) -> None:
        """Refuse dictionaries that do not fit the subject. Loads no weights, but the model's architecture.

        Raises:
            InputError: a hookpoint is not in the model, a coder is not as wide as its output, or a latent is asked for
            that the coder does not have.
        """
        for name, choice in self.study.dictionaries.items():
            self._verify_latents(name)
            if choice.planted is not None:
                continue
            coder, written = self.dictionary(name).facts, written_by(choice.hookpoint, choice.writes)
            for does, point, found in (("reads", choice.hookpoint, coder.d_in), ("writes", written, coder.d_out)):
                wanted = self._verify_hookpoint(name, point)
                if wanted is not None and found != wanted:
                    raise InputError(
                        f"dictionaries.{name}: the coder {choice.coder} {does} {found} numbers a token, but "
                        f"{point} of {self.study.subject.model} gives {wanted}; name the coder made for it"
                    )
            self._verify_kind(name, choice, coder)
            if choice.train is not None:
                self._verify_training(name, choice.train)
        self._verify_tokens()
        self._verify_samples()
        self.verify_servers()

    def verify_servers(self) -> None:
        """Refuse models on servers of which nothing says where these are.

        Raises:
            InputError: there is no address, or it is none.
        """
        for name, addresses in (self._endpoints or {}).items():
            wrong = [each for each in addresses if not each.startswith(("http://", "https://")) or "@" in each]
            if wrong or not addresses:  # what is no address may be a key, and is not shown
                said = "must be addresses with http:// or https:// and without a password" if wrong else "is not set"
                raise InputError(
                    f"llms.{name}: LATENTLAKE_ENDPOINTS (or LATENTLAKE_ENDPOINTS_{name.upper()}) {said}; it says where the "
                    f"server of {self.study.llms[name].model} is, as in http://localhost:8000/v1"
                )

    def _verify_samples(self) -> None:
        if any("similar" in sample.sources for sample in self.study.samples.values()):
            require_index()

    def _verify_training(self, name: str, train: Training) -> None:
        require_trainer()
        if train.shards > len(self.shards):
            raise InputError(
                f"dictionaries.{name}.train.shards is {train.shards}, and the corpus has {len(self.shards)}; a coder that is "
                "trained on shards to come would be trained anew with each of them"
            )

    def _verify_kind(self, name: str, choice: Dictionary, coder: Facts) -> None:
        """Refuse a transcoder that is to write where it reads, a coder that is not to, and a control that cannot be drawn."""
        is_transcoder = written_by(choice.hookpoint, choice.writes) != neutral(choice.hookpoint)
        if coder.kind is not None and is_transcoder != (coder.kind in TRANSCODERS):
            remedy = (
                "writes what it reads; leave out `writes`, or of an autoencoder of what an MLP reads give it the hookpoint"
                if is_transcoder
                else "reads one hookpoint and writes another; name the one it reads (of an MLP: layers.N.mlp.input), and where "
                "it writes elsewhere than the MLP, what it `writes`"
            )
            raise InputError(f"dictionaries.{name}: the coder {choice.coder} is a {coder.kind}, which {remedy}")
        read, written = site_of(choice.hookpoint), site_of(written_by(choice.hookpoint, choice.writes))
        if read is not None and written is not None and written.layer < read.layer:
            raise InputError(
                f"dictionaries.{name}: {choice.writes} comes before {choice.hookpoint}, which is read for it"
            )
        if choice.train is not None and choice.train.skip and not is_transcoder:
            raise InputError(
                f"dictionaries.{name}.train.skip: only a transcoder, which reads another hookpoint, has a skip"
            )
        if choice.control in KINDS and coder.k is None:
            raise InputError(f"dictionaries.{name}: {needs_k(choice.control, coder.family)}")

    def _verify_hookpoint(self, name: str, hookpoint: str) -> int | None:
        """Width of a hookpoint, which must be there; None where only a pass with numbers would say.

        What the configuration does not tell is looked up in the model's modules, which loads torch, but no weights.
        """
        known = neutral(hookpoint)
        if known in self._hookpoints:
            return self._hookpoints[known]
        from latentlake.engines.modules import UnknownArchitectureError, modules_of, place_of
        from latentlake.engines.skeleton import config_of, skeleton, width_of

        decoder = skeleton(config_of(self.subject.path))
        try:
            return width_of(decoder, place_of(decoder, hookpoint))
        except UnknownArchitectureError as error:
            raise InputError(f"dictionaries.{name}: {error}") from error
        except InputError as error:
            close = nearest(known, [*self._hookpoints, *modules_of(decoder)])
            raise InputError(
                f"dictionaries.{name}: the model {self.study.subject.model} has no hookpoint {hookpoint!r}{close}"
            ) from error

    def _verify_tokens(self) -> None:
        """Refuse a tokenizer, special tokens and a context length that are not of the model."""
        corpus, sizes = self.study.corpus, checkpoint.vocabulary(self.subject.path)
        if sizes is not None and sizes.tokenizer > sizes.model:
            raise InputError(
                f"subject: the tokenizer beside {self.study.subject.model} makes token ids up to {sizes.tokenizer - 1:,}, but "
                f"the model knows {sizes.model:,}; put the model's own tokenizer there"
            )
        for name, token in (("bos", corpus.bos), ("separator", corpus.separator)):
            if sizes is not None and isinstance(token, int) and token >= sizes.model:
                raise InputError(f"corpus.{name}: there is no token {token:,}; the model knows {sizes.model:,}")
        most = checkpoint.longest(self.subject.path)
        if most is not None and corpus.context_length > most:
            raise InputError(
                f"corpus.context_length is {corpus.context_length:,}, and {self.study.subject.model} reads {most:,} tokens at "
                "most"
            )

    def _verify_latents(self, name: str) -> None:
        wanted, width = self.study.dictionaries[name].latents, self.dictionary(name).facts.width
        beyond = [latent for latent in wanted if latent >= width] if isinstance(wanted, tuple) else []
        if beyond:
            raise InputError(f"dictionaries.{name}.latents: there is no latent {beyond[0]}; the coder has {width:,}")
        if self.study.blocks > width:
            raise InputError(f"blocks: {self.study.blocks} is more than the {width:,} latents of dictionaries.{name}")

    @cached_property
    def _hookpoints(self) -> dict[str, int]:
        return checkpoint.hookpoints(self.subject.path)

    def _model(self, reference: str, revision: str | None) -> ModelFacts:
        return model_facts(reference, revision, self.study.home, self._facts)

    def _digest(self, root: Path, files: list[Path]) -> str:
        return _digest_of(root, files, self._facts)


def model_facts(reference: str, revision: str | None, home: Path, facts: FileFacts) -> ModelFacts:
    """A model that lies here, found and digested. ``home``: the folder where relative paths start.

    Raises:
        InputError: it is not there.
    """
    path = checkpoint.locate(reference, home, revision)
    root = path if path.is_dir() else path.parent
    return ModelFacts(reference, path, _digest_of(root, checkpoint.files(path), facts))


def _digest_of(root: Path, files: list[Path], facts: FileFacts) -> str:
    return digest([[file.relative_to(root).as_posix(), facts.sha256(file)] for file in files])


def _hookpoints(choice: Dictionary) -> list[str]:
    """What a coder reads, and what its decoder speaks of; nothing of planted latents."""
    if choice.planted is not None:
        return []
    return [neutral(choice.hookpoint), written_by(choice.hookpoint, choice.writes)]
