"""A foundation model with a head, as a stage of a system: from scratch or published."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eegkd.errors import InputError
from eegkd.host.paths import PathText
from eegkd.losses import Term
from eegkd.models import (
    PATCH,
    TEN_TWENTY,
    CBraMod,
    CBraModConfig,
    GridConfig,
    Labram,
    LabramConfig,
    LoraConfig,
    TaskHead,
    apply_adapted,
    apply_params,
    cbramod_head,
    check_windows,
    find_linears,
    init_adapters,
    labram_head,
    load_pretrained,
    merge_adapters,
    unit_scale,
)
from eegkd.systems import SignalConfig, Stage, Weights
from eegkd.systems.loaded import loaded_weights
from eegkd.systems.stages import class_probabilities
from eegkd.typing import Array, Batch, PyTree, StepKeys, Tensors, Variables

_AS_FAST_AS_THE_HEAD = ("norm", "time")
"""The last norm; and, for no stated reason, LaBraM's embedding of a patch's time."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """The foundation model, and its tuning on the task.

    Attributes:
        name: Name of the model.
        weights: Folder or file of weights, of the sizes below; empty: from scratch.
        head: On CBraMod: all tokens through three layers, two or one, or their mean
            through one. LaBraM has its own, on the mean.
        train: Trained part: all; the head on a frozen backbone; or, on such a backbone,
            low-rank adapters of its linear layers, and the head.
        label_smoothing: Smoothing of the teacher's labels; None: 0.1 for three classes
            or more, else none.
        cbramod: Sizes of a CBraMod; channels, patches and scale are the data's.
        labram: Sizes of a LaBraM, likewise.
        lora: Sizes of the adapters, and the paths of their layers.
    """

    name: Literal["cbramod", "labram"] = "cbramod"
    weights: PathText = ""
    head: Literal["all_patch", "two_layer", "one_layer", "average"] = "all_patch"
    train: Literal["full", "frozen", "lora"] = "full"
    label_smoothing: float | None = None
    cbramod: CBraModConfig = CBraModConfig()
    labram: LabramConfig = LabramConfig()
    lora: LoraConfig = LoraConfig()


class Foundation(NamedTuple):
    """The functions of a stage, and the facts of its model.

    Attributes:
        module: The backbone.
        layers: Names of the layers that can be mimicked, the embedding first.
        init: `Stage.init`.
        forward: `Stage.forward`; adds `logits` to the backbone's tensors.
        labels: `Stage.labels`: "head", or "default".
        depths: `Stage.depths`: 0 before the layers, then theirs, then the head's.
        finish: `Stage.finish`: the backbone with its adapters merged.
        load: `Stage.load`: the published weights that it starts from.
        multilabel: True if a window may have several classes.
    """

    module: Any
    layers: tuple[str, ...]
    init: Callable[..., Variables]
    forward: Callable[..., tuple[Tensors, Any]]
    labels: Callable[[PyTree], PyTree]
    depths: Callable[[PyTree], PyTree]
    finish: Callable[[Variables], Variables] | None
    load: Weights | None
    multilabel: bool = False

    def stage(self, name: str, terms: tuple[Term, ...]) -> Stage:
        """Makes a stage of the model."""
        return Stage(
            name,
            self.init,
            self.forward,
            terms,
            predict=class_probabilities(self.forward, multilabel=self.multilabel),
            labels=self.labels,
            depths=self.depths,
            finish=self.finish,
            load=self.load,
        )


def make_foundation(signal: SignalConfig, teacher: TeacherConfig) -> Foundation:
    """Builds the model that `teacher` asks for, for the data's grid.

    Raises:
        InputError: If it cannot take the data, or its weights cannot be read.
    """
    module, load = _backbone(signal, teacher)
    kind, num_classes = teacher.head, len(signal.classes)
    if teacher.name == "labram":
        head = labram_head(num_classes)
    else:
        head = cbramod_head(
            kind,
            num_patches=module.cfg.num_patches,
            num_classes=num_classes,
            dropout=module.cfg.dropout,
        )
    whole, depth = teacher.train == "full", module.cfg.depth
    return Foundation(
        module=module,
        layers=("embed", *(f"block_{i}" for i in range(depth))),
        init=functools.partial(_init, module, head, teacher),
        forward=functools.partial(_forward, module, head, teacher.lora),
        labels=_labels,
        depths=functools.partial(_depths, depth),
        finish=None if whole else functools.partial(_finish, teacher.lora.alpha),
        load=load,
        multilabel=signal.multilabel,
    )


def grid_fields(signal: SignalConfig) -> dict[str, Any]:
    """Returns the fields of a `GridConfig` that the data decide.

    Raises:
        InputError: If windows are not patches of one second at 200 Hz, or units differ.
    """
    names = signal.channels
    if not names:
        known = signal.n_chans == len(TEN_TWENTY)
        numbered = tuple(f"channel {i}" for i in range(signal.n_chans))
        names = TEN_TWENTY if known else numbered
    source = "The windows"
    fields: dict[str, Any] = {
        "channels": names,
        "num_patches": max(1, signal.n_times // PATCH),
    }
    if signal.units:
        fields["scale"] = unit_scale(signal.units, source=source)
    check_windows(
        GridConfig(**fields),
        channels=names,
        rate=signal.rate,
        n_times=signal.n_times,
        source=source,
    )
    return fields


def _backbone(
    signal: SignalConfig, teacher: TeacherConfig
) -> tuple[Any, Weights | None]:
    """Builds the backbone, and checks that loaded weights have the options' sizes."""
    fields = grid_fields(signal)
    model: Any = CBraMod
    sizes: Any = teacher.cbramod
    if teacher.name == "labram":
        model, sizes = Labram, teacher.labram
    else:
        fields["reconstruct"] = False
    wanted = dataclasses.replace(sizes, **fields)
    if not teacher.weights:
        return model(wanted), None
    fields |= {"dropout": wanted.dropout, "dtype": wanted.dtype}
    if isinstance(wanted, LabramConfig):
        fields["drop_path"] = wanted.drop_path
    module, variables = load_pretrained(teacher.name, teacher.weights, **fields)
    _check_sizes(teacher.weights, teacher.name, wanted, module.cfg)
    return module, loaded_weights(teacher.name, teacher.weights, variables["params"])


