import numpy as np
import pytest
import tensorflow as tf

from configs import heads_schema
from model import losses, targets
from ops import boxes as box_ops
from ops import keypoints, overlaps
from tests import reference

WEIGHTS = (10.0, 10.0, 10.0, 5.0, 5.0, 5.0)
SHAPE = (5, 7, 11)
OVERLAPS = {"giou": overlaps.giou, "diou": overlaps.diou, "ciou": overlaps.ciou}
PERMUTATIONS = pytest.mark.parametrize("axes", [(2, 0, 1), (1, 2, 0), (0, 2, 1)])


def softplus(x):
    return np.log1p(np.exp(x))


def anchor_targets(positive, negative, deltas=None, matched_boxes=None):
    shape = (*np.shape(positive), 6)
    return targets.AnchorTargets(
        positive=np.array(positive),
        negative=np.array(negative),
        deltas=np.zeros(shape, np.float32) if deltas is None else np.float32(deltas),
        matched_boxes=np.zeros(shape, np.float32) if matched_boxes is None else np.float32(matched_boxes),
    )


def roi_targets(class_ids, valid=None, deltas=None, boxes=None, slots=None, matched_boxes=None):
    class_ids = np.int32(class_ids)
    zeros = np.zeros((*class_ids.shape, 6), np.float32)
    return targets.RoiTargets(
        boxes=zeros if boxes is None else np.float32(boxes),
        class_ids=class_ids,
        slots=np.where(class_ids > 0, 0, -1).astype(np.int32) if slots is None else np.int32(slots),
        deltas=zeros if deltas is None else np.float32(deltas),
        valid=np.ones(class_ids.shape, bool) if valid is None else np.array(valid),
        matched_boxes=zeros if matched_boxes is None else np.float32(matched_boxes),
    )


def rpn_losses(logits, deltas, drawn, anchors=None, **settings):
    anchors = np.zeros((np.shape(deltas)[1], 6), np.float32) if anchors is None else anchors
    return losses.rpn_losses(tf.constant(logits), tf.constant(deltas), anchors, drawn, rpn=heads_schema.RPN(**settings))


def mask_losses(logits, masks, class_ids, **settings):
    return losses.mask_losses(logits, masks, class_ids, mask_head=heads_schema.MaskHead(**settings))


def box_losses(logits, deltas, rois, **settings):
    return losses.box_losses(
        tf.constant(logits),
        tf.constant(deltas),
        rois,
        delta_weights=WEIGHTS,
        box_head=heads_schema.BoxHead(**settings),
    )


def assert_zero_with_zero_gradient(function, *inputs):
    """The losses of all volumes are 0 and so is their gradient by every input."""
    inputs = [tf.constant(x, tf.float32) for x in inputs]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        total = tf.add_n(list(function(*inputs).values()))
    np.testing.assert_array_equal(total, np.zeros(total.shape))
    for gradient in tape.gradient(total, inputs):
        np.testing.assert_array_equal(gradient, np.zeros(gradient.shape))


