"""A Vision Transformer with LoRA on query and value, and a new classification head."""

from __future__ import annotations

import copy

from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from src.errors import UserError
from src.models.backbones import Backbone, quiet_transformers

HEAD = "classifier"  # of transformers' ViTForImageClassification


class LoraViT(nn.Module):
    """A backbone with low-rank adapters (Hu et al. 2022) and a new head; only these are trainable.

    The frozen weights are the backbone's own memory, however many models are built on it. What is
    drawn from torch's global generator is, in this order, the head and then peft's adapters, so
    that a draw depends on the seed and not on how transformers loads a file:

        torch.manual_seed(seed); new head; get_peft_model(model, LoraConfig(...))

    Args:
        backbone: The pre-trained network.
        n_classes: Number of logits.
        rank: Rank of the adapters.
        alpha: The adapters' output is multiplied by alpha / rank.
        dropout: Probability of dropout on the adapters' inputs.
    """

    frozen_weights_are_given = True

    def __init__(
        self, backbone: Backbone, n_classes: int, *, rank: int, alpha: int, dropout: float
    ) -> None:
        super().__init__()
        model = _sharing_weights(backbone.model)
        head = nn.Linear(model.config.hidden_size, n_classes)
        nn.init.normal_(head.weight, std=model.config.initializer_range)
        nn.init.zeros_(head.bias)
        setattr(model, HEAD, head)
        config = LoraConfig(
            r=rank,
            lora_alpha=alpha,
            lora_dropout=dropout,
            bias="none",
            target_modules=query_and_value(model),
            modules_to_save=[HEAD],
        )
        with quiet_transformers():
            self.peft = get_peft_model(model, config)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return logits (B, n_classes) of images (B, 3, H, W) as the backbone takes them."""
        return self.peft(pixel_values=pixel_values).logits


def _sharing_weights(model: nn.Module) -> nn.Module:
    """Return a copy of a model whose parameters are new but share the memory of the original's."""
    shared = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in model.parameters()}
    return copy.deepcopy(model, memo=shared)


def query_and_value(model: nn.Module) -> list[str]:
    """Return the names of the query and value layers within an attention module.

    Releases of transformers name them differently (query and value, q_proj and v_proj), so they
    are found: the linear layers that begin with q and v where a module has q, k and v layers.

    Raises:
        UserError: There are none.
    """
    for module in model.modules():
        by_initial = {
            name[0]: name for name, child in module.named_children() if isinstance(child, nn.Linear)
        }
        if by_initial.keys() >= {"q", "k", "v"}:
            return [by_initial["q"], by_initial["v"]]
    raise UserError("the backbone has no linear query and value layers to put LoRA on")
