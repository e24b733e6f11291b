"""What others say of latents, taken into files beside a study, whose lines for the study file name them.

The files are lines as the explainer ``imported`` and the scorer ``ratings`` read them; what else the form says of an explanation
or score is carried along under ``extra``, and ``place`` says where it stood. Named in the study, they count by their digests.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from typing import IO, Any

import yaml

from latentlake.errors import InputError, LakeError, nearest
from latentlake.exports import PROVENANCE, LeftOut, Rated, Said
from latentlake.exports.text import as_json
from latentlake.files import file_sha256, require_room, whole
from latentlake.hookpoints import neutral, site_of
from latentlake.registry import EXPORTS
from latentlake.scorers import NONE
from latentlake.study import Study

FOLDER = "imported"  # beside the study file
_MOST = 2**31  # latents, where nobody says how many


@dataclass
class Taken:
    """What was taken over. ``folder``: where it lies. ``explanations``, ``scores``: how many by explainer and by scorer.
    ``left_out``: how many by what they are. ``lines``: of the study file."""

    folder: Path
    explanations: Counter[str] = field(default_factory=Counter)
    scores: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    lines: str = ""


def bring_in(
    study: Study,
    form: str,
    path: Path,
    name: str,
    sources: Mapping[str, str] | None = None,
    overwrite: bool = False,
    width: Callable[[str], int] = lambda dictionary: _MOST,
) -> Taken:
    """Read files of a form and write what they say of the study's dictionaries beside the study, as of the explainer ``name``;
    where they have several explainers, as of ``name_<explainer>``.

    ``sources``: by what the form calls a coder the dictionary that it is; without it the one whose name or hookpoint that is.
    ``width``: how many latents a dictionary has.

    Raises:
        InputError: something is not of the form, is of a latent that a dictionary has not, or nothing is of a dictionary of the
            study or of one of ``sources``. Then nothing is written.
        LakeError: there is no such form or dictionary, the study calls something else so, or the folder holds something.
    """
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise LakeError(f"{name!r} is no name for an explainer: small letters, digits and _ alone")
    for dictionary in (sources or {}).values():
        if dictionary not in study.dictionaries:
            raise LakeError(f"the study has no dictionary {dictionary!r}{nearest(dictionary, study.dictionaries)}")
    kind = EXPORTS[form]
    if not path.exists():
        raise InputError(f"there is no file or folder {path}")
    folder = study.home / FOLDER / name
    require_room(folder, overwrite, PROVENANCE)
    with whole(folder) as made:
        taken = _Sorted(study, sources or {}, made, path, width).take(kind().read(path), name, folder)
        if not taken.explanations and not taken.scores:
            raise InputError(f"{path} holds nothing of a dictionary of the study{_listed(taken.left_out)}")
        facts = {
            "form": form,
            "files": _digest(path),
            "explanations": taken.explanations,
            "scores": taken.scores,
            "left_out": taken.left_out,
        }
        (made / PROVENANCE).write_text(json.dumps(facts, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    return taken


def _listed(left_out: Counter[str]) -> str:
    """What was left out, as the end of a message."""
    said = "; ".join(f"{what}: {n:,}" for what, n in sorted(left_out.items()))
    return f" ({said}); say which dictionary a source is by --dictionary SOURCE=NAME" if said else ""


def _digest(path: Path) -> dict[str, Any]:
    """How many files were read, and one digest of their names and bytes."""
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    hasher = hashlib.sha256()
    try:
        for file in files:
            hasher.update(f"{file.relative_to(path.parent).as_posix()}\x1f{file_sha256(file)}\n".encode())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}; see to the rights there") from error
    return {"n": len(files), "sha256": hasher.hexdigest()}


class _Sorted:
    """Entries by explainer or scorer, and dictionary, each kind in a file that is named at the end, once it is known how many
    explainers there are."""

    def __init__(
        self, study: Study, sources: Mapping[str, str], folder: Path, path: Path, width: Callable[[str], int]
    ) -> None:
        self._study, self._sources, self._folder, self._width = study, sources, folder, cache(width)
        self._above = f"{path.parent}/"  # where a form's files lie tells nothing of what they say
        self._files: dict[tuple[str, str | None, str], tuple[Path, IO[str]]] = {}
        self._n: Counter[tuple[str, str | None, str]] = Counter()
        self._seen: dict[tuple[str, str], set[int]] = {}
        self._known: dict[str, str | None] = {}
        self._longest: Counter[str] = Counter()

    def take(self, entries: Iterable[Said | Rated | LeftOut], name: str, target: Path) -> Taken:
        """Write all entries; ``target``: where the folder will lie."""
        taken = Taken(target)
        with ExitStack() as stack:
            for entry in entries:
                what = entry.what if isinstance(entry, LeftOut) else self._add(entry, stack)
                if what is not None:
                    taken.left_out[what] += 1
        if unmet := self._sources.keys() - self._known.keys():
            raise InputError(
                f"nothing is of {min(unmet)!r}, which is said to be dictionaries.{self._sources[min(unmet)]}; what is there is "
                f"of {', '.join(sorted(self._known)) or 'nothing'}"
            )
        self._name(taken, name)
        return taken

    def _add(self, entry: Said | Rated, stack: ExitStack) -> str | None:
        """Write an entry; what it is where it is left out."""
        dictionary = self._dictionary(entry.source)
        if dictionary is None:
            return f"of {entry.source}, which is no dictionary of the study"
        if entry.latent >= self._width(dictionary):
            raise InputError(
                f"{entry.place}: there is no latent {entry.latent}; the dictionary {dictionary} has {self._width(dictionary):,}"
            )
        if isinstance(entry, Said):
            seen = self._seen.setdefault((entry.explainer, dictionary), set())
            if entry.latent in seen:
                raise InputError(
                    f"{entry.place}: the latent {entry.latent} is explained a second time; leave one explanation of it"
                )
            seen.add(entry.latent)
            key: tuple[str, str | None, str] = (entry.explainer, None, dictionary)
            row: dict[str, Any] = {"latent": entry.latent, "explanation": entry.explanation}
            self._longest[entry.explainer] = max(self._longest[entry.explainer], len(entry.explanation or ""))
        else:
            key, row = (entry.explainer, entry.scorer, dictionary), {"latent": entry.latent, "rating": entry.value}
        if key not in self._files:
            path = self._folder / f"{len(self._files)}.jsonl"
            self._files[key] = path, stack.enter_context(path.open("w", encoding="utf-8", newline=""))
        self._files[key][1].write(_line({**row, "place": entry.place.removeprefix(self._above)}, entry))
        self._n[key] += 1
        return None

    def _dictionary(self, source: str) -> str | None:
        if source not in self._known:
            self._known[source] = self._sources.get(source) or _match(source, self._study)
        return self._known[source]

    def _name(self, taken: Taken, name: str) -> None:
        """Move the files to their names, and write the lines for the study file."""
        given: set[str] = set()
        explainers = _named({key[0] for key in self._files if key[1] is None}, name, given)
        scorers: dict[tuple[str, str], str] = {}
        sections: dict[str, dict[str, Any]] = {"explainers": {}, "scorers": {}}
        for (explainer, scorer, dictionary), (path, _) in sorted(self._files.items(), key=str):
            n = self._n[explainer, scorer, dictionary]
            judged = [explainers[explainer]] if explainer in explainers else sorted(explainers.values())
            if not judged:
                taken.left_out["scores of explanations that are not there"] += n
                path.unlink()
                continue
            if scorer is None:
                own, section = judged[0], "explainers"
            else:
                wanted = f"{judged[0] if len(judged) == 1 else name}_{_slug(scorer)}".rstrip("_")
                own = scorers.get((explainer, scorer)) or scorers.setdefault((explainer, scorer), _free(wanted, given))
                section = "scorers"
            self._require_own(section, own, name)
            file = self._folder / own / f"{dictionary}.jsonl"
            file.parent.mkdir(exist_ok=True)
            path.rename(file)
            (taken.explanations if scorer is None else taken.scores)[own] += n
            choice = {"method": "imported"} if scorer is None else {"method": "ratings", "explainers": judged}
            files = sections[section].setdefault(
                own, {**choice, **_longest(self._longest[explainer], scorer), "files": {}}
            )["files"]
            files[dictionary] = f"{FOLDER}/{name}/{own}/{dictionary}.jsonl"
        taken.lines = yaml.safe_dump(
            {section: rows for section, rows in sections.items() if rows},
            sort_keys=False,
            width=1000,
            default_flow_style=None,
        )

    def _require_own(self, section: str, own: str, name: str) -> None:
        """What the study calls so must be this import, of an earlier time.

        Raises:
            LakeError: it is something else.
        """
        there = getattr(self._study, section).get(own)
        files = getattr(there, "files", {}).values()
        is_earlier = files and all(each.startswith(f"{FOLDER}/{name}/") for each in files)
        if own == NONE or (there is not None and not is_earlier):
            raise LakeError(
                f"the study cannot have {section}.{own} from here, for that is something else; say another --as"
            )


def _line(row: Mapping[str, Any], entry: Said | Rated) -> str:
    """An entry as a line.

    Raises:
        InputError: JSON cannot hold what a field says: numbers that are none, halves of characters.
    """
    line = _text({**row, "extra": entry.extra} if entry.extra else row)
    if line is None:
        fields = (*entry.extra.items(), *row.items())
        name, value = next((name, value) for name, value in fields if _text(value) is None)
        raise InputError(f"{entry.place}, field {name!r}: it must be what JSON can hold, and is {value!r:.50}")
    return f"{line}\n"


def _text(value: Any) -> str | None:
    """A value as JSON; None where it cannot be."""
    try:
        text = as_json(value)
        text.encode()
    except (TypeError, ValueError):
        return None
    return text


def _longest(longest: int, scorer: str | None) -> dict[str, int]:
    """What the explainer must be told where explanations are longer than it takes."""
    from latentlake.explainers.imported import Imported

    most = Imported.model_fields["longest"].default
    return {"longest": longest} if scorer is None and longest > most else {}


def _named(labels: set[str], name: str, given: set[str]) -> dict[str, str]:
    """A name for each explainer of a form: of what the form calls it the first word, where that tells them apart. ``given``:
    names that are given; these are added."""
    firsts = {label.partition(" ")[0] for label in labels}
    found: dict[str, str] = {}
    for label in sorted(labels):
        short = label.partition(" ")[0] if len(firsts) == len(labels) else label
        found[label] = _free(name if len(labels) == 1 else f"{name}_{_slug(short)}".rstrip("_"), given)
    return found


def _free(wanted: str, given: set[str]) -> str:
    """A name that is not given yet, the wanted one or that with a number; it then is."""
    names = (wanted if n == 1 else f"{wanted}_{n}" for n in count(1))
    own = next(name for name in names if name not in given)
    given.add(own)
    return own


def _slug(label: str) -> str:
    """A label as part of a name."""
    return re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_")


def _match(source: str, study: Study) -> str | None:
    """The dictionary that a form's name of a coder means: by its own name, or by the hookpoint that it reads.

    Raises:
        InputError: several read that hookpoint.
    """
    parts = source.split("/")
    for part in reversed(parts):
        if part in study.dictionaries:
            return part
    for part in reversed(parts):
        layer, _, name = part.partition("-")  # as Neuronpedia calls coders
        if name in study.dictionaries and _may_be_of(layer, study.dictionaries[name].hookpoint):
            return name
    point = neutral(parts[-1])
    found = [name for name, choice in study.dictionaries.items() if point in _points(choice.hookpoint)]
    if len(found) > 1:
        raise InputError(
            f"{source!r} may be any of the dictionaries {', '.join(found)}, which read {point}; say which by "
            f"--dictionary {source}=NAME"
        )
    return found[0] if found else None


def _may_be_of(layer: str, hookpoint: str | None) -> bool:
    """Whether a hookpoint is of a layer, or of none."""
    site = site_of(hookpoint or "")
    return site is None or not layer.isdecimal() or site.layer == int(layer)


def _points(hookpoint: str | None) -> Iterator[str]:
    """What a hookpoint may be called."""
    if hookpoint is not None:
        yield neutral(hookpoint)
        yield f"model.{neutral(hookpoint)}"