class RpnLossesTest:
    def test_hand_values_per_volume(self):
        logits = np.float32([[2.0, -1.0, 30.0], [0.5, 0.0, 0.0]])
        deltas = np.zeros((2, 3, 6), np.float32)
        deltas[0, 0, :2] = [0.05, -1.0]
        drawn = anchor_targets([[True, False, False], [False] * 3], [[False, True, False], [True, False, False]])
        result = rpn_losses(logits, deltas, drawn)
        expected = [(softplus(-2.0) + softplus(-1.0)) / 2, softplus(0.5)]
        np.testing.assert_allclose(result["rpn_class"], expected, rtol=1e-6)
        # Quadratic below a ninth, linear above.
        np.testing.assert_allclose(result["rpn_box"], [0.5 * 0.05**2 * 9 + 1.0 - 0.5 / 9, 0.0], rtol=1e-5)
        wide = rpn_losses(logits, deltas, drawn, beta=2.0)
        np.testing.assert_array_equal(wide["rpn_class"], result["rpn_class"])
        np.testing.assert_allclose(wide["rpn_box"], [0.5 * (0.05**2 + 1.0) / 2, 0.0], rtol=1e-5)

    def test_hand_values_of_focal(self):
        logits = np.float32([[0.0, np.log(3.0), 0.0, 30.0], [0.0, 0.0, 0.0, 30.0]])
        drawn = anchor_targets(
            [[True, True, False, False], [False] * 4], [[False, False, True, False], [True, True, True, False]]
        )
        result = rpn_losses(logits, np.zeros((2, 4, 6), np.float32), drawn, class_loss="focal")
        wrong = 0.75 * 0.25 * np.log(2)
        first = 0.25 * 0.25 * np.log(2) + 0.25 / 16 * np.log(4 / 3) + wrong
        # By two positives, and by one for want of any.
        np.testing.assert_allclose(result["rpn_class"], [first / 2, 3 * wrong], rtol=1e-5)
        settings = {"class_loss": "focal", "focal_alpha": 0.5, "focal_gamma": 0.0}
        result = rpn_losses(logits, np.zeros((2, 4, 6), np.float32), drawn, **settings)
        expected = [(2 * np.log(2) + np.log(4 / 3)) / 4, 1.5 * np.log(2)]
        np.testing.assert_allclose(result["rpn_class"], expected, rtol=1e-5)

    @pytest.mark.parametrize("class_loss", ["cross_entropy", "focal"])
    def test_two_logits_are_a_softmax(self, class_loss):
        rng = np.random.default_rng(0)
        logits, deltas = rng.normal(0, 2, (2, 9, 2)).astype(np.float32), np.zeros((2, 9, 6), np.float32)
        label = rng.integers(-1, 2, (2, 9))
        drawn = anchor_targets(label == 1, label == 0)
        result = rpn_losses(logits, deltas, drawn, class_loss=class_loss, objectness="softmax")["rpn_class"]
        probability = np.take_along_axis(tf.nn.softmax(logits).numpy(), np.maximum(label, 0)[..., None], -1)[..., 0]
        for b in range(2):
            p, right = probability[b][label[b] >= 0], label[b][label[b] >= 0]
            if class_loss == "focal":
                alpha = np.where(right == 1, 0.25, 0.75)
                expected = -(alpha * (1 - p) ** 2 * np.log(p)).sum() / max(right.sum(), 1)
            else:
                expected = -np.log(p).mean()
            np.testing.assert_allclose(result[b], expected, rtol=1e-5)

    @pytest.mark.parametrize("box_loss", OVERLAPS)
    def test_overlap_losses_are_of_decoded_boxes(self, box_loss):
        rng = np.random.default_rng(1)
        anchors, truths = reference.random_boxes(rng, 4, SHAPE), reference.random_boxes(rng, 8, SHAPE).reshape(2, 4, 6)
        deltas = rng.normal(0, 0.3, (2, 4, 6)).astype(np.float32)
        positive = np.array([[True, True, False, False], [False, False, False, True]])
        drawn = anchor_targets(positive, ~positive, np.full((2, 4, 6), 9.0), truths)
        result = rpn_losses(np.zeros((2, 4), np.float32), deltas, drawn, anchors, box_loss=box_loss)["rpn_box"]
        for b in range(2):
            decoded = reference.decode(deltas[b], anchors).astype(np.float32)
            expected = np.mean(1 - OVERLAPS[box_loss](decoded, truths[b]).numpy()[positive[b]])
            np.testing.assert_allclose(result[b], expected, rtol=1e-4)

    @pytest.mark.parametrize("box_loss", ["smooth_l1", *OVERLAPS])
    def test_perfect_deltas_have_no_loss(self, box_loss):
        rng = np.random.default_rng(2)
        anchors, truths = reference.random_boxes(rng, 4, SHAPE), reference.random_boxes(rng, 4, SHAPE)[None]
        deltas = box_ops.encode(truths, anchors).numpy()
        drawn = anchor_targets(np.ones((1, 4), bool), np.zeros((1, 4), bool), deltas, truths)
        result = rpn_losses(np.zeros((1, 4), np.float32), deltas, drawn, anchors, box_loss=box_loss)
        np.testing.assert_allclose(result["rpn_box"], [0], atol=1e-4)

    @pytest.mark.parametrize("box_loss", ["smooth_l1", *OVERLAPS])
    @PERMUTATIONS
    def test_permuted_axes(self, box_loss, axes):
        rng = np.random.default_rng(3)
        anchors, truths = reference.random_boxes(rng, 4, SHAPE), reference.random_boxes(rng, 4, SHAPE)[None]
        deltas = rng.normal(0, 0.3, (1, 4, 6)).astype(np.float32)
        targets_of = box_ops.encode(truths, anchors).numpy()
        every, nothing, logits = np.ones((1, 4), bool), np.zeros((1, 4), bool), np.zeros((1, 4), np.float32)
        result = rpn_losses(
            logits, deltas, anchor_targets(every, nothing, targets_of, truths), anchors, box_loss=box_loss
        )
        turned = [reference.permute_boxes(x, axes) for x in (deltas, targets_of, truths, anchors)]
        permuted = rpn_losses(
            logits, turned[0], anchor_targets(every, nothing, turned[1], turned[2]), turned[3], box_loss=box_loss
        )
        assert result["rpn_box"] > 0
        np.testing.assert_allclose(permuted["rpn_box"], result["rpn_box"], rtol=1e-4)

    @pytest.mark.parametrize("box_loss", ["smooth_l1", *OVERLAPS])
    @pytest.mark.parametrize("class_loss", ["cross_entropy", "focal"])
    @pytest.mark.parametrize("logits_shape", [(2, 3), (2, 3, 2)])
    def test_nothing_drawn_gives_zero_and_zero_gradient(self, class_loss, box_loss, logits_shape):
        nothing = np.zeros((2, 3), bool)
        drawn = anchor_targets(nothing, nothing, np.ones((2, 3, 6)) / 0.1)
        settings = heads_schema.RPN(class_loss=class_loss, box_loss=box_loss)
        anchors = reference.random_boxes(np.random.default_rng(0), 3, SHAPE)
        assert_zero_with_zero_gradient(
            lambda logits, deltas: losses.rpn_losses(logits, deltas, anchors, drawn, rpn=settings),
            np.ones(logits_shape),
            np.ones((2, 3, 6)),
        )

    @pytest.mark.parametrize("box_loss", OVERLAPS)
    def test_a_gradient_step_brings_the_box_nearer(self, box_loss):
        anchors, truth = np.float32([[1, 1, 1, 3, 4, 5]]), np.float32([[[2, 3, 4, 4, 6, 9]]])
        drawn = anchor_targets([[True]], [[False]], matched_boxes=truth)
        deltas = tf.Variable(np.zeros((1, 1, 6), np.float32))
        overlap = []
        for _ in range(25):
            with tf.GradientTape() as tape:
                loss = losses.rpn_losses(
                    tf.zeros([1, 1]), deltas, anchors, drawn, rpn=heads_schema.RPN(box_loss=box_loss)
                )["rpn_box"]
            deltas.assign_sub(0.1 * tape.gradient(loss, deltas))
            overlap.append(float(box_ops.iou(box_ops.decode(deltas, anchors), truth)[0, 0]))
        assert overlap[-1] > overlap[0] + 0.3


