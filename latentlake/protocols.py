"""The doors behind which models stand: what a subject, a sparse coder, a language model and an embedder must do.

Stages are written against these protocols and never load a model themselves. The real ones live in ``engines`` and
``coders``; ``latentlake.fakes`` ships small ones for tests. Nothing here imports torch, so that an up-to-date run
never does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch


@dataclass(frozen=True)
class Generate:
    """Complete the prompt. ``temperature`` 0 takes the likeliest token; generation ends before a string of ``stop``.

    ``choice``: the reply is to be one of these strings; ``schema``: JSON that this JSON schema allows; at most one of the two,
    and an engine that cannot hold a model to it refuses the call. ``likeliest``: of how many tokens, at each place of the
    reply, the log-probabilities are kept.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    choice: tuple[str, ...] = ()
    schema: str | None = None
    likeliest: int = 0


@dataclass(frozen=True)
class Steer(Generate):
    """Complete the prompt while a direction is added to what a hookpoint gives, from its last token on: what the subject is
    asked, and no other model.

    ``tokens``: the prompt as the subject reads it; the call's text is but for people. ``direction``: digest of a vector of length
    1, ``strength`` times of which is added; None for nothing.
    """

    tokens: tuple[int, ...] = ()
    hookpoint: str = ""
    direction: str | None = None
    strength: float = 0.0


@dataclass(frozen=True)
class Choose:
    """Log-probabilities of some strings (each its first token) as the next token after the prompt.

    A server lists only the likeliest tokens: what is not among them has the log-probability minus infinity.

    ``after``: not of the next token after the prompt, but after each place of the suffix at which this string ends:
    log-probabilities end to end, all choices of the first place, then of the second. What lies between places is tokenized
    apart, where an engine can do that.
    """

    choices: tuple[str, ...]
    after: str = ""


@dataclass(frozen=True)
class Score:
    """Log-probability of each token of the suffix, given the prefix and the suffix before it.

    ``after``: only of what follows the last place at which this string stands in the suffix; what comes before it is read, and
    the two are tokenized apart. So texts that differ from call to call are of the suffix, and all calls share one prefix.
    """

    after: str = ""


Sampling = Generate | Choose | Score


def settings_of(sampling: Sampling) -> dict[str, Any]:
    """What a sampling says, without what came later and is not set: keys of calls and seeds of draws stay what they were."""
    later = {"choice": (), "schema": None, "likeliest": 0, "after": ""}
    return {name: value for name, value in vars(sampling).items() if name not in later or value != later[name]}


Role = Literal["system", "user", "assistant"]


class Message(NamedTuple):
    """Something said in a chat."""

    role: Role
    text: str


@dataclass(frozen=True)
class Call:
    """One call of a language model: the prompt is ``prefix + suffix``, tokenized apart so that the prefix is shared.

    ``draw`` tells repeated draws of one prompt apart; with everything else it seeds the sampling. ``chat``: what was said before
    in a chat in which the prompt is what the user says last; None where it is no chat, but a text to go on with.
    """

    prefix: str
    suffix: str
    sampling: Sampling
    draw: int = 0
    chat: tuple[Message, ...] | None = None


class Likely(NamedTuple):
    """A token that was likely at some place of a reply, and its log-probability in nats."""

    token: str
    logprob: float


# Why a call has no answer. Of the first three another attempt may have one; `Reply.is_retryable` says so of each reply.
TRANSPORT = "transport"  # no connection, no answer in time, or something that is none
RATE_LIMIT = "rate_limit"  # the server was asked too much
SERVER = "server"  # the server failed
REFUSAL = "refusal"  # the model, or a filter around it, would not answer
CONTEXT_LENGTH = "context_length"  # the prompt and what may be generated are longer than the model reads
REQUEST = "request"  # the server takes no such request
UNPARSED = "unparsed"  # the reply is not of the form that was asked for


