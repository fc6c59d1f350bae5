"""A SavedModel that needs no project code: whole volumes in, padded detections and labels out."""

import pathlib
import tempfile

import tensorflow as tf

from data.atomic import check_folder, replacing
from data.errors import InputError
from serving.inference import VolumeDetector

CONFIG_ASSET = "config.json"


class _Servable(tf.Module):
    """The detector and its config, as what is saved."""

    def __init__(self, detector, config_path):
        super().__init__()
        # Not the Keras model itself: Keras would trace every layer of it several times more.
        self.weights = detector.model.variables
        self.config = tf.saved_model.Asset(config_path)


def export(model, config, config_json, output):
    """Writes the SavedModel.

    Signatures:
      serving_default: `volume` [Z, Y, X, C] float32, intensities of the source, of any size -> boxes [D, 6] float32
        (voxels), scores [D] float32, class_ids [D] int32, masks [D, M, M, M] float32, valid [D] bool, num_detections
        int32, is_full bool (there may be more than D), labels [Z, Y, X] int32; D is `inference.max_detections`. With an
        attribute head also attributes [D, T] float32, in the order of `data.attributes`; with a keypoint head keypoints
        [D, N, 3] float32 (voxels) and keypoint_scores [D, N] float32, in the order of `data.keypoints`, or where there
        are none of ops.keypoints.KEYPOINTS.
      patches: `volume` [B, *patch_size, C] float32, normalised -> the same with a leading B and without is_full and
        labels; D is `model.detections.max_detections`. Fixed shapes, for servers that batch; mirror images are left to
        them.

    Args:
      model: MaskRCNN, built and trained.
      config: its Config.
      config_json: the config as text; kept as the asset `config.json`.
      output: folder to write; must not exist, or be empty.

    Raises:
      InputError: the output folder is not empty, or cannot be made.
    """
    output = pathlib.Path(output)
    check_output(output)
    detector = VolumeDetector(model, config)
    with tempfile.TemporaryDirectory() as folder:
        asset = pathlib.Path(folder) / CONFIG_ASSET
        asset.write_text(config_json)
        servable = _Servable(detector, str(asset))
        signatures = {
            "serving_default": detector.segment.get_concrete_function(),
            "patches": detector.network.get_concrete_function(),
        }
        output.parent.mkdir(parents=True, exist_ok=True)
        with replacing(output) as temporary:
            tf.saved_model.save(servable, str(temporary), signatures=signatures)


def check_output(output):
    """InputError unless the folder is new or empty, and can be written."""
    output = pathlib.Path(output)
    check_folder(output)
    if output.exists() and any(output.iterdir()):
        raise InputError(f"--output={output}: expected a new or empty folder, came one with files")


def load(path):
    """The `serving_default` signature of a SavedModel and its config text.

    Args:
      path: folder that `export` wrote.

    Returns:
      segment: f(volume=[Z, Y, X, C] float32 tensor) -> dict of tensors.
      config_json: str.

    Raises:
      InputError: the folder is not such a SavedModel.
    """
    path = pathlib.Path(path)
    asset = path / "assets" / CONFIG_ASSET
    if not (path / "saved_model.pb").is_file() or not asset.is_file():
        raise InputError(f"--model={path}: expected a SavedModel with {CONFIG_ASSET} among its assets, found none")
    try:
        loaded = tf.saved_model.load(str(path))
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise InputError(f"--model={path}: cannot be loaded: {' '.join(str(error).split())[:200]}") from error
    segment = loaded.signatures["serving_default"]
    segment.keep_alive = loaded  # the signature alone does not hold the variables
    return segment, asset.read_text()
