"""Results as rows of one flat table, a row a latent and explanation: what Parquet files and data sets are made of."""

import json
import math
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from latentlake.errors import InputError
from latentlake.exports import Entry, Rated, Said
from latentlake.exports.given import Given, Part
from latentlake.exports.text import latent_of, number_of, rest_of, text_of
from latentlake.scorers import NONE
from latentlake.tables.columns import BOOL, DOUBLE, FLOAT, INT, LONG, STRING, TOKENS
from latentlake.tables.table import Column

_SCORES = pa.list_(
    pa.struct(
        [
            ("scorer", STRING),
            ("metric", STRING),
            ("control", STRING),
            ("value", DOUBLE),
            ("low", DOUBLE),
            ("high", DOUBLE),
            ("n", LONG),
            ("n_failed", LONG),
            ("error", STRING),
        ]
    )
)
_SCORE = [field.name for field in _SCORES.value_type]
_TOKENS = pa.list_(pa.struct([("text", STRING), ("count", LONG), ("mass", DOUBLE)]))
_LOGITS = pa.list_(pa.struct([("text", STRING), ("logit", DOUBLE)]))

EXPLANATIONS = (
    Column("dictionary", STRING, "name of the sparse coder in the study"),
    Column("hookpoint", STRING, "what it reads of the model", True),
    Column("latent", INT, "index of the latent"),
    Column("explainer", STRING, "what explained it, null where nothing was asked to", True),
    Column("explanation", STRING, "the explanation, null where there is none", True),
    Column("error", STRING, "why there is no explanation", True),
    Column("model", STRING, "the language model that explained, null where none was asked", True),
    Column(
        "scores",
        _SCORES,
        "of the explanation, by scorer and metric, with 95 % intervals; `control` is null for the latent's own explanation, "
        "`shuffled` for another latent's, `empty` for an empty one",
    ),
    Column("latent_scores", _SCORES, "the same by scorers that judge no explanation, but the latent"),
    Column("n_tokens", LONG, "tokens on which the latent fires"),
    Column("n_contexts", LONG, "contexts in which it fires"),
    Column("density", DOUBLE, "share of the tokens on which it fires"),
    Column("max_activation", FLOAT, "its largest activation"),
    Column("histogram", pa.list_(LONG), "firings by activation / maximum, in ten equal bins"),
    Column("top_tokens", _TOKENS, "tokens by activation mass, with how often it fires on them"),
    Column(
        "promoted", _LOGITS, "tokens that its decoder direction promotes most, null where that was not computed", True
    ),
    Column("suppressed", _LOGITS, "tokens that it suppresses most", True),
    Column("triage", STRING, "`ok`, or what is odd: `dead`, `rare`, `dense`, `single_token`, `position_bound`"),
    Column("is_chosen", BOOL, "whether it was to be explained"),
    Column("reason", STRING, "why it was not", True),
)

EXAMPLES = (
    Column("dictionary", STRING, "name of the sparse coder in the study"),
    Column("latent", INT, "index of the latent"),
    Column("sample", STRING, "name of the sample: what explainers were shown, or scorers judged"),
    Column("rank", INT, "rank in the sample, among windows in which it fires or among the others"),
    Column("is_activating", BOOL, "whether the latent fires in the window"),
    Column("source", STRING, "how the window was drawn"),
    Column("decile", INT, "tenth of strength, 9 the strongest; null where it does not fire", True),
    Column("shard", STRING, "shard of the corpus"),
    Column("context", INT, "context in the shard"),
    Column("start", INT, "position of the window's first token in the context"),
    Column("text", STRING, "the window; U+2029 stands between two documents"),
    Column("tokens", TOKENS, "token ids"),
    Column("activations", pa.list_(FLOAT), "activation on each token, 0 where the latent does not fire"),
    Column("offsets", TOKENS, "character of `text` at which the text of each token begins"),
)


def explanations(part: Part) -> pl.DataFrame:
    """Rows with the columns of `EXPLANATIONS`."""
    said = part.rows("explanations", "explainer").select("latent", "explainer", "explanation", "error")
    scores = part.rows("scores", "explainer", "scorer", "metric", "control").select(
        "latent", "explainer", score=pl.struct(_SCORE)
    )
    own = scores.group_by("latent", "explainer", maintain_order=True).agg(scores="score")
    none = own.filter(explainer=NONE).select("latent", latent_scores="scores")
    logits = part.rows("logits").select("latent", "promoted", "suppressed")
    names = {name: part.given.llm_of("explainers", name) for name in part.given.explainers}
    facts: dict[str, Any] = {
        "dictionary": pl.lit(part.name),
        "hookpoint": pl.lit(part.dictionary["hookpoint"], pl.String),
    }
    rows = (
        part.rows("latents")
        .join(said, on="latent", how="left", maintain_order="left_right")
        .join(own, on=["latent", "explainer"], how="left", maintain_order="left")
        .join(none, on="latent", how="left", maintain_order="left")
        .join(logits, on="latent", how="left", maintain_order="left")
    )
    return rows.with_columns(
        pl.col("scores", "latent_scores").fill_null([]),
        model=pl.col("explainer").replace_strict(names, default=None, return_dtype=pl.String),
        **facts,
    )


