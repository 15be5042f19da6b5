"""The networks of controlnet-aux's detectors, empty: which one a preprocessor uses, and how the detector is called.

Their own `from_pretrained` opens pickles and downloads; here a network is made without weights, and the detector put around it.
"""

import contextlib
import functools
import importlib
import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple

import torch

from pipelines.pictures import Pixels


class Made(NamedTuple):
    """A detector and the network in it."""

    detector: Any
    network: torch.nn.Module


class Network(NamedTuple):
    """How one preprocessor is made and called."""

    make: Callable[[], Made]
    #: Arguments of the detector that are always the same.
    settings: Mapping[str, Any] = MappingProxyType({})
    #: Our option -> the detector's argument.
    options: Mapping[str, str] = MappingProxyType({})
    #: Whether the detector resizes its result itself, and takes no size for it.
    own_size: bool = False


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the library's remarks, printed and warned, out of a worker's terminal."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _module(name: str) -> Any:
    """Import a part of controlnet-aux: its package takes seconds and imports much that most jobs never need."""
    with quiet():
        return importlib.import_module(f"controlnet_aux.{name}")


def _hed() -> Made:
    module = _module("hed")
    network = module.ControlNetHED_Apache2()
    return Made(module.HEDdetector(network), network)


def _pidinet() -> Made:
    module = _module("pidi")
    network = module.pidinet()
    return Made(module.PidiNetDetector(network), network)


def _teed() -> Made:
    module = _module("teed")
    network = module.TED()
    return Made(module.TEEDdetector(network), network)


def _mlsd() -> Made:
    module = _module("mlsd")
    network = module.MobileV2_MLSD_Large()
    return Made(module.MLSDdetector(network), network)


def _lineart() -> Made:
    module = _module("lineart")
    network = module.Generator(3, 1, 3)
    # The detector holds a fine and a coarse network and uses one of them; here each is a preprocessor of its own.
    return Made(module.LineartDetector(network, network), network)


def _lineart_anime() -> Made:
    module = _module("lineart_anime")
    norm = functools.partial(torch.nn.InstanceNorm2d, affine=False, track_running_stats=False)
    network = module.UnetGenerator(3, 1, 8, 64, norm_layer=norm, use_dropout=False)
    return Made(module.LineartAnimeDetector(network), network)


def _midas() -> Made:
    network = _module("midas.midas.dpt_depth").DPTDepthModel(path=None, backbone="vitb_rn50_384", non_negative=True)
    return Made(_module("midas").MidasDetector(network), network)


def _normal_bae() -> Made:
    module = _module("normalbae")
    network = module.NNET(
        SimpleNamespace(
            mode="client", architecture="BN", pretrained="scannet", sampling_ratio=0.4, importance_ratio=0.7
        )
    )
    return Made(module.NormalBaeDetector(network), network)


def _openpose() -> Made:
    body_module, module = _module("open_pose.body"), _module("open_pose")
    # Its constructor opens a pickle.
    body = body_module.Body.__new__(body_module.Body)
    body.model = body_module.bodypose_model()
    return Made(module.OpenposeDetector(body), body.model)


NETWORKS: Mapping[str, Network] = MappingProxyType(
    {
        "softedge_hed": Network(_hed),
        "scribble_hed": Network(_hed, {"scribble": True}),
        "softedge_pidinet": Network(_pidinet),
        "scribble_pidinet": Network(_pidinet, {"scribble": True}),
        "softedge_teed": Network(_teed, own_size=True),
        "mlsd": Network(_mlsd, options={"score_threshold": "thr_v", "distance_threshold": "thr_d"}),
        "lineart_realistic": Network(_lineart),
        "lineart_coarse": Network(_lineart),
        "lineart_anime": Network(_lineart_anime),
        "depth_midas": Network(_midas),
        "normal_bae": Network(_normal_bae),
        "openpose": Network(_openpose),
    }
)


def call(network: Network, detector: Any, pixels: Pixels, options: Mapping[str, float]) -> Pixels:
    """Run a detector over a picture that is already as large as the network is to see it; the size stays."""
    side = min(pixels.shape[:2])
    arguments = {theirs: options[ours] for ours, theirs in network.options.items()}
    if not network.own_size:
        arguments["image_resolution"] = side
    made: Pixels = detector(pixels, detect_resolution=side, output_type="np", **network.settings, **arguments)
    return made
