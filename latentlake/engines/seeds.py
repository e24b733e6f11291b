"""Seeds of draws."""

import hashlib
import json

from latentlake.protocols import Call, settings_of


def seed_of(call: Call) -> int:
    """A seed of 63 bits that follows from the call alone, so that a draw does not depend on its company in a batch."""
    chat = [] if call.chat is None else [call.chat]
    identity = json.dumps([call.prefix, call.suffix, settings_of(call.sampling), call.draw, *chat], sort_keys=True)
    return int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8], "big") >> 1
