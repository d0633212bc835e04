"""Published scores of other methods, per benchmark, with their sources.

Numbers are in per cent, None if a score was not reported or not found. `confidence`: SRC was read in the primary
source, SEC in a later paper or note that quotes it, MEM was not read and must not be a target. Papers mix variants,
splits and settings; `note` says what is known about that, and scores of other kinds. `source` is one of SOURCES.
"""

from typing import Any

SOURCES = {
    "SC": "Tu et al., SCORER, ICCV 2023",
    "MEDIC": "Park, Oh, Kim, Different Changes Require Different Reasoning, 2026",
    "ID": "Jiao et al., Img-Diff, CVPR 2025",
    "OD": "note on OmniDiff, ICCV 2025",
    "PC": "note on ProCap, ICLR 2026",
    "CX": "note on CORTEX, AAAI 2026",
    "SG": "re-implementation of SSGPA, AAAI 2025",
    "SVE": "Stateful Visual Encoders, arXiv 2606.04433, 2026",
    "STS": "Liberatori et al., Spot-the-shift, arXiv 2609.10356, 2026",
    "DS": "Zhang et al., DiffSpot, leaderboard of its repository, 2026",
    "": "not read",
}
SCORES = ("BLEU-4", "METEOR", "ROUGE-L", "CIDEr")
SSGPA = "an independent re-run got 65.3 / 91.4 CIDEr, no code released"
ANY_ORDER = "the changes may come in any order; all weights trained"
IEDIT = "called IEdit there; its level looks like another split or scoring than IER's"

