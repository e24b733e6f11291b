"""Every table, declared once: columns, types, keys, identity, partitions, layout.

Schemas, empty frames, checks before publication, the columns in the Dagster UI and ``docs/tables.md`` follow from here.
Types that Delta lacks (unsigned, float16, categorical, fixed-size list) are not used.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import polars as pl
import pyarrow as pa
import pyarrow.types

from latentlake.errors import LakeError

STRING, INT, LONG, FLOAT, DOUBLE, BOOL = pa.string(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.bool_()
TIME = pa.timestamp("us", tz="UTC")
TOKENS = pa.list_(INT)
DOCUMENTS = pa.list_(pa.struct([("document", STRING), ("number", INT), ("start", INT), ("end_offset", INT)]))
TOP_TOKENS = pa.list_(pa.struct([("token", INT), ("text", STRING), ("count", LONG), ("mass", DOUBLE)]))
LOGITS = pa.list_(pa.struct([("token", INT), ("text", STRING), ("logit", DOUBLE)]))
RISES = pa.list_(pa.struct([("token", INT), ("text", STRING), ("rise", DOUBLE)]))
INPUTS = pa.list_(pa.struct([("asset", STRING), ("partition", STRING), ("data_version", STRING)]))
WHERE = pa.list_(pa.struct([("column", STRING), ("value", STRING)]))
PROMPTS = pa.list_(pa.struct([("prompt", STRING), ("digest", STRING)]))
LIKELIEST = pa.list_(pa.list_(pa.struct([("token", STRING), ("logprob", DOUBLE)])))
FAILURES = pa.list_(pa.struct([("error", STRING), ("n", LONG)]))
VERSIONS = pa.list_(pa.struct([("table", STRING), ("version", LONG), ("files", STRING)]))


@dataclass(frozen=True)
class Column:
    """A column: name, Arrow type, what it holds (with units), and whether it may be null."""

    name: str
    type: pa.DataType
    doc: str
    nullable: bool = False


@dataclass(frozen=True)
class Layout:
    """How Parquet files are written: rows a group, encodings by column (plain where absent), compression level."""

    row_group: int
    encodings: Mapping[str, str]
    zstd_level: int = 3


@dataclass(frozen=True)
class Table:
    """A table. ``identity``: the columns whose rows make a data version. ``partition_by``: the unit of replacement.

    ``is_shared``: one for all studies of a lake.
    """

    name: str
    doc: str
    columns: tuple[Column, ...]
    keys: tuple[str, ...]
    identity: tuple[str, ...] = ()
    partition_by: tuple[str, ...] = ()
    layout: Layout | None = None
    is_shared: bool = False

    @cached_property
    def schema(self) -> pa.Schema:
        """Arrow schema, with the documentation in the fields' metadata."""
        return pa.schema([pa.field(c.name, c.type, c.nullable, {"comment": c.doc}) for c in self.columns])

    def empty(self) -> pl.DataFrame:
        """A frame without rows."""
        return self._empty.clone()

    @cached_property
    def _empty(self) -> pl.DataFrame:
        frame = pl.from_arrow(self.schema.empty_table())
        assert isinstance(frame, pl.DataFrame)
        return frame

    def conform(self, rows: pa.Table | pl.DataFrame) -> pa.Table:
        """Rows as the table declares them: its columns in order and type.

        Raises:
            LakeError: a column is missing or of another type, a value is null where none may be, a key occurs twice.
        """
        arrow = rows.to_arrow(compat_level=pl.CompatLevel.oldest()) if isinstance(rows, pl.DataFrame) else rows
        missing = [c.name for c in self.columns if c.name not in arrow.column_names]
        if missing:
            raise LakeError(
                f"table {self.name}: the column(s) {', '.join(missing)} are missing from the rows to be written"
            )
        arrow = arrow.select([c.name for c in self.columns])
        for column, field in zip(self.columns, arrow.schema, strict=True):
            if not _is_kind(field.type, column.type):
                raise LakeError(f"table {self.name}: column {column.name} is {field.type}, it must be {column.type}")
        try:
            arrow = arrow.cast(self.schema)
        except (pa.ArrowInvalid, ValueError) as error:
            raise LakeError(f"table {self.name}: the rows to be written do not fit its columns: {error}") from error
        self._check_values(arrow)
        return arrow

    def _check_values(self, rows: pa.Table) -> None:
        for column in self.columns:
            if not column.nullable and rows[column.name].null_count:
                raise LakeError(f"table {self.name}: {rows[column.name].null_count} null(s) in column {column.name}")
        if self.keys:
            keys = pl.from_arrow(rows.select(list(self.keys)))
            assert isinstance(keys, pl.DataFrame)
            repeated = 0 if _ascend(keys) else keys.height - keys.n_unique()
            if repeated:
                raise LakeError(f"table {self.name}: {repeated} row(s) repeat the key ({', '.join(self.keys)})")


def _ascend(keys: pl.DataFrame) -> bool:
    """Whether each row comes after the one before it, so that none is there twice: a tenth of the cost of counting them."""
    is_after = pl.lit(False)
    for name in reversed(keys.columns):
        own, before = pl.col(name), pl.col(name).shift(1)
        is_after = (own > before) | ((own == before) & is_after)
    return bool(keys.select(is_after.slice(1).fill_null(False).all()).item())


