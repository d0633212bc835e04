"""First stage: one edit instruction per image, the source's own or one that a chat model writes from a caption."""

import json
import re

from .chat import ChatModel
from .settings import SettingsError, SynthesisConfig
from .shards import Row, seed_of

MOST_CHARACTERS = 400  # Syned's longest has 152; CLIP and the editors read about 300
ROUNDS = 3
PROMPT = """Here is the caption of a photograph: {caption}

Think of one edit of this photograph. Answer in two lines, nothing else:
Instruction: what to change, as a short command
Caption: the caption of the photograph after the edit"""
ANSWER = re.compile(
    r"Instruction:[ \t]*(?P<instruction>\S.*?)[ \t]*\n+Caption:[ \t]*(?P<caption>\S.*?)[ \t]*(?:\n|$)", re.I
)


UNPRINTABLE = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")


def one_line(text: str) -> str:
    return UNPRINTABLE.sub(" ", text).strip()


def text_problem(instruction: str) -> str:
    if not instruction.strip():
        return "empty instruction"
    if len(instruction) > MOST_CHARACTERS:
        return f"instruction of {len(instruction)} characters: at most {MOST_CHARACTERS}"
    return ""


class Instructions:
    """Stage whose rows have instruction, given (further wordings), caption_before, caption_after, writer."""

    inputs, reads_images = ("sources",), False

    def __init__(self, config: SynthesisConfig):
        self.config, self.batch_size = config, config.batch_size
        self.chat: ChatModel | None = None  # loaded when the first caption asks for it

    def work(self, batch: list[dict[str, Row]]) -> list[Row]:
        sources = [inputs["sources"] for inputs in batch]
        rows = [self.given(source) for source in sources]
        asked = [index for index, row in enumerate(rows) if row["problem"] == "" and not row["instruction"]]
        if asked:
            for index, answer in zip(asked, self.written([sources[index] for index in asked]), strict=True):
                rows[index] |= answer
        for row in rows:
            row["problem"] = row["problem"] or text_problem(row["instruction"])
        return rows

    def given(self, source: Row) -> Row:
        first, *others = [one_line(text) for text in source["captions"]] or [""]
        problem = ""
        if not first and source["captions"]:
            problem = "empty instruction"
        elif not first and not source["image_caption"]:
            problem = "neither instruction nor caption"
        return {
            "instruction": first,
            "given": [text for text in others if text],
            "caption_before": one_line(source["image_caption"]),
            "caption_after": one_line(source["edited_caption"]),
            "writer": {},
            "problem": problem,
        }

    def written(self, sources: list[Row]) -> list[Row]:
        """Return the answers; ask again, in up to ROUNDS rounds with other seeds, for those of another form."""
        config = self.config
        if self.chat is None:
            if not config.chat_model:
                raise SettingsError("an image has a caption and no instruction: set chat_model, which then writes one")
            self.chat = ChatModel(config)
        rows: list[Row] = [{"problem": "", "tries": []} for _ in sources]
        for round_number in range(ROUNDS):
            open_ = [index for index, row in enumerate(rows) if "instruction" not in row]
            if not open_:
                break
            prompts = [PROMPT.format(caption=one_line(sources[index]["image_caption"])) for index in open_]
            chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
            seeds = [seed_of(config.seed, sources[index]["pair_id"], "instruction", round_number) for index in open_]
            for index, seed, (text, _) in zip(open_, seeds, self.chat.answers(chats, seeds, 96), strict=True):
                rows[index]["tries"].append(text)
                found = ANSWER.search(text)
                if found and not text_problem(found["instruction"]):
                    rows[index] |= {"instruction": found["instruction"], "caption_after": found["caption"]}
                    rows[index]["writer"] = {**self.chat.description, "seed": seed}
        for row in rows:
            tries = row.pop("tries")
            if "instruction" not in row:
                row["problem"] = (
                    f"the chat model wrote no instruction in {ROUNDS} tries: {json.dumps(tries[-1][:200])}"
                )
        return rows
