"""Which damages have a name?

Those of the published programs, of the paper, and our own. Any other comes from a YAML file.

    name -> SETTINGS -.
    file -> checked --+-> DegradeSettings
"""

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, ValidationError

from rcod.errors import RcodError, explain
from rcod.training.degradation import DegradeSettings, Round
from rcod.training.kernels import KernelSettings

_SECOND = Round(  # heavy
    blur=0.8,
    kernel=KernelSettings(sigma=(0.2, 1.5)),
    resize=(0.3, 0.4, 0.3),
    scale=(0.3, 1.2),
    sigma=(1, 25),
    poisson=(0.05, 2.5),
)


def _mild(
    kernel: KernelSettings, second_kernel: KernelSettings, none: float = 0.0
) -> DegradeSettings:
    """What SeeSR and S3Diff share: less of everything than the heavy one."""
    first = {"scale": (0.3, 1.5), "sigma": (1, 15), "poisson": (0.05, 2), "quality": (60, 95)}
    second = {"scale": (0.6, 1.2), "sigma": (1, 12), "poisson": (0.05, 1), "quality": (60, 100)}
    return DegradeSettings(
        first=Round().model_copy(update={"kernel": kernel, **first}),
        second=_SECOND.model_copy(update={"kernel": second_kernel, "blur": 0.5, **second}),
        none=none,
    )


_NARROW = KernelSettings(sigma=(0.2, 1.5), generalized_beta=(0.5, 2), plateau_beta=(1, 1.5))
_NARROWER = _NARROW.model_copy(update={"sigma": (0.2, 1.0)})
_LENS = KernelSettings(shares={"iso": 1, "aniso": 1}, sinc=0, sizes=(21, 21), sigma=(0.6, 3))
SETTINGS: dict[str, DegradeSettings] = {
    "osediff": DegradeSettings(first=Round(), second=_SECOND),  # heavy
    "seesr": _mild(KernelSettings(), KernelSettings(sigma=(0.2, 1.5))),  # PiSA-SR's too
    "s3diff": _mild(_NARROW, _NARROWER, none=0.01),  # RCOD_S's too
    "camera": DegradeSettings(  # ours: what a camera stores, softened by its lens, then sharpened
        first=Round(
            kernel=_LENS,
            resize=(0, 0, 1),
            modes=("area",),
            noise=0.6,
            gaussian=1,
            sigma=(0.2, 2),
            unsharp=0.8,
            jpeg=0.4,
            quality=(75, 98),
        ),
        second=None,
        final_sinc=0,
    ),
    "new": DegradeSettings(  # RCOD's own: a round soft lens, a resize, JPEG before or after it
        first=Round(
            kernel=KernelSettings(shares={"iso": 1}, sinc=0, sizes=(1, 21), sigma=(1, 15)),
            resize=(0.5, 0.5, 0),
            scale=(0.5, 1.5),
            noise=0,
            quality=(50, 99),
        ),
        second=None,
        final_sinc=0,
    ),
}


def settings_named(given: str | DegradeSettings) -> DegradeSettings:
    """Settings by the name of a known damage, or from a YAML file; settings are left alone."""
    if isinstance(given, DegradeSettings):
        return given
    if given in SETTINGS:
        return SETTINGS[given]
    path = Path(given)
    if path.suffix not in (".yaml", ".yml", ".json") or not path.is_file():
        raise RcodError(
            f"degradation must be one of {', '.join(SETTINGS)} or a YAML file, got {given}"
        )
    try:
        import yaml
    except ImportError:
        raise RcodError(
            f"{path} needs PyYAML, which is not installed; pip install 'rcod[train]'"
        ) from None
    try:
        found = DegradeSettings.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise RcodError(f"{path}: {explain(error, 'all of it')}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        why = " ".join(str(error).split())
        raise RcodError(f"{path} must be YAML, and is none: {why}") from None
    if found.factor != 4:
        raise RcodError(f"{path}: factor must be 4, as every system enlarges, got {found.factor}")
    return found


def resolve_preset(given: object) -> object:
    """A known name stays a name; a file becomes what it holds, so that a recipe is whole."""
    if isinstance(given, str) and given not in SETTINGS:
        return settings_named(given)
    return given


Degradation = Annotated[str | DegradeSettings, BeforeValidator(resolve_preset)]