class BoxLossesTest:
    def test_hand_values(self):
        logits = np.float32([[[0.0, 1.0, 2.0], [3.0, 0.0, 0.0], [9.0, 9.0, 9.0]]])
        deltas = np.zeros((1, 3, 2, 6), np.float32)
        deltas[0, 0, 0] = 100.0  # of the other class: no matter
        deltas[0, 0, 1] = [1.5, 0, 0, 0, 0, 0.25]
        rois = roi_targets([[2, 0, 0]], [[True, True, False]], [[[0.1, 0, 0, 0, 0, 0.05]] + [[7.0] * 6] * 2])
        result = box_losses(logits, deltas, rois)
        first = np.log(1 + np.exp(1.0) + np.exp(2.0)) - 2.0
        second = np.log(np.exp(3.0) + 2.0) - 3.0
        np.testing.assert_allclose(result["roi_class"], [(first + second) / 2], rtol=1e-6)
        # Targets in units of the weights are 1.0 and 0.25; beta is 1.
        np.testing.assert_allclose(result["roi_box"], [0.5 * 0.5**2], rtol=1e-5)
        narrow = box_losses(logits, deltas, rois, beta=0.2)
        np.testing.assert_allclose(narrow["roi_box"], [0.5 - 0.1], rtol=1e-5)

        weighted = box_losses(logits, deltas, rois, class_weights=(1.0, 9.0, 3.0))
        np.testing.assert_allclose(weighted["roi_class"], [(3 * first + second) / 4], rtol=1e-6)
        np.testing.assert_array_equal(weighted["roi_box"], result["roi_box"])

        focal = box_losses(logits, deltas, rois, class_loss="focal")
        p, q = np.exp(-first), np.exp(-second)
        expected = ((1 - p) ** 2 * first + (1 - q) ** 2 * second) / 2
        np.testing.assert_allclose(focal["roi_class"], [expected], rtol=1e-5)
        sharp = box_losses(logits, deltas, rois, class_loss="focal", focal_gamma=1.0)
        expected = ((1 - p) * first + (1 - q) * second) / 2
        np.testing.assert_allclose(sharp["roi_class"], [expected], rtol=1e-5)
        both = box_losses(logits, deltas, rois, class_loss="focal", class_weights=(1.0, 9.0, 3.0))
        expected = (3 * (1 - p) ** 2 * first + (1 - q) ** 2 * second) / 4
        np.testing.assert_allclose(both["roi_class"], [expected], rtol=1e-5)

    @pytest.mark.parametrize("box_loss", ["smooth_l1", *OVERLAPS])
    def test_one_box_for_all_classes_equals_the_same_box_for_each(self, box_loss):
        rng = np.random.default_rng(0)
        boxes = reference.random_boxes(rng, 10, SHAPE).reshape(2, 5, 6)
        truths = reference.random_boxes(rng, 10, SHAPE).reshape(2, 5, 6)
        rois = roi_targets(rng.integers(0, 4, (2, 5)), None, box_ops.encode(truths, boxes), boxes, None, truths)
        deltas = rng.normal(size=(2, 5, 1, 6)).astype(np.float32)
        logits = rng.normal(size=(2, 5, 4)).astype(np.float32)
        agnostic = box_losses(logits, deltas, rois, box_loss=box_loss)
        specific = box_losses(logits, np.tile(deltas, (1, 1, 3, 1)), rois, box_loss=box_loss)
        assert np.all(agnostic["roi_box"] > 0)
        for name, value in agnostic.items():
            np.testing.assert_array_equal(value, specific[name])

    @pytest.mark.parametrize("box_loss", OVERLAPS)
    def test_overlap_losses_are_of_decoded_boxes(self, box_loss):
        rng = np.random.default_rng(1)
        boxes, truths = (reference.random_boxes(rng, 4, SHAPE)[None] for _ in range(2))
        deltas = rng.normal(size=(1, 4, 1, 6)).astype(np.float32)
        rois = roi_targets([[1, 0, 2, 1]], None, np.full((1, 4, 6), 9.0), boxes, None, truths)
        result = box_losses(np.zeros((1, 4, 3), np.float32), deltas, rois, box_loss=box_loss)["roi_box"]
        decoded = reference.decode(deltas[0, :, 0] / WEIGHTS, boxes[0]).astype(np.float32)
        expected = np.mean(1 - OVERLAPS[box_loss](decoded, truths[0]).numpy()[[0, 2, 3]])
        np.testing.assert_allclose(result, [expected], rtol=1e-4)

    @pytest.mark.parametrize("box_loss", ["smooth_l1", *OVERLAPS])
    def test_perfect_deltas_have_no_loss(self, box_loss):
        rng = np.random.default_rng(2)
        boxes, truths = (reference.random_boxes(rng, 4, SHAPE)[None] for _ in range(2))
        encoded = box_ops.encode(truths, boxes).numpy()
        rois = roi_targets(np.ones((1, 4)), None, encoded, boxes, None, truths)
        result = box_losses(
            np.zeros((1, 4, 2), np.float32), (encoded * np.float32(WEIGHTS))[:, :, None], rois, box_loss=box_loss
        )
        np.testing.assert_allclose(result["roi_box"], [0], atol=1e-4)

    @pytest.mark.parametrize("box_loss", ["smooth_l1", *OVERLAPS])
    def test_without_objects_the_box_loss_is_zero_with_zero_gradient(self, box_loss):
        boxes = reference.random_boxes(np.random.default_rng(0), 2, SHAPE)[None]
        rois = roi_targets([[0, 0]], [[True, False]], np.ones((1, 2, 6)), boxes)
        settings = heads_schema.BoxHead(box_loss=box_loss)

        def roi_box(deltas):
            result = losses.box_losses(tf.zeros([1, 2, 3]), deltas, rois, delta_weights=WEIGHTS, box_head=settings)
            return {"roi_box": result["roi_box"]}

        assert_zero_with_zero_gradient(roi_box, np.ones((1, 2, 2, 6)))

    @pytest.mark.parametrize("class_loss", ["cross_entropy", "focal"])
    @pytest.mark.parametrize("class_weights", [(), (1.0, 2.0, 3.0)])
    def test_no_valid_roi_gives_zero_and_zero_gradient(self, class_loss, class_weights):
        rois = roi_targets([[0, 0]], [[False, False]])
        settings = heads_schema.BoxHead(class_loss=class_loss, class_weights=class_weights)
        assert_zero_with_zero_gradient(
            lambda *args: losses.box_losses(*args, rois, delta_weights=WEIGHTS, box_head=settings),
            np.ones((1, 2, 3)),
            np.ones((1, 2, 2, 6)),
        )


