"""A layered drawing of a graph, as Sugiyama does it: boxes in ranks, lines from above to below.

1. Rank: a box stands one rank below the lowest of those it reads.
2. Lanes: a line that passes ranks keeps a narrow lane in each of them; all long lines from one box share theirs, so
   that a dense block of n layers has n lanes and not n squared.
3. Order within a rank: swept towards the middle of a box's neighbours, down and up; the order with the fewest
   crossings is kept.
4. Place: as near to the middle of the neighbours as the order and the widths allow. That is a least-squares problem
   with a chain of inequalities, which pooling adjacent violators solves exactly.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

_SWEEPS = 12


@dataclass(frozen=True)
class Drawing:
    """Where things go, in pixels from the top left corner.

    Attributes:
        width, height: of all of it.
        boxes: the top left corner of each.
        lines: from (x, y) down to (x, y); a lane's part of a line is a vertical one.
    """

    width: float
    height: float
    boxes: tuple[tuple[float, float], ...]
    lines: tuple[tuple[float, float, float, float], ...]


def draw(
    reads: Sequence[Sequence[int]], *, width: float, height: float, gap: float, between: float, lane: float
) -> Drawing:
    """Place the boxes of a graph.

    Args:
        reads: for every box the earlier ones it reads; boxes come in an order in which they can run.
        width, height: of a box.
        gap: between boxes of a rank.
        between: from the lower edge of a rank to the upper edge of the next.
        lane: the width of a lane.
    """
    rank: list[int] = []
    for box, before in enumerate(reads):
        if any(other >= box for other in before):
            raise ValueError(f"box {box} reads one that does not come before it")
        rank.append(1 + max((rank[other] for other in before), default=-1))
    ranks, edges = list(rank), []
    ends = {
        box: max((rank[i] for i, before in enumerate(reads) if box in before), default=0) for box in range(len(rank))
    }
    lanes: dict[tuple[int, int], int] = {}
    for box, end in ends.items():
        previous = box
        for level in range(rank[box] + 1, end):
            lanes[box, level] = len(ranks)
            ranks.append(level)
            edges.append((previous, lanes[box, level]))
            previous = lanes[box, level]
    for box, before in enumerate(reads):
        edges += [(lanes.get((other, rank[box] - 1), other), box) for other in dict.fromkeys(before)]
    widths = [width] * len(rank) + [lane] * len(lanes)
    rows = _ordered(ranks, edges)
    x = _placed(rows, widths, edges, gap)
    left = min((x[i] - widths[i] / 2 for i in range(len(x))), default=0.0)
    right = max((x[i] + widths[i] / 2 for i in range(len(x))), default=0.0)
    top = [level * (height + between) for level in ranks]
    lines = [(x[a] - left, top[a] + height, x[b] - left, top[b]) for a, b in edges]
    lines += [(x[i] - left, top[i], x[i] - left, top[i] + height) for i in lanes.values()]
    total = len(rows) * (height + between) - between if rows else 0.0
    corners = tuple((x[i] - width / 2 - left, top[i]) for i in range(len(rank)))
    return Drawing(right - left, total, corners, tuple(lines))


def _ordered(ranks: Sequence[int], edges: Sequence[tuple[int, int]]) -> list[list[int]]:
    """The nodes of each rank from left to right, with few crossings."""
    above: dict[int, list[int]] = {}
    below: dict[int, list[int]] = {}
    for a, b in edges:
        above.setdefault(b, []).append(a)
        below.setdefault(a, []).append(b)
    rows: list[list[int]] = [[] for _ in range(1 + max(ranks, default=-1))]
    for node, level in enumerate(ranks):
        rows[level].append(node)
    best, fewest = [list(row) for row in rows], crossings(rows, edges)
    place = {node: index for row in rows for index, node in enumerate(row)}
    for sweep in range(_SWEEPS):
        if not fewest:
            break
        down = sweep % 2 == 0
        neighbours = above if down else below
        for row in rows if down else reversed(rows):
            keys = {node: _mean([place[other] for other in neighbours.get(node, ())], place[node]) for node in row}
            row.sort(key=keys.__getitem__)
            place.update((node, index) for index, node in enumerate(row))
        count = crossings(rows, edges)
        if count < fewest:
            best, fewest = [list(row) for row in rows], count
    return best


def crossings(rows: Sequence[Sequence[int]], edges: Iterable[tuple[int, int]]) -> int:
    """How many pairs of lines between neighbouring ranks cross."""
    place = {node: (level, index) for level, row in enumerate(rows) for index, node in enumerate(row)}
    between: dict[int, list[tuple[int, int]]] = {}
    for a, b in edges:
        between.setdefault(place[a][0], []).append((place[a][1], place[b][1]))
    count = 0
    for lines in between.values():
        seen: list[int] = []
        run: list[int] = []
        above = -1
        for upper, lower in sorted(lines):
            if upper != above:  # lines from one node do not cross each other
                for end in run:
                    insort(seen, end)
                run, above = [], upper
            count += len(seen) - bisect_right(seen, lower)
            run.append(lower)
    return count


def _placed(
    rows: Sequence[Sequence[int]], widths: Sequence[float], edges: Sequence[tuple[int, int]], gap: float
) -> list[float]:
    """The middle of every node."""
    neighbours: Mapping[int, list[int]] = {node: [] for node in range(len(widths))}
    for a, b in edges:
        neighbours[a].append(b)
        neighbours[b].append(a)
    x = [0.0] * len(widths)
    for sweep in range(_SWEEPS):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            offsets, at = [], 0.0
            for index, node in enumerate(row):
                at += (widths[row[index - 1]] + widths[node]) / 2 + gap if index else 0.0
                offsets.append(at)
            wanted = [_mean([x[other] for other in neighbours[node]], x[node]) for node in row]
            if sweep == 0:
                wanted = [sum(wanted) / len(wanted) - offsets[-1] / 2 + offset for offset in offsets]
            fitted = rising([want - offset for want, offset in zip(wanted, offsets, strict=True)])
            for node, value, offset in zip(row, fitted, offsets, strict=True):
                x[node] = value + offset
    return x


def rising(values: Sequence[float]) -> list[float]:
    """The sequence nearest to `values` (least squares) that never falls."""
    pools: list[list[float]] = []  # sum, count
    for value in values:
        pools.append([value, 1])
        while len(pools) > 1 and pools[-2][0] * pools[-1][1] > pools[-1][0] * pools[-2][1]:
            total, count = pools.pop()
            pools[-1][0] += total
            pools[-1][1] += count
    return [total / count for total, count in pools for _ in range(int(count))]


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
