"""One tree of expected errors: each says what was got, what was expected and what to do."""

from __future__ import annotations


class MmfeError(Exception):
    """An error a user can act on; the command line prints it without a traceback.

    Args:
        problem: what went wrong, one sentence without a final full stop.
        got: what was found, where that helps.
        expected: what would have been right.
        remedy: what to do next, as a command where there is one.

    Attributes:
        exit_code: the process exit code that the command line uses for this kind of error.
    """

    exit_code = 1

    def __init__(
        self,
        problem: str,
        *,
        got: object = None,
        expected: object = None,
        remedy: str | None = None,
    ) -> None:
        self.problem = problem
        self.got = got
        self.expected = expected
        self.remedy = remedy
        super().__init__(problem)

    def __str__(self) -> str:
        """The whole message, a line each for what was got, expected and what to do."""
        lines = [self.problem]
        if self.got is not None:
            lines.append(f"  got:      {self.got}")
        if self.expected is not None:
            lines.append(f"  expected: {self.expected}")
        if self.remedy is not None:
            lines.append(f"  to do:    {self.remedy}")
        return "\n".join(lines)

    @property
    def line(self) -> str:
        """The whole message in one line, for lists of what went wrong."""
        text = self.problem
        if self.got is not None:
            text += f": {self.got}"
        if self.expected is not None:
            text += f", expected {self.expected}"
        if self.remedy is not None:
            text += f"; {self.remedy}"
        return " ".join(text.split())

    def about(self, path: object) -> str:
        """`line`, beginning with ``path`` where it does not name it by itself."""
        return self.line if str(path) in self.line else f"{path}: {self.line}"

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by state, so that the error survives a worker process."""
        return (_rebuild, (type(self), self.problem, self.got, self.expected, self.remedy))


def _rebuild(
    kind: type[MmfeError], problem: str, got: object, expected: object, remedy: str | None
) -> MmfeError:
    return kind(problem, got=got, expected=expected, remedy=remedy)


class UsageError(MmfeError):
    """A wrong argument, option, recipe key or override."""

    exit_code = 2


class CacheError(MmfeError):
    """A cache that is missing, stale, damaged, foreign or too small for the run."""

    exit_code = 3


class DataError(MmfeError):
    """A data set, image or pack that cannot be used as it is."""


class GuideError(MmfeError):
    """A guide whose checkpoint is missing or wrong, or that produced unusable embeddings."""


class ModelError(MmfeError):
    """A restorer checkpoint or input that does not fit the model."""


class PictureWarning(UserWarning):
    """A file holds more than the picture that is read of it: ``FILE: what``."""
