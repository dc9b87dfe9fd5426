"""The animals at 16 x 16 pixels: `train.npz` and `test.npz`, the same each time.

    pip install --no-deps animal-mnist==0.4
    python examples/animals/small.py train.npz test.npz [--shuffled]

The split is that of `qkf_deploy.datasets.animals`; Pillow's box filter makes the images smaller. They are sorted by
class, unless the training images are to be shuffled, so that the first of them (`--limit`) are of all classes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from qkf_deploy.datasets.animals import CLASS_NAMES, load_animals

SIZE = (16, 16)


def small(images: np.ndarray) -> np.ndarray:
    """``uint8 (N, 1, 28, 28)`` to ``(N, 1, 16, 16)``."""
    return np.stack([np.asarray(Image.fromarray(i[0]).resize(SIZE, Image.Resampling.BOX)) for i in images])[:, None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--shuffled", action="store_true", help="training images in a random order, always the same")
    given = parser.parse_args()
    animals = load_animals()
    order = np.arange(len(animals.train_labels))
    if given.shuffled:
        order = np.random.default_rng(0).permutation(order)
    train, labels = small(animals.train_images)[order], animals.train_labels[order]
    np.savez_compressed(given.train, images=train, labels=labels)
    np.savez_compressed(given.test, images=small(animals.test_images), labels=animals.test_labels)
    print(f"{len(animals.train_labels)} and {len(animals.test_labels)} images of {', '.join(CLASS_NAMES)}")


if __name__ == "__main__":
    main()
