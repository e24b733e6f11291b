"""Templates, with everything that is put into them escaped."""

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

# Characters that no document may hold stand as pictures of themselves; half of a pair of surrogates as what cannot be shown.
_SHOWN = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | {0x7F: 0x2421}
_SHOWN |= dict.fromkeys([*range(0xD800, 0xE000), 0xFFFE, 0xFFFF], 0xFFFD)


def render(template: str, /, **values: Any) -> str:
    """A template with values in it: text is escaped, HTML is what is a ``Markup``."""
    return _environment().get_template(template).render(values)


def shown(value: Any) -> Any:
    """A text without characters that HTML and XML do not know; anything else as it is."""
    return type(value)(value.translate(_SHOWN)) if isinstance(value, str) else value


def number(value: float | None, digits: int = 2) -> str:
    """A number with two digits behind the point, and a dash where there is none."""
    return "–" if value is None else f"{value:,.{digits}f}".replace("-", "−")


def short(value: float | None) -> str:
    """A number to three significant digits."""
    return "–" if value is None else f"{value:.3g}".replace("-", "−")


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("latentlake.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(number=number, short=short)
    return made