def _check_sizes(file: str, name: str, wanted: Any, found: Any) -> None:
    """Checks the sizes of loaded weights: a run is read again without their file."""
    sizes = (field.name for field in dataclasses.fields(wanted))
    cures = [
        f"--teacher.{name}.{size} {getattr(found, size)}"
        for size in sizes
        if getattr(found, size) != getattr(wanted, size)
    ]
    if cures:
        raise InputError(f"{file} is of other sizes: give {' '.join(cures)}.")


def _init(
    module: Any,
    head: TaskHead,
    teacher: TeacherConfig,
    key: Array,
    batch: Batch,
    upstream: Mapping[str, Variables],
    loaded: PyTree | None = None,
) -> Variables:
    del upstream
    own, last = jax.random.split(key)
    signal = jnp.asarray(batch["signal"])[:1]
    backbone = loaded or module.init({"params": own}, signal)["params"]
    shapes = jax.eval_shape(functools.partial(apply_params, module), backbone, signal)
    tensors = {k: jnp.zeros(x.shape, x.dtype) for k, x in shapes.items()}
    trained = {"head": head.init({"params": last}, tensors)["params"]}
    if teacher.train == "full":
        return Variables({"backbone": backbone, **trained}, {}, {})
    if teacher.train == "lora":
        linears = find_linears(module, signal)
        third = jax.random.fold_in(key, 2)
        trained["lora"] = init_adapters(third, backbone, linears, teacher.lora)
    return Variables(trained, {"backbone": backbone}, {})


def _forward(
    module: Any,
    head: TaskHead,
    lora: LoraConfig,
    variables: Variables,
    batch: Batch,
    upstream: Mapping[str, Tensors],
    *,
    train: bool,
    key: StepKeys | None,
) -> tuple[Tensors, Any]:
    del upstream
    params = {**variables.frozen, **variables.params}
    rngs = {} if key is None else {"dropout": key.local}
    # A frozen backbone runs as in use, without dropout.
    noisy = train and not {"backbone", "lora"}.isdisjoint(variables.params)
    out = apply_adapted(
        module,
        params["backbone"],
        params.get("lora", {}),
        batch["signal"],
        alpha=lora.alpha,
        dropout=lora.dropout if train and "lora" in params else 0.0,
        train=noisy,
        rngs=rngs,
    )
    if key is not None:
        rngs = {"dropout": jax.random.fold_in(key.local, 1)}
    logits = apply_params(head, params["head"], out, train=train, rngs=rngs)
    return {**out, "logits": logits}, variables.state


def _finish(alpha: float, variables: Variables) -> Variables:
    """Merges frozen and trained parts into one model."""
    params = {**variables.frozen, **variables.params}
    backbone = params["backbone"]
    if "lora" in params:
        backbone = merge_adapters(backbone, params["lora"], alpha=alpha)
    return Variables(
        {"backbone": backbone, "head": params["head"]}, {}, variables.state
    )


def _labels(params: PyTree) -> PyTree:
    return {
        name: jax.tree.map(lambda _, name=name: _group(name), part)
        for name, part in params.items()
    }


def _group(part: str) -> str:
    return "head" if part == "head" else "default"


def _depths(depth: int, params: PyTree) -> PyTree:
    """Returns depths from the input, as LaBraM's published fine-tuning counts them."""

    def of(path: Any, leaf: Array) -> int | np.ndarray:
        part, name = (str(key.key) for key in path[:2])
        if part != "head" and name == "layers":
            return np.arange(1, depth + 1)  # stacked
        return depth + 1 if part == "head" or name in _AS_FAST_AS_THE_HEAD else 0

    return jax.tree_util.tree_map_with_path(of, params)
