"""A tf.train.Example as bytes, around data so large that protobuf's copies of it would take longer than all else.

The encoding of protocol buffers (protobuf.dev/programming-guides/encoding): a message is its fields one after the
other, and a field that holds bytes or a message is its number, the length and the content.
"""

import tensorflow as tf


def example(features: dict[str, tf.train.Feature], name: str, data) -> bytes:
    """A serialized tf.train.Example with one large feature.

    Args:
      features: the other ones.
      name: of the large one.
      data: its only value: bytes, or an array [n] uint8.

    Returns:
      bytes, which depend on the features alone and not on their order; the large one is the last.
    """
    small = tf.train.Features(feature=features).SerializeToString(deterministic=True)
    large = _field(1, *_field(1, data))  # Feature.bytes_list.value
    entry = _field(1, *_field(1, name.encode()), *_field(2, *large))  # of the map Features.feature
    return b"".join(_field(1, small, *entry))


def _field(number, *content):
    """The parts of a field whose content is given in parts."""
    length, digits = sum(map(len, content)), []
    while length >= 128:  # Seven bits a byte, the lowest first; all but the last have the eighth set.
        digits.append(length % 128 + 128)
        length //= 128
    return bytes([number << 3 | 2, *digits, length]), *content
