"""Four CPU devices for every test, and absl flags as grain's workers want them."""

import jax
from absl import flags

jax.config.update("jax_num_cpu_devices", 4)
flags.FLAGS.mark_as_parsed()
