import pytest

from data import fingerprint


class ClassWeightsTest:
    def test_balance_0_leaves_all_alike(self):
        assert fingerprint.class_weights({"a": 90, "b": 10}, 0.0) == (1.0, 1.0, 1.0)

    def test_balance_1_gives_classes_equal_shares_by_hand(self):
        background, a, b, absent = fingerprint.class_weights({"a": 90, "b": 10, "absent": 0}, 1.0)
        # Two classes that weigh half of 100 objects each.
        assert (a, b) == pytest.approx((50 / 90, 50 / 10))
        assert (background, absent) == (1.0, 1.0)

    @pytest.mark.parametrize("balance", [0.3, 0.5, 1.0])
    def test_mean_over_the_objects_is_1_and_rare_classes_weigh_more(self, balance):
        counts = {"a": 7, "b": 31, "c": 2}
        weights = fingerprint.class_weights(counts, balance)[1:]
        assert sum(w * n for w, n in zip(weights, counts.values(), strict=True)) == pytest.approx(40)
        assert weights[2] > weights[0] > 1 > weights[1]
        assert weights[2] / weights[1] == pytest.approx((31 / 2) ** balance)

    def test_no_objects_at_all(self):
        assert fingerprint.class_weights({"a": 0, "b": 0}, 1.0) == (1.0, 1.0, 1.0)
