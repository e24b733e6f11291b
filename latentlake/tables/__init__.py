"""Every table, declared once: columns, types, keys, identity, partitions, layout.

Schemas, empty frames, checks before publication, the columns in the Dagster UI and ``docs/tables.md`` follow from here.
Types that Delta lacks (unsigned, float16, categorical, fixed-size list) are not used. What does not belong here: whatever
reads or writes rows.
"""

from latentlake.tables import calls, comparisons, corpus, explanations, latents, published, roots, scores, windows
from latentlake.tables.table import Table

_ROOMS = (roots, corpus, latents, windows, explanations, comparisons, scores, published, calls)
TABLES: dict[str, Table] = {table.name: table for room in _ROOMS for table in room.DECLARED}


def markdown() -> str:
    """All tables as one Markdown page; ``docs/tables.md`` holds it."""
    lines = ["# Tables", "", "Made from `latentlake/tables/`.", ""]
    for table in TABLES.values():
        lines += [f"## {table.name}", "", table.doc, ""]
        if table.partition_by:
            lines += [f"Partitioned by {', '.join(f'`{name}`' for name in table.partition_by)}.", ""]
        lines += ["| column | type | |", "|---|---|---|"]
        for c in table.columns:
            mark = " (key)" if c.name in table.keys else ""
            lines.append(f"| `{c.name}`{mark} | {c.type}{', may be null' if c.nullable else ''} | {c.doc} |")
        lines.append("")
    return "\n".join(lines)
