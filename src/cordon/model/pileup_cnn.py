"""The model of sites with GPUs: a small convolutional network over the pileup image, beside the features.

Imports torch: `cordon.model.released.build` is the way here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cordon.variants.pileup_images import CHANNELS, SHAPE, SIZE

FIRST_CHANNELS, SECOND_CHANNELS = 8, 16
# Each convolution halves reads and columns (32 x 51, 16 x 26, 8 x 13); what is left is averaged over the
# reads in three stretches of columns: before, at and after the allele.
POOL_WINDOW, POOL_STRIDE = (8, 5), (8, 4)
STRETCHES = 3


class PileupCNN(nn.Module):
    """Maps float32 [..., F + C*H*W], features and then the image flattened, to float32 [...] log odds.

    Normalisation is within one example's own image (nn.GroupNorm, Wu and He 2018, arXiv:1803.08494).
    """

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.features = features
        self.image = nn.Sequential(
            nn.Unflatten(-1, SHAPE),
            nn.Conv2d(len(CHANNELS), FIRST_CHANNELS, 3, stride=2, padding=1),
            nn.GroupNorm(2, FIRST_CHANNELS),
            nn.ReLU(),
            nn.Conv2d(FIRST_CHANNELS, SECOND_CHANNELS, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AvgPool2d(POOL_WINDOW, POOL_STRIDE),
            nn.Flatten(-3),
            # After the average: before it, most of how images differ as a whole would be gone.
            nn.GroupNorm(4, SECOND_CHANNELS * STRETCHES),
        )
        self.hidden = nn.Linear(features + SECOND_CHANNELS * STRETCHES, hidden)
        self.output = nn.Linear(hidden, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        rows = inputs.reshape(-1, self.features + SIZE)
        seen = torch.cat([rows[:, : self.features], self.image(rows[:, self.features :])], dim=-1)
        scores: Tensor = self.output(torch.tanh(self.hidden(seen)))
        return scores.reshape(inputs.shape[:-1])

    @torch.no_grad()
    def start(self, generator: torch.Generator) -> None:
        """Draw the layers before the output from ``generator``; biases are zero.

        The variance is 1 / inputs, and twice that before a ReLU (He et al. 2015, arXiv:1502.01852).
        """
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                inputs = layer.weight[0].numel()
                gain = 2.0 if isinstance(layer, nn.Conv2d) else 1.0
                layer.weight.normal_(0.0, (gain / inputs) ** 0.5, generator=generator)
                assert layer.bias is not None
                layer.bias.zero_()
