"""Tables of comparisons of dictionaries."""

from latentlake.tables.columns import (
    BOOL,
    BY,
    COMPARISON,
    DOUBLE,
    ENDS,
    EXPLAINER,
    INT,
    LATENT,
    LONG,
    PAIR,
    STRING,
    TWO,
)
from latentlake.tables.table import Column, Table

DECLARED = (
    Table(
        "alignments",
        "Which latent of another dictionary each latent is, one to one, so that all pairs together are as near as can be; of two "
        "dictionaries a row each latent of the one whose name comes first.",
        (
            COMPARISON,
            PAIR,
            *TWO,
            LATENT,
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
            COMPARISON,
            PAIR,
            *TWO,
            BY,
            Column("latents", LONG, "latents of the dictionary"),
            Column("other_latents", LONG, "latents of the other"),
            Column("is_exact", BOOL, "whether all pairs were considered, or those of a latent's nearest alone"),
            Column("pairs", LONG, "latents that have a partner"),
            Column("mean", DOUBLE, "mean cosine of these (of `both` the lesser one; of `activations` the share)", True),
            *ENDS,
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
            COMPARISON,
            PAIR,
            *TWO,
            BY,
            EXPLAINER,
            Column("pairs", LONG, "aligned latents that both have an explanation"),
            Column("mean", DOUBLE, "mean cosine of their explanations, null without pairs", True),
            *ENDS,
            Column("shuffled", DOUBLE, "mean cosine after the exchange, null for fewer than two pairs", True),
            Column("difference", DOUBLE, "mean difference of the two, paired over latents", True),
            Column("difference_low", DOUBLE, "lower end of its 95 % interval", True),
            Column("difference_high", DOUBLE, "upper end", True),
        ),
        keys=("comparison", "pair", "by", "explainer"),
        identity=(),  # as `embeddings`
        partition_by=("comparison",),
    ),
)
