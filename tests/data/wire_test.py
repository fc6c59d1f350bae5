import numpy as np
import pytest
import tensorflow as tf

from data import wire


def feature(**value):
    kinds = {"ints": tf.train.Int64List, "floats": tf.train.FloatList, "strings": tf.train.BytesList}
    names = {"ints": "int64_list", "floats": "float_list", "strings": "bytes_list"}
    return tf.train.Feature(**{names[kind]: kinds[kind](value=values) for kind, values in value.items()})


OTHERS = {
    "zeta": feature(ints=[0, -7, 2**40]),
    "alpha": feature(floats=[0.5, -1.25]),
    "volume_dtype": feature(strings=[b"int16"]),
    "nothing": feature(ints=[]),
}


class ExampleTest:
    # Lengths around those where a length needs one byte more, of the value or of a message around it.
    @pytest.mark.parametrize("size", [0, 1, 100, 110, 113, 127, 128, 129, 16370, 16383, 16384, 2**21])
    @pytest.mark.parametrize("others", [{}, OTHERS])
    def test_protobuf_reads_it(self, size, others):
        data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
        features = tf.train.Features(feature={**others, "volume": feature(strings=[data.tobytes()])})
        found = wire.example(others, "volume", data)
        assert tf.train.Example.FromString(found) == tf.train.Example(features=features)
        assert len(found) == tf.train.Example(features=features).ByteSize()
        assert wire.example(dict(reversed(others.items())), "volume", data.tobytes()) == found

    def test_by_hand(self):
        # field 1 of 13 bytes: field 1 of 11 bytes: key "a"; value of 6 bytes: list of 4 bytes: value of 2 bytes.
        expected = bytes([10, 13, 10, 11, 10, 1]) + b"a" + bytes([18, 6, 10, 4, 10, 2]) + b"xy"
        assert wire.example({}, "a", b"xy") == expected
