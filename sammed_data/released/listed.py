"""Millions of cases in little memory: what names them is kept, the case is made when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import overload

from sammed_data.types import Case

Item = tuple[str, ...]


class ListedCases(Sequence[Case]):
    """Cases in the order of ``items``.

    Args:
        items: texts of each case, sorted.
        make: the case of an item.
    """

    def __init__(self, items: Sequence[Item], make: Callable[[Item], Case]) -> None:
        self._items, self._make = items, make

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Case]:
        return map(self._make, self._items)

    @overload
    def __getitem__(self, index: int) -> Case: ...

    @overload
    def __getitem__(self, index: slice) -> ListedCases: ...

    def __getitem__(self, index: int | slice) -> Case | ListedCases:
        if isinstance(index, slice):
            return ListedCases(self._items[index], self._make)
        return self._make(self._items[index])

    def chosen(self, numbers: Sequence[int]) -> ListedCases:
        """Some of them, in the order asked for."""
        return ListedCases([self._items[n] for n in numbers], self._make)
