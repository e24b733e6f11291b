"""Tables of judgements and scores."""

import pyarrow as pa

from latentlake.tables.columns import (
    BOOL,
    CALL,
    CONTEXT,
    CONTROL,
    CORRELATIONS,
    DICTIONARY,
    DOUBLE,
    ERROR,
    EXPLAINER,
    FAILURES,
    FIGURES,
    INT,
    LONG,
    MEASURED,
    METRIC,
    SCORER,
    SHARD,
    START,
    STRING,
    TARGET,
    UNIT,
    UNIT_KEYS,
    UNSCORED,
    WINDOW_KEYS,
)
from latentlake.tables.table import Column, Table

DECLARED = (
    Table(
        "judgements",
        "One row a judged window; of the intruder a row a trial, with the place and source of the window in which the latent "
        "does not fire.",
        (
            EXPLAINER,
            SCORER,
            *UNIT,
            CONTROL,
            Column("explanation_latent", INT, "latent whose explanation was judged, null for an empty one", True),
            SHARD,
            CONTEXT,
            START,
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
            TARGET,
            Column("kl", DOUBLE, "of interventions: the divergence that was reached on the prompt, nats", True),
            Column(
                "simulated",
                pa.list_(DOUBLE),
                "of simulation: the activation predicted for each token of the window, null where it has no text",
                True,
            ),
            ERROR,
            CALL,
        ),
        keys=("explainer", "scorer", *UNIT_KEYS, "control", "target", *WINDOW_KEYS),
        identity=(
            "latent",
            "control",
            "explanation_latent",
            *WINDOW_KEYS,
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
            EXPLAINER,
            SCORER,
            *UNIT,
            CONTROL,
            METRIC,
            *MEASURED,
            Column("failures", FAILURES, "failed judgements by the class of their failure"),
            Column("n_left", LONG, "windows that were not judged, since the score was decided; else null", True),
            UNSCORED,
        ),
        keys=("explainer", "scorer", *UNIT_KEYS, "control", "metric"),
        identity=("latent", "control", "metric", *FIGURES, "failures", "error"),
        partition_by=("explainer", "scorer", "dictionary", "block"),
    ),
    Table(
        "slices",
        "Scores of part of the judgements: of one decile of activation against all other windows, of all activating windows "
        "against the others of one source, or of one target of an intervention.",
        (
            EXPLAINER,
            SCORER,
            *UNIT,
            CONTROL,
            METRIC,
            Column(
                "decile", INT, "decile of strength of the activating windows, from 0, the weakest; null for all", True
            ),
            Column(
                "source", STRING, "how the windows in which the latent does not fire were drawn; null for all", True
            ),
            TARGET,
            *MEASURED,
            UNSCORED,
        ),
        keys=("explainer", "scorer", *UNIT_KEYS, "control", "metric", "decile", "source", "target"),
        identity=(),  # they follow from the judgements, as scores do, and nothing is made of them
        partition_by=("explainer", "scorer", "dictionary", "block"),
    ),
    Table(
        "agreements",
        "How far two scorers agree: correlations over latents of their scores, each in its main metric, of the latents' own "
        "explanations. A row two scorers that judge the explanations of one explainer, or none.",
        (
            DICTIONARY,
            Column("explainer", STRING, "name of the explainer; `none` where neither judges an explanation"),
            SCORER,
            Column("other", STRING, "name of the other scorer, which comes after it in the alphabet"),
            Column("metric", STRING, "metric of the scorer"),
            Column("other_metric", STRING, "metric of the other"),
            Column("latents", LONG, "latents that have both scores"),
            *CORRELATIONS,
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
            *(column.name for column in CORRELATIONS),
            "error",
        ),
        partition_by=("dictionary",),
    ),
)
