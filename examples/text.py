"""Which sentences taught a small transformer what is praise and what is complaint.

python run_subset_generation.py --define examples/text.py --task reviews
python run_parallel.py --define examples/text.py --experiment transformer_reviews_20pc
"""

import itertools
import random

import torch
from torch import nn

from src.experiments import register_model, register_task

THINGS = "film meal hotel book concert phone teacher garden".split()
PRAISE = "lovely brilliant charming superb delightful".split()
COMPLAINT = "dreadful boring broken awful tasteless".split()
FRAMES = (
    "the {thing} was {word}",
    "what a {word} {thing}",
    "i found the {thing} {word} from start to end",
    "nobody expected such a {word} {thing} here",
)
LENGTH = 10  # words of the longest sentence


def sentences() -> tuple[list[str], list[int]]:
    pairs = [
        (frame.format(thing=thing, word=word), label)
        for label, words in enumerate((COMPLAINT, PRAISE))
        for frame, thing, word in itertools.product(FRAMES, THINGS, words)
    ]
    random.Random(0).shuffle(pairs)
    texts, labels = zip(*pairs, strict=True)
    return list(texts), list(labels)


WORDS = ["", *sorted({word for text in sentences()[0] for word in text.split()})]  # 0 is padding


def load() -> dict:
    texts, labels = sentences()
    tokens = torch.zeros(len(texts), LENGTH, dtype=torch.int64)
    for row, text in zip(tokens, texts, strict=True):
        ids = [WORDS.index(word) for word in text.split()]
        row[: len(ids)] = torch.tensor(ids)
    return {"pool": (tokens, torch.tensor(labels))}


class Transformer(nn.Module):
    def __init__(self, n_classes: int, width: int = 32) -> None:
        super().__init__()
        self.words = nn.Embedding(len(WORDS), width, padding_idx=0)
        self.places = nn.Parameter(0.02 * torch.randn(LENGTH, width))
        self.layer = nn.TransformerEncoderLayer(width, 4, 64, dropout=0.1, batch_first=True)
        self.head = nn.Linear(width, n_classes)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.layer(self.words(tokens) + self.places)  # (B, LENGTH, width)
        there = (tokens > 0).unsqueeze(2)
        return self.head((x * there).sum(1) / there.sum(1))


register_task(
    "reviews",
    load,
    n_per_class=(20, 40),
    n_test_per_class=40,
    epochs=15,
    class_names=("complaint", "praise"),
    text=lambda tokens: " ".join(WORDS[token] for token in tokens.tolist() if token),
)
register_model("transformer", lambda task: Transformer(task.n_classes), learning_rate=3e-3)
