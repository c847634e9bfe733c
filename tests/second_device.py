"""Everything that is computed, on a device that is neither the CPU nor there; run by its test.

torch's FakeTensorMode carries shapes and devices, and no numbers. It fails where tensors of two
devices meet, and where only a CPU has an operation or memory to read. A fake cannot answer what
depends on numbers, so `Answers` do: that checks pass and no row is left out.

Prints one line of JSON for each stage of a model: its name, and what went wrong, or nothing.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from src.data.pixel_values import PixelValues
from src.data.samples import Samples
from src.ensemble import procedure, setup
from src.ensemble.evaluation import evaluate, fit_of, predict
from src.ensemble.members import PerSampleLoss, stack, trainable
from src.ensemble.memory import steps_at_once, vectors_at_once
from src.ensemble.optimizer import OptimizerSettings
from src.ensemble.procedure import Procedure
from src.kernels.fuse import fuse
from src.models.cnn import CNN2, CNN3
from src.tda import hessian_products, loo
from src.tda.ats import additional_step
from src.tda.gradient_similarity import gradient_similarity
from src.tda.hessian import load_forward_mode_rules
from src.tda.influence import influence
from src.tda.solvers.conjugate_gradient import ConjugateGradient
from src.tda.solvers.exact import Exact
from src.tda.solvers.lissa import Lissa

DEVICE = "second"
ADAM = OptimizerSettings(1e-3, 5e-3, decay_steps=8)
N_TRAIN, N_TEST, BATCH_SIZE, N_EPOCHS = 6, 5, 4, 2


class NoSuchDevice(FakeTensorMode):
    """Fakes of a device on which nothing can be made, not even `torch.tensor`."""

    avoid_device_init = True


class Answers(TorchDispatchMode):
    """What depends on numbers, answered as of a sound computation that has not ended yet."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        aten, kwargs = torch.ops.aten, kwargs or {}
        if function is aten._local_scalar_dense.default:
            return getattr(args[0], "answer", args[0].dtype.is_floating_point * 0.5)
        if function is aten.nonzero.default:
            return torch.arange(len(args[0]), device=args[0].device)[:, None]
        if function in (aten.index.Tensor, aten.index_put.default, aten.index_put_.default):
            tensor, indices, *values = args
            rows = [
                torch.arange(len(i), device=i.device)
                if i is not None and i.dtype == torch.bool
                else i
                for i in indices
            ]
            return function(tensor, rows, *values, **kwargs)
        result = function(*args, **kwargs)
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor) and tensor.device.type == DEVICE:
                assert tensor.dtype != torch.float64, "Apple's GPUs have no float64"
        name = function.overloadpacket.__name__
        if name in ("all", "le"):  # all are finite; an error is below its tolerance
            result.answer = True
        elif name == "any":  # a gradient is not zero; no row goes beyond its bound
            result.answer = args[0].dtype != torch.bool
        elif name == "gt":  # of numbers only the smallest is large enough
            result.answer = hasattr(args[0], "smallest")
        elif name == "min":
            result.smallest = True
        return result


def on_device(model: nn.Module) -> nn.Module:
    """Return the model with its parameters and buffers on the device; `to` cannot move fakes."""
    moved: dict[Tensor, Tensor] = {}
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is None:
                    continue
                if tensor not in moved:
                    fake = torch.empty(tensor.shape, dtype=tensor.dtype, device=DEVICE)
                    if isinstance(tensor, nn.Parameter):
                        fake = nn.Parameter(fake, tensor.requires_grad)
                    moved[tensor] = fake
                tensors[name] = moved[tensor]
    return model


def cnn(kind: type[nn.Module], shape: tuple[int, ...]) -> tuple[nn.Module, Callable, None]:
    """Return a network, what draws images for it and what makes inputs of them."""
    return kind(shape, 10), lambda n: torch.rand(n, *shape), None


def vit() -> tuple[nn.Module, Callable, Callable]:
    """Return a small ViT with LoRA, likewise; its images are resized."""
    from transformers import ViTConfig, ViTForImageClassification

    from src.models.backbones import Backbone
    from src.models.vit import LoraViT

    config = ViTConfig(
        image_size=8,
        patch_size=4,
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
    )
    pixels = PixelValues((8, 8))
    backbone = Backbone.of(ViTForImageClassification(config).eval(), pixels)
    model = LoraViT(backbone, 10, rank=4, alpha=4, dropout=0.1)
    return model, lambda n: torch.randint(0, 256, (n, 1, 12, 12), dtype=torch.uint8), pixels


MODELS = {
    "cnn2": lambda: cnn(CNN2, (1, 28, 28)),
    "cnn3": lambda: cnn(CNN3, (3, 32, 32)),
    "vit": vit,
}


