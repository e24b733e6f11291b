"""What others say of latents, taken into files beside a study, whose lines for the study file name them.

The files are lines as the explainer ``imported`` and the scorer ``ratings`` read them; what else the form says of an explanation
or score is carried along under ``extra``, and ``place`` says where it stood. Named in the study, they count by their digests.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import yaml

from latentlake.errors import InputError, LakeError, nearest
from latentlake.exports import PROVENANCE, LeftOut, Rated, Said
from latentlake.exports.text import as_json
from latentlake.files import file_sha256, require_room, whole
from latentlake.hookpoints import neutral
from latentlake.registry import EXPORTS
from latentlake.study import Study

FOLDER = "imported"  # beside the study file


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
    study: Study, form: str, path: Path, name: str, sources: Mapping[str, str] | None = None, overwrite: bool = False
) -> Taken:
    """Read files of a form and write what they say of the study's dictionaries beside the study, as of the explainer ``name``;
    where they have several explainers, as of ``name_<explainer>``.

    ``sources``: by what the form calls a coder the dictionary that it is; without it the one whose name or hookpoint that is.

    Raises:
        InputError: something is not of the form, or nothing is of a dictionary of the study. Then nothing is written.
        LakeError: there is no such form or dictionary, or the folder holds something.
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
        taken = _Sorted(study, sources or {}, made, path).take(kind().read(path), name, folder)
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
    for file in files:
        hasher.update(f"{file.relative_to(path.parent).as_posix()}\x1f{file_sha256(file)}\n".encode())
    return {"n": len(files), "sha256": hasher.hexdigest()}


class _Sorted:
    """Entries by explainer or scorer, and dictionary, each kind in a file that is named at the end, once it is known how many
    explainers there are."""

    def __init__(self, study: Study, sources: Mapping[str, str], folder: Path, path: Path) -> None:
        self._study, self._sources, self._folder = study, sources, folder
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
        self._name(taken, name)
        return taken

    def _add(self, entry: Said | Rated, stack: ExitStack) -> str | None:
        """Write an entry; what it is where it is left out."""
        dictionary = self._dictionary(entry.source)
        if dictionary is None:
            return f"of {entry.source}, which is no dictionary of the study"
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
        extra = {"extra": entry.extra} if entry.extra else {}
        self._files[key][1].write(as_json({**row, "place": entry.place.removeprefix(self._above), **extra}) + "\n")
        self._n[key] += 1
        return None

    def _dictionary(self, source: str) -> str | None:
        if source not in self._known:
            self._known[source] = self._sources.get(source) or _match(source, self._study)
        return self._known[source]

    def _name(self, taken: Taken, name: str) -> None:
        """Move the files to their names, and write the lines for the study file."""
        explainers = _named({key[0] for key in self._files if key[1] is None}, name)
        sections: dict[str, dict[str, Any]] = {"explainers": {}, "scorers": {}}
        for (explainer, scorer, dictionary), (path, _) in sorted(self._files.items(), key=str):
            n = self._n[explainer, scorer, dictionary]
            judged = [explainers[explainer]] if explainer in explainers else sorted(explainers.values())
            if not judged:
                taken.left_out["scores of explanations that are not there"] += n
                path.unlink()
                continue
            own = judged[0] if scorer is None or len(judged) == 1 else name
            own = own if scorer is None else f"{own}_{_slug(scorer)}"
            file = self._folder / own / f"{dictionary}.jsonl"
            file.parent.mkdir(exist_ok=True)
            path.rename(file)
            (taken.explanations if scorer is None else taken.scores)[own] += n
            choice = {"method": "imported"} if scorer is None else {"method": "ratings", "explainers": judged}
            section = sections["explainers" if scorer is None else "scorers"]
            files = section.setdefault(own, {**choice, **_longest(self._longest[explainer], scorer), "files": {}})[
                "files"
            ]
            files[dictionary] = f"{FOLDER}/{name}/{own}/{dictionary}.jsonl"
        taken.lines = yaml.safe_dump(
            {section: rows for section, rows in sections.items() if rows},
            sort_keys=False,
            width=1000,
            default_flow_style=None,
        )


def _longest(longest: int, scorer: str | None) -> dict[str, int]:
    """What the explainer must be told where explanations are longer than it takes."""
    from latentlake.explainers.imported import Imported

    most = Imported.model_fields["longest"].default
    return {"longest": longest} if scorer is None and longest > most else {}


def _named(labels: set[str], name: str) -> dict[str, str]:
    """A name for each explainer of a form: of what the form calls it the first word, where that tells them apart."""
    if len(labels) == 1:
        return dict.fromkeys(labels, name)
    found: dict[str, str] = {}
    firsts = {label.partition(" ")[0] for label in labels}
    for label in sorted(labels):
        short = label.partition(" ")[0] if len(firsts) == len(labels) else label
        own = wanted = f"{name}_{_slug(short)}".rstrip("_")
        n = 1
        while own in found.values():
            n += 1
            own = f"{wanted}_{n}"
        found[label] = own
    return found


def _slug(label: str) -> str:
    """A label as part of a name."""
    return re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_")


def _match(source: str, study: Study) -> str | None:
    """The dictionary that a form's name of a coder means: by its own name, or by the hookpoint that it reads.

    Raises:
        InputError: several read that hookpoint.
    """
    parts = source.split("/")
    for part in (*reversed(parts), *(part.partition("-")[2] for part in reversed(parts))):
        if part in study.dictionaries:
            return part
    point = neutral(parts[-1])
    found = [name for name, choice in study.dictionaries.items() if point in _points(choice.hookpoint)]
    if len(found) > 1:
        raise InputError(
            f"{source!r} may be any of the dictionaries {', '.join(found)}, which read {point}; say which by "
            f"--dictionary {source}=NAME"
        )
    return found[0] if found else None


def _points(hookpoint: str | None) -> Iterator[str]:
    """What a hookpoint may be called."""
    if hookpoint is not None:
        yield neutral(hookpoint)
        yield f"model.{neutral(hookpoint)}"
