"""What a study names outside the lake (models, checkpoints, corpus files): found, verified and digested.

The digests enter the recipes of the partitions that have no inputs. Nothing here imports torch until
`Origins.verify`, so that an up-to-date run never does.
"""

from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from latentlake import corpus
from latentlake.digest import digest
from latentlake.engines import checkpoint
from latentlake.errors import InputError, nearest
from latentlake.files import FileFacts
from latentlake.hookpoints import neutral, written_by
from latentlake.registry import CODERS
from latentlake.study import Study

# kinds of stages that take something from outside the lake
OUTSIDE_KINDS = ("subject", "llms", "dictionaries", "selections", "contexts")


@dataclass(frozen=True)
class ModelFacts:
    """A resolved model: where it lies, and the digest of its files."""

    reference: str
    path: Path
    digest: str

    @property
    def revision(self) -> str:
        """The commit of a snapshot from the hub; of other files, the start of their digest."""
        return self.path.name if self.path.parent.name == "snapshots" else self.digest[:12]


@dataclass(frozen=True)
class CoderFacts:
    """A sparse coder's checkpoint, looked at without loading it."""

    path: Path
    digest: str
    width: int
    d_in: int
    k: int | None


class Origins:
    """The outside of one study. ``cache``: a folder for remembered digests and converted models; it can be deleted."""

    def __init__(self, study: Study, cache: Path) -> None:
        self.study = study
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
        return self._model(choice.model, choice.revision)

    @cache  # noqa: B019 - one Origins lives as long as a run
    def dictionary(self, name: str) -> CoderFacts:
        """The checkpoint of a dictionary: shapes checked against its configuration, files digested."""
        choice = self.study.dictionaries[name]
        path = self.study.home / choice.coder
        shape = CODERS[choice.format].inspect(path)
        files = sorted(file for file in path.iterdir() if file.is_file())
        return CoderFacts(path, self._digest(path, files), shape.width, shape.d_in, shape.k)

    def digest_of(self, kind: str, values: dict[str, str]) -> str | None:
        """Digest of what a partition takes from outside the lake; None where it takes nothing."""
        if kind == "subject":
            return digest([self.subject.digest, self.subject.reference, self.study.subject.dtype])
        if kind == "llms":
            facts = self.llm(values["llm"])
            return digest([facts.digest, facts.reference, self.study.llms[values["llm"]].engine])
        if kind == "dictionaries":
            choice = self.study.dictionaries[values["dictionary"]]
            written = written_by(choice.hookpoint, choice.writes)
            return digest(
                [self.dictionary(values["dictionary"]).digest, neutral(choice.hookpoint), written, choice.format]
            )
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
            found, wanted = self.dictionary(name).d_in, self._verify_hookpoint(name, choice.hookpoint)
            self._verify_hookpoint(name, written_by(choice.hookpoint, choice.writes))
            if wanted is not None and found != wanted:
                raise InputError(
                    f"dictionaries.{name}: the coder {choice.coder} reads {found} numbers a token, but "
                    f"{choice.hookpoint} of {self.study.subject.model} gives {wanted}; name the coder made for it"
                )
            self._verify_latents(name)
        self._verify_tokens()

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
        wanted, width = self.study.dictionaries[name].latents, self.dictionary(name).width
        beyond = [latent for latent in wanted if latent >= width] if isinstance(wanted, tuple) else []
        if beyond:
            raise InputError(f"dictionaries.{name}.latents: there is no latent {beyond[0]}; the coder has {width:,}")
        if self.study.blocks > width:
            raise InputError(f"blocks: {self.study.blocks} is more than the {width:,} latents of dictionaries.{name}")

    @cached_property
    def _hookpoints(self) -> dict[str, int]:
        return checkpoint.hookpoints(self.subject.path)

    def _model(self, reference: str, revision: str | None) -> ModelFacts:
        path = checkpoint.locate(reference, self.study.home, revision)
        root = path if path.is_dir() else path.parent
        return ModelFacts(reference, path, self._digest(root, checkpoint.files(path)))

    def _digest(self, root: Path, files: list[Path]) -> str:
        return digest([[file.relative_to(root).as_posix(), self._facts.sha256(file)] for file in files])
