"""Types of columns, and the columns that several tables have."""

import pyarrow as pa

from latentlake.tables.table import Column, Layout

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

DICTIONARY = Column("dictionary", STRING, "name of the dictionary")
SHARD = Column("shard", STRING, "shard of the corpus, `<source>-<file>-0000`")
BLOCK = Column("block", INT, "block of the dictionary: `latent * blocks // width`")
LATENT = Column("latent", INT, "index of the latent in its dictionary")
EXPLAINER = Column("explainer", STRING, "name of the explainer; `none` where no explanation is judged")
INTERVENTION = Column("intervention", STRING, "name of the intervention")
PUSH = Column(
    "control",
    STRING,
    "null for the latent's decoder direction, `random_direction` for one drawn at random in its place",
    True,
)
SCORER = Column("scorer", STRING, "name of the scorer")
CONTROL = Column(
    "control",
    STRING,
    "null for the latent's own explanation, `shuffled` for another latent's, `empty` for an empty one; `random_direction` for "
    "its own, where another direction than the latent's was intervened with",
    True,
)
CONTEXT = Column("context", INT, "index of the context in its shard")
START = Column("start", INT, "position of the window's first token in its context")
ERROR = Column("error", STRING, "class of the failure, null where there is none", True)
CALL = Column("call", STRING, "key of the model call in `calls`, null where none was made", True)
MODEL = (
    Column("reference", STRING, "where the study says that the model is"),
    Column("revision", STRING, "resolved revision; of local files, the start of their digest"),
    Column("digest", STRING, "digest of the files that make up the model"),
)
METRIC = Column(
    "metric",
    STRING,
    "`auroc`, `balanced_accuracy`, `f1`, `sensitivity`, `specificity`; of interventions `nats` and `kl`, the divergence reached; "
    "of simulation `pearson`; of the intruder `accuracy`; of ratings `rating`",
)
TARGET = Column("target", DOUBLE, "of interventions: the mean divergence that was aimed at, nats; else null", True)
MEASURED = (
    Column("value", DOUBLE, "the score, null where it is not defined", True),
    Column("low", DOUBLE, "lower end of the 95 % interval", True),
    Column("high", DOUBLE, "upper end of the 95 % interval", True),
    Column("n", LONG, "windows judged; of the intruder groups of them, of ratings people"),
    Column("n_failed", LONG, "windows whose judgement failed"),
    Column("worst", DOUBLE, "the score if every failed judgement were as wrong as can be", True),
    Column("best", DOUBLE, "the score if every failed judgement were right", True),
)
FIGURES = tuple(column.name for column in MEASURED)
CORRELATIONS = (
    Column("spearman", DOUBLE, "Spearman's rank correlation, null where there is none", True),
    Column("spearman_low", DOUBLE, "lower end of the 95 % interval, null also at -1 and 1", True),
    Column("spearman_high", DOUBLE, "upper end", True),
    Column("pearson", DOUBLE, "Pearson's correlation", True),
    Column("pearson_low", DOUBLE, "lower end of the 95 % interval", True),
    Column("pearson_high", DOUBLE, "upper end", True),
)
COMPARISON = Column("comparison", STRING, "name of the comparison")
PAIR = Column("pair", STRING, "the two dictionaries, `one-other`, in the order of the alphabet")
TWO = (
    Column("dictionary", STRING, "the first of the two"),
    Column("other", STRING, "the second"),
)
BY = Column(
    "by",
    STRING,
    "how latents are aligned: `decoder`, `encoder`, `both` where these give the same partner, or `activations`",
)
ENDS = (
    Column("low", DOUBLE, "lower end of its 95 % interval", True),
    Column("high", DOUBLE, "upper end", True),
)
UNSCORED = Column("error", STRING, "why there is no score, null where there is one", True)
UNIT = (DICTIONARY, BLOCK, LATENT)
UNIT_KEYS = ("dictionary", "block", "latent")
WINDOW_KEYS = ("shard", "context", "start")

# Measured on 131,072 vectors of 384 numbers in one file: read in .85 CPU-seconds, 290 MB held at most, 187 MB on the disk. With
# dictionaries 1.09, 280, 197; in one row group besides 1.18, 460, 188; split by bytes (BYTE_STREAM_SPLIT) 1.53, 250, 172.
VECTORS = Layout(row_group=8192, encodings={})
