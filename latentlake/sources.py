"""The works that methods are taken from: one place for who wrote what."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """A paper. ``key``: by which BibTeX knows it. ``arxiv``: its number there, where it has one."""

    key: str
    authors: tuple[str, ...]
    title: str
    year: int
    url: str
    arxiv: str | None = None

    @property
    def short(self) -> str:
        """As texts refer to it."""
        surnames = [name.rsplit(" ", 1)[-1] for name in self.authors]
        who = " and ".join(surnames) if len(surnames) < 3 else f"{surnames[0]} et al."
        return f"{who} {self.year}"

    @property
    def bibtex(self) -> str:
        """An entry for a bibliography."""
        eprint = {} if self.arxiv is None else {"eprint": self.arxiv, "archivePrefix": "arXiv"}
        fields = {"title": self.title, "author": " and ".join(self.authors), "year": str(self.year), **eprint}
        lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in {**fields, "url": self.url}.items())
        return f"@misc{{{self.key},\n{lines}\n}}"


def _on_arxiv(number: str, key: str, title: str, year: int, *authors: str) -> Source:
    return Source(key, authors, title, year, f"https://arxiv.org/abs/{number}", number)


MILLIONS = _on_arxiv(
    "2410.13928",
    "paulo2024automatically",
    "Automatically Interpreting Millions of Features in Large Language Models",
    2024,
    "Gonçalo Paulo",
    "Alex Mallen",
    "Caden Juang",
    "Nora Belrose",
)
UNEXPLAINED = _on_arxiv(
    "2507.08473",
    "paulo2025evaluating",
    "Evaluating SAE interpretability without explanations",
    2025,
    "Gonçalo Paulo",
    "Nora Belrose",
)
OUTPUT_CENTRIC = _on_arxiv(
    "2501.08319",
    "gurarieh2025enhancing",
    "Enhancing Automated Interpretability with Output-Centric Feature Descriptions",
    2025,
    "Yoav Gur-Arieh",
    "Roy Mayan",
    "Chen Agassy",
    "Atticus Geiger",
    "Mor Geva",
)
NEURONS = Source(
    "bills2023language",
    (
        *("Steven Bills", "Nick Cammarata", "Dan Mossing", "Henk Tillman", "Leo Gao", "Gabriel Goh", "Ilya Sutskever"),
        *("Jan Leike", "Jeff Wu", "William Saunders"),
    ),
    "Language models can explain neurons in language models",
    2023,
    "https://openaipublic.blob.core.windows.net/neuron-explainer/paper/index.html",
)
