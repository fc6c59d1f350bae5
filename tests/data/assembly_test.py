import numpy as np
import pytest
import tensorflow as tf

from data import assembly, chunks, records, statistics
from data.errors import InputError
from tests.data.chunks_test import make_case

REGIONS = chunks.regions((5, 8, 11), (3, 5, 6), (1, 2, 1))


def parsed(case, order=None):
    intensity = statistics.of_array(case.volume.array)
    count = len(REGIONS)
    for number in range(count) if order is None else order:
        example = records.to_example(chunks.cut(case, REGIONS[number], number, count, intensity))
        yield {key: value.numpy() for key, value in records.parse(tf.constant(example)).items()}


class WholeCasesTest:
    def test_chunks_become_the_cases_that_they_were_cut_from(self):
        cases = [make_case(seed=1), make_case(seed=2, num_instances=0), make_case(seed=3, num_instances=40)]
        found = list(assembly.whole_cases(chunk for case in cases for chunk in parsed(case)))
        assert len(found) == 3
        for case, whole in zip(cases, found, strict=True):
            np.testing.assert_array_equal(whole["volume"][..., 0], case.volume.array)
            np.testing.assert_array_equal(whole["instance_ids"], case.instance_ids)
            for name in ("class_ids", "attributes", "keypoints"):
                np.testing.assert_array_equal(whole[name], getattr(case, name))
            np.testing.assert_allclose(whole["affine"], case.volume.affine)
            assert not {"origin", "chunk", "num_chunks", "instance_numbers"} & set(whole)

    def test_a_case_of_one_chunk_passes(self):
        case = make_case()
        example = records.to_example(chunks.whole(case, statistics.of_array(case.volume.array)))
        (whole,) = assembly.whole_cases([{k: v.numpy() for k, v in records.parse(example).items()}])
        np.testing.assert_array_equal(whole["instance_ids"], case.instance_ids)

    @pytest.mark.parametrize(
        ("order", "words"),
        [
            ((0, 2), "case a: expected chunk 1 of a, came chunk 2"),
            ((1, 2), "case a: expected chunk 0 of a, came chunk 1"),
            ((0, 1, 2), f"case a: expected {len(REGIONS)} chunks, came 3"),
        ],
    )
    def test_missing_chunks_are_named(self, order, words):
        with pytest.raises(InputError, match=words):
            list(assembly.whole_cases(parsed(make_case(), order)))

    def test_nothing(self):
        assert list(assembly.whole_cases([])) == []
