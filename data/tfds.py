"""What TensorFlow Datasets needs beside the shards: `tfds.builder_from_directory` then reads the records.

https://www.tensorflow.org/datasets/external_tfrecord
"""

from data import records

_PYTHON = "tensorflow_datasets.core.features"


def descriptions(manifest):
    """The files that describe a folder of records to TensorFlow Datasets.

    Args:
      manifest: of the records.

    Returns:
      {file name: what it holds, JSON-ready}. Splits without cases are left out.
    """
    splits = [
        {
            "name": split,
            "shardLengths": [str(shard["records"]) for shard in shards],
            "numBytes": str(sum(shard["bytes"] for shard in shards)),
            "filepathTemplate": "{SPLIT}-{SHARD_X_OF_Y}.{FILEFORMAT}",
        }
        for split, shards in manifest["shards"].items()
        if shards
    ]
    info = {
        "name": "records",
        "version": "1.0.0",
        "description": f"Chunks of annotated volumes, converted from {manifest['source']}.",
        "fileFormat": "tfrecord",
        "moduleName": "data.records",
        "splits": splits,
    }
    features = {name: _tensor(dtype, shape) for name, (dtype, shape) in records.feature_specs().items()}
    tree = {
        "pythonClassName": f"{_PYTHON}.features_dict.FeaturesDict",
        "featuresDict": {"features": features},
    }
    return {"dataset_info.json": info, "features.json": tree}


def _tensor(dtype, shape):
    dimensions = {"dimensions": [str(size) for size in shape]} if shape else {}
    return {
        "pythonClassName": f"{_PYTHON}.tensor_feature.Tensor",
        "tensor": {"shape": dimensions, "dtype": dtype, "encoding": "none"},
    }
