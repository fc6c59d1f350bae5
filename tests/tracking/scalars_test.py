import resource
import types

import pytest
import tensorflow as tf

from tests.tracking import cases
from tracking import scalars


class GroupedTest:
    def test_by_what_they_are_about(self):
        names = [scalars.grouped(name) for name in cases.SCALARS]
        assert names == [
            "loss/rpn_class",
            "loss/mask",
            "loss/total",
            "optimizer/gradient_norm",
            "optimizer/learning_rate",
            "speed/volumes_per_second",
            "speed/input_wait",
            "input/skipped",
            "optimizer/non_finite",
        ]
        assert scalars.grouped("val/mask_ap50") == "val/mask_ap50"

    def test_losses_are_the_parts_of_the_total(self):
        assert scalars.losses(cases.SCALARS) == {"rpn_class": 0.25, "mask": 0.5}


class OfMachineTest:
    def test_voxels_of_all_volumes(self):
        found = scalars.of_machine({"volumes_per_second": 2.5}, (2, 3, 4))
        assert found["voxels_per_second"] == 60.0

    def test_peak_memory_in_gigabytes(self):
        found = scalars.of_machine(cases.SCALARS, (2, 3, 4))
        now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        assert found["peak_memory_gb"] == pytest.approx(now, rel=0.01)
        assert 0.1 < found["peak_memory_gb"] < 100
        assert "gpu_peak_memory_gb" not in found

    def test_of_several_gpus_the_one_that_needed_most(self, monkeypatch):
        gpus = [types.SimpleNamespace(name=f"/device:GPU:{i}") for i in range(2)]
        peaks = {"/device:GPU:0": {"current": 1, "peak": int(2e9)}, "/device:GPU:1": {"current": 1, "peak": int(3e9)}}
        monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: gpus if kind == "GPU" else [])
        monkeypatch.setattr(tf.config.experimental, "get_memory_info", peaks.__getitem__)
        assert scalars.of_machine(cases.SCALARS, (2, 3, 4))["gpu_peak_memory_gb"] == 3.0
