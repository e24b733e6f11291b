"""The lake as a resource."""

import os

import dagster as dg

from latentlake.lake import Lake


class LakeResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """``uri``: a folder or an object-store address. ``storage_options``: as delta-rs takes them."""

    uri: str = "lake"
    storage_options: dict[str, str] = {}

    def open(self, study: str) -> Lake:
        """The tables of a study."""
        return Lake(self.uri, study, self.storage_options)


def lake_from_environment() -> LakeResource:
    """The lake that ``LATENTLAKE_LAKE`` names; ``lake/`` where it is not set."""
    return LakeResource(uri=os.environ.get("LATENTLAKE_LAKE", "lake"))
