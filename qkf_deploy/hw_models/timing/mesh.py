"""Routes of messages on a mesh of tiles: along the row first, then along the column."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qkf_deploy.errors import UsageError
from qkf_deploy.hw_models.architecture.chip import Chip, Network
from qkf_deploy.hw_models.timing.traffic import INPUT, Send, Traffic

#: Directions of links; a link belongs to the tile that it leaves.
EAST, WEST, NORTH, SOUTH = range(4)


@dataclass(frozen=True)
class Mesh:
    """Places of cores on one or several chips that stand side by side in a row.

    Attributes:
        network: of one chip.
        cores_per_chip: places used on each chip.
        place: of each core: its number in order of places; -1 stands for the corner where input arrives.
    """

    network: Network
    cores_per_chip: int
    place: tuple[int, ...]

    @property
    def columns(self) -> int:
        """Tiles in a row, over all chips."""
        return self.network.columns * self.chips

    @property
    def chips(self) -> int:
        """Chips in use."""
        return max(max(self.place), 0) // self.cores_per_chip + 1

    @property
    def tiles_in_use(self) -> int:
        """Tiles on which at least one core of the network is."""
        return len({self.tile(core) for core, place in enumerate(self.place) if place >= 0})

    def tile(self, core: int) -> tuple[int, int]:
        """(column, row) of the tile of a core."""
        if self.place[core] < 0:
            return 0, 0
        chip, place = divmod(self.place[core], self.cores_per_chip)
        row, column = divmod(place // self.network.cores_per_tile, self.network.columns)
        return chip * self.network.columns + column, row

    def distance(self, a: int, b: int) -> int:
        """Hops between two cores."""
        return sum(abs(p - q) for p, q in zip(self.tile(a), self.tile(b), strict=True))

    def links(self, send: Send) -> list[tuple[int, int, int]]:
        """(direction, column, row) of every link that one event crosses; with multicast once each, else per target."""
        target_tiles = [self.tile(t) for t in send.targets]
        paths = [path for tile in target_tiles for path in _path(self.tile(send.source), tile)]
        return list(dict.fromkeys(paths)) if self.network.multicast else paths

    def messages(self, send: Send) -> int:
        """Messages that the sender makes of one event."""
        return 1 if self.network.multicast else len(send.targets)


def in_order(chip: Chip, traffic: Traffic) -> Mesh:
    """Cores on places in order of computation, the input at the corner.

    Raises:
        UsageError: the chip file says nothing of a network.
    """
    if chip.network is None:
        raise UsageError(f"nothing is known of the network of {chip.title}", hint="a chip file with [network]")
    return Mesh(chip.network, chip.cores_per_chip, tuple(-1 if u == INPUT else i for i, u in enumerate(traffic.unit)))


def _path(start: tuple[int, int], end: tuple[int, int]) -> Iterable[tuple[int, int, int]]:
    (x, y), (to_x, to_y) = start, end
    columns: Sequence[int] = range(x, to_x) if to_x > x else range(x, to_x, -1)
    rows: Sequence[int] = range(y, to_y) if to_y > y else range(y, to_y, -1)
    yield from ((EAST if to_x > x else WEST, column, y) for column in columns)
    yield from ((NORTH if to_y > y else SOUTH, to_x, row) for row in rows)
