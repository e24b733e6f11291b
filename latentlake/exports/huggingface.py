"""A data set folder as the Hugging Face hub takes it: Parquet files, and their card ``README.md``.

``datasets.load_dataset(folder)`` gives explanations; ``load_dataset(folder, "examples")`` the windows they are of.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from latentlake.errors import InputError
from latentlake.exports import Entry, Form
from latentlake.exports.given import Given
from latentlake.exports.rows import EXAMPLES, EXPLANATIONS, Files, examples, explanations, read
from latentlake.registry import EXPORTS
from latentlake.tables.table import Column

_CITATION = """@misc{paulo2024automatically,
  title = {Automatically Interpreting Millions of Features in Large Language Models},
  author = {Gonçalo Paulo and Alex Mallen and Caden Juang and Nora Belrose},
  year = {2024},
  eprint = {2410.13928},
  archivePrefix = {arXiv}
}"""
_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)


@EXPORTS.register("huggingface")
class HuggingFace(Form):
    """A file a dictionary of explanations, as in the form ``parquet``, and one of examples."""

    title = "Hugging Face"

    def write(self, given: Given, folder: Path) -> None:
        """The files and the card."""
        n = 0
        with ExitStack() as stack:
            said, shown = Files(given, EXPLANATIONS, stack), Files(given, EXAMPLES, stack)
            for part in given.parts():
                rows = explanations(part)
                n += rows.height
                said.add(folder / "explanations" / f"{part.name}.parquet", rows)
                shown.add(folder / "examples" / f"{part.name}.parquet", examples(part))
        (folder / "README.md").write_text(_card(given, n), encoding="utf-8", newline="")

    def read(self, path: Path) -> Iterator[Entry]:
        """The explanations of a data set folder."""
        files = sorted((path / "explanations").glob("*.parquet")) or sorted(path.glob("data/*.parquet"))
        if not files:
            raise InputError(
                f"{path} holds no explanations/*.parquet; name the folder of a data set, or import its file as parquet"
            )
        for file in files:
            yield from read(file)


def _card(given: Given, n: int) -> str:
    """The data set's page on the hub."""
    name, facts = given.choices["name"], given.provenance
    front: dict[str, Any] = {
        "license": given.licence,
        "pretty_name": f"Explanations of latents: {name}",
        "size_categories": [next((label for most, label in _SIZES if n < most), "10M<n<100M")],
        "tags": ["interpretability", "sparse-autoencoders", "latentlake"],
        "configs": [
            {
                "config_name": config,
                "data_files": [{"split": "train", "path": f"{config}/*.parquet"}],
                **({"default": True} if config == "explanations" else {}),
            }
            for config in ("explanations", "examples")
        ],
    }
    coders = "\n".join(
        f"| `{each['dictionary']}` | {_cell(each['hookpoint'])} | {_cell(each['kind'])} | {each['width']:,} | "
        f"`{each['digest']}` |"
        for each in given.dictionaries
    )
    subjects = "\n".join(f"- the model: `{each['reference']}`, digest `{each['digest']}`" for each in facts["subject"])
    methods = "\n".join(
        f"- {kind} `{method}`: {_method(choice, given)}"
        for kind, section in (("explainer", "explainers"), ("scorer", "scorers"))
        for method, choice in facts[section].items()
    )
    return f"""---
{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---

# Explanations of latents: {name}

What the latents of sparse coders of a language model stand for, in words, with scores of how well these fit, as
latentlake {facts["version"]} made them by the method of
[arXiv 2410.13928](https://arxiv.org/abs/2410.13928). Explanations and labels of language models can be wrong: read a score beside
those of its controls, `shuffled` and `empty`.

| dictionary | hookpoint | kind | latents | digest |
|---|---|---|---|---|
{coders}

## How it was made

{subjects}
- the study `{name}`, digest `{facts["study_digest"]}`; `provenance.json` has the rest: models, versions, runs
{methods}

## Columns

`explanations`, a row a latent and explanation:

{_columns(EXPLANATIONS)}

`examples`, the windows of text that explainers were shown and scorers judged:

{_columns(EXAMPLES)}

## Licence

`{given.licence}`. The windows are pieces of the corpus, which has a licence of its own, as have the model and the coders.

## Citation

```bibtex
{_CITATION}
```
"""


def _method(choice: dict[str, Any], given: Given) -> str:
    model = next((choice[key] for key in ("llm", "embedder") if choice.get(key)), None)
    return choice["method"] if model is None else f"{choice['method']}, by `{given.choices['llms'][model]['model']}`"


def _columns(columns: Sequence[Column]) -> str:
    rows = [f"| `{c.name}` | {_cell(c.type)} | {_cell(c.doc)} |" for c in columns]
    return "\n".join(["| column | type | |", "|---|---|---|", *rows])


def _cell(value: Any) -> str:
    return "" if value is None else str(value).replace("|", "\\|")
