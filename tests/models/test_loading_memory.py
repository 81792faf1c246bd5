"""How much memory loading takes beside the parameters, in a process of its own.

Parameters lie in the host's memory on a CPU, so what is proved is that the peak of
anonymous memory (`RssAnon`), less the parameters, is a few of the largest tensor. Pages
of the files, which are mapped, count as `RssFile`, and the system may drop them.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from eegkd.convert.hf_save import Outgoing, write_checkpoint
from tests.support.llama_files import CONFIG, llama_shapes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path("/proc/self/status").is_file(), reason="needs Linux' account of memory"
    ),
]
# Vicuna-7B's layers and vocabulary, an eighth of its width.
LAYOUT = CONFIG | {
    "vocab_size": 32000,
    "hidden_size": 512,
    "intermediate_size": 1376,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
}
_MEASURE = """
import json, sys, threading
import jax, jax.numpy as jnp
from eegkd.models import load_pretrained
jax.block_until_ready(jnp.zeros(3) + 1)
def anonymous():
    lines = open("/proc/self/status").read().splitlines()
    return next(1024 * int(l.split()[1]) for l in lines if l.startswith("RssAnon"))
peak, done = [0], threading.Event()
def watch():
    while not done.wait(0.002):
        peak[0] = max(peak[0], anonymous())
folder, dtype = sys.argv[1:]
before = anonymous()
threading.Thread(target=watch, daemon=True).start()
_, variables = load_pretrained("llama", folder, dtype=jnp.dtype(dtype))
jax.block_until_ready(variables)
done.set()
held = sum(leaf.nbytes for leaf in jax.tree.leaves(variables))
print(json.dumps({"before": before, "peak": peak[0], "held": held}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("layout")
    rng = np.random.default_rng(0)
    # Below the patterns of infinities and NaN, which loading refuses.
    bits = rng.integers(0, 0x7F80, 1 << 20, dtype=np.uint16)

    def value(shape):
        return np.resize(bits, shape).view(ml_dtypes.bfloat16)

    tensors = [
        Outgoing(name, shape, "bfloat16", lambda shape=shape: value(shape))
        for name, shape in llama_shapes(LAYOUT).items()
    ]
    write_checkpoint(path, LAYOUT, tensors, max_shard_bytes=12_000_000)
    return path, sum(t.num_bytes for t in tensors), max(t.num_bytes for t in tensors)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_few_tensors_lie_beside_the_parameters(folder, dtype):
    path, file_bytes, largest = folder
    assert len(list(path.glob("*.safetensors"))) > 15
    assert file_bytes > 250_000_000
    run = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(path), dtype],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(run.stdout)
    assert found["held"] == file_bytes * (2 if dtype == "float32" else 1)
    beside = found["peak"] - found["before"] - found["held"]
    # What is read, its transpose, and its cast; then the programs that write it.
    # What is read, its transpose, and what compiling the programs takes.
    assert beside < 4 * largest, f"{beside / 1e6:.0f} MB, {found}"
    # The account is of anonymous memory, which parameters are.
    assert found["peak"] - found["before"] > 0.9 * found["held"]
