"""Show what the scores of a latent were made from, back to prompts, documents and weights.

Judgements: of each scorer the most misranked ones first. Examples: tokens on which the latent fires stand in << >>.
"""

import argparse
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from textwrap import fill
from typing import Any

import polars as pl

from latentlake.marking import mark, pieces_of
from latentlake.opened import Opened
from latentlake.reading.trace import Trace, trace
from latentlake.sampling.texts import SEPARATOR
from latentlake.scorers import EMPTY, NONE
from latentlake.scorers.fuzzing import WRONG_TOKENS

_FEW = 3  # judgements of a scorer, and windows of a sample, without --all
_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = min(120, shutil.get_terminal_size((120, 0)).columns)
_START = 12  # characters shown of a digest; --json has them in full
_IS_OWN = pl.col("control").is_null()
Row = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("dictionary", help="name of the dictionary")
    parser.add_argument("latent", type=int, help="index of the latent")
    parser.add_argument("--explainer", help="only what comes of this explainer")
    parser.add_argument("--scorer", help="only what this scorer says")
    parser.add_argument("--all", action="store_true", help="every judgement, of controls too, and every example")
    parser.add_argument("--json", action="store_true", help="the whole trace as one JSON document")


def run(options: argparse.Namespace, opened: Opened) -> None:
    """Trace the latent and print what was found."""
    found = trace(opened.view, options.dictionary, options.latent, options.explainer, options.scorer)
    if options.json:
        print(json.dumps({name: _plain(value) for name, value in vars(found).items()}, ensure_ascii=False))
        return
    few = None if options.all else _FEW
    show(
        {
            **about(found, few),
            **({"Interventions": _interventions(found.continuations, few)} if len(found.continuations) else {}),
            "Judgements": _judgements(found, few),
            "A model call that explains": _call(
                found.hypotheses.sort("is_chosen", descending=True, maintain_order=True)
            ),
            "The model call behind the most misranked judgement": _call(
                found.judgements.filter(_IS_OWN).sort(
                    "misranked", descending=True, nulls_last=True, maintain_order=True
                )
            ),
            "Weights": _weights(found),
            "Versions": _versions(found.versions),
        }
    )


def about(found: Trace, few: int | None = _FEW) -> dict[str, Iterable[str]]:
    """What is said of a latent, by title. ``few``: windows of each sample that are shown, None for all of them."""
    return {
        f"Latent {found.latent} of {found.dictionary}": _statistics(found),
        "Explanations": _explanations(found),
        "Scores": _scores(found.scores),
        "Hypotheses": _hypotheses(found.hypotheses),
        "Examples": _examples(found.examples if few is None else found.examples.filter("is_activating"), few),
    }


def show(sections: Mapping[str, Iterable[str]]) -> None:
    """Print sections under their titles."""
    for title, lines in sections.items():
        print(f"{title}\n{'─' * len(title)}", *(list(lines) or ["none yet"]), "", sep="\n")


def _plain(value: Any) -> Any:
    return json.loads(value.write_json()) if isinstance(value, pl.DataFrame) else value


def _statistics(found: Trace) -> Iterator[str]:
    row = found.latents.row(0, named=True)
    peak = max(1, *row["histogram"])
    bars = "".join(_BARS[round(n / peak * (len(_BARS) - 1))] if n else " " for n in row["histogram"])
    tokens = ", ".join(f"{each['text'].strip()!r} ×{each['count']}" for each in row["top_tokens"][:8])
    splits = ", ".join(f"{row[f'windows_{split}']} to {split}" for split in ("explain", "select", "score"))
    yield f"fires on {row['n_tokens']} tokens ({row['density']:.3%}) in {row['n_contexts']} contexts; triage: {row['triage']}"
    yield f"activations  0 |{bars}| {row['max_activation']:.3g}"
    yield f"windows      {splits}"
    yield f"top tokens   {tokens}"
    for promoting in found.logits.iter_rows(named=True):
        yield f"promotes     {_logits(promoting, 'promoted')}"
        yield f"suppresses   {_logits(promoting, 'suppressed')}"


def _logits(row: Row, name: str) -> str:
    """The first tokens of a list, or why there is none."""
    return row["error"] or ", ".join(f"{each['text']!r} {each['logit']:.1f}" for each in row[name][:8])


def _explanations(found: Trace) -> Iterator[str]:
    for row in found.explanations.iter_rows(named=True):
        yield f"{row['explainer']:<12} {row['explanation'] or 'none: ' + row['error']}"


