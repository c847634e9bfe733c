"""The networks of 'Influence functions in deep learning are fragile' (Basu, Pope, Feizi 2021).

Of the paper the small network's layers are known, of the others the names alone. So LeNet is
LeNet-5 (LeCun et al. 1998) with ReLU and max-pooling, VGG13 and the ResNets are torchvision's, and
VGG14, which nobody else has, is VGG13 with one more convolution in its last stage: eleven
convolutions and three linear layers. What is not as in torchvision: the first layer takes the
images' channels; images of 28×28 get a border of two black pixels for the VGGs, which halve a map
five times; a VGG's linear layers are 512 wide and have no dropout, since its last map is 512×1×1
here and not 512×7×7. There is no dropout in any of them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from src.models.cnn import pooled

ImageShape = tuple[int, int, int]  # channels, height, width

# Channels of the convolutions of each stage; torchvision calls VGG13's list "B".
_VGG13 = [64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"]
_VGG14 = [*_VGG13[:-1], 512, "M"]


class PositionMean(nn.Module):
    """The mean over positions: (B, C, H, W) to (B, C)."""

    def forward(self, maps: Tensor) -> Tensor:
        """Return the means."""
        return maps.mean((2, 3))


def small_tanh(image_shape: ImageShape, n_classes: int) -> nn.Sequential:
    """Return five 3x3 convolutions of 8 channels, a 1x1 to 10, tanh after each; mean; linear 10.

    Strides are 1, 2, 1, 2, 1, without padding: from (1, 28, 28) to 8x2x2, with 2,616 parameters of
    ten classes. The architecture is Koh and Liang's (2017), whose numbers Basu et al. give.
    """
    channels = image_shape[0]
    layers: list[nn.Module] = []
    for stride in (1, 2, 1, 2, 1):
        layers += [nn.Conv2d(channels, 8, 3, stride), nn.Tanh()]
        channels = 8
    layers += [nn.Conv2d(channels, 10, 1), nn.Tanh(), PositionMean()]
    return nn.Sequential(*layers, nn.Linear(10, n_classes))


class LeNet(nn.Module):
    """Two 5x5 convolutions (6, 16), each ReLU and maxpool 2, then linear 120, 84, n_classes.

    The first has a padding of 2 on 28x28: from there and from 32x32 to 16x5x5.
    """

    def __init__(self, image_shape: ImageShape, n_classes: int) -> None:
        super().__init__()
        channels, *sizes = image_shape
        padding = 2 if min(sizes) < 32 else 0
        height, width = (pooled(pooled(size, 5, padding), 5) for size in sizes)
        self.conv1 = nn.Conv2d(channels, 6, 5, padding=padding)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * height * width, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, n_classes) of images (B, C, H, W)."""
        x = F.max_pool2d(F.relu(self.conv1(images)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc1(x.flatten(1)))
        return self.fc3(F.relu(self.fc2(x)))


def vgg13(image_shape: ImageShape, n_classes: int) -> nn.Module:
    """Return VGG13 (Simonyan and Zisserman 2015, configuration B)."""
    return _vgg(_VGG13, image_shape, n_classes)


def vgg14(image_shape: ImageShape, n_classes: int) -> nn.Module:
    """Return VGG13 with one more convolution in the last stage."""
    return _vgg(_VGG14, image_shape, n_classes)


def _vgg(stages: list[int | str], image_shape: ImageShape, n_classes: int) -> nn.Module:
    from torchvision.models.vgg import make_layers  # slow to import

    channels, *sizes = image_shape
    features = make_layers(stages)
    features[0] = nn.Conv2d(channels, features[0].out_channels, 3, padding=1)
    model = nn.Sequential(
        nn.ZeroPad2d(max(0, (32 - min(sizes) + 1) // 2)),
        features,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        *(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU()),
        nn.Linear(512, n_classes),
    )
    for module in model.modules():  # as torchvision does
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.zeros_(module.bias)
    return model


def resnet18(image_shape: ImageShape, n_classes: int) -> nn.Module:
    """Return torchvision's ResNet18 (He et al. 2016) for the images' channels."""
    return _resnet("resnet18", image_shape, n_classes)


def resnet50(image_shape: ImageShape, n_classes: int) -> nn.Module:
    """Return torchvision's ResNet50 (ibid.) for the images' channels."""
    return _resnet("resnet50", image_shape, n_classes)


def _resnet(name: str, image_shape: ImageShape, n_classes: int) -> nn.Module:
    import torchvision

    model = getattr(torchvision.models, name)(num_classes=n_classes)
    if image_shape[0] != 3:
        model.conv1 = nn.Conv2d(image_shape[0], 64, 7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    return model


# By the names of the study's table.
NETWORKS: dict[str, Callable[[ImageShape, int], nn.Module]] = {
    "lenet": LeNet,
    "vgg13": vgg13,
    "vgg14": vgg14,
    "resnet18": resnet18,
    "resnet50": resnet50,
}
