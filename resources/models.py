"""Models as a resource: loaded when first asked for, and let go of together at the end of an asset."""

from pathlib import Path

import dagster as dg

from latentlake.endpoints import endpoints_of
from latentlake.handles import LazyHandles, Settings, settings_from_environment
from latentlake.lake import Lake
from latentlake.origins import Origins
from latentlake.protocols import Handles
from latentlake.study import Study


class ModelsResource(dg.ConfigurableResource, Settings):  # type: ignore[type-arg]
    """The settings of `latentlake.handles`, as Dagster has them."""

    def origins(self, study: Study) -> Origins:
        """The models, checkpoints and corpus files that a study names."""
        return Origins(study, Path(self.cache), None if self.is_replay else endpoints_of(study))

    def handles(self, study: Study, origins: Origins, lake: Lake) -> Handles:
        """The doors to a study's models; the lake holds the coders that were trained."""
        return LazyHandles(study, origins, lake, self)


def models_from_environment() -> ModelsResource:
    """Models as the environment says, by `settings_from_environment`."""
    return ModelsResource(**settings_from_environment().model_dump())
