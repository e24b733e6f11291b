"""What changed between two moments, and why: causes, the study, explanations, scores.

A moment is a date or time like 2026-03-01T12:00 (local time, unless it has an offset) or a run, by its id in the table
`partitions` or at least 6 characters of it: the moment at which it last published. A RUN alone is compared with what
was there before it; each stage of a `make run` is a run or several. Scores are those of the latents' own explanations.
"""

import argparse
import json
from collections import Counter

import polars as pl

from latentlake.console import as_text
from latentlake.errors import LakeError
from latentlake.opened import Opened
from latentlake.reading.causes import Change
from latentlake.reading.diff import Diff, diff
from latentlake.reading.moments import around, moment
from latentlake.reading.view import View

_FEW = 10  # rows of each part without --all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("run_id", nargs="?", metavar="RUN", help="what this run changed")
    parser.add_argument("--from", dest="since", metavar="MOMENT", help="the earlier moment: a date, a time or a run")
    parser.add_argument("--to", dest="until", metavar="MOMENT", help="the later moment (default: now)")
    parser.add_argument("--all", action="store_true", help=f"all rows of each part, not the first {_FEW}")
    parser.add_argument("--json", action="store_true", help="all rows, as JSON")


def run(options: argparse.Namespace, opened: Opened) -> None:
    """Compare two moments and print what is different.

    Raises:
        LakeError: a moment cannot be told, or its state is gone.
    """
    before, after = _states(options, opened.view)
    found = diff(before, after)
    if options.json:
        print(json.dumps(_as_json(before, after, found), ensure_ascii=False, indent=1))
    else:
        print("\n\n".join([_heading(before, after), *_parts(found, None if options.all else _FEW)]))


def _states(options: argparse.Namespace, view: View) -> tuple[View, View]:
    if bool(options.run_id) == bool(options.since or options.until) or (options.until and not options.since):
        raise LakeError("name a RUN, or a moment with --from (and, unless it is now, another with --to)")
    if options.run_id:
        since, until = around(view, options.run_id)
        return View(view.lake, since), View(view.lake, until)
    return View(view.lake, moment(view, options.since)), View(
        view.lake, moment(view, options.until) if options.until else None
    )


def _heading(before: View, after: View) -> str:
    since, until = (f"{view.at.astimezone():%Y-%m-%d %H:%M:%S %z}" if view.at else "now" for view in (before, after))
    return f"{before.lake.study}: {since}{'' if before.study else ' (nothing was there yet)'} → {until}"


def _parts(found: Diff, most: int | None) -> list[str]:
    """The parts of the text that have something to say."""
    if found.is_empty:
        return ["nothing changed"]
    parts = [_why(found), _study(found), _counts(found)]
    if not found.means.is_empty():
        title = "mean change of each score, over the latents that have it at both moments (95 % interval)"
        parts.append(_titled(title, _table(found.means)))
    if not found.explanations.is_empty():
        title = _shown("explanations", found.explanations, most)
        parts.append(
            _titled(title, *map(_explanation, found.explanations.head(most or found.explanations.height).to_dicts()))
        )
    changed = found.scores.drop_nulls("delta").sort(pl.col("delta").abs(), descending=True, maintain_order=True)
    if not changed.is_empty():
        title = _shown("largest changes of a score", changed, most)
        parts.append(_titled(title, _table(changed.head(most or changed.height).drop("kind"))))
    return [part for part in parts if part]


def _why(found: Diff) -> str:
    """A line an asset, kind of change and root: how many partitions."""
    counts = Counter((each.asset, _kind(each), str(root)) for each in found.causes for root in each.roots)
    lines = [
        f"  {asset:<30} {f'{n} {kind}':<26} {root.removeprefix(f'{asset}: ')}"
        for (asset, kind, root), n in counts.items()
    ]
    return _titled("partitions, and why", *lines) if lines else ""


def _kind(change: Change) -> str:
    return "recomputed to the same" if change.is_same else change.kind


def _study(found: Diff) -> str:
    rows = [*found.study.iter_rows(), *((f"prompt {name}", old, new) for name, old, new in found.prompts.iter_rows())]
    return (
        _titled("the study", *(f"  {what}: {old or 'none'} → {new or 'none'}" for what, old, new in rows))
        if rows
        else ""
    )


def _counts(found: Diff) -> str:
    lines = []
    for name, frame in (("explanations", found.explanations), ("scores", found.scores)):
        kinds = frame["kind"].value_counts().sort("kind").rows()
        lines.append(f"{name}: {', '.join(f'{n} {kind}' for kind, n in kinds) or 'none changed'}")
    return "\n".join(lines)


def _explanation(row: dict[str, str | None]) -> str:
    old, new = (row[side] or f"none: {row[f'error_{side}']}" for side in ("old", "new"))
    lines = [f"  {row['dictionary']}/{row['latent']} {row['explainer']}"]
    lines += [f"    - {old}"] if row["kind"] != "added" else []
    lines += [f"    + {new}"] if row["kind"] != "removed" else []
    return "\n".join(lines)


def _titled(title: str, *lines: str) -> str:
    return "\n".join([title, *lines])


def _shown(title: str, frame: pl.DataFrame, most: int | None) -> str:
    is_cut = most is not None and frame.height > most
    return f"{title} ({most} of {frame.height}; --all shows all)" if is_cut else title


def _table(frame: pl.DataFrame) -> str:
    return as_text(frame.drop("control"), digits=3)


def _as_json(before: View, after: View, found: Diff) -> dict[str, object]:
    causes = [
        {**each._asdict(), "cause": each.cause._asdict(), "roots": [root._asdict() for root in each.roots]}
        for each in found.causes
    ]
    moments = {"from": before.at and before.at.isoformat(), "to": after.at and after.at.isoformat()}
    frames = ("study", "prompts", "means", "explanations", "scores")
    return {**moments, "causes": causes, **{name: getattr(found, name).to_dicts() for name in frames}}
