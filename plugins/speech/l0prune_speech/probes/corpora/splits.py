"""What people call the parts of a set."""

SPLITS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
    "dev": "",
    "valid": "",
    "validation": "",
    "val": "",
}
"""By the name: trained on, tested on, or (of a set for validation) neither."""