def _scores(scores: pl.DataFrame) -> Iterable[str]:
    keys = ["explainer", "scorer", "metric"]
    controls = scores["control"].drop_nulls().unique().sort().to_list()
    both = scores.filter(_IS_OWN)
    for control in controls:
        given = scores.filter(control=control).select(*keys, pl.col("value").alias(f"value_{control}"))
        both = both.join(given, on=keys, how="left", maintain_order="left")
    head = [*keys, "score", "95 %", *controls, "windows", "failed"]
    return _table(
        [head, *([*(row[key] for key in keys), *_score(row, controls)] for row in both.iter_rows(named=True))]
    )


def _score(row: Row, controls: Sequence[str]) -> list[str]:
    interval = "" if row["low"] is None else f"{row['low']:.2f}–{row['high']:.2f}"
    value = row["error"] or f"{row['value']:.2f}"
    others = [_number(row[f"value_{control}"]) for control in controls]
    return [value, interval, *others, str(row["n"]), str(row["n_failed"] or "")]


def _hypotheses(hypotheses: pl.DataFrame) -> Iterable[str]:
    rows = [
        [
            row["explainer"],
            "→" if row["is_chosen"] else "",
            _number(row["selection"]),
            row["source"] if row["provenance"] is None else f"{row['source']} ({row['provenance']})",
            row["explanation"] or f"none: {row['error']}",
        ]
        for row in hypotheses.iter_rows(named=True)
    ]
    return _table([["explainer", "", "selection", "source", "hypothesis"], *rows]) if rows else []


def _examples(examples: pl.DataFrame, few: int | None) -> Iterator[str]:
    for (sample, is_activating), group in groupby(
        examples.iter_rows(named=True), lambda row: (row["sample"], row["is_activating"])
    ):
        rows = list(group)
        shown = rows[:few]
        yield f"{sample}, {'activating' if is_activating else 'not activating'}: {_of(shown, rows)} by rank"
        for row in shown:
            yield from _window(f"{max(row['activations']):.3g}" if is_activating else "", row)


def _interventions(continuations: pl.DataFrame, few: int | None) -> Iterator[str]:
    """Prompts, and what the subject says after each: clean, and pushed as far as each target."""
    prompts = continuations.partition_by("intervention", "rank", maintain_order=True)
    for rows in prompts[:few]:
        first = rows.row(0, named=True)
        yield f"{first['intervention']}, prompt {first['rank']} (decile {first['decile']}): …{_tail(first['prompt'])}"
        for row in rows.sort("control", "target", nulls_last=False).iter_rows(named=True):
            whose = "at random" if row["control"] else "pushed"
            push = "clean" if row["target"] is None else f"{whose}, KL {row['target']:g}"
            yield f"    {push:<20} {row['error'] or ' '.join(row['text'].split())}"


