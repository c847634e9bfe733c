"""torchvision's ResNet-18, with its batch normalisation, on a folder of folders of images.

`images/` beside this file, or the folder that IMAGES names, holds a folder for each class (or
train/ and test/ with these): cats/1.png, cats/2.png, dogs/1.png, ... of 32x32 colour pixels.

    python run_subset_generation.py --define examples/resnet.py --task pictures
    python run_parallel.py --define examples/resnet.py --experiment resnet18_pictures_5pc
"""

import os
from pathlib import Path

from torchvision.models import resnet18

from src.experiments import register_model, register_task

FOLDER = os.environ.get("IMAGES", str(Path(__file__).parent / "images"))

register_task(
    "pictures",
    folder=FOLDER,
    n_per_class=(5, 20),
    n_test_per_class=10,
    input_shape=(3, 32, 32),
    normalised=True,
    epochs=6,
)
register_model("resnet18", lambda task: resnet18(num_classes=task.n_classes), batch_size=16)
