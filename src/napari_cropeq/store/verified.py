"""Which shards the processes that share a store have verified or written, so that each is read only once."""

from __future__ import annotations

from pathlib import Path

from napari_cropeq.store.journal import Record, sealed, unsealed

__all__ = ["Verified"]


class Verified:
    """Shards whose bytes match their record, and the time of their file; each process has its own list.

    A list is valid for as long as one of the processes is running: the first one of a later run clears it.

    Parameters
    ----------
    folder : path
        The folder of the journal.
    part : (int, int)
        Number of this process among those that share the work, and their count. A single process keeps no list.
    """

    def __init__(self, folder: Path, part: tuple[int, int]) -> None:
        self._folder, self._part = folder, part

    def add(self, record: Record, time: int) -> None:
        """Add a shard, whose file was last changed at ``time`` (ns)."""
        number, count = self._part
        if count > 1:  # not synced: what is lost is verified again
            with open(self._folder / f"verified-{number}-of-{count}.jsonl", "a", encoding="utf-8") as file:
                file.write("\n" + sealed([*record.values, time]))  # a kill may have left the last line incomplete

    def times(self) -> dict[Record, int]:
        """Return the shards that were added by any of the processes, and the times of their files."""
        times = {}
        for path in self._folder.glob("verified-*.jsonl"):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                values = unsealed(line, 6)
                record = None if values is None else Record.of_values(values[:5])
                if values is not None and record is not None:
                    times[record] = values[5]
        return times

    def clear(self) -> None:
        """Forget all shards; no other process may be running."""
        for path in self._folder.glob("verified-*.jsonl"):
            path.unlink(missing_ok=True)
