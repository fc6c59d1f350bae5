"""What the records say about the data, as far as a network or its training depends on it."""


def class_weights(num_instances, balance):
    """Weights of the classes in a loss, heavier for those that are rare: frequency ** -balance.

    Args:
      num_instances: {class: how many there are}, in the order of the class ids; as in the manifest of a split.
      balance: 0 for equal weights, 1 for classes that weigh the same together, however many objects they have.

    Returns:
      tuple of K + 1 floats, background first. The mean over all objects is 1, and so is the weight of the background
      and of a class that does not occur, so that objects and background keep their shares in the loss.
    """
    total = sum(num_instances.values())
    raw = [(total / count) ** balance if count else 0.0 for count in num_instances.values()]
    mean = sum(weight * count for weight, count in zip(raw, num_instances.values(), strict=True)) / max(total, 1)
    return (1.0, *(weight / mean if weight else 1.0 for weight in raw))
