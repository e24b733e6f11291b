"""The coder of a dictionary: from its checkpoint, out of the lake where it was trained here, or the neurons themselves."""

import polars as pl

from latentlake.coders.coder import SparseCoder
from latentlake.coders.neurons import neurons
from latentlake.coders.opening import Source, open_coder
from latentlake.digest import digest
from latentlake.errors import LakeError
from latentlake.keeping.weights import Weights, weights_digest
from latentlake.lake import Lake
from latentlake.origins import Origins


def coder_of(name: str, origins: Origins, lake: Lake, device: str = "cpu") -> SparseCoder:
    """The coder of a dictionary, on a device.

    Raises:
        InputError: its checkpoint cannot be used.
        LakeError: it is trained, and the lake does not hold the weights that `dictionaries` speaks of.
    """
    found = origins.dictionary(name)
    if found.source is not None:
        return open_coder(found.format, found.source, device, found.control)
    if found.facts.kind == "neurons":
        assert found.facts.k is not None
        return SparseCoder(neurons(found.facts.width, found.facts.k)[0], name, device)
    path = Weights(lake).unpacked(_trained(name, origins, lake), origins.cache)
    return open_coder(found.format, Source(path, name), device)


def trained_digest(weights: str, read: str) -> str:
    """Digest of a trained coder: of its weights, and of how they are read."""
    return digest([weights, read])


def _trained(name: str, origins: Origins, lake: Lake) -> pl.DataFrame:
    rows = lake.scan("coders", {"dictionary": name}).collect()
    published = lake.scan("dictionaries", {"dictionary": name}).select("digest").collect()["digest"].to_list()
    if published != [trained_digest(weights_digest(rows), origins.dictionary(name).digest)]:
        raise LakeError(
            f"the weights of dictionary {name} in the lake are not those that the table `dictionaries` speaks of; materialize "
            "`coder` and `dictionaries` first (`make run` does so in order)"
        )
    return rows
