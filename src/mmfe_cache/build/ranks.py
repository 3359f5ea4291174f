"""The processes that share one build."""

from __future__ import annotations

from typing import Any, Protocol


class Ranks(Protocol):
    """A group of equal processes; `launcher.launch` makes one of many, `Alone` is one of one.

    Attributes:
        rank: this process's number, from 0.
        size: how many there are.
    """

    @property
    def rank(self) -> int:
        """This process's number, from 0."""
        ...

    @property
    def size(self) -> int:
        """How many processes there are."""
        ...

    def barrier(self) -> None:
        """Wait until every process has come here."""
        ...

    def broadcast(self, value: Any) -> Any:
        """Rank 0's ``value``, in every process."""
        ...

    def gather(self, value: Any) -> list[Any]:
        """Every process's ``value``, by rank, in every process."""
        ...


class Alone:
    """A single process."""

    rank = 0
    size = 1

    def barrier(self) -> None:
        """Nobody to wait for."""

    def broadcast(self, value: Any) -> Any:
        """The value itself."""
        return value

    def gather(self, value: Any) -> list[Any]:
        """The one value."""
        return [value]
