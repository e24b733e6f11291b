"""The stages without inputs: what the study names outside the lake, written down as rows."""

from typing import Any

import pyarrow as pa

from latentlake.dictionaries import trained_digest
from latentlake.hookpoints import neutral, site_of, written_by
from latentlake.keeping.weights import weights_digest
from latentlake.origins import ModelFacts
from latentlake.tables import TABLES
from latentlake.work import Tables, Work


def subject(work: Work) -> Tables:
    """The resolved subject."""
    row = {**_model(work.origins.subject), "dtype": work.study.subject.dtype}
    return _table("subject", row)


def llms(work: Work) -> Tables:
    """A resolved explainer, judge or embedder."""
    name = work.values["llm"]
    row = {"llm": name, **_model(work.origins.llm(name)), "engine": work.study.llms[name].engine}
    return _table("llms", row)


def dictionaries(work: Work) -> Tables:
    """A sparse coder and its hookpoint, verified against the subject; or planted latents, with their rules.

    Raises:
        InputError: the coder does not fit the subject.
    """
    work.origins.verify()
    choice, coder = work.study.dictionaries[work.dictionary], work.origins.dictionary(work.dictionary)
    facts = coder.facts
    row = {
        "dictionary": work.dictionary,
        "control": choice.control,
        "format": coder.format,
        "stated_model": facts.model,
        "stated_hookpoint": facts.hookpoint,
        "digest": coder.digest
        if choice.train is None
        else trained_digest(weights_digest(work.frame("coder").collect()), coder.digest),
        **{name: getattr(facts, name) for name in ("kind", "family", "width", "d_in", "d_out", "k", "l0")},
    }
    if choice.planted is None:
        return {**_table("dictionaries", row | _place(work)), "planted": TABLES["planted"].empty()}
    rules = [
        {
            "dictionary": work.dictionary,
            "latent": latent,
            "kind": rule.kind,
            "rule": rule.model_dump_json(exclude={"kind"}),
        }
        for latent, rule in enumerate(work.origins.rules(work.dictionary))
    ]
    known = pa.Table.from_pylist(rules, schema=TABLES["planted"].schema)
    return {**_table("dictionaries", row | dict.fromkeys(("d_in", "d_out", "family"))), "planted": known}


def _place(work: Work) -> dict[str, Any]:
    """Where in the subject a coder reads and writes."""
    choice = work.study.dictionaries[work.dictionary]
    site = site_of(choice.hookpoint)
    return {
        "hookpoint": neutral(choice.hookpoint),
        "module": work.handles.subject().module_of(choice.hookpoint),
        "writes": written_by(choice.hookpoint, choice.writes),
        "site": "module" if site is None else site.site or "residual",
    }


def selections(work: Work) -> Tables:
    """Which latents of a dictionary are asked about."""
    wanted = work.study.dictionaries[work.dictionary].latents
    row = {
        "dictionary": work.dictionary,
        "choose": "list" if isinstance(wanted, tuple) else "n" if isinstance(wanted, int) else "all",
        "n": wanted if isinstance(wanted, int) else None,
        "latents": list(wanted) if isinstance(wanted, tuple) else None,
    }
    return _table("selections", row)


def _model(facts: ModelFacts) -> dict[str, Any]:
    return {"reference": facts.reference, "revision": facts.revision, "digest": facts.digest}


def _table(name: str, row: dict[str, Any]) -> Tables:
    return {name: pa.Table.from_pylist([row], schema=TABLES[name].schema)}
