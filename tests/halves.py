"""The half precisions that are tested: bfloat16 where layers compute in it (training/precision.py)."""

import pytest

from training import precision

needs_bfloat16 = pytest.mark.skipif(
    not precision.computes_bfloat16(precision.cpu_info()), reason="layers compute bfloat16 in float32 without AVX-512"
)
POLICIES = ["mixed_float16", pytest.param("mixed_bfloat16", marks=needs_bfloat16)]