# (model, BLEU-4, METEOR, ROUGE-L, CIDEr, confidence, source[, note])
PUBLISHED: dict[str, list[tuple[Any, ...]]] = {
    "clevr_change": [
        ("DUDA", 47.3, 33.9, None, 112.3, "SEC", "SC"),
        ("MCCFormers-D", 52.4, 38.3, None, 121.6, "SEC", "SC"),
        ("IDC-PCL with pre-training", 51.2, 36.2, 71.7, 128.9, "SEC", "SC"),
        ("NCT", 55.1, 40.2, 73.8, 124.1, "SEC", "SC"),
        ("VARD-Trans", 55.4, 40.1, 73.8, 126.4, "SEC", "SC"),
        ("SCORER+CBR", 56.3, 41.2, 74.5, 126.8, "SRC", "SC", "all pairs; on changed pairs only 122.4 CIDEr"),
        ("CLIP4IDC", 56.9, 38.4, 76.4, 150.7, "MEM", ""),
        ("SMART", 56.1, 40.8, 74.2, 127.0, "SEC", "MEDIC"),
        ("DIRL", 56.2, 41.0, 73.8, 126.0, "SEC", "MEDIC", "re-run"),
        ("DIRL", 55.5, 40.8, 73.4, 125.3, "SEC", "CX", "re-run"),
        ("VIR-VLFM", 58.2, 42.6, 78.9, 153.4, "SEC", "SG"),
        ("SSGPA", 60.9, 44.2, 80.2, 159.1, "SEC", "SG", SSGPA),
        ("FINER-MLLM", None, None, None, 137.2, "SEC", "PC"),
        ("RDD+ACR", 56.1, 41.3, 75.0, 128.1, "SEC", "MEDIC"),
        ("DECIDER", 56.4, 39.7, 75.3, 131.3, "SEC", "MEDIC"),
        ("MCT-CCDiff", 57.5, 40.6, 75.6, 131.7, "SEC", "MEDIC"),
        ("CORTEX+DIRL", 57.4, 43.0, 76.2, 130.7, "SEC", "CX"),
        ("ProCap", None, None, None, 135.6, "SEC", "PC"),
        ("SCORER+MEDIC", 57.6, 41.8, 75.5, 130.7, "SRC", "MEDIC"),
    ],
    "clevr_dc": [
        ("DUDA", 40.3, 27.1, None, 56.7, "SEC", "SC"),
        ("VACC", 45.0, 29.3, None, 71.7, "SEC", "SC"),
        ("MCCFormers-D", 46.9, 31.7, None, 71.6, "SEC", "SC"),
        ("NCT", 47.5, 32.5, 65.1, 76.9, "SEC", "SC"),
        ("VARD-Trans", 48.3, 32.4, None, 77.6, "SEC", "SC"),
        ("SCORER+CBR", 49.4, 33.4, 66.1, 83.7, "SRC", "SC", "ROUGE-L as quoted by MEDIC"),
        ("SMART", 48.3, 30.7, 65.2, 81.2, "SEC", "MEDIC", "re-run"),
        ("DIRL", 51.4, 32.3, 66.3, 84.1, "SEC", "MEDIC"),
        ("BLIP2IDC", 49.3, 33.0, None, 88.5, "SEC", "MEDIC", "not said whether quoted or re-run"),
        ("M3Diff", None, None, None, 109.4, "SEC", "OD"),
        ("DIRL+MEDIC", 58.5, 35.6, 71.0, 99.8, "SRC", "MEDIC"),
        ("BLIP2IDC+MEDIC", 57.3, 33.8, None, 106.4, "SRC", "MEDIC"),
    ],
    "spot_the_diff": [
        ("M-VAM+RAF", 11.1, 12.9, None, 43.5, "SEC", "SC"),
        ("MCCFormers-D", 10.0, 12.4, None, 43.1, "SEC", "SC"),
        ("SCORER+CBR", 10.2, 12.2, None, 38.9, "SRC", "SC"),
        ("CLIP4IDC", 11.6, 14.2, 35.0, 47.4, "MEM", ""),
        ("SMART", None, 13.5, 31.6, 39.4, "SEC", "MEDIC"),
        ("DIRL", 10.3, 13.8, 32.8, 40.9, "SEC", "MEDIC"),
        ("LLaVA-1.5-7B fine-tuned", 8.5, 12.0, 30.1, 38.3, "SRC", "ID", "CIDEr-D"),
        ("LLaVA-1.5-7B + Img-Diff data", 9.7, 13.0, 30.8, 43.2, "SRC", "ID"),
        ("MGM-7B + Img-Diff data", 10.8, 13.1, 33.0, 53.5, "SRC", "ID"),
        ("InternVL2-8B + Img-Diff data", 8.4, 12.8, 28.5, 32.2, "SRC", "ID"),
        ("VIR-VLFM", 12.2, 15.3, 36.2, 48.9, "SEC", "SG"),
        ("BLIP2IDC", None, 13.5, None, 51.4, "SEC", "MEDIC"),
        ("OneDiff", 12.8, 14.6, 35.8, 56.6, "MEM", ""),
        ("FINER-MLLM", None, None, None, 61.8, "SEC", "PC"),
        ("SSGPA", 13.5, 16.0, 42.7, 63.4, "SEC", "SG", "a re-run got about 30 CIDEr"),
        ("MCT-CCDiff", 10.8, 14.5, 35.5, 41.7, "SEC", "MEDIC"),
        ("CORTEX+DIRL", 11.6, 13.9, 33.4, 49.5, "SEC", "CX"),
        ("ProCap", None, None, None, 42.7, "SEC", "PC"),
        ("DIRL+MEDIC", 11.1, 14.6, 33.7, 45.5, "SRC", "MEDIC"),
        ("M3Diff", None, None, None, 71.1, "SEC", "OD"),
        ("BLIP-2", None, None, None, 17.5, "SEC", "MEDIC", "zero-shot"),
        ("InstructBLIP", None, None, None, 19.7, "SEC", "MEDIC", "zero-shot"),
        ("VPG-C-Vicuna-13B", None, None, None, 21.6, "SEC", "MEDIC", "zero-shot"),
        ("DIRL", 4.6, 9.5, 23.8, 21.5, "SRC", "MEDIC", "several changes per pair: another setting"),
        ("SCORER", 5.1, 9.3, 23.0, 20.9, "SRC", "MEDIC", "several changes per pair: another setting"),
        ("DIRL+MEDIC", 6.8, 11.2, 26.7, 31.2, "SRC", "MEDIC", "several changes per pair: another setting"),
    ],
    "image_editing_request": [
        ("DUDA", 6.5, 12.4, 37.3, 22.8, "SEC", "SC"),
        ("Dyn rel-att", 6.7, 12.8, 37.5, 26.4, "SEC", "SC"),
        ("MCCFormers-D", 8.3, 14.3, 39.2, 30.2, "SEC", "SC"),
        ("CLIP4IDC", 8.2, 14.6, 40.4, 32.2, "SEC", "ID"),
        ("NCT", 8.1, 15.0, 38.8, 34.2, "SEC", "SC"),
        ("VARD-Trans", 10.0, 14.8, 39.0, 35.7, "SEC", "SC"),
        ("SCORER+CBR", 10.0, 15.0, 39.6, 33.4, "SRC", "SC"),
        ("VIXEN", 8.6, 15.4, 42.5, 38.1, "SEC", "ID"),
        ("DIRL", 10.9, 15.0, 41.0, 34.1, "SEC", "MEDIC"),
        ("DIRL+MEDIC", 11.2, 15.6, 42.5, 37.2, "SRC", "MEDIC"),
        ("MCT-CCDiff", None, None, None, 38.3, "SEC", "PC"),
        ("ProCap", None, None, None, 40.6, "SEC", "PC"),
        ("FINER-MLLM", None, None, None, 50.5, "SEC", "PC"),
        ("LLaVA-1.5-7B fine-tuned", 15.1, 17.8, 45.2, 60.6, "SRC", "ID"),
        ("LLaVA-1.5-7B + Img-Diff data", 16.2, 19.5, 46.7, 60.9, "SRC", "ID"),
        ("MGM-7B fine-tuned", 16.5, 17.7, 44.8, 66.8, "SRC", "ID"),
        ("MGM-7B + Img-Diff data", 16.6, 18.2, 45.7, 68.1, "SRC", "ID"),
        ("InternVL2-8B fine-tuned", 12.4, 14.1, 38.9, 51.5, "SRC", "ID"),
        ("InternVL2-8B + Img-Diff data", 12.5, 14.2, 39.4, 56.0, "SRC", "ID"),
        ("OneDiff", None, None, None, 109.6, "SEC", "OD", IEDIT),
        ("M3Diff", None, None, None, 136.6, "SEC", "OD", IEDIT),
    ],
    "omnidiff": [
        ("CARD", None, None, None, 9.2, "SEC", "OD", "photographs; rendered scenes 7.3"),
        ("GPT-4o", None, None, None, 5.2, "SEC", "OD", "zero-shot, photographs; rendered scenes 5.6"),
        ("Qwen-2.5-VL-7B", None, None, None, 6.2, "SEC", "OD", "zero-shot, photographs; rendered scenes 3.3"),
        ("FINER-MLLM", None, None, None, 11.7, "SEC", "OD", "photographs; rendered scenes 14.0"),
        ("M3Diff", None, None, None, 31.3, "SEC", "OD", "photographs; rendered scenes 28.3"),
    ],
    "clevr_multi_change": [
        ("Qwen3.5-4B, stateless", 90.5, None, None, 529.5, "SRC", "SVE", ANY_ORDER),
        ("Qwen3.5-4B, Self-Ext", 92.0, None, None, 538.1, "SRC", "SVE", ANY_ORDER),
        ("Qwen3.5-4B, Self+FFN", 91.6, None, None, 537.2, "SRC", "SVE", f"{ANY_ORDER}; new weights, no other image"),
        ("Qwen3.5-4B, Cross+FFN", 92.7, None, None, 543.9, "SRC", "SVE", ANY_ORDER),
    ],
    "levir_cc": [
        ("Qwen3.5-4B", None, None, None, 142.26, "SRC", "SVE", "all weights trained"),
        ("Qwen3.5-4B, stateful", None, None, None, 144.35, "SRC", "SVE", "all weights trained"),
    ],
    # The notes: F1 of the things that changed, true-negative rate, and invented changes per unchanged pair.
    "spot_the_shift": [
        ("Gemini 3 Flash", 17.6, 32.8, 48.1, 255.3, "SRC", "STS", "zero-shot; F1 53.0, TNR 45.8, 1.8 invented"),
        ("Claude Opus 4.6", 11.5, 23.3, 44.9, 314.8, "SRC", "STS", "zero-shot; F1 27.7, TNR 60.7, 1.4 invented"),
        ("InternVL3.5-8B", 7.5, 22.5, 22.4, 4.6, "SRC", "STS", "zero-shot; F1 16.0, TNR 0.6, 4.7 invented"),
        ("Molmo2-4B", 1.8, 7.6, 43.8, 426.4, "SRC", "STS", "zero-shot, mostly says no change; F1 6.3, TNR 81.2"),
        ("Qwen3-VL-8B", 1.5, 7.9, 13.3, 27.9, "SRC", "STS", "zero-shot; F1 10.9, TNR 4.9, 7.9 invented"),
        ("Qwen3-VL-32B", 3.4, 14.6, 23.0, 96.1, "SRC", "STS", "zero-shot; F1 22.5, TNR 18.2, 5.6 invented"),
        (
            "Qwen3-VL-8B tuned",
            19.5,
            17.1,
            32.2,
            154.7,
            "SRC",
            "STS",
            "on edits, points; F1 23.8, TNR 26.4, 0.8 invented",
        ),
    ],
    # Only judged: right answers to all pairs, to changed ones (recall) and to unchanged ones (specificity).
    "diffspot": [
        ("Gemini 3.1 Pro", *[None] * 4, "SRC", "DS", "judged 47.2, recall 40.7, specificity 98.4"),
        ("Kimi K2.5", *[None] * 4, "SRC", "DS", "judged 42.2, recall 36.4, specificity 87.2"),
        ("Claude Opus 4.7", *[None] * 4, "SRC", "DS", "judged 38.9, recall 31.2, specificity 99.6"),
        ("GPT-5.4", *[None] * 4, "SRC", "DS", "judged 38.3, recall 30.5, specificity 99.6"),
        ("Qwen3-VL-30B-Instruct", *[None] * 4, "SRC", "DS", "judged 17.6, recall 9.3, specificity 82.0"),
        ("InternVL3.5-30B-A3B", *[None] * 4, "SRC", "DS", "judged 15.0, recall 4.2, specificity 100.0"),
        ("always no difference", *[None] * 4, "SRC", "DS", "judged 11.4"),
    ],
}


def published(benchmark: str) -> list[dict[str, Any]]:
    """Return `model, scores, confidence, source, note` per method; [] for a benchmark without published numbers."""
    return [
        {
            "model": model,
            "scores": {name: value for name, value in zip(SCORES, values, strict=True) if value is not None},
            "confidence": confidence,
            "source": SOURCES[source],
            "note": "".join(note),
        }
        for model, *values, confidence, source, note in ((*row[:7], row[7:]) for row in PUBLISHED.get(benchmark, []))
    ]