def _is_kind(found: pa.DataType, declared: pa.DataType) -> bool:
    """Whether a type differs from the declared one in width alone: a cast then changes no value or fails."""
    if pa.types.is_nested(declared):
        if pa.types.is_struct(declared):
            return pa.types.is_struct(found) and all(_is_kind(found.field(f.name).type, f.type) for f in declared)
        is_list = pa.types.is_list(found) or pa.types.is_large_list(found)
        return is_list and _is_kind(found.value_type, declared.value_type)
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_temporal, _is_text)
    return pa.types.is_null(found) or any(is_kind(found) and is_kind(declared) for is_kind in kinds)


def _is_text(type_: pa.DataType) -> bool:
    is_text: bool = pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_)
    return is_text


_DICTIONARY = Column("dictionary", STRING, "name of the dictionary")
_SHARD = Column("shard", STRING, "shard of the corpus, `<source>-<file>-0000`")
_BLOCK = Column("block", INT, "block of the dictionary: `latent * blocks // width`")
_LATENT = Column("latent", INT, "index of the latent in its dictionary")
_EXPLAINER = Column("explainer", STRING, "name of the explainer; `none` where no explanation is judged")
_INTERVENTION = Column("intervention", STRING, "name of the intervention")
_PUSH = Column(
    "control",
    STRING,
    "null for the latent's decoder direction, `random_direction` for one drawn at random in its place",
    True,
)
_SCORER = Column("scorer", STRING, "name of the scorer")
_CONTROL = Column(
    "control",
    STRING,
    "null for the latent's own explanation, `shuffled` for another latent's, `empty` for an empty one; `random_direction` for "
    "its own, where another direction than the latent's was intervened with",
    True,
)
_CONTEXT = Column("context", INT, "index of the context in its shard")
_START = Column("start", INT, "position of the window's first token in its context")
_ERROR = Column("error", STRING, "class of the failure, null where there is none", True)
_CALL = Column("call", STRING, "key of the model call in `calls`, null where none was made", True)
_MODEL = (
    Column("reference", STRING, "where the study says that the model is"),
    Column("revision", STRING, "resolved revision; of local files, the start of their digest"),
    Column("digest", STRING, "digest of the files that make up the model"),
)
_METRIC = Column(
    "metric",
    STRING,
    "`auroc`, `balanced_accuracy`, `f1`, `sensitivity`, `specificity`; of interventions `nats` and `kl`, the divergence reached; "
    "of simulation `pearson`; of the intruder `accuracy`; of ratings `rating`",
)
_TARGET = Column("target", DOUBLE, "of interventions: the mean divergence that was aimed at, nats; else null", True)
_MEASURED = (
    Column("value", DOUBLE, "the score, null where it is not defined", True),
    Column("low", DOUBLE, "lower end of the 95 % interval", True),
    Column("high", DOUBLE, "upper end of the 95 % interval", True),
    Column("n", LONG, "windows judged; of the intruder groups of them, of ratings people"),
    Column("n_failed", LONG, "windows whose judgement failed"),
    Column("worst", DOUBLE, "the score if every failed judgement were as wrong as can be", True),
    Column("best", DOUBLE, "the score if every failed judgement were right", True),
)
_FIGURES = tuple(column.name for column in _MEASURED)
_CORRELATIONS = (
    Column("spearman", DOUBLE, "Spearman's rank correlation, null where there is none", True),
    Column("spearman_low", DOUBLE, "lower end of the 95 % interval, null also at -1 and 1", True),
    Column("spearman_high", DOUBLE, "upper end", True),
    Column("pearson", DOUBLE, "Pearson's correlation", True),
    Column("pearson_low", DOUBLE, "lower end of the 95 % interval", True),
    Column("pearson_high", DOUBLE, "upper end", True),
)
_COMPARISON = Column("comparison", STRING, "name of the comparison")
_PAIR = Column("pair", STRING, "the two dictionaries, `one-other`, in the order of the alphabet")
_TWO = (
    Column("dictionary", STRING, "the first of the two"),
    Column("other", STRING, "the second"),
)
_BY = Column(
    "by",
    STRING,
    "how latents are aligned: `decoder`, `encoder`, `both` where these give the same partner, or `activations`",
)
_ENDS = (
    Column("low", DOUBLE, "lower end of its 95 % interval", True),
    Column("high", DOUBLE, "upper end", True),
)
_UNSCORED = Column("error", STRING, "why there is no score, null where there is one", True)
_UNIT = (_DICTIONARY, _BLOCK, _LATENT)
_UNIT_KEYS = ("dictionary", "block", "latent")
_WINDOW_KEYS = ("shard", "context", "start")

# Measured on 131,072 vectors of 384 numbers in one file: read in .85 CPU-seconds, 290 MB held at most, 187 MB on the disk. With
# dictionaries 1.09, 280, 197; in one row group besides 1.18, 460, 188; split by bytes (BYTE_STREAM_SPLIT) 1.53, 250, 172.
_VECTORS = Layout(row_group=8192, encodings={})

