"""Constants as the kernels read them: channels in their slots, weights packed."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..kernels.spec import Conv, Window
from .kernel_set import KernelSet
from .layers import Layer, Param, Storage


def physical_weight(weight: np.ndarray, spec: Conv, source: Storage, output: Storage) -> np.ndarray:
    """A convolution's weight with channels moved to their slots: `[O, I / groups, r, s]` to `[out_channels, channels,
    r, s]`.
    """
    if spec.planar or spec.groups > 1:
        columns = np.arange(weight.shape[1])
    else:
        assert source.slots is not None
        columns = source.slots
    assert output.slots is not None
    wide = np.zeros((spec.out_channels, spec.channels, *weight.shape[2:]), _kept(weight))
    wide[np.ix_(output.slots, columns)] = weight
    return wide


def in_slots(param: Param, layer: Layer) -> np.ndarray:
    """The weight of a convolution `[out_channels, channels, r, s]`, its channels in their slots."""
    spec = layer.spec
    assert isinstance(spec, Conv)
    if param.role == "physical":
        return param.array
    if param.role == "dense":
        wide = np.zeros((spec.out_channels, *param.array.shape[1:]), _kept(param.array))
        wide[layer.output.slots] = param.array
        return wide
    assert param.role == "weight"
    return physical_weight(param.array, spec, layer.reads[0], layer.output)


def placed(param: Param, layer: Layer) -> Param:
    """A constant of a convolution, or of channels, with those in their slots: it holds wherever the output goes."""
    if param.role in ("raw", "physical"):
        return param
    if param.role in ("bias", "channel"):
        return Param("raw", channelwise(param.array, layer.output))
    if param.role == "channels":
        return Param("raw", channelwise(param.array.T, layer.output).T)
    return Param("physical", in_slots(param, layer))


def pack(param: Param, layer: Layer, schedule: Any, kernels: KernelSet) -> np.ndarray:
    """A constant argument as the kernel reads it."""
    spec = layer.spec
    if param.role in ("raw", "bias", "channel", "channels"):
        return np.ascontiguousarray(placed(param, layer).array)
    if isinstance(spec, Conv):
        return kernels.pack_weight(in_slots(param, layer), spec, schedule)
    assert isinstance(spec, Window)
    # depthwise: [C, 1, r, s] to [block][r][s][channel]
    wide = channelwise(param.array[:, 0], layer.output)
    return np.ascontiguousarray(
        wide.reshape(layer.output.blocks, layer.output.block, *spec.kernel).transpose(0, 2, 3, 1)
    )


def channelwise(array: np.ndarray, storage: Storage) -> np.ndarray:
    """Row c of `array` at the slot of channel c of a storage, one row a slot; the others zero."""
    wide = np.zeros((storage.blocks * storage.block, *array.shape[1:]), _kept(array))
    wide[storage.slots] = array
    return wide


def _kept(array: np.ndarray) -> np.dtype:
    """The type that a constant has in the blob: integers their own, all else float32."""
    return array.dtype if array.dtype.kind in "iu" else np.dtype(np.float32)
