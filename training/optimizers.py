"""The rules by which a gradient becomes a step."""

import tensorflow as tf
import tensorflow_addons as tfa

from training import schedules

# Parts of the names of variables that are not decayed: biases, scales and offsets.
UNDECAYED = ("bias", "gamma", "beta", "alpha")


class AdamW(tf.keras.optimizers.AdamW):
    """Keras' AdamW (Loshchilov and Hutter 2019), whose step passes over a variable once instead of ten times."""

    def update_step(self, gradient, variable):
        """One step of a variable by a dense gradient of its shape, both float32."""
        index = self._index_dict[self._var_key(variable)]
        step = tf.cast(self.iterations + 1, variable.dtype)
        rate = tf.cast(self.learning_rate, variable.dtype)
        if self.weight_decay and self._use_weight_decay(variable):
            # Once its gradient is there: a forward pass that still holds the variable would make this a copy of it.
            with tf.control_dependencies([gradient]):
                variable.assign_sub(rate * self.weight_decay * variable)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].handle,
            v=self._velocities[index].handle,
            beta1_power=tf.pow(tf.cast(self.beta_1, variable.dtype), step),
            beta2_power=tf.pow(tf.cast(self.beta_2, variable.dtype), step),
            lr=rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )

    def _apply_weight_decay(self, variables):
        """Nothing: `update_step` does it."""


class RectifiedAdam(tfa.optimizers.RectifiedAdam):
    """That of Addons (Liu et al. 2020), which does not decay what is not to be decayed."""

    def __init__(self, *args, weight_decay, **kwargs):
        """As its base."""
        super().__init__(*args, weight_decay=weight_decay, **kwargs)
        self.decays = weight_decay > 0

    def _resource_apply_dense(self, grad, var, apply_state=None):
        self._has_weight_decay = self.decays and not any(part in var.name for part in UNDECAYED)
        return super()._resource_apply_dense(grad, var, apply_state)


def make(train_config, factor=None, schedule=None):
    """The optimizer of the `train` section, which counts the steps; call it under the strategy's scope.

    With precision mixed_float16 it scales the loss, and skips a step whose gradient is not finite.

    Args:
      train_config: see above.
      factor: scalar variable that the learning rate is multiplied by, or None.
      schedule: f(step) -> learning rate in the place of that of the section.
    """
    schedule = schedule or schedules.Staged(
        train_config.as_stages(), train_config.schedule, train_config.warmup_steps, factor
    )
    optimizer = _of_rule(train_config.optimizer, schedule, train_config.weight_decay)
    if train_config.precision == "mixed_float16":
        optimizer = tf.keras.mixed_precision.LossScaleOptimizer(optimizer)
    return optimizer


def build(optimizer, variables):
    """Makes what the optimizer keeps of each variable, so that a checkpoint can be restored into it.

    Ranger begins with the values that the variables have now.
    """
    if not _is_legacy(optimizer):
        optimizer.build(variables)
        return
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    count = inner.iterations  # makes the variable
    inner._create_all_weights(variables)  # the older optimizers, those of Addons, have no other way
    if isinstance(inner, tfa.optimizers.Lookahead):
        inner._optimizer._iterations = count  # as its first step would do


def apply(optimizer, gradients, variables):
    """One step by gradients that have been summed over the replicas; call it in a replica."""
    summed = (
        {"experimental_aggregate_gradients": False} if _is_legacy(optimizer) else {"skip_gradients_aggregation": True}
    )
    optimizer.apply_gradients(zip(gradients, variables, strict=True), **summed)


def learning_rate(optimizer):
    """That of the last step, a float."""
    rate = optimizer.learning_rate
    # The older ones keep their schedule, the newer ones what it said last.
    return float(tf.convert_to_tensor(rate(optimizer.iterations - 1) if callable(rate) else rate))


def _of_rule(settings, schedule, weight_decay):
    adam = {"beta_1": settings.beta_1, "beta_2": settings.beta_2, "epsilon": settings.epsilon}
    if settings.name == "adam":
        return tf.keras.optimizers.Adam(schedule, jit_compile=False, **adam)
    if settings.name == "lamb":
        return tfa.optimizers.LAMB(
            schedule,
            weight_decay=weight_decay,
            exclude_from_weight_decay=list(UNDECAYED),
            exclude_from_layer_adaptation=list(UNDECAYED),
            **adam,
        )
    if settings.name == "ranger":
        fast = RectifiedAdam(schedule, weight_decay=weight_decay, **adam)
        return tfa.optimizers.Lookahead(fast, settings.slow_steps, settings.slow_share)
    if settings.name == "sgd":
        optimizer = tf.keras.optimizers.SGD(
            schedule, settings.momentum, nesterov=True, weight_decay=weight_decay, jit_compile=False
        )
    else:
        optimizer = AdamW(schedule, weight_decay=weight_decay, jit_compile=False, **adam)
    optimizer.exclude_from_weight_decay(var_names=list(UNDECAYED))
    return optimizer


def _is_legacy(optimizer):
    """Whether it is of the older kind, as those of Addons are."""
    return isinstance(getattr(optimizer, "inner_optimizer", optimizer), tf.keras.optimizers.legacy.Optimizer)
