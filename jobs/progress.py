"""Progress of stages: on a terminal, or in the log of a run that the UI or the daemon launched."""

import logging
import sys
from typing import IO

from tqdm import tqdm

_log = logging.getLogger("latentlake")


class _Counts:
    """What both kinds of progress count."""

    def __init__(self) -> None:
        self.stage, self.made, self.remembered = "", 0, 0
        self.computed: dict[str, int] = {}
        self.calls_made = 0
        self.failed_checks: list[str] = []

    def begin(self, stage: str, partitions: int) -> None:
        """A stage starts."""
        self.stage, self.made, self.remembered = stage, 0, 0
        self.computed.setdefault(stage, 0)

    def share(self, share: float) -> None:
        """The partition under way is done to this share."""

    def calls(self, made: int, remembered: int) -> None:
        """Model calls made, and answered by the ledger."""
        self.made, self.remembered = self.made + made, self.remembered + remembered
        self.calls_made += made

    def done(self, partition: str, is_computed: bool) -> None:
        """A partition is published."""
        self.computed[self.stage] += is_computed

    def failed(self, check: str) -> None:
        """A check failed."""
        self.failed_checks.append(check)

    def end(self) -> None:
        """The stage is over."""


class LogProgress(_Counts):
    """One log line a partition."""

    def done(self, partition: str, is_computed: bool) -> None:
        """A partition is published."""
        super().done(partition, is_computed)
        what = "computed" if is_computed else "up to date"
        _log.info("%s %s %s, calls: %d, from the ledger: %d", self.stage, partition, what, self.made, self.remembered)

    def failed(self, check: str) -> None:
        """A check failed."""
        super().failed(check)
        _log.warning("check failed: %s", check)


class TerminalProgress(_Counts):
    """One line a stage: partitions, time gone and left, model calls. Redrawn in place on a terminal."""

    def __init__(self, stream: IO[str] = sys.stderr) -> None:
        super().__init__()
        self._stream = stream
        self._bar: tqdm | None = None
        self._done = 0

    def begin(self, stage: str, partitions: int) -> None:
        """A stage starts: a line of its own."""
        super().begin(stage, partitions)
        self._done = 0
        self._bar = tqdm(
            total=partitions,
            desc=f"{stage:<26}",
            file=self._stream,
            mininterval=0.5 if self._stream.isatty() else 15.0,
            bar_format="{desc} {n:.1f}/{total} partitions  {elapsed}<{remaining}{postfix}",
        )

    def share(self, share: float) -> None:
        """Move on within a partition; never back, where the next is begun before one is published."""
        if self._bar is not None:
            self._bar.update(max(0.0, self._done + min(share, 1.0) - self._bar.n))

    def calls(self, made: int, remembered: int) -> None:
        """Show the calls."""
        super().calls(made, remembered)
        if self._bar is not None:
            self._bar.set_postfix_str(f"{self.made} calls, {self.remembered} from the ledger", refresh=False)

    def done(self, partition: str, is_computed: bool) -> None:
        """Move on by a partition."""
        super().done(partition, is_computed)
        self._done += 1
        if self._bar is not None:
            self._bar.update(self._done - self._bar.n)

    def end(self) -> None:
        """Leave the line as it is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
