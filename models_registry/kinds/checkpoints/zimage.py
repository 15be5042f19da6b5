"""Z-Image: its networks are alike whatever they were trained for, so the scheduler and words tell the distilled one."""

from typing import Final

from models_registry.families import BASE, FAMILIES, FamilyFacts
from models_registry.kinds import parts
from models_registry.kinds.checkpoints.described import Described, Told, choose, word
from models_registry.kinds.parts import SCHEDULER, Configs
from models_registry.reading.configs import Config
from models_registry.refusals import ConfigInvalid, Unrecognised
from models_registry.vocabularies.chats import CHATS

TURBO: Final = "turbo"
#: `zit` is what people call its Turbo for short.
WORDS: Final = {TURBO: word("turbo|zit"), BASE: word("base")}
#: How far the noise of the undistilled model is shifted; that of the distilled one half as far.
_BASE_SHIFT: Final = 6.0
#: Pixels of a side that one place of the network stands for: two latents of eight.
_CELL: Final = 16
#: Places that a network can tell apart: along the prompt, and along both sides.
_PLACES: Final = [1024, 512, 512]
#: Places behind a full prompt: its beginning and the picture.
_BEHIND_PROMPT: Final = 2


def describe(configs: Configs, told: Told) -> Described:
    """Return what the configurations tell, raising a `ModelRefused` unless they fit each other and can be drawn with."""
    family = FAMILIES["zimage"]
    transformer, vae, qwen = configs["transformer"], configs["vae"], configs["text_encoder"]
    _check_form(transformer, family)
    scheduler = configs[SCHEDULER].values
    undistilled = not scheduler.get("use_dynamic_shifting") and scheduler.get("shift") == _BASE_SHIFT
    return Described(
        family=family.name,
        variant=choose((TURBO, BASE), told, WORDS, (BASE,) if undistilled else ()),
        # The transformer knows no size; the VAE tells which pictures it was trained on.
        native_size=parts.check_native(vae, vae.whole("sample_size", family.native_size), family),
        latent_factor=parts.latent_factor(vae, family),
        latent_channels=parts.check_latents(transformer, vae, transformer.whole("in_channels", 16)),
        text_width=parts.check_text_width(transformer, "cap_feat_dim", qwen.whole("hidden_size"), 2560),
        width=inner_width(transformer),
        text_layers=None,
    )


def inner_width(transformer: Config) -> int:
    """Return how wide a transformer is."""
    return transformer.whole("dim", 3840)


def _check_form(transformer: Config, family: FamilyFacts) -> None:
    if transformer.values.get("all_patch_size", [2]) != [2] or transformer.values.get("all_f_patch_size", [1]) != [1]:
        raise Unrecognised(transformer.path, f"packs its latents in another way than {family.title} (all_patch_size)")
    if transformer.values.get("siglip_feat_dim") is not None:
        raise Unrecognised(transformer.path, f"is a {family.title} that reads pictures, which is not supported yet")
    # A place beyond the table would end the process that draws.
    along_prompt, *sides = transformer.wholes("axes_lens") if "axes_lens" in transformer.values else _PLACES
    wanted = CHATS[family.name].longest + _BEHIND_PROMPT
    if along_prompt < wanted or len(sides) != len(_PLACES) - 1 or min(sides) < family.max_side // _CELL:
        raise ConfigInvalid(
            transformer.path, f"knows fewer places (axes_lens) than prompts and sizes of {family.title} take"
        )
