"""Being asked to stop: a scheduler sends SIGTERM and comes back later."""

import contextlib
import os
import signal
import socket
import threading

# Of a run that was asked to stop and can go on: EX_TEMPFAIL of sysexits.h, "try again later".
EXIT_CODE = 75


class PreemptedError(RuntimeError):
    """The run was asked to stop, and has kept what it has come to."""


class Request:
    """Whether this process has been asked to stop."""

    def __init__(self):
        """Not yet."""
        self.is_made = False


@contextlib.contextmanager
def listening():
    """Within, SIGTERM makes a `Request` instead of ending the process; a second one ends it at once.

    A thread hears the signals: Python's own handlers wait until TensorFlow returns, which takes as long as a loop of
    steps. Call it in the main thread, after the strategy is made: TensorFlow's servers take the signal too.
    """
    request = Request()
    heard, written = socket.socketpair()
    written.setblocking(False)
    before = signal.signal(signal.SIGTERM, lambda number, frame: None), signal.set_wakeup_fd(written.fileno())
    listener = threading.Thread(target=_hear, args=(heard, request), daemon=True)
    listener.start()
    try:
        yield request
    finally:
        signal.set_wakeup_fd(before[1])
        signal.signal(signal.SIGTERM, before[0])
        written.close()  # which ends the thread
        listener.join()


def _hear(heard, request):
    """Takes signals, a byte each, until there can be no more."""
    with heard:
        while number := heard.recv(1):
            if number[0] != signal.SIGTERM:
                continue
            if request.is_made:
                os._exit(128 + signal.SIGTERM)
            request.is_made = True
            print("asked to stop: after this loop and its checkpoint", flush=True)
