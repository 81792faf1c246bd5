"""Four CPU devices, checked shapes, and absl flags as grain's workers want them."""

import jax
from absl import flags
from jaxtyping import install_import_hook

jax.config.update("jax_num_cpu_devices", 4)
flags.FLAGS.mark_as_parsed()
# Before the first import of the package: annotated shapes become checks.
install_import_hook(["eegkd.losses"], "beartype.beartype")
