"""Links on an asset's page: to its table, and to the code that makes it."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from latentlake import stages
from latentlake.flow import Flow, Stage
from latentlake.keeping.reported import FILE
from latentlake.lake import Lake


def address(lake: Lake, stage: Stage) -> Mapping[str, Any]:
    """Metadata: where the table is that is read downstream, or the report itself."""
    path = lake.beside(FILE) if stage.kind == "report" else lake.path(stage.tables[0])
    return {"dagster/uri": Path(path).resolve().as_uri() if lake.is_local else path}


def sources(flow: Flow, stage: Stage, maker: Callable[..., dg.AssetsDefinition]) -> Mapping[str, Any]:
    """Metadata: the files that compute a stage, its method's where it has one, and the one that makes it an asset.

    A stage's module has the same name among the stages as among the assets.
    """
    asset = Path(inspect.getfile(maker))
    files = {"stage": Path(stages.__path__[0]) / asset.name, **_method(flow, stage), "asset": asset}
    references: list[dg.LocalFileCodeReference | dg.UrlCodeReference] = [
        dg.LocalFileCodeReference(file_path=str(path), label=label) for label, path in files.items()
    ]
    return {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=references)}


def with_metadata(asset: dg.AssetsDefinition, metadata: Mapping[str, Any]) -> dg.AssetsDefinition:
    """The asset with more metadata of its definition."""
    return asset.map_asset_specs(lambda spec: spec.merge_attributes(metadata=metadata))


def _method(flow: Flow, stage: Stage) -> dict[str, Path]:
    if "scorer" in stage.constants:
        return {"scorer": Path(inspect.getfile(type(flow.study.scorers[stage.constants["scorer"]])))}
    if "explainer" in stage.constants:
        return {"explainer": Path(inspect.getfile(type(flow.study.explainers[stage.constants["explainer"]])))}
    return {}
