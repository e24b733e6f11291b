"""The neurons of an MLP as a dictionary: no files, the identity, and of each token the k largest activations.

The paper's baseline (arXiv 2410.13928): the input of the MLP's last projection, kept where it is among the token's top k.
"""

from __future__ import annotations

from latentlake.coders.parameters import Parameters, Stated
from latentlake.coders.reading import require_k
from latentlake.coders.rules import TopK

NEURONS = "neurons"


def neurons(width: int, k: int) -> tuple[Parameters, Stated]:
    """The parameters of so many neurons, of which k fire.

    Raises:
        InputError: k is not between 1 and their number.
    """
    rule = TopK(require_k(k, width, "neurons"))
    identity = Parameters(rule, encoder=None, bias=None, decoder=None, decoder_bias=None, neurons=width)
    return identity, Stated(kind="neurons")
