"""What do the published checkpoints hold, and is it all there?

The five systems were published as pickles. They are read by PyTorch's restricted loader, which
knows tensors and plain containers and refuses to call anything else; every key must be one that
the system is known to have, every tensor must have the shape that its neighbours imply. Out
comes one flat table of tensors under the names that this package uses.

    osediff.pkl                     -> unet.plain.*, vae.plain.*, unet.whole.*
    rcod_o.pkl                      -> the same and prompt.project.*
    pisa_sr.pkl                     -> unet.pixel.*, unet.semantic.*
    s3diff.pkl, de_net.pth          -> *.guided.*, unet.whole.*, guide.*, estimator.*
    rcod_s.pkl, de_net.pth, MEM     -> the same, prompt.project.* and estimator.head.*
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from torch import Tensor

from rcod.errors import RcodError
from rcod.networks.estimators import DegradationEstimator
from rcod.networks.guide import UNET_BLOCKS, VAE_BLOCKS, Guide
from rcod.networks.systems import System, covers
from rcod.pickles import check_empty, check_state, read_pickle, some, take, tensors_of

LORA = re.compile(r"(?P<layer>.+)\.lora_(?P<side>[AB])\.(?P<adapter>\w+)\.weight")
SIDES = {"A": "down", "B": "up"}

OSEDIFF = (
    ("unet_lora_encoder_modules", "unet", "default_encoder", "plain"),
    ("unet_lora_decoder_modules", "unet", "default_decoder", "plain"),
    ("unet_lora_others_modules", "unet", "default_others", "plain"),
    ("vae_lora_encoder_modules", "vae", "default_encoder", "plain"),
)
PISA = tuple(
    (f"unet_lora_{where}_modules_{short}", "unet", f"default_{where}_{short}", name)
    for where in ("encoder", "decoder", "others")
    for short, name in (("pix", "pixel"), ("sem", "semantic"))
)
S3DIFF = (
    ("unet_lora_target_modules", "unet", "default", "guided"),
    ("vae_lora_target_modules", "vae", "vae_skip", "guided"),
)
# which list of layers belongs to which adapter of which network, and what we call the set
ADAPTERS = {
    "osediff": OSEDIFF,
    "rcod_o": OSEDIFF,
    "pisa_sr": PISA,
    "s3diff": S3DIFF,
    "rcod_s": S3DIFF,
}
RANKS = {
    "plain": {"unet": "rank_unet", "vae": "rank_vae"},
    "guided": {"unet": "rank_unet", "vae": "rank_vae"},
    "pixel": {"unet": "lora_rank_unet_pix"},
    "semantic": {"unet": "lora_rank_unet_sem"},
}
WHOLE = {
    "osediff": "conv_in.base_layer", "rcod_o": "conv_in.base_layer",
    "s3diff": "conv_in", "rcod_s": "conv_in",
}  # fmt: skip
PROJECTION = {"rcod_o": "state_dict_proj", "rcod_s": "state_dict_clip_proj"}
GUIDE = {"de_mlp": "degree", "block_mlp": "place", "fuse_mlp": "fuse"}  # theirs, ours

Read = dict[str, object]


def convert(files: Sequence[Path], system: System) -> tuple[System, dict[str, Tensor]]:
    """Read a system's published files, strictly.

    Args:
        files: the checkpoint, and de_net.pth and the metric head where the system has them.
        system: which system's format.

    Returns:
        The system's row with the layers its adapters must cover, and its tensors, float32.
    """
    parts = {_kind(content := read_pickle(path), path): (path, content) for path in files}
    if len(parts) < len(files):
        raise RcodError(
            f"every file must be another part of {system.name}, and two of these are the same; "
            "name one of them"
        )
    wanted = {"checkpoint", "estimator"} if system.adapters == "guided" else {"checkpoint"}
    allowed = wanted | ({"metric"} if system.metric else set())
    if lost := wanted - parts.keys():
        raise RcodError(
            f"{system.name} needs its {' and '.join(sorted(lost))} too; name every file: "
            f"{' '.join(NAMES[kind] for kind in sorted(allowed))}"
        )
    if extra := parts.keys() - allowed:
        raise RcodError(f"{system.name} has no {' or '.join(sorted(extra))}; leave that file out")
    path, content = parts["checkpoint"]
    reader = Reader(path, system.name, dict(content))
    tensors = reader.tensors()
    if "estimator" in parts:
        metric = parts.get("metric")
        tensors |= estimator_tensors(*parts["estimator"], metric)
    if bad := next((name for name, tensor in tensors.items() if not tensor.isfinite().all()), None):
        raise RcodError(f"{bad} from {path} must hold finite numbers only, and has others")
    targets = {key: tuple(sorted(set(one))) if isinstance(one, list) else one
               for key, one in reader.targets.items()}  # fmt: skip
    return system.model_copy(update={"targets": targets, "metric": "metric" in parts}), tensors


NAMES = {"checkpoint": "NAME.pkl", "estimator": "de_net.pth", "metric": "NAME_mem.pkl"}


def _kind(content: Read, path: Path) -> str:
    """Which of a system's files this is."""
    if any(key.startswith("conv_first.") for key in content):
        return "estimator"
    if content.keys() == {"state_dict_clip_proj"}:
        return "metric"
    if "state_dict_unet" in content:
        return "checkpoint"
    some = ", ".join(sorted(content)[:5])
    raise RcodError(f"{path} must be a published checkpoint with a state_dict_unet, got: {some}")


