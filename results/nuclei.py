"""Nuclei as they are counted, beside thresholding and watershed without a network."""

import itertools

import numpy as np
from scipy import ndimage
from skimage import filters, segmentation

from evaluation import metrics, operating
from ops import masks as mask_ops

# What the watershed is tried with, in voxels of the finest axis: nuclei differ less in voxels than in micrometres.
SIGMAS = (1.0, 2.0, 3.0)
DISTANCES = (8.0, 12.0, 16.0, 20.0)
# Of the least score: what was seen in training scores higher than what was not, so that the best there may leave out
# most of what is right elsewhere.
HIGHEST = 0.5


def measure(trained, evaluation, unseen):
    """F1 at mask IoU 0.5 of the network and of Otsu's threshold with a distance-transform watershed.

    What each of them leaves open is chosen for the best F1 of the training stacks: the least score of the network,
    which is no higher than `HIGHEST`, and the smoothing and the distance of seeds of the watershed, of `SIGMAS` x
    `DISTANCES`. Objects of fewer than `data.min_voxels` voxels count on neither side: the records hold no such truths.

    Args:
      trained: results.measuring.Trained.
      evaluation: evaluation.evaluate.Evaluation of the split that is measured.
      unseen: folder of separate records, whose split test that is; None: val of the run's own.

    Returns:
      {name: float, None where undefined}: f1, precision, recall, min_score; watershed_f1, watershed_precision,
      watershed_recall, watershed_sigma, watershed_distance; f1_above_watershed, f1 - watershed_f1; where there are
      several volumes f1_<volume> and watershed_f1_<volume> of each.
    """
    min_voxels = trained.config.data.min_voxels
    min_score = min(operating.best_score(trained.evaluate("train").matches), HIGHEST)
    sigma, distance = best_watershed(list(trained.truths("train")), min_voxels)

    truths = list(trained.truths("test" if unseen else "val", unseen))
    baseline = [match(truth, watershed(truth, sigma, distance, min_voxels)) for truth in truths]
    found = operating.f1(evaluation.matches, min_score) | {"min_score": min_score}
    found |= {f"watershed_{name}": value for name, value in operating.f1(baseline, 0.0).items()}
    scores = found["f1"], found["watershed_f1"]
    found["f1_above_watershed"] = None if None in scores else scores[0] - scores[1]
    found |= {"watershed_sigma": sigma, "watershed_distance": distance}
    if len(truths) > 1:
        for truth, ours, theirs in zip(truths, evaluation.matches, baseline, strict=True):
            found[f"f1_{truth['name']}"] = operating.f1([ours], min_score)["f1"]
            found[f"watershed_f1_{truth['name']}"] = operating.f1([theirs], 0.0)["f1"]
    return found


def best_watershed(truths, min_voxels):
    """The one of `SIGMAS` and of `DISTANCES` with the best F1 of all volumes; of equally good ones the first."""

    def quality(settings):
        found = [match(truth, watershed(truth, *settings, min_voxels)) for truth in truths]
        return operating.f1(found, 0.0)["f1"] or 0.0

    return max(itertools.product(SIGMAS, DISTANCES), key=quality)


def watershed(truth, sigma, distance, min_voxels):
    """Objects of a volume's first channel: brighter than Otsu's threshold, parted where they are thin.

    Seeds are where the smoothed distance to the background is the largest of a box around. As it comes the distance has
    a peak for every dent of the surface.

    Args:
      truth: as of data.volumes.of_split; its volume [Z, Y, X, C] and spacing [3] are read.
      sigma: standard deviation of the Gaussian that smooths volume and distance, voxels of the finest axis.
      distance: half the edge of the box, likewise.
      min_voxels: smaller objects are left out.

    Returns:
      [Z, Y, X] int32, ids 1..N.
    """
    spacing = np.asarray(truth["spacing"], np.float64)
    voxels = spacing.min() / spacing  # of each axis, as long as one of the finest
    smooth = ndimage.gaussian_filter(truth["volume"][..., 0], sigma * voxels)
    is_bright = smooth > filters.threshold_otsu(smooth)
    depth = ndimage.distance_transform_edt(is_bright, sampling=spacing)
    depth = ndimage.gaussian_filter(depth, sigma * voxels)
    edges = 2 * np.maximum(np.round(distance * voxels).astype(int), 1) + 1
    is_seed = is_bright & (depth == ndimage.maximum_filter(depth, edges.tolist()))
    markers, count = ndimage.label(is_seed, np.ones((3, 3, 3)))  # neighbours that are equally deep are one seed
    ids = segmentation.watershed(-depth, markers, mask=is_bright)
    sizes = np.bincount(ids.ravel(), minlength=count + 1)
    is_kept = (sizes >= min_voxels) & (np.arange(len(sizes)) > 0)
    return np.where(is_kept, np.cumsum(is_kept), 0).astype(np.int32)[ids]


def match(truth, ids):
    """The objects of a label volume [Z, Y, X] int32, ids 1..N, as detections of class 1 that score 1.

    Args:
      truth: as of data.volumes.of_split.
      ids: of `watershed`.

    Returns:
      metrics.VolumeMatch.
    """
    places = ndimage.find_objects(ids)
    crops = [([part.start for part in place], ids[place] == n) for n, place in enumerate(places, start=1)]
    return metrics.VolumeMatch(
        box_iou=metrics.box_iou(mask_ops.instance_boxes(ids, len(places))[0].numpy(), truth["boxes"]),
        mask_iou=metrics.mask_iou(crops, truth["instance_ids"], len(truth["class_ids"])),
        scores=np.ones(len(places), np.float32),
        class_ids=np.ones(len(places), np.int32),
        gt_class_ids=truth["class_ids"],
    )
