"""Tables of latents: where they fire, what they are near to and what they promote."""

import pyarrow as pa

from latentlake.tables.columns import (
    BOOL,
    DICTIONARY,
    DOUBLE,
    FLOAT,
    INT,
    LATENT,
    LOGITS,
    LONG,
    SHARD,
    STRING,
    TOP_TOKENS,
    UNIT,
    UNIT_KEYS,
)
from latentlake.tables.table import Column, Layout, Table

DECLARED = (
    Table(
        "activations",
        "Activations of latents, sparse: one row each where a latent fires; sorted by latent and position.",
        (
            DICTIONARY,
            SHARD,
            LATENT,
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
            *UNIT,
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
        keys=UNIT_KEYS,
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
            *UNIT,
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
        keys=(*UNIT_KEYS, "neighbour"),
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
            *UNIT,
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
        keys=UNIT_KEYS,
        identity=("latent", "promoted", "suppressed", "error"),
        partition_by=("dictionary", "block"),
    ),
)
