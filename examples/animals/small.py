"""The animals at 16 x 16 pixels: `train.npz` and `test.npz`, the same each time.

    pip install --no-deps animal-mnist==0.4
    python examples/animals/small.py train.npz test.npz

The split is that of `qkf_deploy.datasets.animals`; Pillow's box filter makes the images smaller.
"""

from __future__ import annotations

import sys

import numpy as np
from PIL import Image

from qkf_deploy.datasets.animals import CLASS_NAMES, load_animals

SIZE = (16, 16)


def small(images: np.ndarray) -> np.ndarray:
    """``uint8 (N, 1, 28, 28)`` to ``(N, 1, 16, 16)``."""
    return np.stack([np.asarray(Image.fromarray(i[0]).resize(SIZE, Image.Resampling.BOX)) for i in images])[:, None]


def main() -> None:
    train, test = sys.argv[1:]
    animals = load_animals()
    np.savez_compressed(train, images=small(animals.train_images), labels=animals.train_labels)
    np.savez_compressed(test, images=small(animals.test_images), labels=animals.test_labels)
    print(f"{len(animals.train_labels)} and {len(animals.test_labels)} images of {', '.join(CLASS_NAMES)}")


if __name__ == "__main__":
    main()
