"""A launch stops before it exceeds the study's budget; what was answered is kept."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlake.calls.budget import Meter, price_of
from latentlake.calls.ledger import Asker, Ledger
from latentlake.errors import BudgetError
from latentlake.fakes import FakeLLM
from latentlake.lake import Lake
from latentlake.protocols import Asked, Call, Generate, Reply
from latentlake.sections.models import Budget, Price
from tests.workbench import Workbench

PRICE = Price(input=2.0, cached=0.5, output=10.0)


def calls(n: int) -> list[Asked]:
    return [Asked(latent, Call("about ", f"number {latent}", Generate(5))) for latent in range(n)]


def ask(lake: Lake, budget: Budget, asked: Sequence[Asked], launch: str = "one", llm: FakeLLM | None = None) -> int:
    """Ask within a budget; returns the number of calls made."""
    llm = llm or FakeLLM(batch=2)
    asker = Asker("judge", "revision", "fake", "scores/x", "one", launch)
    with suppress(BudgetError):
        Ledger(lake, budget, PRICE).ask(lambda: llm, asker, asked, lambda *_: None)
    return len(llm.made)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """An empty lake."""
    return Lake(str(tmp_path / "lake"), "tiny")


@pytest.mark.parametrize(("budget", "made"), [(0, 0), (3, 3), (7, 7), (100, 10)])
def test_no_more_calls_are_made_than_allowed(lake: Lake, budget: int, made: int) -> None:
    assert ask(lake, Budget(calls=budget), calls(10)) == made


def test_calls_in_the_ledger_cost_nothing(lake: Lake) -> None:
    ask(lake, Budget(), calls(6), launch="before")
    assert ask(lake, Budget(calls=4), calls(10)) == 4


def test_a_budget_is_of_one_launch_and_outlives_its_runs(lake: Lake) -> None:
    assert ask(lake, Budget(calls=4), calls(3)) == 3
    assert ask(lake, Budget(calls=4), calls(10)) == 1
    assert ask(lake, Budget(calls=4), calls(10), launch="another") == 4


@settings(deadline=None, max_examples=20)
@given(tokens=st.integers(0, 400), n=st.integers(1, 12))
def test_tokens_and_money_are_never_exceeded(tmp_path_factory: pytest.TempPathFactory, tokens: int, n: int) -> None:
    for budget in (Budget(tokens=tokens), Budget(money=tokens * 4e-6)):
        lake = Lake(str(tmp_path_factory.mktemp("lake")), "tiny")
        made = ask(lake, budget, calls(n))
        spent = Meter(lake, budget, "one").spent()
        assert spent.calls == made
        assert spent.tokens <= (budget.tokens if budget.tokens is not None else spent.tokens)
        assert spent.money <= (budget.money if budget.money is not None else spent.money)
        bound = 33  # bytes of the longest prompt, what is added to it, and the reply's tokens
        if made < n and budget.tokens is not None:
            assert spent.tokens + bound > budget.tokens  # it stopped for no less


def test_a_reply_costs_what_was_read_anew_and_from_the_cache_and_written() -> None:
    reply = Reply("x", None, tokens_in=1000, tokens_cached=400, tokens_out=10, finish_reason="stop", seconds=0.0)
    assert price_of(reply, PRICE) == pytest.approx((600 * 2.0 + 400 * 0.5 + 10 * 10.0) / 1e6)
    assert price_of(reply, Price(input=2.0, output=10.0)) == pytest.approx((1000 * 2.0 + 10 * 10.0) / 1e6)
    assert price_of(reply, None) is None


def test_a_run_stops_with_what_to_do_and_goes_on_when_the_budget_is_raised(materialized: Workbench) -> None:
    path = materialized.folder / "detection.txt"
    path.write_text(path.read_text().replace("Answer yes or no.", "Say yes or no."))
    materialized.study["budget"] = {"calls": 20}
    with pytest.raises(BudgetError, match=r"budget of the study \({'calls': 20}\).*raise `budget`"):
        materialized.run()
    made = len(materialized.llm.made)
    assert made == 20
    materialized.study["budget"] = {"calls": 1000}
    assert materialized.run() == {"scores/default/detection": 2, "agreements": 1}
    calls = materialized.lake.open("tiny").scan("calls").filter(asset="scores/default/detection")
    assert calls.select(pl.col("key").is_duplicated().any()).collect().item() is False