@dataclass(frozen=True)
class Reply:
    """What came back of one call.

    ``logprobs``: nats; for `Choose` one a choice (and place), for `Score` one a token that is scored, for `Generate` with
    ``likeliest`` one a token of the reply, otherwise None. ``likeliest``: at each of these tokens the likeliest ones, in order.
    ``finish_reason``: ``stop`` or ``length``. ``error``: the class of the failure, where there is no answer; ``is_retryable``
    then says whether the same call may succeed later. ``attempts``: how often it was tried. ``kl``: for `Steer`,
    KL(clean || pushed) of the next token's distribution, nats.
    """

    text: str | None
    logprobs: tuple[float, ...] | None
    tokens_in: int
    tokens_cached: int
    tokens_out: int
    finish_reason: str | None
    seconds: float
    error: str | None = None
    is_retryable: bool = False
    likeliest: tuple[tuple[Likely, ...], ...] | None = None
    attempts: int = 1
    kl: float | None = None


@dataclass(frozen=True)
class Asked:
    """A call and the latent for which it is made."""

    latent: int
    call: Call


@dataclass(frozen=True)
class Answer:
    """A reply and its key in the ledger."""

    key: str
    reply: Reply


class LLM(Protocol):
    """A language model that answers calls in large batches."""

    def run(self, calls: Sequence[Call]) -> Iterator[list[tuple[int, Reply]]]:
        """Answer every call once; yields batches of (index into ``calls``, reply) as they are done.

        Batches are formed by the calls alone, in an order such that leaving out the calls of the first batches leaves
        the later batches as they were: a run that resumes computes bit for bit what it would have computed.
        """
        ...


class Embedder(Protocol):
    """A text embedder."""

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Unit-length embeddings, float32 [texts, width]."""
        ...


@dataclass(frozen=True)
class Tokenized:
    """Token ids of a text, and the characters of it at which the text of each token ends; None where there is no text."""

    tokens: list[int]
    ends: list[int] | None


@dataclass(frozen=True)
class Splice:
    """Something put in the place of what a hookpoint gives, in a forward pass.

    ``change(batch, read, written)``: given the indices of a batch's contexts, and what the hookpoints ``reads`` and ``writes``
    give there, [tokens of these contexts end to end, width], it returns what goes on in the place of the latter.
    """

    reads: str
    writes: str
    change: Callable[[list[int], torch.Tensor, torch.Tensor], torch.Tensor]


class Continuation(NamedTuple):
    """How a prompt goes on under a push: tokens without the one that ends the text, and KL(without the push || with it) of the
    next token's distribution after the prompt, in nats, to 6 significant digits; 0 where the push is 0."""

    tokens: list[int]
    kl: float


class Prompted(Protocol):
    """Prompts that a subject has read up to their last tokens, which are read with a push: a vector added to what a hookpoint
    gives, whatever else that holds (a coder's error term with it), from the last token of the prompt on.

    ``of``: numbers of prompts, one a row of what is asked, as often as one likes; ``pushes``: float [rows, width]. Where a push
    is more than the model's dtype holds, what comes of it is NaN.
    """

    def next_tokens(
        self, of: Sequence[int], hookpoint: str, pushes: torch.Tensor
    ) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
        """Log-probabilities of the next token, in nats.

        Yields batches: the rows, and what the next token of each is without the push and with it, float [rows, vocabulary],
        the same for a push of 0.
        """
        ...

    def continuations(
        self,
        of: Sequence[int],
        hookpoint: str,
        pushes: torch.Tensor,
        max_tokens: int,
        temperature: float,
        seeds: Sequence[int],
    ) -> Iterator[list[tuple[int, Continuation]]]:
        """Texts drawn with the push held at every token, at most so many tokens; temperature 0 takes the likeliest.

        Yields batches of (row, continuation). A row is drawn with its own seed and, but for rounding, does not depend on those
        beside it: with a push of 0 it is what the model writes without one.
        """
        ...


