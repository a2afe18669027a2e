"""What does the network hear beside the latent? The picture itself, or a text.

Visual prompt injection (RCOD): an image tower turns the enlarged photo into tokens, and one
Linear (VPIM) fits them to the cross-attention of the backbone. The tokens belong to the whole
photo: they are made once, and every tile and every level shares them.

    up -> 224 x 224 -> tower -> (B, N, D) -> Linear -> tokens (B, N, E)      VisualPrompt
    texts ------------> text tower ------------------> tokens (G, 77, E)     FixedPrompt

A text is the same for every photo, so its tower runs once, when the system is loaded.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rcod.errors import RcodError

if TYPE_CHECKING:
    from transformers import CLIPVisionModel

SIDE = 224  # pixels, what image towers look at
ATTENTION = "eager"  # the published programs' own order of sums; the towers are small


class TinyTower(nn.Module):
    """The tiny model's image tower: 224 x 224 pixels to 7 x 7 tokens of `width`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 48, 8, stride=8),  # (B, 48, 28, 28)
            nn.SiLU(),
            nn.Conv2d(48, 96, 3, stride=2, padding=1),  # (B, 96, 14, 14)
            nn.SiLU(),
            nn.Conv2d(96, width, 3, stride=2, padding=1),  # (B, width, 7, 7)
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )
        self.place = nn.Parameter(torch.zeros(49, width))

    def forward(self, picture: Tensor) -> Tensor:
        """(B, 3, 224, 224) in [-1, 1] -> (B, 49, width)."""
        return self.layers(picture).flatten(2).transpose(1, 2) + self.place


class VisualPrompt(nn.Module):
    """Image -> visual tokens (RCOD's VPIM)."""

    def __init__(self, tower: nn.Module, seen: int, width: int) -> None:
        super().__init__()
        self.tower = tower
        self.project = nn.Linear(seen, width)

    def forward(self, up: Tensor) -> Tensor:
        """Tokens of a photo of any size.

        Args:
            up: enlarged photo, (B, 3, H, W) in [0, 1].

        Returns:
            Tokens, (B, N, width). All zeros is the empty prompt.
        """
        small = F.interpolate(
            up, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True
        )
        return self.project(self.tower(2 * small - 1))


class ClipTower(nn.Module):
    """CLIP's image tower, from a folder in transformers' layout."""

    def __init__(self, model: "CLIPVisionModel") -> None:
        super().__init__()
        self.model = model
        self.width: int = model.config.hidden_size

    def forward(self, picture: Tensor) -> Tensor:
        """(B, 3, 224, 224) in [-1, 1] -> (B, 257, width) float32, before the last norm."""
        seen = self.model(pixel_values=picture.to(self.model.dtype))
        return seen.last_hidden_state.float()


class FixedPrompt(nn.Module):
    """Text tokens that are the same for every photo."""

    def __init__(self, tokens: Tensor) -> None:
        super().__init__()
        self.tokens = nn.Buffer(tokens)  # (G, N, D); with guidance the negative text is second

    def forward(self, up: Tensor) -> Tensor:
        """Tokens of a batch of photos, (B, 3, H, W) -> (G * B, N, D), text after text."""
        return self.tokens.repeat_interleave(len(up), dim=0)


def read_tower(folder: Path, dtype: torch.dtype) -> ClipTower:
    """CLIP's image tower, frozen."""
    try:
        from transformers import CLIPVisionModel
    except ImportError as error:
        raise RcodError(
            f"visual prompts need transformers, got: {error}; pip install 'rcod[sd]'"
        ) from None
    with _quiet():
        try:
            model = CLIPVisionModel.from_pretrained(
                folder, local_files_only=True, dtype=dtype, attn_implementation=ATTENTION
            )
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise RcodError(
                f"--vision must be a folder with CLIP's image tower (config.json and weights), "
                f"got {folder}: {error}"
            ) from None
    if model.config.image_size != SIDE:
        raise RcodError(
            f"the image tower in {folder} must look at {SIDE} x {SIDE} pixels, "
            f"got {model.config.image_size}; take CLIP ViT-L/14"
        )
    return ClipTower(model.eval().requires_grad_(False))


class TextTower:
    """A base's tokenizer and text tower, for texts that come one after another."""

    def __init__(self, base: Path) -> None:
        try:
            from transformers import CLIPTextModel, CLIPTokenizer
        except ImportError as error:
            raise RcodError(
                f"text prompts need transformers, got: {error}; pip install 'rcod[sd]'"
            ) from None
        with _quiet():
            try:
                self.tokenizer = CLIPTokenizer.from_pretrained(
                    base / "tokenizer", local_files_only=True
                )
                tower = CLIPTextModel.from_pretrained(
                    base / "text_encoder",
                    local_files_only=True,
                    dtype=torch.float32,
                    attn_implementation=ATTENTION,
                )
            except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
                raise RcodError(
                    f"this system hears a text, so its base needs the folders tokenizer and "
                    f"text_encoder; {base}: {error}"
                ) from None
        self.tower = tower.eval()

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Texts as the tower hears them, last norm included: (G, 77, D) float32."""
        return self.tower(self.ids(texts)).last_hidden_state.float()

    def ids(self, texts: Sequence[str]) -> Tensor:
        """Texts in the tokenizer's numbers, (G, 77) int64; its padding is not masked."""
        return self.tokenizer(
            list(texts), padding="max_length", max_length=self.tokenizer.model_max_length,
            truncation=True, return_tensors="pt",
        ).input_ids  # fmt: skip


def embed_texts(base: Path, texts: Sequence[str]) -> Tensor:
    """Texts as a base's tower hears them, (G, 77, D) float32."""
    return TextTower(base)(texts)


def tagged(tags: str | None, text: str | None) -> str | None:
    """One text of an image's tags and a user's own, put together as OSEDiff does."""
    return text if tags is None else f"{tags}, {text or ''},"


@contextmanager
def _quiet() -> Iterator[None]:
    """Loading reports its progress and its defaults; a caller hears errors alone."""
    from transformers.utils import logging

    level, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
