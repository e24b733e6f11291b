"""Where in a model's modules a hookpoint lies, whatever its family calls them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any, Literal

from torch import Tensor, nn

from latentlake.errors import InputError, nearest
from latentlake.hookpoints import Site, site_of

_ATTENTION = ("self_attn", "self_attention", "attention", "attn")
_MLP = ("mlp", "feed_forward", "ffn")
_OUT_OF_HEADS = ("o_proj", "out_proj", "dense", "c_proj", "wo")
_OUT_OF_NEURONS = ("down_proj", "dense_4h_to_h", "c_proj", "fc2", "w2", "wo", "fc_out")
_INTO_NEURONS = ("fc1",)  # of families whose block has no module for its MLP


_FINAL_NORMS = ("norm", "final_layer_norm", "final_layernorm", "ln_f", "norm_f", "ln_out", "layer_norm")
_NORMS_AFTER = (
    ("post_attention_layernorm", "post_feedforward_layernorm"),
    ("post_self_attn_layernorm", "post_mlp_layernorm"),
)


class UnknownArchitectureError(InputError):
    """The model's family is built in a way in which a hookpoint cannot be found."""


@dataclass(frozen=True)
class Place:
    """A module, by its name in the decoder, and which side of it is meant. ``layer``: the block in which it lies, if any."""

    module: str
    side: Literal["input", "output"]
    layer: int | None


def blocks_of(decoder: nn.Module) -> str:
    """Name of the list of a decoder's blocks.

    Raises:
        InputError: there is no list of as many modules as the configuration says that there are blocks.
    """
    config: Any = decoder.config
    wanted = config.get_text_config().num_hidden_layers
    lists = [
        name
        for name, module in decoder.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == wanted and "vision" not in name and "audio" not in name
    ]
    if not lists:
        raise UnknownArchitectureError(
            f"unknown architecture: a {type(decoder).__name__} has no list of {wanted} blocks; latentlake reads decoders whose "
            "blocks stand in one list"
        )
    shallowest: str = min(lists, key=lambda name: (name.count("."), name))
    return shallowest


def final_norm_of(decoder: nn.Module) -> str:
    """Name of the norm between a decoder's last block and the head.

    Raises:
        InputError: there is no module beside the blocks that is called like one.
    """
    around = blocks_of(decoder).rpartition(".")[0]
    beside = dict(decoder.get_submodule(around).named_children())
    found = next((name for name in _FINAL_NORMS if name in beside), None)
    if found is None:
        raise UnknownArchitectureError(
            f"unknown architecture: no module of a {type(decoder).__name__} ({', '.join(beside)}) is called "
            f"{' or '.join(_FINAL_NORMS)}, so that what a latent promotes is not known; give `logits: null` in the study"
        )
    return f"{around}.{found}".removeprefix(".")


def place_of(decoder: nn.Module, hookpoint: str) -> Place:
    """Where a hookpoint lies.

    Raises:
        InputError: there is no such block, site or module; the message names the nearest.
    """
    blocks = blocks_of(decoder)
    site = site_of(hookpoint)
    if site is None:
        return _named(decoder, hookpoint, blocks)
    layers: Any = decoder.get_submodule(blocks)
    if site.layer >= len(layers):
        names = [site._replace(layer=layer).name for layer in range(len(layers))]
        raise InputError(f"there is no block {site.layer}, so no {hookpoint!r}{nearest(site.name, names)}")
    inside, side = _inside(layers[site.layer], site)
    if site.site in ("attention", "mlp"):
        _require_added_as_it_is(decoder, layers[site.layer].get_submodule(inside), site)
    return Place(f"{blocks}.{site.layer}.{inside}".removesuffix("."), side, site.layer)


def hook(decoder: nn.Module, place: Place, keep: Callable[[Tensor], None]) -> Any:
    """Have ``keep`` called with what a place gives in every pass: alone, or the first of several. Returns torch's handle."""
    module = decoder.get_submodule(place.module)
    if place.side == "output":
        return module.register_forward_hook(lambda _module, _inputs, output: keep(_first(output)))
    return module.register_forward_pre_hook(
        lambda _module, inputs, named: keep(_first(inputs or named.get("hidden_states", tuple(named.values())))),
        with_kwargs=True,
    )


