"""Synthetic augmentation: from a photograph and an edit instruction to a clean training pair.

    python -m dataset_syned synthesize --config configs/synthesis/toy.yaml

Six stages talk through files: instructions, edits, scores, selection, paraphrases, rows (see `stages`).
"""
