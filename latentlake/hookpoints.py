"""Names of hookpoints: one neutral name for each site of a decoder block, and what other libraries call it.

    layers.N                  residual stream after block N
    layers.N.input            residual stream before it
    layers.N.attention        what attention adds to the residual stream
    layers.N.attention.z      heads' outputs side by side, before they are projected
    layers.N.mlp              what the MLP adds to the residual stream
    layers.N.mlp.input        what the MLP reads, normalized
    layers.N.mlp.neurons      the MLP's neurons after the activation function

Anything else is a name of the model's own: a module, with ``.input`` or ``.output`` (the default) after it.
"""

import re
from typing import NamedTuple

# site → what its width is called in `widths`
SITES = {
    "": "residual",
    "input": "residual",
    "attention": "residual",
    "attention.z": "heads",
    "mlp": "residual",
    "mlp.input": "residual",
    "mlp.neurons": "neurons",
}

# the residual stream itself, and what is added to it
_RESIDUAL = ("", "input", "attention", "mlp")

# TransformerLens, and with it SAELens and Gemma Scope's own loaders
_TRANSFORMER_LENS = {
    "hook_resid_post": "",
    "hook_resid_pre": "input",
    "hook_attn_out": "attention",
    "attn.hook_z": "attention.z",
    "hook_mlp_out": "mlp",
    "mlp.hook_post": "mlp.neurons",
}
# modules of Hugging Face's decoders that are a site in every family that has them, as sparsify and Gemma Scope 2 name them; the
# output of an MLP is none: in some families a norm comes before it is added
_MODULES = {
    "": "",
    "output": "",
    "input": "input",
    "self_attn.o_proj.input": "attention.z",
    "mlp.input": "mlp.input",
    "mlp.down_proj.input": "mlp.neurons",
    "post_feedforward_layernorm": "mlp",
    "post_feedforward_layernorm.output": "mlp",
    "pre_feedforward_layernorm.output": "mlp.input",
}
# the releases of Gemma Scope: repository and layer, or the name under which Neuronpedia shows them
_GEMMA_SCOPE = {"res": "", "mlp": "mlp", "att": "attention.z", "transcoders": "mlp.input", "transcoder": "mlp.input"}
_GEMMA_SCOPE_NAMES = (
    re.compile(r"(?:google/)?gemma-scope-[\w.-]+-(?P<kind>res|mlp|att|transcoders)/layer_(?P<layer>\d+)(?:/.*)?"),
    re.compile(r"(?P<layer>\d+)-gemmascope-(?P<kind>res|mlp|att|transcoder)-.*"),
)


class Site(NamedTuple):
    """A site of a block: block number and the key of `SITES`."""

    layer: int
    site: str

    @property
    def name(self) -> str:
        """The neutral name."""
        return f"layers.{self.layer}.{self.site}".removesuffix(".")


def site_of(name: str) -> Site | None:
    """The site that a name means, in whichever library's words; None for a name of the model's own."""
    if found := re.fullmatch(r"layers\.(\d+)(?:\.(.*))?", name):
        layer, rest = int(found[1]), found[2] or ""
        if rest in SITES:
            return Site(layer, rest)
        return Site(layer, _MODULES[rest]) if rest in _MODULES else None
    if (found := re.fullmatch(r"blocks\.(\d+)\.(.+)", name)) and found[2] in _TRANSFORMER_LENS:
        return Site(int(found[1]), _TRANSFORMER_LENS[found[2]])
    if (found := re.fullmatch(r"model\.layers\.(\d+)(?:\.(.*))?", name)) and (found[2] or "") in _MODULES:
        return Site(int(found[1]), _MODULES[found[2] or ""])
    for pattern in _GEMMA_SCOPE_NAMES:
        if found := pattern.fullmatch(name):
            return Site(int(found["layer"]), _GEMMA_SCOPE[found["kind"]])
    return None


def neutral(name: str) -> str:
    """The neutral name of a hookpoint; a name of the model's own stays as it is."""
    site = site_of(name)
    return name if site is None else site.name


def transformer_lens(hookpoint: str) -> str | None:
    """What TransformerLens calls a hookpoint; None where it has no name for it."""
    site = site_of(hookpoint)
    names = {ours: theirs for theirs, ours in _TRANSFORMER_LENS.items()}
    return f"blocks.{site.layer}.{names[site.site]}" if site is not None and site.site in names else None


def written_by(hookpoint: str, writes: str | None) -> str:
    """The hookpoint that a decoder speaks of: the one named, or the one that is read; of an MLP's input the MLP's output."""
    if writes is not None:
        return neutral(writes)
    site = site_of(hookpoint)
    return site._replace(site="mlp").name if site is not None and site.site == "mlp.input" else neutral(hookpoint)


def is_residual(hookpoint: str) -> bool:
    """Whether what a hookpoint gives is in the residual stream as it is: the stream itself, or what a block adds to it."""
    site = site_of(hookpoint)
    return site is not None and site.site in _RESIDUAL


def all_sites(layers: int, widths: dict[str, int]) -> dict[str, int]:
    """Every neutral name of a model with its width, residual stream first. ``widths``: by the values of `SITES`; sites whose
    width is not known are left out."""
    return {
        Site(layer, site).name: widths[kind]
        for site, kind in SITES.items()
        if kind in widths
        for layer in range(layers)
    }
