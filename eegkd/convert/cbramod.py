"""CBraMod weights, from its authors' files and from braindecode's."""

from pathlib import Path
from typing import Any

from eegkd.convert.files import read_optional_config, read_weights
from eegkd.convert.foundation import (
    PATCH,
    Fields,
    backbone_only,
    expect,
    signal_of,
)
from eegkd.convert.tables import (
    TRANSPOSED,
    Pairs,
    Turn,
    Weight,
    count_layers,
    linear,
    norm,
    place,
    size_of,
    time_conv,
)

_PER_CHANNEL = Turn(
    lambda a: a[:, 0].transpose(1, 2, 0), lambda a: a.transpose(2, 0, 1)[:, None]
)
_KERNELS = [[49, 25, 24], [3, 1, 1], [3, 1, 1]]


def load_cbramod(folder_or_file: str | Path) -> tuple[dict[str, Any], Pairs]:
    """Reads CBraMod's weights; its authors' and braindecode's names are the same.

    Names may begin with `module.` or `backbone.`; task heads are left out.

    Returns:
        Keyword arguments of `models.CBraModConfig`, and the parameters by path.

    Raises:
        InputError: If a file is missing or broken, names or shapes differ, or
            `config.json` asks for something else than the published architecture.
    """
    source = str(folder_or_file)
    config = read_optional_config(folder_or_file, Fields)
    tensors = backbone_only(read_weights(folder_or_file), ("module.", "backbone."))
    sizes = signal_of(source, config)
    stem = config.get("channels_kernel_stride_padding_norm")
    if stem is not None:
        kernels = [list(layer[1:4]) for layer in stem]
        expect(source, "channels_kernel_stride_padding_norm", kernels, _KERNELS)
        sizes["groups"] = stem[0][4][0]
    sizes |= {
        "filters": size_of(tensors, "patch_embedding.proj_in.0.weight", 0, 25),
        "depth": count_layers(tensors, "encoder.layers.", 12),
        "num_heads": config.get("nhead", 8),
        "ffn_dim": size_of(tensors, "encoder.layers.0.linear1.weight", 0, 800),
        "reconstruct": any(name.startswith("proj_out.") for name in tensors),
    }
    table = _table(sizes["filters"], sizes["ffn_dim"], reconstruct=sizes["reconstruct"])
    return sizes, place(source, tensors, table, depth=sizes["depth"], model="CBraMod")


def _table(filters: int, ffn: int, *, reconstruct: bool) -> list[Weight]:
    d, layer = 8 * filters, "encoder.layers.{}."
    embedding = "patch_embedding."
    table = [Weight(("mask_token",), f"{embedding}mask_encoding", (PATCH,))]
    for i, (inner, taps) in enumerate(((1, 49), (filters, 3), (filters, 3))):
        name = f"{embedding}proj_in.{{}}".format
        table += time_conv(
            ("embedding", f"conv_{i}"), name(3 * i), filters, inner, taps
        )
        table += norm(("embedding", f"norm_{i}"), name(3 * i + 1), filters)
    table += linear(
        ("embedding", "spectral"), f"{embedding}spectral_proj.0", d, PATCH // 2 + 1
    )
    position = f"{embedding}positional_encoding.0"
    table += [
        Weight(
            ("embedding", "position", "kernel"),
            f"{position}.weight",
            (d, 1, 19, 7),
            _PER_CHANNEL,
        ),
        Weight(("embedding", "position", "bias"), f"{position}.bias", (d,)),
    ]
    for ours, theirs in (("spatial", "self_attn_s"), ("temporal", "self_attn_t")):
        path, half = ("layers", ours), d // 2
        table += [
            Weight(
                (*path, "qkv", "kernel"),
                f"{layer}{theirs}.in_proj_weight",
                (3 * half, half),
                TRANSPOSED,
            ),
            Weight(
                (*path, "qkv", "bias"), f"{layer}{theirs}.in_proj_bias", (3 * half,)
            ),
            *linear((*path, "out"), f"{layer}{theirs}.out_proj", half, half),
        ]
    table += [
        *norm(("layers", "attention_norm"), f"{layer}norm1", d),
        *norm(("layers", "ffn_norm"), f"{layer}norm2", d),
        *linear(("layers", "up"), f"{layer}linear1", ffn, d),
        *linear(("layers", "down"), f"{layer}linear2", d, ffn),
    ]
    return table + list(
        linear(("proj_out",), "proj_out.0", PATCH, d) if reconstruct else ()
    )
