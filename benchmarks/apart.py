"""Sides of a comparison that take turns, each in a process of its own, as each has it at work.

What is freed, glibc keeps for the process or gives back to the system, depending on what was allocated before: in one
process, a side would find pages that another has left.
"""

import multiprocessing
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Apart(Generic[Question, Answer]):
    """Asks what `prepare(*arguments)` returned in another process, where it stays until the end.

    Several prepare at the same time unless each is waited for. Raises RuntimeError with what was raised there.
    """

    def __init__(
        self, prepare: Callable[..., Callable[[Question], Answer]], *arguments: object, preload: Sequence[str] = ()
    ) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(preload))
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, prepare, arguments))
        self._process.start()
        theirs.close()
        self._ready = False

    def wait(self) -> None:
        """Until it has prepared."""
        if not self._ready:
            self._heard()
            self._ready = True

    def __call__(self, question: Question) -> Answer:
        """The answer."""
        self.wait()
        self._connection.send(question)
        answer: Answer = self._heard()
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.join()

    def _heard(self) -> Any:
        answer, wrong = self._connection.recv()
        if wrong:
            raise RuntimeError(wrong)
        return answer


def _serve(
    connection: Connection, prepare: Callable[..., Callable[[Any], object]], arguments: Sequence[object]
) -> None:
    try:
        answer = prepare(*arguments)
        connection.send((None, ""))
        while True:
            connection.send((answer(connection.recv()), ""))
    except EOFError:
        return
    except Exception:
        connection.send((None, traceback.format_exc()))
