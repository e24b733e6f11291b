"""Methods of one kind by name: one file each in one folder, found by importing the folder.

A new explainer, scorer or checkpoint format is one new file with one registered class; nothing else changes.
"""

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

from latentlake.errors import InputError, nearest


class Registry:
    """The classes registered in the modules of one package, by name."""

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self._package = package
        self._classes: dict[str, type[Any]] = {}

    def register(self, name: str) -> Callable[[type[Any]], type[Any]]:
        """Decorator: enter a class under a name."""

        def enter(cls: type[Any]) -> type[Any]:
            if name in self._classes:
                raise ValueError(f"two classes are registered as {self.kind} {name!r}: {self._classes[name]} and {cls}")
            self._classes[name] = cls
            return cls

        return enter

    def classes(self) -> dict[str, type[Any]]:
        """All registered classes by name, in alphabetical order; imports the package's modules."""
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self._package}.{module.name}")
        return dict(sorted(self._classes.items()))

    def __getitem__(self, name: str) -> type[Any]:
        classes = self.classes()
        if name not in classes:
            raise InputError(f"there is no {self.kind} {name!r}{nearest(name, classes)}")
        return classes[name]


EXPLAINERS = Registry("explainer", "latentlake.explainers")
SCORERS = Registry("scorer", "latentlake.scorers")
CODERS = Registry("coder format", "latentlake.coders.formats")
FORMATS = Registry("file format", "latentlake.corpora")
EXPORTS = Registry("form", "latentlake.exports")
