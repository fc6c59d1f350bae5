"""Command: Hardware: Time: Result:"""

from configs import schema


def get_config():
    """Small, high-contrast synthetic shapes."""
    config = schema.Config(name="shapes_small")
    config.data.records = "runs/shapes_small/records"
    config.data.synthetic = schema.Synthetic(
        shape=(64, 64, 64),
        count=(3, 8),
        base_size=7.5,
        contrast=(0.5, 1.0),
        num_train=200,
        num_val=40,
        num_test=4,
    )
    return config