class Reader:
    """One checkpoint while it is read: what was asked for is known, so that extras are too."""

    def __init__(self, path: Path, system: str, content: Read) -> None:
        self.path = path
        self.system = system
        self.left = content
        self.targets: dict[str, list[str] | str] = {}

    def tensors(self) -> dict[str, Tensor]:
        """Everything, under our names."""
        states = {part: self._state(f"state_dict_{part}") for part in self._networks()}
        found = self._adapters(states)
        if self.system in WHOLE:
            for kind in ("weight", "bias"):
                name = f"{WHOLE[self.system]}.{kind}"
                found[f"unet.whole.conv_in.{kind}"] = take(states["unet"], name, self.path)
        for part, state in states.items():
            if state:
                raise RcodError(f"{self.path} holds tensors that {self.system} doesn't have: "
                                f"{some(state)} in state_dict_{part}")  # fmt: skip
        if self.system in PROJECTION:
            state = self._state(PROJECTION[self.system])
            for kind, axes in (("weight", 2), ("bias", 1)):
                tensor = take(state, kind, self.path)
                if tensor.ndim != axes:
                    raise RcodError(f"{PROJECTION[self.system]}.{kind} in {self.path} must have "
                                    f"{axes} axes, got {tuple(tensor.shape)}")  # fmt: skip
                found[f"prompt.project.{kind}"] = tensor
            check_empty(state, PROJECTION[self.system], self.path)
        if ADAPTERS[self.system] is S3DIFF:
            found |= self._guides(found)
        if self.left:
            raise RcodError(f"{self.path} holds parts that {self.system} doesn't have: "
                            f"{some(self.left)}")  # fmt: skip
        return found

    def _networks(self) -> list[str]:
        return sorted({part for _, part, _, _ in ADAPTERS[self.system]})

    def _state(self, name: str) -> dict[str, Tensor]:
        return tensors_of(self._part(name), f"{name} in {self.path}")

    def _part(self, name: str) -> object:
        if name not in self.left:
            raise RcodError(f"{self.path} must hold {name} to be a {self.system} checkpoint, "
                            "and doesn't")  # fmt: skip
        return self.left.pop(name)

    def _adapters(self, states: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
        """Every low-rank factor; `states` keeps the rest."""
        ranks = {key: cast("int", self._part(key)) for key in sorted({
            RANKS[set_][part] for _, part, _, set_ in ADAPTERS[self.system]})}  # fmt: skip
        found: dict[str, Tensor] = {}
        for list_, part, adapter, set_ in ADAPTERS[self.system]:
            targets = _targets(self._part(list_), f"{list_} in {self.path}")
            self.targets[f"{part}.{set_}"] = _joined(self.targets.get(f"{part}.{set_}"), targets)
            rank = ranks[RANKS[set_][part]]
            layers: set[str] = set()
            for name in list(states[part]):
                match = LORA.fullmatch(name)
                if match is None or match["adapter"] != adapter:
                    continue
                layer, side = match["layer"], match["side"]
                tensor = states[part].pop(name)
                if not covers(targets, layer):
                    raise RcodError(f"{name} in {self.path} stands in no list of layers ({list_})")
                if tensor.ndim not in (2, 4) or tensor.shape[0 if side == "A" else 1] != rank:
                    raise RcodError(f"{name} in {self.path} must be of rank {rank}, "
                                    f"got shape {tuple(tensor.shape)}")  # fmt: skip
                found[f"{part}.{set_}.{layer}.{SIDES[side]}"] = tensor
                layers.add(layer)
            expected = layers if _is_rule(targets) else set(targets)
            for layer in sorted(expected | layers):
                for side, ours in SIDES.items():
                    if f"{part}.{set_}.{layer}.{ours}" not in found:
                        raise RcodError(f"{self.path} lacks {layer}.lora_{side}.{adapter}.weight "
                                        f"in state_dict_{part}")  # fmt: skip
        return found

    def _guides(self, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The two networks' modulation, S3Diff's."""
        rates = self._part("w")
        blocks = self._part("state_embeddings")
        if not isinstance(rates, Tensor) or not isinstance(blocks, dict):
            raise RcodError(f"w and state_embeddings in {self.path} must be a tensor and a "
                            "dictionary, and aren't")  # fmt: skip
        guides: dict[str, Tensor] = {}
        for part, count in (("unet", UNET_BLOCKS), ("vae", VAE_BLOCKS)):
            start = f"{part}.guided."
            downs = [name for name in found if name.startswith(start) and name.endswith(".down")]
            rank = len(found[downs[0]])
            state = {"rates": rates.detach().float().clone()}
            key = f"state_dict_{part}_block"
            state["blocks"] = take(
                tensors_of(blocks.get(key), f"{key} in {self.path}"), "weight", self.path
            )
            for theirs, ours in GUIDE.items():
                section = f"state_dict_{part}_{theirs}"
                values = self._state(section)
                prefix = "" if theirs == "fuse_mlp" else "0."
                for kind in ("weight", "bias"):
                    state[f"{ours}.{kind}"] = take(values, f"{prefix}{kind}", self.path)
                check_empty(values, section, self.path)
            check_state(Guide(rank, count), state, f"the {part} modulation in {self.path}")
            guides |= {f"guide.{part}.{name}": tensor for name, tensor in state.items()}
        return guides


def estimator_tensors(
    path: Path, content: Read, metric: tuple[Path, Read] | None
) -> dict[str, Tensor]:
    """The degradation estimator, and the head that RCOD put onto it."""
    state: dict[str, Tensor] = {}
    for name, tensor in tensors_of(content, str(path)).items():
        head, _, rest = name.partition(".")
        branch, _, rest = rest.partition(".")
        if head == "conv_first":
            ours = f"branches.{branch}.layers.0.{rest}"
        elif head == "body":
            index, _, inner = rest.partition(".")
            inner = inner.replace("conv1.", "first.").replace("conv2.", "second.")
            ours = (
                f"branches.{branch}.layers.{int(index) + 1 if index.isdigit() else index}.{inner}"
            )
        else:
            ours = name.replace("fc_degree.", "degrees.")
        state[ours] = tensor
    if metric is not None:
        where, parts = metric
        head = tensors_of(parts["state_dict_clip_proj"], str(where))
        state |= {f"head.{name.removeprefix('0.')}": tensor for name, tensor in head.items()}
    check_state(DegradationEstimator(metric is not None), state, f"the estimator in {path}")
    return {f"estimator.{name}": tensor for name, tensor in state.items()}


def _targets(value: object, what: str) -> list[str] | str:
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple | set) and all(isinstance(one, str) for one in value):
        return [str(one) for one in value]
    raise RcodError(f"{what} must be a list of layers or a pattern, got {type(value).__name__}")


def _is_rule(targets: list[str] | str) -> bool:
    """Whether targets are a rule for names rather than the full names themselves."""
    return isinstance(targets, str) or "to_k" in targets


def _joined(before: list[str] | str | None, more: list[str] | str) -> list[str] | str:
    return [*before, *more] if isinstance(before, list) and isinstance(more, list) else more
