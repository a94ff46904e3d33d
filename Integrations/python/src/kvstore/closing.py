"""What is closed at the end of a `with` block."""

from __future__ import annotations

from types import TracebackType
from typing import NoReturn, TypeVar

_Closing = TypeVar("_Closing", bound="Closing")


class Closing:
    """Gives a class with a `close` the `with` statement."""

    def close(self) -> None:
        raise NotImplementedError

    def __reduce__(self) -> NoReturn:
        # Its handle is a number of this process: elsewhere, or once closed here, it is another's.
        raise TypeError(
            f"a {type(self).__name__} cannot be pickled or copied: it is a handle of this process. "
            "Open the store in the other process, by its path"
        )

    def __enter__(self: _Closing) -> _Closing:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
