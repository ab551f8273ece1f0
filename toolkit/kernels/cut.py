"""How a row of output pixels is cut into register tiles."""

from __future__ import annotations

from collections.abc import Callable


def split(total: int, widest: int) -> list[int]:
    """`total` as the fewest parts of at most `widest`, as even as can be, larger parts first."""
    parts = -(-total // widest)
    return [total // parts + (i < total % parts) for i in range(parts)]


def split_in_twos(total: int, widest: int) -> list[int]:
    """The same in parts of even size, where pixels are taken two at a time; of an odd `total` the last part is odd.

    Args:
        widest: even.
    """
    parts = [2 * pairs for pairs in split(-(-total // 2), widest // 2)]
    parts[-1] -= total % 2
    return parts


def runs(widths: list[int], inner: Callable[[int, int], bool]) -> list[tuple[int, int, int]]:
    """Tiles of `widths` as `(first column, width, count)`: neighbours of equal width, both `inner(column, width)`,
    become one run.

    A run of several is a loop in the kernel; a tile at an edge has code of its own.
    """
    found: list[tuple[int, int, int]] = []
    column = 0
    for width in widths:
        if found and found[-1][1] == width and inner(column, width) and inner(found[-1][0], width):
            found[-1] = (found[-1][0], width, found[-1][2] + 1)
        else:
            found.append((column, width, 1))
        column += width
    return found