class Work:
    """The stages of attribution for one network, on the device."""

    def __init__(self, model: nn.Module, images: Callable, transform: Callable | None) -> None:
        self.loss = PerSampleLoss(on_device(model))
        self.params = trainable(self.loss.model)
        self.train, self.test = (
            Samples(images(n), torch.arange(n) % 3, torch.arange(n), transform).to(DEVICE)
            for n in (N_TRAIN, N_TEST)
        )

    @property
    def procedure(self) -> Procedure:
        """The training procedure."""
        return Procedure(self.loss, self.train, ADAM, BATCH_SIZE, N_EPOCHS)

    def check(self, tensor: Tensor, *shape: int) -> None:
        """Assert where a result lies and what shape it has."""
        assert tensor.device.type == DEVICE, tensor.device
        assert tensor.shape == shape, tensor.shape

    def training(self) -> None:
        """Train one member."""
        for state in setup.train(self.procedure, self.params):
            for name, p in state.params.items():
                self.check(p, *self.params[name].shape)

    def evaluation(self) -> None:
        """Losses of a stack, accuracy and loss of one member."""
        self.check(evaluate(self.loss, stack([self.params] * 2), self.test), 2, N_TEST)
        fit_of(self.loss, self.params, self.test)

    def predictions(self) -> None:
        """Predicted labels."""
        self.check(predict(self.loss, self.params, self.test), N_TEST)

    def loo(self) -> None:
        """Leave-one-out by retraining and by continuing."""
        for retrainings in (
            loo.retrain(lambda: self.params, (0, 1)),
            loo.continue_training([self.params] * 2, 0, N_EPOCHS),
        ):
            chunks = loo.leave_one_out(
                self.procedure,
                [self.params] * 2,
                retrainings,
                [*range(N_TRAIN), loo.NOTHING],
                self.test,
                chunk_size=min(4, self.procedure.members_at_once(self.params)),
            )
            self.check(torch.cat([*chunks], 1), 2, N_TRAIN + 1, N_TEST)

    def ats(self) -> None:
        """Additional training step."""
        chunks = additional_step(
            self.loss,
            [self.params] * 2,
            self.train,
            self.test,
            optimizer=ADAM,
            chunk_size=min(4, steps_at_once(self.loss, self.params, self.train)),
        )
        self.check(torch.cat([*chunks], 1), 2, N_TRAIN, N_TEST)

    def similarity(self) -> None:
        """Grad-dot and grad-cos."""
        at_once = min(4, vectors_at_once(self.loss, self.params, self.train))
        found = gradient_similarity(
            self.loss, self.params, self.train, self.test, chunk_size=at_once
        )
        for scores in found:
            self.check(scores, N_TRAIN, N_TEST)

    def lissa(self) -> None:
        """Influence by LiSSA, on both sides of the pair matrix."""
        self._influence(Lissa(batch_size=4))

    def cg(self) -> None:
        """Influence by conjugate gradient."""
        self._influence(ConjugateGradient(max_iterations=2))

    def exact(self) -> None:
        """Influence by the dense Hessian, of the last layer alone, so that it is small enough."""
        names = [*self.params]
        model = self.loss.model
        for name in names[:-1]:
            model.get_parameter(name).requires_grad_(False)
        loss, params = PerSampleLoss(model), trainable(model)
        scores, _ = influence(loss, params, self.train, self.test, Exact(), chunk_size=4)
        self.check(scores, N_TRAIN, N_TEST)
        for name in names:
            model.get_parameter(name).requires_grad_(True)

    def _influence(self, solver: Any) -> None:
        for train, test in ((self.train, self.test), (self.test, self.train)):
            scores, _ = influence(self.loss, self.params, train, test, solver, chunk_size=4)
            self.check(scores, len(train), len(test))


STAGES = (
    "training",
    "evaluation",
    "predictions",
    "loo",
    "ats",
    "similarity",
    "lissa",
    "cg",
    "exact",
)


def schedule(n_samples: int, batch_size: int, n_epochs: int) -> Iterator[list[Tensor]]:
    """Yield batches of positions on the CPU, as the DataLoader does, which cannot draw a fake."""
    for _ in range(n_epochs):
        yield [*torch.arange(n_samples).split(batch_size)]


def main(name: str, *stages: str) -> None:
    """Go through the named stages of a model, or all."""
    _setup_privateuseone_for_python_backend(DEVICE)
    load_forward_mode_rules()
    model, images, transform = MODELS[name]()
    model = fuse(model)
    procedure.shuffled_epochs = schedule
    # Of the memory of a fake there is no address, only what stands for it.
    FakeTensor.data_ptr = lambda tensor: tensor.untyped_storage()._cdata
    with NoSuchDevice(allow_non_fake_inputs=False), Answers():
        work = Work(model, images, transform)
        if name == "vit":
            # Forward mode through its softmax is beyond a fake: a second backward pass is not.
            hessian_products._WAYS = hessian_products._WAYS[1:]
        for stage in stages or STAGES:
            error = ""
            try:
                getattr(work, stage)()
            except Exception:
                error = traceback.format_exc()
            print(json.dumps([stage, error]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
