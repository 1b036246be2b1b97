"""Signals that tell a process to stop soon: they are noted, and heeded when a step is done."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

__all__ = ["StopSignals"]

SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]  # not all on Windows


class StopSignals:
    """Notes SIGTERM and SIGUSR1 from `watch` to `unwatch`; then they mean what they meant before.

    In another thread than the main one, as in Ray Train, nothing is watched: Python does not allow it.
    """

    def __init__(self):
        self.received: str | None = None  # the name of the last one
        self.before: dict[int, Any] = {}  # who handled them

    def watch(self, when_received: Callable[[], None]) -> None:
        self.received = None
        if threading.current_thread() is not threading.main_thread():
            return

        def receive(number: int, frame: FrameType | None) -> None:
            self.received = signal.Signals(number).name
            when_received()

        self.before = {number: signal.signal(number, receive) for number in SIGNALS}

    def unwatch(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not Python
        self.before = {}
