"""The study's sections on results: how they are found, shown and checked."""

from typing import Annotated

from pydantic import Field

from latentlake.choices import Choices, EmbedderName, Name, Refers


class Search(Choices):
    """How explanations are found by meaning. ``embedder``: what makes vectors of them, and of what is looked for. ``query``: put
    before the latter, for embedders that want an instruction; explanations are embedded as they stand.
    """

    embedder: EmbedderName
    query: str = ""


class Report(Choices):
    """What the report shows; it changes nothing else. ``best``, ``worst``, ``random``: how many latents of each dictionary there
    are in full, the best and the worst explained, and of all by hash. They are ranked by ``scorer`` in its main metric, of the
    explanations of ``explainer``; by default by the study's first scorer that judges explanations, of the first explainer that it
    judges. ``listed``: how many latents of each dictionary the list has at most; where there are more, they are drawn by hash.
    """

    best: Annotated[int, Field(ge=0)] = 10
    worst: Annotated[int, Field(ge=0)] = 10
    random: Annotated[int, Field(ge=0)] = 10
    listed: Annotated[int, Field(ge=0)] = 2000
    scorer: Name | None = None
    explainer: Annotated[str | None, Refers("explainers")] = None


class Checks(Choices):
    """Bounds beyond which a check fails; they change what is said of results, and no result.

    ``failed_calls``: share of explanations, and of judgements, that may fail. ``control``: how far from 0.5 the mean
    AUROC of shuffled explanations may be. ``variance_unexplained``: share of the variance that a coder may leave out of what
    it reconstructs.
    """

    failed_calls: Annotated[float, Field(ge=0, le=1)] = 0.05
    control: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    variance_unexplained: Annotated[float, Field(ge=0)] = 0.5
