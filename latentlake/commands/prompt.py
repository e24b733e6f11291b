"""Show what a language model is shown: the prompt of an explainer or scorer, empty or as it is filled for a latent.

`latentlake prompt detection` prints the prompt with its places, `latentlake prompt detection layer9 1660` the calls that are made
about a latent, whether or not they were made yet. Nothing is asked. Who speaks in a chat stands before it, as in [user].
"""

import argparse
from collections.abc import Iterator

from latentlake.calls.ledger import Ledger, call_key
from latentlake.calls.pending import Pending
from latentlake.errors import InputError, nearest
from latentlake.flow import Stage
from latentlake.opened import Opened
from latentlake.prompts import Prompt
from latentlake.protocols import Asked


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("method", help="an explainer or scorer of the study; where both have the name, explainers.NAME")
    parser.add_argument("dictionary", nargs="?", help="the dictionary of the latent")
    parser.add_argument("latent", nargs="?", type=int, help="fill the prompt for this latent")
    parser.add_argument("--explainer", help="of a scorer: whose explanations are judged, by default the first's")
    parser.add_argument("--all", action="store_true", help="every call about the latent, not the first alone")


def run(options: argparse.Namespace, opened: Opened) -> None:
    """Print the prompt, or the calls."""
    section, name = _method(opened, options.method)
    if options.dictionary is None:
        for prompt, found in _prompts(opened, section, name):
            print(f"{prompt}, digest {found.digest}\n", *_template(found), sep="\n")
        return
    if options.latent is None:
        raise InputError(f"which latent of {options.dictionary}? Give its number")
    for line in _calls(opened, _stage(opened, section, name, options.explainer), options):
        print(line)


def _method(opened: Opened, said: str) -> tuple[str, str]:
    """Section and name of a method."""
    section, _, name = said.rpartition(".")
    sections = {each: getattr(opened.study, each) for each in ("explainers", "scorers")}
    found = [each for each, methods in sections.items() if name in methods and section in ("", each)]
    if len(found) == 2:
        raise InputError(
            f"the study has both an explainer and a scorer {name!r}; say explainers.{name} or scorers.{name}"
        )
    if not found:
        known = [*sections["explainers"], *sections["scorers"]]
        raise InputError(f"the study {opened.study.name!r} has no explainer or scorer {said!r}{nearest(name, known)}")
    return found[0], name


def _prompts(opened: Opened, section: str, name: str) -> Iterator[tuple[str, Prompt]]:
    references = getattr(opened.study, section)[name].references()
    prompts = [prompt for mark, prompt in references if mark.section == "prompts"]
    if not prompts:
        raise InputError(f"{section}.{name} asks no language model")
    return ((prompt, opened.study.prompt(prompt)) for prompt in prompts)


def _template(prompt: Prompt) -> Iterator[str]:
    for message in prompt.said:
        yield f"[{message.role}]\n{message.text}"
    if prompt.said:
        yield "[user]"
    yield f"{prompt.prefix}{prompt.suffix}"
    if prompt.cue:
        yield f"[assistant]\n{prompt.cue}"


def _stage(opened: Opened, section: str, name: str, explainer: str | None) -> Stage:
    if section == "explainers":
        return opened.flow[f"explanations/{name}"]
    judged = opened.study.scorers[name].judged
    if explainer is not None and explainer not in judged:
        raise InputError(f"scorers.{name} does not judge the explainer {explainer!r}{nearest(explainer, judged)}")
    return opened.flow[f"scores/{explainer or judged[0]}/{name}"]


def _calls(opened: Opened, stage: Stage, options: argparse.Namespace) -> Iterator[str]:
    study, name, latent = opened.study, options.dictionary, options.latent
    if name not in study.dictionaries:
        raise InputError(f"the study {study.name!r} has no dictionary {name!r}{nearest(name, study.dictionaries)}")
    width = opened.origins.dictionary(name).facts.width
    if not 0 <= latent < width:
        raise InputError(f"the dictionary {name!r} has no latent {latent}; its latents are 0 to {width - 1}")
    pending = Pending(opened.plan, opened.flow, opened.lake, opened.origins)
    made = pending.made(stage, stage.key({"dictionary": name, "block": str(latent * study.blocks // width)}))
    found = [(llm, each) for llm, asked in made.items() for each in asked if each.latent == latent]
    if not found:
        raise InputError(
            f"{stage.name} makes no call about latent {latent} of {name}: it was not chosen, has no windows or explanation yet, "
            "or no language model is asked (`make run` makes what comes before)"
        )
    shown = found if options.all else found[:1]
    yield f"{len(shown)} of {len(found)} calls of {stage.name} about latent {latent} of {name}"
    ledger = Ledger(opened.lake)
    for llm, asked in shown:
        key = call_key(pending.revision(llm), asked.call)
        yield f"\n{llm}, call {key}, {'made' if ledger.held([key]) else 'not made yet'}: {asked.call.sampling}"
        yield from _said(asked)


def _said(asked: Asked) -> Iterator[str]:
    call = asked.call
    for message in call.chat or ():
        yield f"[{message.role}]\n{message.text}"
    if call.chat is not None:
        yield "[user]"
    yield f"{call.prefix}{call.suffix}"