class Subject(Protocol):
    """The language model that is interpreted, with its tokenizer."""

    @property
    def bos(self) -> int:
        """Token that opens a text."""
        ...

    @property
    def separator(self) -> int:
        """Token that ends a text."""
        ...

    @property
    def vocabulary(self) -> int | None:
        """Number of tokens that the model knows; None where it does not say."""
        ...

    def tokenize(self, texts: Sequence[str]) -> list[Tokenized]:
        """Token ids of each text, with nothing added."""
        ...

    def detokenize(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        """Text of each list of token ids, special tokens left out."""
        ...

    def module_of(self, hookpoint: str) -> str:
        """The model's own name of a hookpoint."""
        ...

    def activations(
        self, contexts: Sequence[Sequence[int]], hookpoints: Sequence[str]
    ) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
        """What the hookpoints give, the model being stopped after the deepest of them.

        Yields batches: the indices of the batch's contexts, and for each hookpoint a float tensor
        [tokens of these contexts end to end, width] without padding.
        """
        ...

    def losses(
        self, contexts: Sequence[Sequence[int]], splice: Splice | None = None
    ) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Cross-entropy of each token given those before it, of the whole model, in nats.

        Yields batches: the indices of the batch's contexts, and a float tensor [tokens of these contexts end to end], NaN for
        the first token of each.
        """
        ...

    def unembed(self, directions: torch.Tensor) -> torch.Tensor:
        """What directions in the residual stream add to the logits, whatever their lengths: float64 [n, vocabulary] of
        directions [n, width].

        Each is scaled to a mean square of 1, as if it were all that the residual stream holds at the end, and goes through the
        final norm and the unembedding. What these give of nothing, their biases, is subtracted; what a model does to
        logits afterwards (a factor, soft capping), which keeps their order, is left out. The logits of a direction do not depend
        on those beside it, but for the last digits of double precision. The direction 0 adds nothing.
        """
        ...

    def prompted(self, prompts: Sequence[Sequence[int]], groups: Sequence[int]) -> Iterator[tuple[list[int], Prompted]]:
        """Read prompts, of one token or more; nothing is added to them.

        Yields batches, each good until the next is asked for: the indices of the batch's prompts, in their order, and the
        prompts, of which a number is a place in the batch. The prompts of one group, which have equal numbers in ``groups`` and
        follow one another, are in one batch.
        """
        ...


class Firings(NamedTuple):
    """What fires: entry i says that on input ``rows[i]`` latent ``latents[i]`` has the activation ``values[i]``.

    rows, latents: int64 [entries]; values: float32 [entries]. Entries of value 0 may be among them; they do not fire.
    """

    rows: torch.Tensor
    latents: torch.Tensor
    values: torch.Tensor


class Coder(Protocol):
    """A sparse coder: an SAE, a transcoder or a neuron basis."""

    width: int

    @property
    def device(self) -> str:
        """Where it runs, as torch names it."""
        ...

    @property
    def directions(self) -> torch.Tensor:
        """What each latent writes, one decoder direction a row, float32 [width, d_out]."""
        ...

    @property
    def encoder_directions(self) -> torch.Tensor | None:
        """What each latent reads, float32 [width, d_in]; None where latents are what they read, as neurons are."""
        ...

    def encode(self, inputs: torch.Tensor) -> Firings:
        """What fires on inputs [n, d_in]."""
        ...

    def decode(self, firings: Firings, inputs: torch.Tensor) -> torch.Tensor:
        """What the coder makes of inputs [n, d_in] out of what fires on them: [n, d_out]."""
        ...


class Handles(Protocol):
    """Lazy access to whatever a stage computes with; a model is loaded when first asked for.

    ``is_replay``: no language model is asked, and what failed stays failed.
    """

    @property
    def is_replay(self) -> bool:
        """Whether the ledger alone answers."""
        ...

    def subject(self, is_random: bool = False) -> Subject:
        """The study's subject, or one like it with random weights."""
        ...

    def coder(self, dictionary: str) -> Coder:
        """The sparse coder of a dictionary."""
        ...

    def llm(self, name: str) -> LLM:
        """A language model of the study, by name."""
        ...

    def embedder(self, name: str) -> Embedder:
        """An embedder of the study, by name."""
        ...

    def free(self) -> None:
        """Let go of every loaded model."""
        ...