_DECLARED = (
    Table(
        "subject",
        "The language model that is interpreted, resolved.",
        (*_MODEL, Column("dtype", STRING, "type of the weights and activations")),
        keys=("reference",),
        identity=("digest", "dtype"),
    ),
    Table(
        "llms",
        "The models that explain, judge and embed, resolved.",
        (Column("llm", STRING, "name of the model in the study"), *_MODEL, Column("engine", STRING, "what runs it")),
        keys=("llm",),
        identity=("digest",),
        partition_by=("llm",),
    ),
    Table(
        "coders",
        "Files of the coders that were trained here, in sparsify's format; they lie beside the tables, in `weights/`.",
        (
            _DICTIONARY,
            Column("file", STRING, "name of the file"),
            Column("sha256", STRING, "SHA-256 of the file, and what it is called in `weights/`"),
            Column("bytes", LONG, "size of the file"),
        ),
        keys=("dictionary", "file"),
        identity=("file", "sha256"),
        partition_by=("dictionary",),
    ),
    Table(
        "trainings",
        "How the coders that were trained here came along, a row a step.",
        (
            _DICTIONARY,
            Column("step", INT, "number of the step, from 0"),
            Column("tokens", LONG, "tokens seen before it"),
            Column(
                "variance_unexplained",
                DOUBLE,
                "share of the variance of the step's activations that is not reconstructed",
            ),
            Column("auxiliary", DOUBLE, "the loss that revives dead latents, before its weight"),
            Column("dead", INT, "latents that had not fired for the study's `dead_after` tokens"),
        ),
        keys=("dictionary", "step"),
        identity=(),  # what came out of it is in `coders`
        partition_by=("dictionary",),
    ),
    Table(
        "dictionaries",
        "Sparse coders and the hookpoints they read.",
        (
            _DICTIONARY,
            Column(
                "hookpoint", STRING, "what the coder reads, by its neutral name; null where latents are planted", True
            ),
            Column("module", STRING, "the same by the model's own name: module, and whether its input or output", True),
            Column("writes", STRING, "the hookpoint that the decoder speaks of", True),
            Column("site", STRING, "site of the hookpoint in its block: `residual`, `mlp`, …, or `module`", True),
            Column("kind", STRING, "`sae`, `transcoder`, `skip transcoder`, `neurons` or `planted`", True),
            Column(
                "family",
                STRING,
                "how it chooses what fires: `topk`, `groupmax`, `relu`, `jumprelu`, `batchtopk`, `gated`",
                True,
            ),
            Column("control", STRING, "`directions`, `initialised` or `model`, null where it is no control", True),
            Column("format", STRING, "format of the checkpoint"),
            Column("width", INT, "number of latents"),
            Column("d_in", INT, "width of what the hookpoint gives", True),
            Column("d_out", INT, "width of what the decoder writes", True),
            Column("k", INT, "latents that may be active on a token, null where thresholds decide", True),
            Column("l0", DOUBLE, "mean number of latents that fire, where the checkpoint states it", True),
            Column("stated_model", STRING, "the model that the checkpoint says it was trained on", True),
            Column("stated_hookpoint", STRING, "the hookpoint that it says it was trained on, in its own words", True),
            Column("digest", STRING, "digest of the checkpoint's files, and of how they are read"),
        ),
        keys=("dictionary",),
        identity=("hookpoint", "writes", "format", "width", "d_in", "k", "control", "digest"),
        partition_by=("dictionary",),
    ),
    Table(
        "planted",
        "What is known of planted latents: the rules by which they fire.",
        (
            _DICTIONARY,
            _LATENT,
            Column("kind", STRING, "`token`, `class`, `context` or `topic`"),
            Column("rule", STRING, "the rule, as JSON"),
        ),
        keys=("dictionary", "latent"),
        identity=(),  # the digest in `dictionaries` is of them
        partition_by=("dictionary",),
    ),
    Table(
        "reconstructions",
        "How well coders reconstruct what they read (of transcoders: what they write), on contexts drawn by hash.",
        (
            _DICTIONARY,
            Column("n_tokens", LONG, "tokens that were encoded; BOS and separators are not"),
            Column("variance_unexplained", DOUBLE, "share of the variance that is not reconstructed"),
            Column("l0", DOUBLE, "mean number of latents that fire on a token"),
            Column("cross_entropy", DOUBLE, "mean over predicted tokens, nats"),
            Column("cross_entropy_spliced", DOUBLE, "the same with the reconstruction in the place of the hookpoint"),
            Column("cross_entropy_added", DOUBLE, "their difference"),
        ),
        keys=("dictionary",),
        identity=("n_tokens", "variance_unexplained", "l0", "cross_entropy", "cross_entropy_spliced"),
        partition_by=("dictionary",),
    ),
    Table(
        "selections",
        "Which latents of a dictionary are asked about.",
        (
            _DICTIONARY,
            Column("choose", STRING, "`all`, `n` or `list`"),
            Column("n", INT, "number of latents to choose, null unless `n`", True),
            Column("latents", TOKENS, "latents to choose, null unless `list`", True),
        ),
        keys=("dictionary",),
        identity=("choose", "n", "latents"),
        partition_by=("dictionary",),
    ),
    Table(
        "contexts",
        "What the subject reads: documents packed into contexts of tokens.",
        (
            _SHARD,
            _CONTEXT,
            Column("tokens", TOKENS, "token ids; the last context of a shard, or of a document, may be shorter"),
            Column("excluded", TOKENS, "positions that carry no activation: BOS and separators"),
            Column(
                "offsets",
                TOKENS,
                "character of its document at which the text of each token begins, -1 for BOS and separators; null where the "
                "corpus gives tokens",
                True,
            ),
            Column(
                "documents",
                DOCUMENTS,
                "documents in the context: name, number in `documents`, position at which each starts, and the character at "
                "which what the context holds of it ends",
            ),
            Column("split", STRING, "`explain`, `select` or `score`, by a hash of the tokens"),
        ),
        keys=("shard", "context"),
        identity=("context", "tokens", "excluded", "offsets", "split"),
        partition_by=("shard",),
    ),
    Table(
        "documents",
        "The documents that the contexts were made of.",
        (
            _SHARD,
            Column("number", INT, "number of the document in its shard, from 0"),
            Column("document", STRING, "its name: a field of the record, or file and place"),
            Column("text", STRING, "its text, null where the corpus gives tokens", True),
            Column("n_tokens", INT, "tokens of the document"),
        ),
        keys=("shard", "number"),
        identity=("number", "document", "text"),
        partition_by=("shard",),
    ),
    Table(
        "activations",
        "Activations of latents, sparse: one row each where a latent fires; sorted by latent and position.",
        (
            _DICTIONARY,
            _SHARD,
            _LATENT,
            Column("position", INT, "index of the token among all tokens of the shard, BOS included"),
            Column(
                "activation",
                FLOAT,
                "activation, rounded to 11 significant bits, or 8 (`activations.precision` of the study)",
            ),
        ),
        keys=("latent", "position"),
        partition_by=("dictionary", "shard"),
        layout=Layout(
            row_group=131_072,
            encodings={
                "latent": "DELTA_BINARY_PACKED",
                "position": "DELTA_BINARY_PACKED",
                "activation": "BYTE_STREAM_SPLIT",
            },
        ),
    ),
    Table(
        "latents",
        "Every latent of every dictionary: statistics, triage, chosen or why not.",
        (
            *_UNIT,
            Column("n_tokens", LONG, "tokens on which the latent fires"),
            Column("n_contexts", LONG, "contexts in which it fires"),
            Column("density", DOUBLE, "share of the tokens on which it fires"),
            Column("context_density", DOUBLE, "share of the contexts in which it fires"),
            Column("max_activation", FLOAT, "largest activation, 0 for a dead latent"),
            Column("histogram", pa.list_(LONG), "firings by activation / maximum, in ten equal bins"),
            Column("top_tokens", TOP_TOKENS, "tokens by activation mass, in the split `explain` alone"),
            Column("tokens_before", TOP_TOKENS, "tokens before those on which it fires, by its mass there; likewise"),
            Column("tokens_after", TOP_TOKENS, "tokens after them; likewise"),
            Column(
                "token_share", DOUBLE, "share of the mass on the first of `top_tokens`, null where it has none", True
            ),
            Column("position_share", DOUBLE, "largest share of the mass at one position of the context", True),
            Column("windows_explain", LONG, "windows in which it fires, in the split `explain`"),
            Column("windows_select", LONG, "the same in the split `select`"),
            Column("windows_score", LONG, "the same in the split `score`"),
            Column(
                "triage",
                STRING,
                "the first that holds of `dead`, `rare` (too few windows), `dense`, `single_token`, `position_bound`; else `ok`",
            ),
            Column("is_chosen", BOOL, "whether it is explained and scored"),
            Column("reason", STRING, "why it is not chosen, null where it is", True),
        ),
        keys=_UNIT_KEYS,
        identity=(
            "latent",
            "n_tokens",
            "n_contexts",
            "max_activation",
            "histogram",
            "top_tokens",
            "tokens_before",
            "tokens_after",
            "position_share",
            "windows_explain",
            "windows_select",
            "windows_score",
            "triage",
            "is_chosen",
            "reason",
        ),
        partition_by=("dictionary", "block"),
    ),
    Table(
        "neighbours",
        "Pairs of latents of a dictionary: those that are among the nearest of a latent in one way or another.",
        (
            *_UNIT,
            Column("neighbour", INT, "index of the other latent"),
            Column(
                "decoder_cosine",
                DOUBLE,
                "cosine of their decoder directions, null for neurons and planted latents",
                True,
            ),
            Column(
                "encoder_cosine",
                DOUBLE,
                "cosine of their encoder directions, null for neurons and planted latents",
                True,
            ),
            Column("n_together", LONG, "tokens on which both fire"),
            Column("jaccard", DOUBLE, "the same as a share of those on which either does, null if none", True),
            Column("decoder_rank", INT, "place among the nearest by decoder, from 0, null if not among them", True),
            Column("encoder_rank", INT, "the same by encoder", True),
            Column("co_occurrence_rank", INT, "the same by `jaccard`", True),
        ),
        keys=(*_UNIT_KEYS, "neighbour"),
        identity=(
            "latent",
            "neighbour",
            "decoder_cosine",
            "encoder_cosine",
            "n_together",
            "jaccard",
            "decoder_rank",
            "encoder_rank",
            "co_occurrence_rank",
        ),
        partition_by=("dictionary", "block"),
    ),
    Table(
        "logits",
        "What the chosen latents promote: logits of a latent's decoder direction, as if it were all that the residual stream "
        "holds at the end (scaled to a mean square of 1, through the final norm and the unembedding, without their biases), less "
        "their mean over all tokens that have a text. The others, special or padding, are left out.",
        (
            *_UNIT,
            Column(
                "promoted", LOGITS, "tokens with the largest logits, largest first; null where there are none", True
            ),
            Column("suppressed", LOGITS, "tokens with the smallest, smallest first; likewise", True),
            Column(
                "error",
                STRING,
                "`not_residual` where the decoder does not write to the residual stream, `no_direction` where it writes nothing",
                True,
            ),
        ),
        keys=_UNIT_KEYS,
        identity=("latent", "promoted", "suppressed", "error"),
        partition_by=("dictionary", "block"),
    ),
    Table(
        "examples",
        "Windows of the chosen latents, by sample.",
        (
            Column("sample", STRING, "name of the sample"),
            *_UNIT,
            Column("rank", INT, "place in the draw, from 0, apart for activating and non-activating windows"),
            Column("is_activating", BOOL, "whether the latent fires in the window"),
            Column(
                "source",
                STRING,
                "how the window was drawn: the sampler, or of windows in which the latent does not fire the source of negatives",
            ),
            Column(
                "in_place_of",
                STRING,
                "source of negatives that had no window left for this place, null where none had",
                True,
            ),
            Column(
                "decile",
                INT,
                "decile of strength among the latent's windows of the split, null if not activating",
                True,
            ),
            _SHARD,
            _CONTEXT,
            _START,
            Column("tokens", TOKENS, "token ids"),
            Column("activations", pa.list_(FLOAT), "activation on each token, 0 where the latent does not fire"),
            Column("text", STRING, "text of the window, as in its documents; U+2029 stands between two of them"),
            Column("offsets", TOKENS, "character of `text` at which the text of each token begins"),
        ),
        keys=("sample", *_UNIT_KEYS, "is_activating", "rank"),
        identity=(
            "latent",
            "rank",
            "is_activating",
            "source",
            "in_place_of",
            "decile",
            "shard",
            "context",
            "start",
            "tokens",
            "activations",
            "text",
            "offsets",
        ),
        partition_by=("sample", "dictionary", "block"),
    ),
    Table(
        "strengths",
        "How strongly latents are pushed in an intervention: for the latent's decoder direction, and for one drawn at random in "
        "its place, the strength at which the subject is moved as far as is asked.",
        (
            _INTERVENTION,
            *_UNIT,
            _PUSH,
            Column("target", DOUBLE, "mean divergence KL(clean || pushed) that is aimed at, nats"),
            Column(
                "strength",
                DOUBLE,
                "how many times the direction, of length 1, is added; null where none was sought",
                True,
            ),
            Column(
                "kl",
                DOUBLE,
                "mean divergence over the tuning prompts at that strength, nats; null if no number",
                True,
            ),
            Column("n", INT, "tuning prompts"),
            Column(
                "error",
                STRING,
                "`kl_out_of_reach`: no strength comes within a tenth of the target; `no_prompts`: every window is too short up "
                "to the first token on which the latent fires; `no_direction`: the decoder direction is 0; `writes_nowhere`: "
                "the latent is planted",
                True,
            ),
        ),
        keys=("intervention", *_UNIT_KEYS, "control", "target"),
        identity=("latent", "control", "target", "strength", "kl", "n", "error"),
        partition_by=("intervention", "dictionary", "block"),
    ),
    Table(
        "token_changes",
        "Which tokens become likelier after the prompts when latents are pushed, those whose probability rises most.",
        (
            _INTERVENTION,
            *_UNIT,
            Column("target", DOUBLE, "mean divergence that was aimed at, nats"),
            Column("rank", INT, "rank of the prompt's window in its sample"),
            _SHARD,
            _CONTEXT,
            _START,
            Column("tokens", RISES, "tokens, and how far their probability rises, furthest first"),
        ),
        keys=("intervention", *_UNIT_KEYS, "target", *_WINDOW_KEYS),
        identity=("latent", "target", "rank", *_WINDOW_KEYS, "tokens"),
        partition_by=("intervention", "dictionary", "block"),
    ),
    Table(
        "continuations",
        "What the subject says after prompts: windows up to the first token on which the latent fires.",
        (
            _INTERVENTION,
            *_UNIT,
            _PUSH,
            Column("target", DOUBLE, "mean divergence that was aimed at, nats; null for clean continuations", True),
            Column("rank", INT, "rank of the prompt's window in its sample"),
            Column("decile", INT, "decile of strength of the window, from 0"),
            Column("source", STRING, "how the window was drawn"),
            _SHARD,
            _CONTEXT,
            _START,
            Column("strength", DOUBLE, "how many times the direction was added; null where it was not", True),
            Column("prompt", STRING, "text of the prompt, without BOS"),
            Column("text", STRING, "what follows, empty where the text ends at once; null on failure", True),
            Column("kl", DOUBLE, "divergence KL(clean || pushed) of the next token's distribution, nats", True),
            Column(
                "error",
                STRING,
                "`overflow` where the push is more than the subject's numbers hold; why there is no push, as in `strengths`",
                True,
            ),
            _CALL,
        ),
        keys=("intervention", *_UNIT_KEYS, "control", "target", *_WINDOW_KEYS),
        identity=(
            "latent",
            "control",
            "target",
            *_WINDOW_KEYS,
            "rank",
            "decile",
            "source",
            "prompt",
            "text",
            "kl",
            "error",
        ),
        partition_by=("intervention", "dictionary", "block"),
    ),
    Table(
        "explanations",
        "One explanation a latent and explainer, or why there is none.",
        (_EXPLAINER, *_UNIT, Column("explanation", STRING, "the explanation, null on failure", True), _ERROR, _CALL),
        keys=("explainer", *_UNIT_KEYS),
        identity=("latent", "explanation", "error"),
        partition_by=("explainer", "dictionary", "block"),
    ),
    Table(
        "hypotheses",
        "Every explanation that was considered.",
        (
            _EXPLAINER,
            *_UNIT,
            Column("hypothesis", INT, "number of the hypothesis, from 0"),
            Column(
                "source",
                STRING,
                "where it comes from: `draw`, `tokens`, `imported`, `pinned`, `borrowed`, or `otherwise`: taken over",
            ),
            Column("explanation", STRING, "the explanation, null on failure", True),
            Column("selection", DOUBLE, "AUROC on the select sample, null where none was made", True),
            Column("is_chosen", BOOL, "whether it became the explanation"),
            Column(
                "from_dictionary", STRING, "of a borrowed one: the dictionary of the latent that it was given to", True
            ),
            Column("from_latent", INT, "and that latent", True),
            _ERROR,
            _CALL,
            Column(
                "provenance",
                STRING,
                "of a pin who said it and when; of what is taken over the explainer; else null",
                True,
            ),
        ),
        keys=("explainer", *_UNIT_KEYS, "hypothesis"),
        identity=(),  # nothing reads them downstream: another hypothesis that was not chosen makes nothing stale
        partition_by=("explainer", "dictionary", "block"),
    ),
    Table(
        "embeddings",
        "Explanations as vectors, made by the embedder of the study's `search`: of latents that have an explanation.",
        (_EXPLAINER, *_UNIT, Column("vector", pa.list_(FLOAT), "the explanation's vector, of unit length")),
        keys=("explainer", *_UNIT_KEYS),
        identity=(),  # they follow from explanations and embedder; their last digits differ from machine to machine
        partition_by=("explainer", "dictionary", "block"),
        layout=_VECTORS,
    ),
    Table(
        "alignments",
        "Which latent of another dictionary each latent is, one to one, so that all pairs together are as near as can be; of two "
        "dictionaries a row each latent of the one whose name comes first.",
        (
            _COMPARISON,
            _PAIR,
            *_TWO,
            _LATENT,
            Column("decoder_partner", INT, "its partner by decoder directions, null where it has none", True),
            Column("decoder_cosine", DOUBLE, "the cosine of these", True),
            Column("encoder_partner", INT, "its partner by encoder directions, likewise", True),
            Column("encoder_cosine", DOUBLE, "the cosine of these", True),
            Column("activation_partner", INT, "its partner by the tokens on which both fire, likewise", True),
            Column("jaccard", DOUBLE, "these tokens as a share of those on which either does", True),
            Column(
                "is_shared",
                BOOL,
                "whether decoder and encoder give the same partner, at the study's `shared` cosine or more each; null where they "
                "are not compared",
                True,
            ),
        ),
        keys=("comparison", "pair", "latent"),
        identity=(
            "latent",
            "decoder_partner",
            "decoder_cosine",
            "encoder_partner",
            "encoder_cosine",
            "activation_partner",
            "jaccard",
            "is_shared",
        ),
        partition_by=("comparison", "pair"),
    ),
    Table(
        "comparisons",
        "How near the latents of two dictionaries are that are aligned, a row each way of aligning them.",
        (
            _COMPARISON,
            _PAIR,
            *_TWO,
            _BY,
            Column("latents", LONG, "latents of the dictionary"),
            Column("other_latents", LONG, "latents of the other"),
            Column("is_exact", BOOL, "whether all pairs were considered, or those of a latent's nearest alone"),
            Column("pairs", LONG, "latents that have a partner"),
            Column("mean", DOUBLE, "mean cosine of these (of `both` the lesser one; of `activations` the share)", True),
            *_ENDS,
            Column("median", DOUBLE, "its median", True),
            Column("similar", LONG, "pairs at the study's `shared` cosine or more: of `both`, the shared latents"),
            Column("share", DOUBLE, "the same as a share of the latents of the smaller dictionary"),
            Column("similar_firing", LONG, "the same pairs, of latents that fire in the corpus"),
            Column(
                "share_firing", DOUBLE, "as a share of those of the dictionary in which fewer fire, null if none", True
            ),
            Column(
                "error", STRING, "`other_space` where directions have other widths, null where they are compared", True
            ),
        ),
        keys=("comparison", "pair", "by"),
        identity=(),  # they follow from the alignments, and nothing is made of them
        partition_by=("comparison",),
    ),
    Table(
        "similarities",
        "How alike the explanations of aligned latents are: cosines of their vectors, over pairs of latents that both have one, "
        "beside the same with partners that were exchanged for one another.",
        (
            _COMPARISON,
            _PAIR,
            *_TWO,
            _BY,
            _EXPLAINER,
            Column("pairs", LONG, "aligned latents that both have an explanation"),
            Column("mean", DOUBLE, "mean cosine of their explanations, null without pairs", True),
            *_ENDS,
            Column("shuffled", DOUBLE, "mean cosine after the exchange, null for fewer than two pairs", True),
            Column("difference", DOUBLE, "mean difference of the two, paired over latents", True),
            Column("difference_low", DOUBLE, "lower end of its 95 % interval", True),
            Column("difference_high", DOUBLE, "upper end", True),
        ),
        keys=("comparison", "pair", "by", "explainer"),
        identity=(),  # as `embeddings`
        partition_by=("comparison",),
    ),
    Table(
        "judgements",
        "One row a judged window; of the intruder a row a trial, with the place and source of the window in which the latent "
        "does not fire.",
        (
            _EXPLAINER,
            _SCORER,
            *_UNIT,
            _CONTROL,
            Column("explanation_latent", INT, "latent whose explanation was judged, null for an empty one", True),
            _SHARD,
            _CONTEXT,
            _START,
            Column(
                "source",
                STRING,
                "how the window was drawn; `wrong_tokens` where the latent fires, but on other tokens than are marked",
            ),
            Column(
                "decile",
                INT,
                "decile of strength, null if not activating; of the intruder that of the windows beside it",
                True,
            ),
            Column(
                "is_activating", BOOL, "whether the latent fires in the window, and where tokens are marked, on these"
            ),
            Column(
                "prediction", BOOL, "whether the judge says that it fires; of the intruder whether it is found", True
            ),
            Column("probability", DOUBLE, "probability that the judge gives to that", True),
            Column("measure", DOUBLE, "what the scorer measured: a cosine, or nats", True),
            _TARGET,
            Column("kl", DOUBLE, "of interventions: the divergence that was reached on the prompt, nats", True),
            Column(
                "simulated",
                pa.list_(DOUBLE),
                "of simulation: the activation predicted for each token of the window, null where it has no text",
                True,
            ),
            _ERROR,
            _CALL,
        ),
        keys=("explainer", "scorer", *_UNIT_KEYS, "control", "target", *_WINDOW_KEYS),
        identity=(
            "latent",
            "control",
            "explanation_latent",
            *_WINDOW_KEYS,
            "is_activating",
            "prediction",
            "probability",
            "measure",
            "target",
            "kl",
            "simulated",
            "error",
        ),
        partition_by=("explainer", "scorer", "dictionary", "block"),
    ),
    Table(
        "scores",
        "One row a latent, control and metric.",
        (
            _EXPLAINER,
            _SCORER,
            *_UNIT,
            _CONTROL,
            _METRIC,
            *_MEASURED,
            Column("failures", FAILURES, "failed judgements by the class of their failure"),
            Column("n_left", LONG, "windows that were not judged, since the score was decided; else null", True),
            _UNSCORED,
        ),
        keys=("explainer", "scorer", *_UNIT_KEYS, "control", "metric"),
        identity=("latent", "control", "metric", *_FIGURES, "failures", "error"),
        partition_by=("explainer", "scorer", "dictionary", "block"),
    ),
    Table(
        "slices",
        "Scores of part of the judgements: of one decile of activation against all other windows, of all activating windows "
        "against the others of one source, or of one target of an intervention.",
        (
            _EXPLAINER,
            _SCORER,
            *_UNIT,
            _CONTROL,
            _METRIC,
            Column(
                "decile", INT, "decile of strength of the activating windows, from 0, the weakest; null for all", True
            ),
            Column(
                "source", STRING, "how the windows in which the latent does not fire were drawn; null for all", True
            ),
            _TARGET,
            *_MEASURED,
            _UNSCORED,
        ),
        keys=("explainer", "scorer", *_UNIT_KEYS, "control", "metric", "decile", "source", "target"),
        identity=(),  # they follow from the judgements, as scores do, and nothing is made of them
        partition_by=("explainer", "scorer", "dictionary", "block"),
    ),
    Table(
        "agreements",
        "How far two scorers agree: correlations over latents of their scores, each in its main metric, of the latents' own "
        "explanations. A row two scorers that judge the explanations of one explainer, or none.",
        (
            _DICTIONARY,
            Column("explainer", STRING, "name of the explainer; `none` where neither judges an explanation"),
            _SCORER,
            Column("other", STRING, "name of the other scorer, which comes after it in the alphabet"),
            Column("metric", STRING, "metric of the scorer"),
            Column("other_metric", STRING, "metric of the other"),
            Column("latents", LONG, "latents that have both scores"),
            *_CORRELATIONS,
            Column(
                "error",
                STRING,
                "why there is no correlation: `few_latents`, fewer than 4, or `constant`, one scorer gives all the same; null "
                "where there is one",
                True,
            ),
        ),
        keys=("dictionary", "explainer", "scorer", "other"),
        identity=(
            "explainer",
            "scorer",
            "other",
            "metric",
            "other_metric",
            "latents",
            *(column.name for column in _CORRELATIONS),
            "error",
        ),
        partition_by=("dictionary",),
    ),
    Table(
        "reports",
        "The report of the study: an HTML file, which lies beside the tables.",
        (
            Column("file", STRING, "name of the file, in the folder of the study's tables"),
            Column("sha256", STRING, "SHA-256 of its bytes, in hex"),
            Column("bytes", LONG, "its size"),
            Column("latents", LONG, "latents that were chosen, of all dictionaries"),
            Column("shown", LONG, "latents that it shows in full"),
            Column("listed", LONG, "latents in its list"),
        ),
        keys=("file",),
        identity=("file", "sha256", "bytes", "latents", "shown", "listed"),
    ),
    Table(
        "partitions",
        "What is published: append-only; of a partition, the row with the highest attempt counts, `published` before "
        "`building`.",
        (
            Column("asset", STRING, "name of the asset"),
            Column("partition", STRING, "key of the partition, empty for an asset without partitions"),
            Column("where", WHERE, "values of the partition columns under which the tables hold its rows"),
            Column("attempt", LONG, "number of the attempt at this partition, from 1"),
            Column(
                "state",
                STRING,
                "`building`, `published`, `dropped` (its rows were deleted to save room, and can be derived again) or `pruned`",
            ),
            Column("recipe", STRING, "digest of the code version and of the inputs' data versions"),
            Column(
                "code_version", STRING, "version of the stage's code and of the choices that hold for all partitions"
            ),
            Column("data_version", STRING, "digest of the rows, null while building", True),
            Column(
                "inputs",
                INPUTS,
                "data versions of the inputs; of one that is read in several partitions, null and the digest of theirs",
            ),
            Column("rows", LONG, "rows in the partition, of the asset's first table"),
            Column("retryable_failures", LONG, "failed model calls that the next run makes again"),
            Column(
                "table_versions",
                VERSIONS,
                "the Delta tables that hold the rows: version, and digest of the names of the files",
            ),
            Column("study", STRING, "digest of the study"),
            Column("run", STRING, "id of the run", True),
            Column("at", TIME, "when the row was written"),
        ),
        keys=("asset", "partition", "attempt", "state", "run"),
    ),
    Table(
        "shards",
        "Shards of the corpus in order of registration.",
        (
            _SHARD,
            Column("ordinal", LONG, "place in the order of registration, from 0"),
            Column("source", STRING, "name of the source in the study"),
            Column("file", STRING, "file name"),
        ),
        keys=("shard",),
    ),
    Table(
        "studies",
        "The studies under which this root was written, the last one being the present one.",
        (
            Column("ordinal", LONG, "place in time, from 0"),
            Column("study", STRING, "digest of the study"),
            Column("choices", STRING, "the study, as JSON"),
            Column("assets", pa.list_(STRING), "names of the study's assets"),
            Column("shards", pa.list_(STRING), "shards that the corpus files made"),
            Column("prompts", PROMPTS, "the study's prompts"),
            Column("at", TIME, "when the row was written"),
        ),
        keys=("ordinal",),
    ),
    Table(
        "calls",
        "The ledger: every model call ever made, for all studies of the lake.",
        (
            Column("key", STRING, "digest of model, revision, sampling, prompt and draw"),
            Column("draw", INT, "number of the draw"),
            Column("model", STRING, "name of the model in the study"),
            Column("revision", STRING, "revision of the model"),
            Column("sampling", STRING, "how the reply was sampled, as JSON"),
            Column("engine", STRING, "what ran the model"),
            Column("asset", STRING, "asset that first made the call"),
            Column("dictionary", STRING, "dictionary that it was first made for"),
            Column("latent", INT, "latent that it was first made for"),
            Column("prompt", STRING, "key of the prompt in `prompts`"),
            Column("reply", STRING, "raw reply", True),
            Column("logprobs", pa.list_(DOUBLE), "log-probabilities kept, nats", True),
            Column("likeliest", LIKELIEST, "at each token of a reply the likeliest, nats, if asked for", True),
            Column("tokens_in", LONG, "tokens of the prompt"),
            Column("tokens_cached", LONG, "tokens of the prompt that were not computed anew"),
            Column("tokens_out", LONG, "tokens generated"),
            Column("finish_reason", STRING, "`stop` or `length`", True),
            _ERROR,
            Column("is_retryable", BOOL, "whether a failed call may succeed later"),
            Column("attempts", INT, "attempts made"),
            Column("seconds", DOUBLE, "time of the last attempt, of a batch its share, seconds"),
            Column("price", DOUBLE, "price paid, in the currency of the study; null where nothing is charged", True),
            Column("created_at", TIME, "when the reply came"),
            Column("launch", STRING, "launch that made the call: what a budget counts", True),
            Column(
                "kl", DOUBLE, "of the subject under a push: divergence of the next token's distribution, nats", True
            ),
        ),
        keys=(),  # two runs may race to make one call; readers take the first row of a key
        is_shared=True,
    ),
    Table(
        "prompts",
        "Prompts, each text once: a prompt is its prefix's text followed by its own; of a chat, its messages.",
        (
            Column("prompt", STRING, "digest of prefix and text"),
            Column("prefix", STRING, "prompt that comes before this text, null where none does", True),
            Column(
                "role", STRING, "who says it, where a message of a chat begins here; null where a text goes on", True
            ),
            Column("text", STRING, "the text"),
        ),
        keys=(),  # as in `calls`
        is_shared=True,
    ),
)

TABLES: dict[str, Table] = {table.name: table for table in _DECLARED}


def markdown() -> str:
    """All tables as one Markdown page; ``docs/tables.md`` holds it."""
    lines = ["# Tables", "", "Made from `latentlake/tables.py`.", ""]
    for table in _DECLARED:
        lines += [f"## {table.name}", "", table.doc, ""]
        if table.partition_by:
            lines += [f"Partitioned by {', '.join(f'`{name}`' for name in table.partition_by)}.", ""]
        lines += ["| column | type | |", "|---|---|---|"]
        for c in table.columns:
            mark = " (key)" if c.name in table.keys else ""
            lines.append(f"| `{c.name}`{mark} | {c.type}{', may be null' if c.nullable else ''} | {c.doc} |")
        lines.append("")
    return "\n".join(lines)
