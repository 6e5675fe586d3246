"""Families of speech networks: how they are opened, what they are given, what their heads learn."""

from typing import TYPE_CHECKING

from l0prune.support import lazy_names

if TYPE_CHECKING:
    from l0prune_speech.families.groups import network_groups
    from l0prune_speech.families.heads import generated
    from l0prune_speech.families.network import BESIDE, TASKS, Answer, Heard, Inputs, SpeechNetwork
    from l0prune_speech.families.opening import build_network, has_own_class, open_network, task_of_head
    from l0prune_speech.families.padding import kept_heads, padded, times_of_words
    from l0prune_speech.families.probe import heard_noise, observation_of, tokens_of
    from l0prune_speech.families.registry import Family, Wish, families, family_named, register_family
    from l0prune_speech.families.transformers_export import open_directory
    from l0prune_speech.families.transformers_network import transformers_family

    __all__ = [
        "BESIDE",
        "TASKS",
        "Answer",
        "Family",
        "Heard",
        "Inputs",
        "SpeechNetwork",
        "Wish",
        "build_network",
        "families",
        "family_named",
        "generated",
        "has_own_class",
        "heard_noise",
        "kept_heads",
        "network_groups",
        "observation_of",
        "open_directory",
        "open_network",
        "padded",
        "register_family",
        "task_of_head",
        "times_of_words",
        "tokens_of",
        "transformers_family",
    ]

_HOMES = {
    "groups": ("network_groups",),
    "heads": ("generated",),
    "network": ("BESIDE", "TASKS", "Answer", "Heard", "Inputs", "SpeechNetwork"),
    "opening": ("build_network", "has_own_class", "open_network", "task_of_head"),
    "padding": ("kept_heads", "padded", "times_of_words"),
    "probe": ("heard_noise", "observation_of", "tokens_of"),
    "registry": ("Family", "Wish", "families", "family_named", "register_family"),
    "transformers_export": ("open_directory",),
    "transformers_network": ("transformers_family",),
}

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = lazy_names(__name__, _HOMES)
