"""Work in processes of their own, some at a time; ended when we are. An edge.

In: a function, items for it, how many at once. Out: how each ended, as they end. A process is used
once, so its memory is given back and a crash costs one item. Never: leaves a process behind:
interrupted, it ends them all; killed, they end by themselves when they see that we are gone.
"""

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Generator, Sequence
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, TypeVar

from loadtests.errors import AskedError

Told = Callable[[float], None]
T = TypeVar("T")

_TERMINATE_S = 5.0
_EACH_PER_CENT = 0.01


class Ended(NamedTuple):
    """One item's end; `error` is empty where it went well."""

    place: int
    error: str


class _Running(NamedTuple):
    place: int
    process: BaseProcess
    pipe: Any


def each_in_a_process(
    work: Callable[[T, Told], None],
    items: Sequence[T],
    jobs: int,
    on_share: Callable[[int, float], None],
) -> Generator[Ended, None, None]:
    """Run `work(item, told)` for every item, at most `jobs` at a time."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([work.__module__])
    waiting = list(enumerate(items))[::-1]
    running: dict[Any, _Running] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                place, item = waiting.pop()
                started = _start(context, work, place)
                running[started.pipe] = started
                _give(started, item)
            for pipe in connection.wait(list(running)):
                message = _received(pipe)
                one = running[pipe]
                if isinstance(message, float):
                    on_share(one.place, message)
                    continue
                del running[pipe]
                yield Ended(one.place, _ended(one, message))
    finally:
        _end_all(list(running.values()))


def _start(context: Any, work: Callable[[T, Told], None], place: int) -> _Running:
    """The item follows by the pipe: large, it would keep us here until the child has its imports,
    and a child that loses us in the middle of its arguments says so at length."""
    ours, theirs = context.Pipe()
    process = context.Process(target=_child, args=(work, theirs), daemon=True)
    process.start()
    theirs.close()
    return _Running(place, process, ours)


def _give(started: _Running, item: object) -> None:
    try:
        started.pipe.send(item)
    except OSError:  # it is gone already, and is waited for like any other
        pass


def _received(pipe: Any) -> float | str | None:
    """A share of the work done, how it ended, or None: gone without a word."""
    try:
        message: float | str = pipe.recv()
    except (EOFError, OSError):
        return None
    return message


def _ended(one: _Running, message: str | None) -> str:
    one.process.join()
    one.pipe.close()
    if message is None:
        return f"its process ended with code {one.process.exitcode}; is there memory enough?"
    return message


def _end_all(running: Sequence[_Running]) -> None:
    for one in running:
        one.process.terminate()
    for one in running:
        one.process.join(_TERMINATE_S)
        if one.process.is_alive():
            one.process.kill()
            one.process.join()
        one.pipe.close()


def _child(work: Callable[[T, Told], None], pipe: Any) -> None:
    # Ctrl-C reaches the whole terminal; ending the children is their parent's task alone.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        item: T = pipe.recv()
    except (EOFError, OSError):
        return  # our parent went while it told us
    told = 0.0

    def tell(share: float) -> None:
        nonlocal told
        if share - told >= _EACH_PER_CENT:
            told = share
            pipe.send(float(share))

    try:
        work(item, tell)
    except AskedError as error:  # what was asked is at fault: a sentence, not a trace of our code
        pipe.send(str(error))
    except Exception:  # whatever went wrong is told, and costs this item alone
        pipe.send(traceback.format_exc())
    else:
        pipe.send("")


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
