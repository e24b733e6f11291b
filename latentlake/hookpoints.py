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

# what folders and files of checkpoints are called, looser than the names above: a block by number, and words for what in it
_EXACT = re.compile(r"(?:model\.)?layers\.\d+(?:\.[a-z_]+)*")
_LENS = re.compile(rf"blocks\.\d+\.(?:{'|'.join(map(re.escape, _TRANSFORMER_LENS))})")
_BLOCK = re.compile(
    r"(?<![a-z0-9])(?<!average_)(?:layers?|blocks?|l)[._-]?(?P<layer>\d+)(?P<kind>r|m|a|tc)?(?![a-z0-9])"
)
_LETTERS = {"r": "", "m": "mlp", "a": "attention", "tc": "mlp.input"}  # Llama Scope's
_WORDS = {
    "transcoders?": "mlp.input",
    "mlp": "mlp",
    "attn|attention|att": "attention",
    "resid_pre": "input",
}


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


def guessed(path: str) -> str | None:
    """The hookpoint that a checkpoint's path speaks of, as in ``layers.9``, ``blocks.9.hook_resid_post_32k``,
    ``layer_12/width_16k`` or ``L15R-8x``; None where it tells none. A guess: nothing holds people to such names.
    """
    begin = path.find("gemma-scope-")
    found = site_of(path[begin:]) if begin >= 0 else None
    for part in reversed(path.split("/")):
        found = found or _named(part)
    return None if (site := found or _worded(path.lower())) is None else site.name


def _named(part: str) -> Site | None:
    """A name of `site_of` in a part of a path, the longest that is one."""
    for match in (*_LENS.finditer(part), *_EXACT.finditer(part)):
        name = match[0]
        while "." in name:
            if (site := site_of(name)) is not None:
                return site
            name = name.rpartition(".")[0]
    return None


def _worded(path: str) -> Site | None:
    """A block's number, the last in a path, and what words around it say; the residual stream after it where they say nothing."""
    blocks = list(_BLOCK.finditer(path))
    if not blocks:
        return None
    said = [site for word, site in _WORDS.items() if re.search(rf"(?<![a-z])(?:{word})(?![a-z])", path)]
    letter = _LETTERS.get(blocks[-1]["kind"] or "")
    return Site(int(blocks[-1]["layer"]), letter or next(iter(said), ""))


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
