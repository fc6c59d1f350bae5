import pytest
import tensorflow as tf

from benchmarks import step_profile


class PartTest:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("mask_rcnn/backbone/c2_0/conv/Conv3D", "backbone"),
            ("while/body/mask_rcnn/fpn/lateral2/Conv3D", "FPN"),
            ("mask_rcnn/rpn_head_1/conv/Conv3D", "RPN head"),
            ("mask_rcnn/box_head/dense/MatMul", "heads"),
            ("mask_rcnn/box_head1/dense/MatMul", "heads"),
            ("gradient_tape/mask_rcnn/box_head12_3/dense/MatMul", "heads"),
            ("mask_rcnn/mask_head/logits/Conv3D", "heads"),
            ("mask_rcnn/attribute_head/values/MatMul", "heads"),
            ("mask_rcnn/keypoint_head/logits/Conv3D", "heads"),
            ("losses_2/mul", "losses"),
            ("targets/losses/mul", "targets"),
            ("while/body/while/body/mul", "ROIAlign"),
            ("while/body/mul", "other"),
        ],
    )
    def test_the_scopes_of_an_operation_say_its_part(self, name, expected):
        assert step_profile._part(name) == expected


class ScopesTest:
    def test_every_scope_is_a_part(self):
        assert {scope for _, _, scope in step_profile.SCOPES} <= set(step_profile.PARTS)

    def test_functions_are_wrapped_within_and_themselves_afterwards(self):
        def functions():
            return [getattr(module, name) for module, name, _ in step_profile.SCOPES]

        before = functions()
        with step_profile._scopes():
            assert all(scoped is not own for scoped, own in zip(functions(), before, strict=True))
        assert functions() == before

    def test_a_loss_carries_its_scope(self):
        losses = next(module for module, name, _ in step_profile.SCOPES if name == "l2_loss")
        with step_profile._scopes(), tf.Graph().as_default():
            result = losses.l2_loss([tf.ones([2])], 3)["l2"]
        assert step_profile._part(result.op.name) == "losses"
