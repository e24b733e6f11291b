"""Every section and key of a study as one page, ``docs/study.md``: said by the classes that read it, and nowhere else."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

import annotated_types as at
from pydantic import BaseModel, StringConstraints, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from latentlake.choices import Choices, Refers
from latentlake.registry import EXPLAINERS, SCORERS, Registry
from latentlake.study import Study

_WORDS: Mapping[Any, str] = {str: "text", int: "whole number", float: "number", bool: "true or false", NoneType: "null"}
_BOUNDS = ((at.Ge, "ge", "at least"), (at.Gt, "gt", "above"), (at.Le, "le", "at most"), (at.Lt, "lt", "below"))
_METHODS: Mapping[str, Registry] = {"explainers": EXPLAINERS, "scorers": SCORERS}
_HEAD = """# The study

Made from `latentlake/study.py`, `latentlake/sections/`, and the classes of explainers and scorers.

A study is a YAML file. Unknown keys are errors, and so are names that are nowhere. Relative paths start at the study's folder.
*Required* keys have no default. A name has small letters, digits and underscores.
"""


def markdown() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *_Page().lines(Study, "study")])


class _Page:
    """Sections in the order in which they are met; one that stands in several places is described at the first."""

    def __init__(self) -> None:
        self._headings: dict[type[BaseModel], str] = {}

    def lines(self, model: type[BaseModel], heading: str, level: int = 2) -> Iterator[str]:
        """A section, and after it those within."""
        own = "" if model is Study else f"{heading}."
        within = {
            name: [each for each in _models(field.annotation) if each not in self._headings]
            for name, field in model.model_fields.items()
            if name not in _METHODS or model is not Study
        }
        self._headings |= {each: own + name for name, models in within.items() for each in models}
        yield from [f"{'#' * level} {heading}", ""]
        yield from self._body(model)
        for name in model.model_fields:
            if model is Study and name in _METHODS:
                yield from self._methods(name)
            for each in within.get(name, []):
                yield from self.lines(each, own + name, min(level + (model is not Study), 4))

    def _methods(self, section: str) -> Iterator[str]:
        classes = _METHODS[section].classes()
        links = ", ".join(f"[`{name}`](#{_anchor(f'{section}: {name}')})" for name in classes)
        yield from [f"## {section}", "", f"By name; the `method` of each says what it is: {links}.", ""]
        for name, each in classes.items():
            yield from self.lines(each, f"{section}: {name}", 3)

    def _body(self, model: type[BaseModel]) -> Iterator[str]:
        for said in _said(model):
            yield from [said, ""]
        source = getattr(model, "source", None)
        if source is not None:
            yield from [f"After [{source.short}]({source.url}).", ""]
        required = _required(model)
        yield from ["| key | | default |", "|---|---|---|"]
        for name, field in model.model_fields.items():
            default = "*required*" if name in required else _default(field)
            yield f"| `{name}` | {self._type(model, name, field)} | {default} |"
        yield ""

    def _type(self, model: type[BaseModel], name: str, field: FieldInfo) -> str:
        if model is Study and name in _METHODS:
            return f"by name: [{name}](#{_anchor(name)})"
        return self._told(field.annotation, field.metadata)

    def _told(self, annotation: Any, marks: Sequence[Any] = ()) -> str:
        """A type in words."""
        if any(isinstance(mark, Refers) for mark in marks):
            return _referred(annotation, next(mark for mark in marks if isinstance(mark, Refers)))
        if any(isinstance(mark, StringConstraints) for mark in marks):
            return "name"
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            heading = self._headings[annotation]
            return f"[{heading}](#{_anchor(heading)})"
        if annotation in _WORDS:
            return _WORDS[annotation] + _bounds(marks)
        return self._compound(annotation, marks)

    def _compound(self, annotation: Any, marks: Sequence[Any]) -> str:
        kind, args = get_origin(annotation), get_args(annotation)
        if kind is Annotated:
            return self._told(args[0], args[1:])
        if kind is Literal:
            return " or ".join(f"`{each}`" for each in args)
        if kind in (Union, UnionType):
            return " or ".join(self._told(each, () if each is NoneType else marks) for each in args)
        if kind is dict:
            key = self._told(args[0])
            return f"by {key}: {self._told(args[1])}"
        if kind is tuple:
            return f"list, each {self._told(args[0])}" if args[-1] is ... else f"[{', '.join(map(self._told, args))}]"
        raise TypeError(f"docs/study.md has no words for {annotation}; give it some in {__name__}")


def _referred(annotation: Any, mark: Refers) -> str:
    """What a key names, and how many."""
    whose = (
        "a prompt: one of `latentlake/prompts/`, or a file" if mark.section == "prompts" else f"one of `{mark.section}`"
    )
    whose += f" of the split {mark.split}" if mark.split else ""
    whose += " that embeds" if mark.is_embedder else ""
    whose += " that gives log-probabilities of prompts" if mark.reads_prompt else ""
    kinds = [get_origin(each) for each in (annotation, *get_args(annotation))]
    whose = f"list, each {whose}" if tuple in kinds else f"a file for each, {whose}" if dict in kinds else whose
    return whose + (" or null" if NoneType in get_args(annotation) else "")


def _bounds(marks: Sequence[Any]) -> str:
    """The bounds of a number, where there are any."""
    marks = [inner for mark in marks for inner in (mark.metadata if isinstance(mark, FieldInfo) else [mark])]
    told = [f"{word} {getattr(mark, of):g}" for mark in marks for kind, of, word in _BOUNDS if isinstance(mark, kind)]
    return f" ({', '.join(told)})" if told else ""


def _required(model: type[BaseModel]) -> set[str]:
    """Keys without which there is no such section; some that have no default are filled in by their class."""
    method = model.model_fields.get("method")
    given = {"method": get_args(method.annotation)[0]} if method else {}
    try:
        model.model_validate(given)
    except ValidationError as error:
        missing = {str(each["loc"][0]) for each in error.errors() if each["type"] == "missing"}
        return missing | set(given)
    return set(given)


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "the method's own"
    if isinstance(value, BaseModel):
        return "its defaults"
    return f"`{json.dumps(value)}`"


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The sections that an annotation allows."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for each in get_args(annotation) for model in _models(each)]


def _said(model: type[BaseModel]) -> list[str]:
    """Its docstring, and those of the classes from which it has keys, as Markdown."""
    owners = [each for each in model.__mro__ if issubclass(each, Choices) and (each is model or _own_keys(each))]
    texts = [re.sub(r"\s+", " ", each.__doc__ or "").strip().replace("``", "`") for each in owners]
    return [re.sub(r"\bNone\b", "null", text) for text in texts]  # as YAML has it


def _own_keys(model: type[BaseModel]) -> set[str]:
    """Keys that a class itself declares, `method` aside, which all methods have."""
    own = vars(model).get("__annotations__", {})
    return {name for name in own if name in model.model_fields and get_origin(own[name]) is not ClassVar} - {"method"}


def _anchor(heading: str) -> str:
    """What a page on GitHub calls a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
