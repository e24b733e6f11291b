"""Tables of what a lake says of itself: what is published, shards, studies, the report."""

import pyarrow as pa

from latentlake.tables.columns import INPUTS, LONG, PROMPTS, SHARD, STRING, TIME, VERSIONS, WHERE
from latentlake.tables.table import Column, Table

DECLARED = (
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
            SHARD,
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
)