def _tail(text: str) -> str:
    return " ".join(text.split())[-_WIDTH // 2 :]


def _judgements(found: Trace, few: int | None) -> Iterator[str]:
    seen = ["sample", "shard", "context", "start"]
    windows = found.examples.select(*seen, "file", "documents", "text", "offsets", "activations")
    judged = found.judgements.join(windows, on=seen, how="left", maintain_order="left")
    judged = judged if few is None else judged.filter(_IS_OWN)
    if len(judged):
        yield "worst first; misranked: share of the windows of the other kind that lie on the wrong side of this one"
    of = itemgetter("explainer", "scorer", "control")
    for _, group in groupby(judged.iter_rows(named=True), of):
        rows = list(group)
        shown = rows[:few]
        yield f"{rows[0]['scorer']}{_whose(rows[0])}: {_of(shown, rows)}"
        for row in shown:
            yield from _window(_judged(row), row)


def _whose(row: Row) -> str:
    """The explanation that was judged, if any."""
    if row["explainer"] == NONE:
        return ""
    if row["control"] == EMPTY:
        return " of an empty explanation"
    whose = f"latent {row['explanation_latent']}'s explanation by" if row["control"] else "the explanation by"
    return f" of {whose} {row['explainer']}, {row['explanation']!r}"


def _judged(row: Row) -> str:
    is_elsewhere = row["source"] == WRONG_TOKENS
    elsewhere = "fires where marked here, was shown with other marks" if is_elsewhere else "does not fire"
    truth = f"fires (decile {row['decile']})" if row["is_activating"] else elsewhere
    is_intruder = row["explainer"] == NONE and not row["is_activating"] and row["decile"] is not None
    if is_intruder:
        truth = f"the intruder among windows of decile {row['decile']}"
    if row["error"]:
        return f"{truth}, failed: {row['error']}"
    if row["simulated"]:
        return f"{truth}, simulated {_simulated(row)}"
    if is_intruder:
        return f"{truth}, {'found' if row['prediction'] else 'not found'}, {row['probability']:.3g}"
    if row["target"] is not None:
        return f"{truth}, {row['measure']:+.2f} nats at KL {row['target']:g}, {row['kl']:.2g} reached"
    labels = {True: "yes, ", False: "no, ", None: ""}
    said = row["measure"] if row["probability"] is None else row["probability"]
    surely = "" if said is None else f"{said:.3g}, "  # a label may come without a probability
    return f"{truth}, judged {labels[row['prediction']]}{surely}misranked {_number(row['misranked'])}"


def _simulated(row: Row) -> str:
    """The tokens on which a latent was said to be most active."""
    pieces = pieces_of(row["text"], row["offsets"])
    said = [(value, -n) for n, value in enumerate(row["simulated"]) if value is not None]
    return ", ".join(f"{pieces[-n]!r} {value:.1f}" for value, n in sorted(said, reverse=True)[:_FEW])


def _window(head: str, row: Row) -> Iterator[str]:
    text = mark(pieces_of(row["text"], row["offsets"]), row["activations"], 0, "<<", ">>").replace(SEPARATOR, " ¶ ")
    documents = " ¶ ".join(row["documents"])
    yield f"  {head}{' · ' if head else ''}{documents} ({row['file']}, context {row['context']}, token {row['start']})"
    indent = " " * 4
    yield fill(" ".join(text.split()), _WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def _call(rows: pl.DataFrame) -> Iterator[str]:
    """The first call among some rows, in full."""
    for row in rows.filter(pl.col("prompt_text").is_not_null()).head(1).iter_rows(named=True):
        yield f"{row['model']}, call {row['call']}, first made for {row['asset']} at {row['created_at']:%Y-%m-%d %H:%M:%S}"
        yield f"{row['tokens_in']} tokens in ({row['tokens_cached']} cached), {row['tokens_out']} out, {row['seconds']:.2f} s"
        yield from _gutter("prompt", row["prompt_text"])
        yield from _gutter("reply", _reply(row))


def _reply(row: Row) -> str:
    """The raw reply: a text, the log-probabilities of choices, or those of the prompt's last tokens."""
    logprobs = row["logprobs"]
    if logprobs is None:
        return repr(row["reply"])
    sampling = json.loads(row["sampling"])
    choices, after = sampling.get("choices"), sampling.get("after")
    if choices and after:
        found = (logprobs[start : start + len(choices)] for start in range(0, len(logprobs), len(choices)))
        likeliest = (max(zip(own, choices, strict=True))[1] for own in found)
        return f"likeliest of {' '.join(choices)} behind each {after!r}: {' '.join(likeliest)}"
    if choices:
        return ", ".join(f"{each!r} {value:.3f}" for each, value in zip(choices, logprobs, strict=True)) + " nats"
    return f"{sum(logprobs):.2f} nats over {len(logprobs)} tokens: {' '.join(f'{each:.1f}' for each in logprobs)}"


def _gutter(title: str, text: str) -> Iterator[str]:
    yield f"  ┌ {title}"
    yield from (f"  │ {line}" for line in text.splitlines())


def _weights(found: Trace) -> Iterable[str]:
    coder = found.dictionaries.row(0, named=True)
    k = f", k {coder['k']}" if coder["k"] else ""
    control = f", control {coder['control']}" if coder["control"] else ""
    size = f"{coder['format']}, {coder['width']}"
    what = f"{size} × {coder['d_in']}{k}{control}, on {coder['hookpoint']}" if coder["hookpoint"] else f"{size} latents"
    models = [("subject", row) for row in found.subject.iter_rows(named=True)]
    models += [(f"llm {row['llm']}", row) for row in found.llms.iter_rows(named=True)]
    rows = [[name, row["reference"], row["digest"]] for name, row in models]
    return _table([[f"dictionary {coder['dictionary']}", what, coder["digest"]], *rows])


def _versions(versions: pl.DataFrame) -> Iterable[str]:
    head = ["asset", "partition", "recipe", "data version", "code version", "tables", "run", "at"]
    yield f"study {', '.join(versions['study'].unique())}"
    yield from _table([head, *(_version(row) for row in versions.iter_rows(named=True))])


def _version(row: Row) -> list[str]:
    tables = " ".join(f"{each['table']}@{each['version']}" for each in row["table_versions"])
    digests = [row[name][:_START] for name in ("recipe", "data_version", "code_version")]
    return [row["asset"], row["partition"], *digests, tables, (row["run"] or "")[:8], f"{row['at']:%Y-%m-%d %H:%M}"]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _of(shown: Sequence[Row], rows: Sequence[Row]) -> str:
    return f"{len(rows)}" if len(shown) == len(rows) else f"{len(shown)} of {len(rows)}"


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows in columns as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
