"""Names and options that users write: they change on purpose, or not at all.

After a change on purpose: `python -m i2i.commands.options`, and the lists below.
"""

from pathlib import Path

import i2i
from i2i.commands import COMMANDS, options

NAMES = [
    "I2IError", "Run", "Translate", "Translator", "__version__", "create_discriminator", "create_generator",
    "list_generators", "list_styles", "load_mix", "load_sampler", "load_translator", "train", "translate_folder",
]  # fmt: skip


OPTIONS = {
    "train": """
        data=None direction=a2b channels_a=3 channels_b=3 classes_a= classes_b= range_a= range_b=
        instance_edges=False preprocess=resize_and_crop load_size=286 crop_size=256 random_zoom=1.0 flip=True
        augment= batch_size=1 workers=2 cache=None check=auto on_bad=error pairs=error paired_data=None
        paired_share=0.25 seed=0 run=None domain_a= domain_b= licence= init_from=[] n_epochs=100 n_epochs_decay=100
        max_steps=None lr=0.0002 lr_discriminator=None beta1=0.5 beta2=0.999 lr_policy=linear lr_decay_epochs=50
        patience=5 ema=0.0 micro_batches=1 clip_grad=0.0 precision=fp32 compile=False device=auto
        deterministic=False save_every=1000 save_minutes=15.0 keep_last=2 keep_every=0 sample_every=500 samples=4
        validate_every=5 validate_images=100 best_metric=l1 best_floor= stop_when= stop_patience=0 log_every=50
        max_bad_steps=50
    """,
    "translate": """
        direction=None norm_stats=None dropout=None paint_size=None seed=0 device=auto precision=auto runtime=auto
        compile=False download=False mix= strength=1.0 mask=None keep=None size=None format=None quality=None
        alpha=keep smooth=0.0 large=False overwrite=False skip_existing=False in_place=False on_collision=error
        recursive=True follow_links=False shard=1/1 shard_by=index cluster= gpu_share=None strict=False
        batch_size=auto workers=auto inputs=[] style= out=None report=None json=False show=False dry_run=False
        list_styles=False install_style=None as_= verbose=False
    """,
    "serve": """
        styles=[] host=127.0.0.1 port=7860 allow_host=[] token=False open=False max_megabytes=64 max_megapixels=50
        max_pictures=200 time_limit=600 device=auto precision=auto runtime=auto
    """,
    "evaluate": """
        data=None split=None direction=None unpaired=False reference=None back= metrics=[] size=None
        max_pictures=None inception=None features= against=[] lpips=None download=False label_model= palette=
        labels_out=None seeds=[0,1,2] is_splits=10 precision=fp32 device=auto inputs=[] report=None json=False
    """,
    "report": """
        folder=None out=None pictures=None direction=None device=auto
    """,
    "sample": """
        out=None grid=None count=16 seed=0 walk=0 truncation=None columns=None format=png quality=None
        overwrite=False style= device=auto
    """,
    "export": """
        model=[] out=None web=None web_runtime=None format=None direction=None dropout=None norm_stats=None
        input_domain=None output_domain=None algorithm=None dataset=None licence=None paint_size=None card=None
        half=False overwrite=False download=False
    """,
    "augment": """
        direction=None norm_stats=None dropout=None paint_size=None seed=0 device=auto precision=auto runtime=auto
        compile=False download=False layout=auto names= copies=None fraction=1.0 split= copies_only=False
        on_bad=error quality=None overwrite=False skip_existing=False batch_size=auto workers=auto data=[] style=
        out=None dry_run=False json=False
    """,
    "prepare-dataset": """
        words=[] out=None check=None full=False json=False keep_archive=False val=0.1 test=0.1 seed=0 domain=None
        link=False overwrite=False skip_existing=False
    """,
    "compare": """
        inputs=[] out=None max=24 overwrite=False
    """,
    "doctor": """
        json=False
    """,
    "demo": """
        out=demo
    """,
}
"""The options of each command with their defaults; of trainings those that `options.json` does not have."""


def test_the_names_of_the_library() -> None:
    assert sorted(i2i.__all__) == NAMES


def test_every_option_of_a_command_with_its_default() -> None:
    for command in COMMANDS.keys() - {"plan"}:
        known = options.light() if command == "train" else options.options_of(command)
        found = [f"{option.name}={str(option.default).replace(' ', '')}" for option in known]
        assert found == OPTIONS[command].split(), command


def test_the_file_of_options() -> None:
    """It holds what the classes of trainings say; who changes an option changes a line of it."""
    committed = Path(options.__file__).with_name("options.json").read_text(encoding="utf-8")
    assert committed == options.surface(), "python -m i2i.commands.options writes options.json anew"