def examples(part: Part) -> pl.DataFrame:
    """Rows with the columns of `EXAMPLES`."""
    return part.rows("examples", "sample", "is_activating", "rank")


class Files:
    """Parquet files of some columns, each opened when its first rows come."""

    def __init__(self, given: Given, columns: tuple[Column, ...], stack: ExitStack) -> None:
        fields = [pa.field(c.name, c.type, c.nullable, {"comment": c.doc}) for c in columns]
        self._schema = pa.schema(fields, {"latentlake": json.dumps(given.provenance, sort_keys=True)})
        self._stack = stack
        self._writers: dict[Path, pq.ParquetWriter] = {}

    def add(self, path: Path, rows: pl.DataFrame) -> None:
        """Rows of a file, as a group of theirs."""
        if path not in self._writers:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writers[path] = self._stack.enter_context(pq.ParquetWriter(path, self._schema, compression="zstd"))
        arrow = rows.select(self._schema.names).to_arrow(compat_level=pl.CompatLevel.oldest())
        self._writers[path].write_table(_as(arrow, self._schema))


def _as(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Rows with the types of a schema; of structs the fields that it has."""
    columns = [_values(rows[field.name].combine_chunks(), field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _values(values: pa.Array, wanted: pa.DataType) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
    if not pa.types.is_list(wanted) or not pa.types.is_struct(wanted.value_type):
        return values.cast(wanted)
    return pa.array(values.to_pylist(), type=wanted)


def read(file: Path) -> Iterator[Entry]:
    """What rows of a Parquet file say. A file needs the columns ``latent`` and ``explanation``; without ``dictionary`` its name
    stands for the coder. Columns that are none of `EXPLANATIONS` are carried along.

    Raises:
        InputError: it cannot be read, lacks a column, or a value is of another kind.
    """
    number = 0
    try:
        for number, row in enumerate(_rows(file), start=1):
            yield from _entries(row, file, f"{file}, row {number}")
    except (OSError, pa.ArrowException) as error:
        after = f" after row {number}" if number else ""
        raise InputError(f"{file} cannot be read as Parquet{after}: {error}; write the file anew") from error


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    """Rows of a Parquet file, without the columns that are ours and not read."""
    with pq.ParquetFile(file) as table:
        names = table.schema_arrow.names
        for name in ("latent", "explanation"):
            if name not in names:
                raise InputError(f"{file} has no column {name!r}; it has {', '.join(names)}")
        ours = {column.name for column in EXPLANATIONS}
        wanted = [name for name in names if name not in ours or name in _READ]
        for batch in table.iter_batches(_ROWS, columns=wanted):
            yield from batch.to_pylist()


_READ = ("dictionary", "latent", "explainer", "explanation", "scores")
_ROWS = 4096  # of a file that are held


def _entries(row: dict[str, Any], file: Path, place: str) -> Iterator[Entry]:
    said = text_of(row, "explanation", place, may_lack=True)
    source = text_of(row, "dictionary", place, may_lack=True) or file.stem
    explainer = text_of(row, "explainer", place, may_lack=True) or ""
    latent = latent_of(row, "latent", place)
    if said is None:
        return
    yield Said(source, explainer, latent, said, place, _plain(rest_of(row, *_READ)))
    scores = row.get("scores") or []
    if not isinstance(scores, list) or not all(isinstance(score, dict) for score in scores):
        raise InputError(f"{place}, field 'scores': it must be a list of scores, and is {scores!r:.50}")
    for score in scores:
        value = number_of(score, "value", place)
        if score.get("control") is None and value is not None:
            scorer = f"{text_of(score, 'scorer', place)}_{text_of(score, 'metric', place)}"
            yield Rated(
                source, explainer, scorer, latent, value, place, _plain(rest_of(score, "scorer", "metric", "value"))
            )


def _plain(value: Any) -> Any:
    """A value of a column as JSON has it: what JSON has no kind for as a text, and no number at all as null."""
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and math.isnan(value):
        return None
    is_plain = value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
    return value if is_plain else str(value)
