"""Two runs on one partition at once: one of them publishes, and no rows are mixed."""

from pathlib import Path

import pyarrow as pa
import pytest

from latentlake.catalog import Catalog, Made, Publication
from latentlake.errors import SupersededError
from latentlake.lake import Lake
from latentlake.tables import TABLES

WHERE = {"explainer": "default", "dictionary": "one", "block": 0}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """An empty lake."""
    return Lake(str(tmp_path / "lake"), "tiny")


def begun(lake: Lake, run: str, attempt: int = 1) -> Made:
    publication = Publication(
        "explanations/default", "0|one", attempt, "", "recipe", "1", None, 0, 0, "study", run, None
    )
    return Catalog(lake).begin(Made(publication, (), WHERE, {}))


def commit(lake: Lake, made: Made, text: str) -> None:
    row = {**WHERE, "latent": 1, "explanation": text}
    rows = pa.Table.from_pylist([row], schema=TABLES["explanations"].schema)
    catalog = Catalog(lake)
    lake.replace("explanations", rows, WHERE, {}, lambda: catalog.require_current(made))


def texts(lake: Lake) -> list[str]:
    return lake.scan("explanations").collect()["explanation"].to_list()


def test_two_that_begin_the_same_attempt_get_numbers_of_their_own(lake: Lake) -> None:
    first, second = begun(lake, "first"), begun(lake, "second")
    assert [first.publication.attempt, second.publication.attempt] == [1, 2]


def test_the_one_that_began_last_publishes_and_the_other_is_refused(lake: Lake) -> None:
    first, second = begun(lake, "first"), begun(lake, "second")
    commit(lake, second, "of the second")
    with pytest.raises(SupersededError, match="begun by run second after"):
        commit(lake, first, "of the first")
    published = Catalog(lake).publish(second)
    assert texts(lake) == ["of the second"]
    assert published.run == "second"


def test_a_commit_that_was_prepared_before_the_other_began_is_refused(lake: Lake) -> None:
    """The other begins and commits between the fence and the commit: Delta finds the conflict, the fence is asked
    again."""
    first, asked = begun(lake, "first"), []
    commit(lake, first, "an earlier state")
    catalog = Catalog(lake)

    def fence() -> None:
        asked.append(True)
        catalog.require_current(first)
        if len(asked) == 1:
            commit(lake, begun(lake, "second"), "of the second")

    rows = pa.Table.from_pylist(
        [{**WHERE, "latent": 1, "explanation": "of the first"}], schema=TABLES["explanations"].schema
    )
    with pytest.raises(SupersededError):
        lake.replace("explanations", rows, WHERE, {}, fence)
    assert len(asked) == 2
    assert texts(lake) == ["of the second"]