class SumStagesTest:
    def test_adds_what_has_the_same_name(self):
        stages = [{"roi_class": np.float32([1, 2]), "roi_box": np.float32([0, i])} for i in range(3)]
        result = losses.sum_stages(stages)
        np.testing.assert_array_equal(result["roi_class"], [3, 6])
        np.testing.assert_array_equal(result["roi_box"], [0, 3])
        assert list(result) == ["roi_class", "roi_box"]


class MaskLossesTest:
    def test_mask_of_the_true_class_alone_counts(self):
        logits = np.full((1, 2, 2, 3, 4, 2), 50.0, np.float32)
        logits[0, 0, ..., 1] = -1.0
        target = np.zeros((1, 2, 2, 3, 4), np.float32)
        target[0, 0, 0] = 1.0  # 12 of 24 voxels
        result = mask_losses(logits, target, np.int32([[2, 0]]))
        np.testing.assert_allclose(result["mask"], [(softplus(1.0) + softplus(-1.0)) / 2], rtol=1e-5)
        p = 1.0 / (1.0 + np.exp(1.0))
        np.testing.assert_allclose(result["mask_dice"], [1 - (2 * 12 * p + 1) / (24 * p + 12 + 1)], rtol=1e-5)
        focal = mask_losses(logits, target, np.int32([[2, 0]]), losses=("focal",), focal_alpha=0.25, focal_gamma=1.0)
        expected = (0.25 * (1 - p) * softplus(1.0) + 0.75 * p * softplus(-1.0)) / 2
        np.testing.assert_allclose(focal["mask_focal"], [expected], rtol=1e-5)

    @pytest.mark.parametrize(
        ("chosen", "names"),
        [
            (("dice",), ["mask_dice"]),
            (("cross_entropy",), ["mask"]),
            (("focal", "dice"), ["mask_focal", "mask_dice"]),
            (("dice", "cross_entropy", "focal"), ["mask_dice", "mask", "mask_focal"]),
        ],
    )
    def test_gives_those_that_are_chosen(self, chosen, names):
        rng = np.random.default_rng(2)
        logits, target = rng.normal(size=(1, 2, 2, 3, 4, 1)).astype(np.float32), rng.random((1, 2, 2, 3, 4)) < 0.5
        args = logits, target.astype(np.float32), np.int32([[1, 2]])
        result = mask_losses(*args, losses=chosen)
        assert list(result) == losses.mask_loss_names(heads_schema.MaskHead(losses=chosen)) == names
        by_default = mask_losses(*args)
        assert list(by_default) == ["mask", "mask_dice"]
        for name in set(result) & set(by_default):
            np.testing.assert_array_equal(result[name], by_default[name])

    def test_one_mask_for_all_classes_equals_the_same_mask_for_each(self):
        rng = np.random.default_rng(0)
        logits = rng.normal(size=(2, 3, 2, 3, 4, 1)).astype(np.float32)
        target, class_ids = (rng.random((2, 3, 2, 3, 4)) < 0.5).astype(np.float32), np.int32([[1, 2, 0], [3, 1, 1]])
        agnostic = mask_losses(logits, target, class_ids)
        specific = mask_losses(np.tile(logits, 3), target, class_ids)
        for name, value in agnostic.items():
            assert np.all(value > 0)
            np.testing.assert_array_equal(value, specific[name])

    @PERMUTATIONS
    def test_permuted_axes(self, axes):
        rng = np.random.default_rng(1)
        logits, target = rng.normal(size=(1, 2, 2, 3, 4, 2)).astype(np.float32), rng.random((1, 2, 2, 3, 4)) < 0.5
        order = (0, 1, *(a + 2 for a in axes))
        result = mask_losses(logits, target.astype(np.float32), np.int32([[1, 2]]))
        turned = np.transpose(target, order).astype(np.float32)
        permuted = mask_losses(np.transpose(logits, (*order, 5)), turned, np.int32([[1, 2]]))
        for name, value in result.items():
            np.testing.assert_allclose(permuted[name], value, rtol=1e-5)

    @pytest.mark.parametrize("masks", [1, 2])
    def test_without_objects_zero_and_zero_gradient(self, masks):
        target, class_ids = tf.zeros([2, 1, 2, 3, 4]), tf.zeros([2, 1], tf.int32)
        assert_zero_with_zero_gradient(
            lambda logits: mask_losses(logits, target, class_ids, losses=heads_schema.MASK_LOSSES),
            np.ones((2, 1, 2, 3, 4, masks)),
        )


