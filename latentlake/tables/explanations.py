"""Tables of explanations."""

import pyarrow as pa

from latentlake.tables.columns import BOOL, CALL, DOUBLE, ERROR, EXPLAINER, FLOAT, INT, STRING, UNIT, UNIT_KEYS, VECTORS
from latentlake.tables.table import Column, Table

DECLARED = (
    Table(
        "explanations",
        "One explanation a latent and explainer, or why there is none.",
        (EXPLAINER, *UNIT, Column("explanation", STRING, "the explanation, null on failure", True), ERROR, CALL),
        keys=("explainer", *UNIT_KEYS),
        identity=("latent", "explanation", "error"),
        partition_by=("explainer", "dictionary", "block"),
    ),
    Table(
        "hypotheses",
        "Every explanation that was considered.",
        (
            EXPLAINER,
            *UNIT,
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
            ERROR,
            CALL,
            Column(
                "provenance",
                STRING,
                "of a pin who said it and when; of what is taken over the explainer; else null",
                True,
            ),
        ),
        keys=("explainer", *UNIT_KEYS, "hypothesis"),
        identity=(),  # nothing reads them downstream: another hypothesis that was not chosen makes nothing stale
        partition_by=("explainer", "dictionary", "block"),
    ),
    Table(
        "embeddings",
        "Explanations as vectors, made by the embedder of the study's `search`: of latents that have an explanation.",
        (EXPLAINER, *UNIT, Column("vector", pa.list_(FLOAT), "the explanation's vector, of unit length")),
        keys=("explainer", *UNIT_KEYS),
        identity=(),  # they follow from explanations and embedder; their last digits differ from machine to machine
        partition_by=("explainer", "dictionary", "block"),
        layout=VECTORS,
    ),
)
