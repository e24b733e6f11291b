"""Where in a study file a validation error lies, and which keys would have been right there."""

import re
from functools import reduce
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel

from latentlake.errors import nearest


def explain(path: Path, tree: yaml.Node, error: Any, model: type[BaseModel]) -> str:
    """One validation error as one line: file, line, place, what is wrong, and the nearest valid key."""
    place, line = _find(tree, error["loc"])
    message = re.sub(r"^Value error, ", "", error["msg"])
    if error["type"] == "extra_forbidden":
        key = str(error["loc"][-1])
        message = f"unknown key {key!r}{nearest(key, _valid_keys(model, error['loc'][:-1]))}"
    elif error["type"] == "missing":
        message = f"the key {error['loc'][-1]!r} is missing"
    elif error["type"] in ("union_tag_invalid", "literal_error"):
        found = str(error["ctx"].get("tag", error["input"]))
        allowed = re.findall(r"'([^']+)'", error["ctx"].get("expected_tags") or error["ctx"]["expected"])
        message = f"{found!r} is none of {', '.join(allowed)}{nearest(found, allowed)}"
    return f"{path}, line {line}: {place or 'study'}: {message}"


def repeated_key(node: yaml.Node) -> yaml.Node | None:
    """A key that stands twice in one mapping, which YAML readers let pass."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                found: yaml.Node = key
                return found
            seen.add(key.value)
        children = [value for _, value in node.value]
    else:
        children = node.value if isinstance(node, yaml.SequenceNode) else []
    return next(filter(None, map(repeated_key, children)), None)


def _find(node: yaml.Node, loc: tuple[Any, ...]) -> tuple[str, int]:
    """Dotted place and line (from 1) of an error, as deep as the file goes."""
    place, line = [], node.start_mark.line + 1
    for part in loc:
        entry = None
        if isinstance(node, yaml.MappingNode):
            entry = next(((key, value) for key, value in node.value if key.value == str(part)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            entry = (node.value[part], node.value[part])
        if entry is None:  # a tag of a union, or a key that is not there
            continue
        place.append(str(part))
        line, node = entry[0].start_mark.line + 1, entry[1]
    return ".".join(place), line


def _valid_keys(model: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    """The keys that may stand at a place of the study."""
    models = _models(reduce(_inside, loc, model))
    return list(models[0].model_fields) if len(models) == 1 else []


def _inside(annotation: Any, part: Any) -> Any:
    """What a part of a place leads to: a field of a model, an entry of a mapping, or one method of several."""
    if get_origin(annotation) is dict:
        return get_args(annotation)[1]
    models = _models(annotation)
    tagged = [model for model in models if _tag(model) == part]
    if tagged:
        return tagged[0]
    return (
        models[0].model_fields[part].annotation if len(models) == 1 and part in models[0].model_fields else annotation
    )


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models that an annotation allows."""
    return [leaf for leaf in _leaves(annotation) if isinstance(leaf, type) and issubclass(leaf, BaseModel)]


def _leaves(annotation: Any) -> list[Any]:
    """The classes in an annotation, inside dicts, unions and Annotated."""
    args = get_args(annotation)
    return [leaf for each in args for leaf in _leaves(each)] if args else [annotation]


def _tag(model: type[BaseModel]) -> str | None:
    """The method that a class of explainers or scorers stands for."""
    field = model.model_fields.get("method")
    return str(get_args(field.annotation)[0]) if field and get_args(field.annotation) else None