class AttributeLossTest:
    @pytest.mark.parametrize(
        ("scale", "errors"),
        [("linear", [0.05, 2.0, 3.0]), ("log", [abs(1.05 - np.log(2)), abs(5 - np.log(4)), 1 + np.log(3)])],
    )
    def test_hand_values(self, scale, errors):
        attributes = np.float32([[[9, 9], [1, 3], [np.nan, 2]]])
        predictions = np.float32([[[1.05, 5], [7, 7], [-4, -1]]])
        rois = roi_targets([[2, 0, 1]], slots=[[1, -1, 2]])
        settings = heads_schema.AttributeHead(scale=scale, beta=0.1)
        result = losses.attribute_loss(predictions, attributes, rois, attribute_head=settings)
        expected = [0.5 * e**2 / 0.1 if e < 0.1 else e - 0.05 for e in errors]
        np.testing.assert_allclose(result["attribute"], [np.mean(expected)], rtol=1e-5)

    def test_linex_by_hand(self):
        rois = roi_targets([[2, 0, 1]], slots=[[1, -1, 0]])
        predictions = np.log(np.float32([[[8], [7], [2]]]))
        settings = heads_schema.AttributeHead(loss="linex")
        result = losses.attribute_loss(predictions, np.float32([[[3], [1]]]), rois, attribute_head=settings)
        expected = [4 - np.log(4) - 1, 0.5 + np.log(2) - 1]  # of ratios 8 / (1 + 1) and 2 / (1 + 3)
        np.testing.assert_allclose(result["attribute"], [np.mean(expected)], rtol=1e-5)

    @pytest.mark.parametrize(("scale", "loss"), [("log", "smooth_l1"), ("log", "linex"), ("linear", "smooth_l1")])
    def test_unknown_numbers_have_no_loss_and_no_gradient(self, scale, loss):
        attributes = np.full((2, 3, 2), np.nan, np.float32)
        rois = roi_targets([[2, 0], [1, 1]], slots=[[1, -1], [2, 0]])
        settings = heads_schema.AttributeHead(scale=scale, loss=loss)
        assert_zero_with_zero_gradient(
            lambda predictions: losses.attribute_loss(predictions, attributes, rois, attribute_head=settings),
            np.ones((2, 2, 2)),
        )

    @pytest.mark.parametrize("scale", ["log", "linear"])
    def test_what_is_known_trains_beside_what_is_not(self, scale):
        attributes = np.float32([[[4, np.nan], [np.nan, 2]]])
        rois = roi_targets([[1, 1]], slots=[[0, 1]])
        predictions = tf.zeros([1, 2, 2])
        with tf.GradientTape() as tape:
            tape.watch(predictions)
            loss = losses.attribute_loss(
                predictions, attributes, rois, attribute_head=heads_schema.AttributeHead(scale=scale)
            )["attribute"]
        np.testing.assert_allclose(tape.gradient(loss, predictions), [[[-0.5, 0], [0, -0.5]]], rtol=1e-6)

    def test_without_objects_zero_and_zero_gradient(self):
        rois = roi_targets([[0, 0]])
        assert_zero_with_zero_gradient(
            lambda predictions: losses.attribute_loss(
                predictions, np.ones((1, 3, 2), np.float32), rois, attribute_head=heads_schema.AttributeHead()
            ),
            np.ones((1, 2, 2)),
        )


