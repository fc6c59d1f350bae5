"""Runs one function over many units of work: in this process, in a pool of processes, or by Apache Beam."""

import concurrent.futures
import multiprocessing
from concurrent.futures.process import BrokenProcessPool

import tqdm

from data.errors import InputError

_WHILE = " [while running"  # what Beam puts behind the text of an error


def run(function, units, *, workers=1, runner="", runner_options=(), progress=False, label="convert"):
    """Calls `function(unit)` for every unit; the first error ends all.

    Args:
      function: a picklable function, whose effects are files: its result is not used.
      units: a list of picklable arguments.
      workers: processes on this machine.
      runner: of Apache Beam, "DirectRunner" or "FlinkRunner", say; all its workers must see the files by the same
        paths. "" for this machine's processes.
      runner_options: Beam's own options, "--flink_master=host:8081", say.
      progress: shows a bar.
      label: of the bar.

    Raises:
      InputError: from the function, or Beam is not installed; OSError: from the function, or a process died.
    """
    if runner:
        _run_beam(function, units, runner, runner_options)
    elif min(workers, len(units)) <= 1:
        for unit in tqdm.tqdm(units, desc=label, mininterval=1, disable=not progress):
            function(unit)
    else:
        _run_pool(function, units, min(workers, len(units)), label, progress)


def _run_pool(function, units, workers, label, progress):
    # Spawned: TensorFlow does not survive a fork.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = [pool.submit(function, unit) for unit in units]
        bar = tqdm.tqdm(total=len(units), desc=label, mininterval=1, disable=not progress)
        try:
            for future in concurrent.futures.as_completed(futures):
                future.result()
                bar.update()
        except BrokenProcessPool as error:
            raise OSError("a worker process died; was it killed, or was there not enough memory?") from error
        finally:
            bar.close()
            pool.shutdown(wait=False, cancel_futures=True)


def _run_beam(function, units, runner, options):
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise InputError(f"--runner={runner}: expected Apache Beam; install the extra [beam]") from error
    arguments = [f"--runner={runner}", *options]
    try:
        with beam.Pipeline(options=PipelineOptions(arguments)) as pipeline:
            # Reshuffle: otherwise one worker would do all that follows the list.
            _ = pipeline | beam.Create(units) | beam.Reshuffle() | "convert" >> beam.Map(function)
    except Exception as error:  # Runners raise what a worker raised with more text, or wrap it in errors of their own.
        raise _unwrapped(error) from error


def _unwrapped(error):
    """The InputError or OSError that a worker raised, as it was, where a runner's error tells it; or else the error."""
    kind = next((kind for kind in (InputError, OSError) if isinstance(error, kind)), None)
    if kind:
        return kind(str(error).split(_WHILE)[0])
    for line in reversed(str(error).splitlines()):
        name, _, text = line.split(_WHILE)[0].strip().partition(": ")
        if name in ("data.errors.InputError", "data.errors.GridError"):
            return InputError(text)
        if name == "OSError":
            return OSError(text)
    return error
