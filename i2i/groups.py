"""The groups of options: the headings of `--help-all`, and of a configuration in YAML.

The options of the first group, and any that stand in no group, stand at the top of a YAML file.
"""

from collections.abc import Mapping
from typing import Any

FIRST = "what and where"
_FIRST = """
    inputs model folder words teacher data style mix run out direction strength mask keep domain_a domain_b licence
    init_from paired_data paired_share report grid show json dry_run list_styles install_style as_ download against
    reference back split max_pictures max unpaired label_model labels_out pictures full keep_archive domain link layout
    names recursive follow_links shard shard_by cluster gpu_share in_place overwrite skip_existing on_collision strict
    input_domain output_domain algorithm dataset card memory_limit web web_runtime styles host port allow_host token
    open
"""

_GROUPS = {
    "networks": """
        generator discriminator ngf ndf norm dropout padding input_share bias init_type init_gain features norm_stats
        paint_size latent_size conditional embedding_width num_patches
    """,
    "losses": """
        gan_mode lambda_L1 lambda_cycle_A lambda_cycle_B lambda_identity lambda_paired lambda_gan lambda_GAN
        lambda_NCE_A lambda_NCE_B lambda_features lambda_FM lambda_VGG lambda_CE lambda_structure lambda_content
        lambda_stability lambda_grid nce_layers negatives temperature flip_equivariance vgg
    """,
    "optimisation": """
        n_epochs n_epochs_decay max_steps batch_size micro_batches lr lr_discriminator beta1 beta2 lr_policy
        lr_decay_epochs patience ema clip_grad seed seeds
    """,
    "preprocessing": """
        preprocess load_size crop_size random_zoom flip augment channels_a channels_b classes_a classes_b range_a
        range_b instance_edges check pairs on_bad size count walk truncation columns copies fraction copies_only val
        test format quality alpha half smooth
    """,
    "stability": """
        r1_gamma r2_gamma lambda_gp label_smoothing instance_noise instance_noise_steps diffaugment ada_target
        ada_images pool_size max_bad_steps
    """,
    "speed and memory": """
        device precision runtime compile workers cache low_memory deterministic large measure_steps
        measure_seconds max_megabytes max_megapixels time_limit
    """,
    "measuring": """
        metrics validate_every validate_images best_metric best_floor stop_when stop_patience inception lpips palette
        is_splits
    """,
    "saving": """
        save_every save_minutes keep_last keep_every sample_every samples log_every
    """,
}
FIRST_OPTIONS, GROUPS = _FIRST.split(), {title: names.split() for title, names in _GROUPS.items()}
"""Heading → its options, in order."""


def key(title: str) -> str:
    """A heading as a key of YAML: `speed_and_memory`."""
    return title.replace(" ", "_")


KEYS = frozenset(map(key, GROUPS))


def grouped(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nests options by name: each option of a group comes under the group's key."""
    nested = {key(title): {name: values[name] for name in names if name in values} for title, names in GROUPS.items()}
    placed = {name for group in nested.values() for name in group}
    return {name: value for name, value in values.items() if name not in placed} | {
        title: group for title, group in nested.items() if group
    }
