"""Chunks of cases back to whole cases."""

import numpy as np

from data.errors import InputError

_ROWS = ("class_ids", "attributes", "keypoints")  # one row per instance


def whole_cases(chunks):
    """Puts the chunks of each case together.

    Args:
      chunks: iterable of dicts of NumPy arrays, as of `data.records.parse`; those of a case come in a row, in order.

    Yields:
      Dicts of the same keys but those that say where a chunk lies: ids, class_ids, attributes and keypoints are those
      of the whole case. One case is in memory at a time.

    Raises:
      InputError: a chunk is missing or comes out of order.
    """
    case, expected = None, 0
    for chunk in chunks:
        if (chunk["chunk"], chunk["name"]) != (expected, case["name"] if expected else chunk["name"]):
            raise InputError(
                f"case {_text(chunk['name'])}: expected chunk {expected} of {_text((case or chunk)['name'])}, "
                f"came chunk {chunk['chunk']}"
            )
        case = _joined(case if expected else None, chunk)
        expected += 1
        if expected == chunk["num_chunks"]:
            yield _finished(case)
            expected = 0
    if expected:
        raise InputError(f"case {_text(case['name'])}: expected {case['num_chunks']} chunks, came {expected}")


def _joined(case, chunk):
    """The case with one more chunk; `case` is None before the first."""
    if chunk["num_chunks"] == 1:
        return chunk
    shape = tuple(chunk["case_shape"].tolist())
    if case is None:
        volume = np.zeros((*shape, chunk["volume"].shape[-1]), chunk["volume"].dtype)
        case = {**chunk, "volume": volume, "instance_ids": np.zeros(shape, np.int32)}
        case.update({name: chunk[name][:0] for name in (*_ROWS, "instance_numbers")})
    origin = chunk["origin"]
    region = tuple(slice(a, a + n) for a, n in zip(origin.tolist(), chunk["instance_ids"].shape, strict=True))
    numbers = chunk["instance_numbers"]
    case["volume"][region] = chunk["volume"]
    case["instance_ids"][region] = np.concatenate([[0], numbers]).astype(np.int32)[chunk["instance_ids"]]
    new = np.isin(numbers, case["instance_numbers"], invert=True)
    rows = {**chunk, "keypoints": chunk["keypoints"] + origin.astype(np.float32)}
    for name in (*_ROWS, "instance_numbers"):
        case[name] = np.concatenate([case[name], rows[name][new]])
    return case


def _finished(case):
    """The case with its rows in the order of the ids, of which each is in one chunk at least."""
    order = np.argsort(case["instance_numbers"])
    dropped = ("origin", "case_shape", "chunk", "num_chunks", "instance_numbers")
    return {name: value for name, value in case.items() if name not in dropped} | {
        name: case[name][order] for name in _ROWS
    }


def _text(name):
    return name.decode() if isinstance(name, bytes) else str(name)