class KeypointLossTest:
    def test_hand_values(self):
        boxes = np.float32([[[0, 10, 20, 4, 19, 40], [0, 0, 0, 1, 1, 1]]])
        points = np.float32([[[[9, 9, 9]] * 3, [[3, 11, 32.5], [1, 10, 20], [3, 11, 40]]]])  # the last is outside
        logits = np.zeros((1, 2, 3, 2, 3, 4), np.float32)
        logits[0, 0, 0, 1, 0, 2] = np.log(69.0)
        rois = roi_targets([[2, 0]], boxes=boxes, slots=[[1, -1]])
        result = losses.keypoint_loss(logits, points, np.ones((1, 2, 3), bool), rois)
        np.testing.assert_allclose(result["keypoint"], [(np.log(92 / 69) + np.log(24)) / 2], rtol=1e-5)
        one = losses.keypoint_loss(logits, points, np.array([[[True] * 3, [True, False, True]]]), rois)
        np.testing.assert_allclose(one["keypoint"], [np.log(92 / 69)], rtol=1e-5)
        points[0, 1, 0] = [2, 11, 32.5]  # shared by two bins
        shared = losses.keypoint_loss(logits, points, np.array([[[True] * 3, [True, False, True]]]), rois)
        np.testing.assert_allclose(shared["keypoint"], [np.log(92) - 0.5 * np.log(69) - np.log(2)], rtol=1e-5)

    def test_the_right_maps_have_next_to_no_loss(self):
        ids = np.zeros((1, *SHAPE), np.int32)
        ids[0, 1:4, 2:6, 3:9], ids[0, 4, 6, 10] = 1, 2
        points, valid = keypoints.from_ids(ids, 3)
        rois = roi_targets([[1, 1, 2]], boxes=[[[1, 2, 3, 4, 6, 9], [0, 1, 2, 5, 7, 11], [3, 5, 9, 5, 7, 11]]])
        rois = rois._replace(slots=np.int32([[0, 0, 1]]))
        own = tf.gather(points, rois.slots, batch_dims=1)
        maps, inside = keypoints.to_heat_maps(own, np.ones((1, 3, 7), bool), rois.boxes, (4, 6, 8))
        assert inside.numpy().all()
        logits = np.log(maps.numpy() + 1e-13)
        np.testing.assert_allclose(losses.keypoint_loss(logits, points, valid, rois)["keypoint"], [0], atol=1e-5)
        wrong = losses.keypoint_loss(np.roll(logits, 1, axis=-1), points, valid, rois)
        assert wrong["keypoint"] > 5

    @PERMUTATIONS
    def test_permuted_axes(self, axes):
        rng = np.random.default_rng(0)
        boxes = reference.random_boxes(rng, 4, SHAPE)[None]
        points = (
            boxes[:, :, None, :3] + rng.random((1, 4, 3, 3)) * (boxes[..., 3:] - boxes[..., :3])[:, :, None]
        ).astype(np.float32)
        logits, valid = rng.normal(size=(1, 4, 3, 2, 3, 4)).astype(np.float32), rng.random((1, 4, 3)) < 0.8
        rois = roi_targets([[1, 2, 1, 0]], boxes=boxes, slots=[[2, 2, 1, -1]])
        result = losses.keypoint_loss(logits, points, valid, rois)["keypoint"]
        turned = rois._replace(boxes=reference.permute_boxes(boxes, axes))
        permuted = losses.keypoint_loss(
            np.transpose(logits, (0, 1, 2, *(a + 3 for a in axes))), points[..., list(axes)], valid, turned
        )
        assert result > 0
        np.testing.assert_allclose(permuted["keypoint"], result, rtol=1e-5)

    @pytest.mark.parametrize("class_id", [0, 1])
    def test_without_landmarks_zero_and_zero_gradient(self, class_id):
        rois = roi_targets([[class_id] * 2], boxes=np.tile(np.float32([0, 0, 0, 4, 4, 4]), (1, 2, 1)))
        points, valid = np.ones((1, 3, 5, 3), np.float32), np.full((1, 3, 5), class_id == 0)
        assert_zero_with_zero_gradient(
            lambda logits: losses.keypoint_loss(logits, points, valid, rois), np.ones((1, 2, 5, 2, 3, 4))
        )


