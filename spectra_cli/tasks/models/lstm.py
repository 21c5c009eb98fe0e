"""The papers' speech recognizer: a stack of bidirectional LSTMs and a linear output layer."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class SpeechLstm(nn.Module):
    """Bidirectional LSTM over the frames of utterances, and the classes of each frame (Yunis et al. 2024, appendix).

    The names of the parameters are those of the papers' checkpoints: ``lstm.weight_ih_l0`` ... ``linear.weight``. There
    is no projection before the first layer and no activation after the last.

    Args:
        features: numbers per frame.
        hidden: units of each direction of each layer.
        layers: LSTMs, one above the other.
        classes: outputs per frame.
        dropout: probability, between layers, in training; none in the papers.
    """

    def __init__(self, features: int, hidden: int, layers: int, classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        between = dropout if layers > 1 else 0.0  # torch warns of dropout that has no place
        self.lstm = nn.LSTM(features, hidden, layers, batch_first=True, dropout=between, bidirectional=True)
        self.linear = nn.Linear(2 * hidden, classes)

    def forward(self, features: Tensor, frames: Tensor) -> Tensor:
        """Unnormalized log-probabilities of the classes of every frame.

        The reverse direction starts at each utterance's own last frame, so that what is said of an utterance does not
        depend on the padding that its batch gives it. (The papers' code lets it read the padding.)

        Args:
            features: (batch, longest, features), padded at the end.
            frames: (batch,) int64, each at least 1.

        Returns:
            (batch, longest, classes); meaningless beyond an utterance's frames.
        """
        self.lstm.flatten_parameters()  # weights that were replaced one by one are no longer one piece, as cuDNN wants
        packed = pack_padded_sequence(features, frames.cpu(), batch_first=True, enforce_sorted=False)
        hidden, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=features.shape[1])
        logits: Tensor = self.linear(hidden)
        return logits
