"""Tables of what a study begins with: models, dictionaries, which latents are asked about."""

from latentlake.tables.columns import DICTIONARY, DOUBLE, INT, LATENT, LONG, MODEL, STRING, TOKENS
from latentlake.tables.table import Column, Table

DECLARED = (
    Table(
        "subject",
        "The language model that is interpreted, resolved.",
        (*MODEL, Column("dtype", STRING, "type of the weights and activations")),
        keys=("reference",),
        identity=("digest", "dtype"),
    ),
    Table(
        "llms",
        "The models that explain, judge and embed, resolved.",
        (Column("llm", STRING, "name of the model in the study"), *MODEL, Column("engine", STRING, "what runs it")),
        keys=("llm",),
        identity=("digest",),
        partition_by=("llm",),
    ),
    Table(
        "coders",
        "Files of the coders that were trained here, in sparsify's format; they lie beside the tables, in `weights/`.",
        (
            DICTIONARY,
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
            DICTIONARY,
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
            DICTIONARY,
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
            DICTIONARY,
            LATENT,
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
            DICTIONARY,
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
            DICTIONARY,
            Column("choose", STRING, "`all`, `n` or `list`"),
            Column("n", INT, "number of latents to choose, null unless `n`", True),
            Column("latents", TOKENS, "latents to choose, null unless `list`", True),
        ),
        keys=("dictionary",),
        identity=("choose", "n", "latents"),
        partition_by=("dictionary",),
    ),
)
