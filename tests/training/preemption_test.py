import os
import signal
import subprocess
import sys
import threading
import time

from tests import mains
from training import preemption

# Waits in C, where no signal wakes it, as TensorFlow does in a loop of steps: a mutex that is locked twice.
SECOND_SIGNAL = """
import ctypes
from training import preemption
with preemption.listening():
    print("ready", flush=True)
    mutex = ctypes.create_string_buffer(64)
    ctypes.CDLL(None).pthread_mutex_lock(mutex)
    ctypes.CDLL(None).pthread_mutex_lock(mutex)
"""


def wait(request):
    """Until the thread has heard a signal."""
    end = time.monotonic() + 5
    while not request.is_made and time.monotonic() < end:
        time.sleep(0.01)


class ListeningTest:
    def test_nothing_is_asked_at_first(self):
        with preemption.listening() as request:
            assert not request.is_made

    def test_sigterm_is_a_request_and_is_said(self, capfd):
        with preemption.listening() as request:
            os.kill(os.getpid(), signal.SIGTERM)
            wait(request)
            assert request.is_made
        assert capfd.readouterr().out == "asked to stop: after this loop and its checkpoint\n"

    def test_other_signals_are_not(self):
        before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
        try:
            with preemption.listening() as request:
                os.kill(os.getpid(), signal.SIGUSR1)
                time.sleep(0.2)
                assert not request.is_made
        finally:
            signal.signal(signal.SIGUSR1, before)

    def test_leaves_everything_as_it_was(self):
        handler, threads = signal.getsignal(signal.SIGTERM), threading.active_count()
        with preemption.listening():
            assert signal.getsignal(signal.SIGTERM) != handler
            assert threading.active_count() == threads + 1
        assert signal.getsignal(signal.SIGTERM) == handler
        assert signal.set_wakeup_fd(-1) == -1
        assert threading.active_count() == threads

    def test_second_sigterm_ends_the_process_at_once(self):
        with subprocess.Popen(
            [sys.executable, "-c", SECOND_SIGNAL], cwd=mains.ROOT, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                assert process.stdout.readline() == "ready\n"
                process.send_signal(signal.SIGTERM)
                assert process.stdout.readline().startswith("asked to stop")
                process.send_signal(signal.SIGTERM)
                assert process.wait(timeout=5) == 143
            finally:
                process.kill()
