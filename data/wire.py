"""A tf.train.Example as bytes, around data so large that protobuf's copies of it would take longer than all else.

The encoding of protocol buffers (protobuf.dev/programming-guides/encoding): a message is its fields one after the
other, and a field that holds bytes or a message is its number, the length and the content.
"""

import tensorflow as tf

_LAST = chr(0x10FFFF)  # sorts behind every other character


def example(features: dict[str, tf.train.Feature], name: str, data) -> bytes:
    """What `SerializeToString(deterministic=True)` gives of a tf.train.Example with one large feature.

    Args:
      features: the other ones.
      name: of the large one.
      data: its only value: bytes, or an array [n] uint8.

    Returns:
      bytes, in which the features are in protobuf's order: that of their names, a name after those that begin with it.
    """
    large = _field(1, *_field(1, data))  # Feature.bytes_list.value
    entry = _field(1, *_field(1, name.encode()), *_field(2, *large))  # of the map Features.feature
    before = {other: value for other, value in features.items() if other + _LAST < name + _LAST}
    after = {other: value for other, value in features.items() if other not in before}
    return b"".join(_field(1, _serialized(before), *entry, _serialized(after)))


def _serialized(features):
    return tf.train.Features(feature=features).SerializeToString(deterministic=True)


def _field(number, *content):
    """The parts of a field whose content is given in parts."""
    length, digits = sum(map(len, content)), []
    while length >= 128:  # Seven bits a byte, the lowest first; all but the last have the eighth set.
        digits.append(length % 128 + 128)
        length //= 128
    return bytes([number << 3 | 2, *digits, length]), *content
