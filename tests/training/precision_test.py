import pytest
import tensorflow as tf

from tests import tiny
from training import precision, restore

AVX2 = "processor\t: 0\nflags\t\t: fpu sse4_2 avx avx2 fma\n\nprocessor\t: 1\nflags\t\t: fpu sse4_2 avx avx2 fma\n"
AVX512 = "processor\t: 0\nflags\t\t: fpu sse4_2 avx avx2 fma avx512f avx512bw avx512_bf16\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd bf16\n"
LINE = "warning: train.precision mixed_bfloat16: this processor has no AVX-512, layers compute in float32\n"


@pytest.fixture(name="processor")
def fixture_processor(tmp_path, monkeypatch):
    """Sets the text of /proc/cpuinfo, None for a machine that has no such file."""

    def is_of(text):
        path = tmp_path / "cpuinfo"
        if text is not None:
            path.write_text(text)
        monkeypatch.setattr(precision, "CPU_INFO", path)
        precision._warn.cache_clear()

    return is_of


class OfThisMachineTest:
    @pytest.mark.parametrize("text", [AVX512, ARM, "", None])
    @pytest.mark.parametrize("name", ["float32", "mixed_bfloat16", "mixed_float16"])
    def test_elsewhere_it_is_what_was_asked_for(self, processor, capsys, text, name):
        processor(text)
        assert precision.of_this_machine(name) == name
        assert capsys.readouterr().err == ""

    def test_without_avx512_bfloat16_is_float32_and_said_once(self, processor, capsys):
        processor(AVX2)
        assert [precision.of_this_machine("mixed_bfloat16") for _ in range(2)] == ["float32"] * 2
        assert capsys.readouterr().err == LINE
        assert precision.of_this_machine("mixed_float16") == "mixed_float16"
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize("kind", ["GPU", "TPU"])
    def test_beside_an_accelerator_the_processor_does_not_matter(self, processor, monkeypatch, kind):
        processor(AVX2)
        for name in ("get_visible_devices", "list_logical_devices"):
            monkeypatch.setattr(tf.config, name, lambda asked: [asked] if asked == kind else [])
        assert precision.of_this_machine("mixed_bfloat16") == "mixed_bfloat16"

    @pytest.mark.parametrize(("text", "dtype"), [(AVX2, "float32"), (AVX512, "bfloat16")])
    def test_the_network_computes_in_it(self, processor, text, dtype):
        processor(text)
        model = restore.make_model(tiny.config(precision="mixed_bfloat16"))
        assert model.backbone.compute_dtype == dtype
        assert {variable.dtype for variable in model.variables} == {tf.float32}
        assert tf.keras.mixed_precision.global_policy().name == "float32"
