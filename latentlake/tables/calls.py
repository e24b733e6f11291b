"""Tables of model calls and their prompts, for all studies of a lake."""

import pyarrow as pa

from latentlake.tables.columns import BOOL, DOUBLE, ERROR, INT, LIKELIEST, LONG, STRING, TIME
from latentlake.tables.table import Column, Table

DECLARED = (
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
            ERROR,
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