def replace(decoder: nn.Module, place: Place, change: Callable[[Tensor], Tensor]) -> Any:
    """Have what a place gives, alone or the first of several, replaced in every pass. Returns torch's handle."""
    module = decoder.get_submodule(place.module)
    if place.side == "output":
        return module.register_forward_hook(lambda _module, _inputs, output: _changed(output, change))

    def before(_module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if inputs:
            return _changed(inputs, change), named
        name = "hidden_states" if "hidden_states" in named else next(iter(named))
        return inputs, {**named, name: change(named[name])}

    return module.register_forward_pre_hook(before, with_kwargs=True)


def _changed(given: Any, change: Callable[[Tensor], Tensor]) -> Any:
    return (change(given[0]), *given[1:]) if isinstance(given, tuple) else change(given)


def _first(given: Any) -> Tensor:
    state: Tensor = given[0] if isinstance(given, tuple) else given
    return state


def _inside(block: nn.Module, site: Site) -> tuple[str, Literal["input", "output"]]:
    """The module within a block that has a site at one of its sides."""
    children = dict(block.named_children())
    if site.site in ("", "input"):
        return "", "input" if site.site else "output"
    # A norm after attention or MLP is part of what they add; without one after the MLP, a norm that is called like the one
    # after attention stands before the MLP.
    after = next((pair for pair in _NORMS_AFTER if set(pair) <= children.keys()), None)
    if after is not None and site.site in ("attention", "mlp"):
        return after[site.site == "mlp"], "output"
    if site.site == "attention":
        return _child(block, children, _ATTENTION, site), "output"
    if site.site == "attention.z":
        return _leaf(block, _child(block, children, _ATTENTION, site), _OUT_OF_HEADS, site), "input"
    if any(name in children for name in _MLP):
        mlp = _child(block, children, _MLP, site)
        if site.site == "mlp.neurons":
            return _leaf(block, mlp, _OUT_OF_NEURONS, site), "input"
        return mlp, "input" if site.site == "mlp.input" else "output"
    if site.site == "mlp.input":
        return _child(block, children, _INTO_NEURONS, site), "input"
    return _child(block, children, _OUT_OF_NEURONS, site), "input" if site.site == "mlp.neurons" else "output"


def _require_added_as_it_is(decoder: nn.Module, module: nn.Module, site: Site) -> None:
    """Refuse families in which a module's output is not what is added to the residual stream."""
    config: Any = decoder.config
    adds_itself = "residual" in signature(module.forward).parameters
    if adds_itself or getattr(config.get_text_config(), "residual_multiplier", 1) != 1:
        raise UnknownArchitectureError(
            f"unknown architecture: a {type(module).__name__} does not put out what is added to the residual stream, so "
            f"{site.name!r} is not to be had; name a module by its own name, with .input or .output after it"
        )


def _child(block: nn.Module, children: dict[str, nn.Module], names: Sequence[str], site: Site) -> str:
    found = next((name for name in names if name in children), None)
    if found is None:
        raise UnknownArchitectureError(_unknown(block, names, site))
    return found


def _leaf(block: nn.Module, module: str, names: Sequence[str], site: Site) -> str:
    """The first of some names among the modules inside one, however deep."""
    inside = [name for name, _ in block.get_submodule(module).named_modules() if name.rpartition(".")[2] in names]
    if len({name.rpartition(".")[0] for name in inside}) != 1:  # none, or one for each of several experts
        raise UnknownArchitectureError(_unknown(block, names, site))
    return f"{module}.{min(inside, key=lambda name: (name.count('.'), names.index(name.rpartition('.')[2])))}"


def _unknown(block: nn.Module, names: Sequence[str], site: Site) -> str:
    there = ", ".join(name for name, _ in block.named_children())
    return (
        f"unknown architecture: no module of a {type(block).__name__} ({there}), or more than one, is called "
        f"{' or '.join(names)}, so "
        f"{site.name!r} cannot be found; name the module by its own name, with .input or .output after it"
    )


def modules_of(decoder: nn.Module) -> list[str]:
    """Names of the modules that are called in a pass."""
    return [name for name, part in decoder.named_modules() if name and not isinstance(part, nn.ModuleList)]


def _named(decoder: nn.Module, name: str, blocks: str) -> Place:
    """A module by its own name in the decoder, or in the model around it."""
    module, _, side = name.rpartition(".")
    if side not in ("input", "output"):
        module, side = name, "output"
    known = modules_of(decoder)
    found = next((each for each in (module, module.partition(".")[2]) if each and each in known), None)
    if found is None:
        raise InputError(f"the model has no hookpoint {name!r}{nearest(module, known)}")
    inside = found.removeprefix(f"{blocks}.").partition(".")[0] if found.startswith(f"{blocks}.") else ""
    return Place(found, "input" if side == "input" else "output", int(inside) if inside.isdigit() else None)