class L2LossTest:
    def test_hand_values(self):
        kernels = [np.float32([[3.0, 4.0]]), tf.Variable([1.0, 2.0, 0.0])]
        np.testing.assert_allclose(losses.l2_loss(kernels, 3)["l2"], [15.0] * 3)

    def test_the_gradient_is_the_kernel(self):
        kernel = tf.Variable([3.0, -4.0])
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(losses.l2_loss([kernel], tf.constant(4))["l2"])
        np.testing.assert_allclose(tape.gradient(loss, kernel), [3.0, -4.0])

    def test_half_precision_is_summed_in_float32(self):
        assert losses.l2_loss([tf.fill([100], tf.constant(100.0, tf.float16))], 1)["l2"].numpy() == [500000.0]


class TotalTest:
    def test_losses_of_a_batch_are_those_of_its_volumes(self):
        rng = np.random.default_rng(0)
        boxes, truths = (reference.random_boxes(rng, 15, SHAPE).reshape(3, 5, 6) for _ in range(2))
        slots = rng.integers(-1, 2, (3, 5)).astype(np.int32)
        slots[2] = -1
        inputs = {
            "rois": roi_targets(slots + 1, None, box_ops.encode(truths, boxes), boxes, slots, truths),
            "logits": rng.normal(size=(3, 5, 3)).astype(np.float32),
            "deltas": rng.normal(size=(3, 5, 2, 6)).astype(np.float32),
            "mask_logits": rng.normal(size=(3, 5, 2, 3, 4, 2)).astype(np.float32),
            "masks": rng.integers(0, 2, (3, 5, 2, 3, 4)).astype(np.float32),
            "predictions": rng.normal(size=(3, 5, 2)).astype(np.float32),
            "attributes": rng.random((3, 2, 2)).astype(np.float32),
            "heat_maps": rng.normal(size=(3, 5, 1, 2, 3, 4)).astype(np.float32),
            "points": rng.random((3, 2, 1, 3)).astype(np.float32) * np.float32(SHAPE),
        }

        def all_losses(part):
            x = tf.nest.map_structure(lambda value: value[part], inputs)
            return {
                **box_losses(x["logits"], x["deltas"], x["rois"], box_loss="giou"),
                **mask_losses(x["mask_logits"], x["masks"], x["rois"].class_ids),
                **losses.attribute_loss(
                    x["predictions"], x["attributes"], x["rois"], attribute_head=heads_schema.AttributeHead()
                ),
                **losses.keypoint_loss(x["heat_maps"], x["points"], np.ones(x["points"].shape[:3], bool), x["rois"]),
            }

        whole = all_losses(slice(None))
        assert list(whole) == ["roi_class", "roi_box", "mask", "mask_dice", "attribute", "keypoint"]
        for name, value in whole.items():
            assert value.shape == (3,)
            assert (value[2] == 0) == (name != "roi_class")
            parts = [all_losses(slice(b, b + 1))[name][0] for b in range(3)]
            np.testing.assert_allclose(value, parts, rtol=1e-5, err_msg=name)
