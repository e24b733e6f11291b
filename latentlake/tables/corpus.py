"""Tables of what the subject reads."""

from latentlake.tables.columns import CONTEXT, DOCUMENTS, INT, SHARD, STRING, TOKENS
from latentlake.tables.table import Column, Table

DECLARED = (
    Table(
        "contexts",
        "What the subject reads: documents packed into contexts of tokens.",
        (
            SHARD,
            CONTEXT,
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
            SHARD,
            Column("number", INT, "number of the document in its shard, from 0"),
            Column("document", STRING, "its name: a field of the record, or file and place"),
            Column("text", STRING, "its text, null where the corpus gives tokens", True),
            Column("n_tokens", INT, "tokens of the document"),
        ),
        keys=("shard", "number"),
        identity=("number", "document", "text"),
        partition_by=("shard",),
    ),
)
