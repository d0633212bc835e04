"""Fifth stage: paraphrases of each instruction by a chat model, cleaned and checked for their meaning."""

from dataclasses import dataclass, field

import torch

from ..caption_cleaning import CUT_AT_LIMIT, DUPLICATE, clean, comparable
from .chat import Chat, ChatModel, pick_device
from .meaning import Parser, rule_against
from .settings import SynthesisConfig, describe_model
from .shards import Row, batched, seed_of

KEPT, OTHER_MEANING = "kept", "other_meaning"
LIMIT = 48  # tokens of an answer; the released paraphrases have 10 words on average
SYSTEM = "You reword image edit instructions. Each answer is one short instruction that means the same."
# With examples twice as many answers of a small model pass the rules as with a description of the task.
EXAMPLES = (
    ("Add a dog next to the tree.", "Place a dog beside the tree."),
    ("make the sky purple", "Change the color of the sky to purple."),
    ("Get rid of the two cars", "Remove both cars from the picture."),
    ("turn it into a pencil drawing", "Make the image look like a pencil sketch."),
)


def conversation(instruction: str) -> Chat:
    turns = [turn for pair in EXAMPLES for turn in zip(("user", "assistant"), pair, strict=True)]
    turns = [("system", SYSTEM), *turns, ("user", instruction)]
    return [{"role": role, "content": text} for role, text in turns]


class SentenceEmbedding:
    """Sentence embeddings: normalised means of a text encoder's last states, as sentence-transformers use them."""

    def __init__(self, model: str, revision: str | None):
        from transformers import AutoModel, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(model, revision=revision, trust_remote_code=False)
        loaded = AutoModel.from_pretrained(model, revision=revision, trust_remote_code=False, use_safetensors=True)
        self.model = loaded.to(pick_device()).eval()
        self.description = describe_model(model, revision)

    @torch.no_grad()
    def __call__(self, texts: list[str]) -> torch.Tensor:
        inputs = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt").to(self.model.device)
        states = self.model(**inputs).last_hidden_state  # [texts, T, D]
        mask = inputs["attention_mask"][..., None].to(states.dtype)
        means = (states * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(means.float(), dim=-1).cpu()


@dataclass
class Wordings:
    """Captions of one pair while they are collected."""

    pair_id: str
    instruction: str
    captions: list[str]
    missing: int
    tries: list[Row] = field(default_factory=list)

    def clean_answer(self, answer: str, ended: bool) -> tuple[str, str]:
        """Return what is left of an answer, and the rule against it or ""."""
        lines = [line for line in answer.split("\n") if line.strip()]
        if not ended:
            lines = lines[:-1]
            if not lines:
                return "", CUT_AT_LIMIT
        cleaned = clean(lines, self.instruction)
        if cleaned.instruction_stands_in:
            return "", cleaned.removed[0][1] if cleaned.removed else "empty"
        text = cleaned.kept[0]
        known = {comparable(caption) for caption in self.captions}
        return text, DUPLICATE if comparable(text) in known else ""


class Paraphrases:
    """Stage whose rows have captions (instruction first), tries (answers with seed, rule, similarity) and models.

    Args:
        parser: reads the changes that a sentence states; those of a paraphrase must be those of its instruction.
    """

    inputs, reads_images = ("sources", "instructions", "selection"), False

    def __init__(self, config: SynthesisConfig, parser: Parser | None = None):
        self.config, self.batch_size, self.parser = config, config.batch_size, parser
        self.chat = self.embed = None
        if config.chat_model and config.paraphrases:
            self.chat = ChatModel(config)
            if config.embedding_model:
                self.embed = SentenceEmbedding(config.embedding_model, config.embedding_revision)

    def work(self, batch: list[dict[str, Row]]) -> list[Row]:
        pairs = []
        for inputs in batch:
            row = inputs["instructions"]
            captions = [row["instruction"], *row["given"]]
            missing = max(0, self.config.paraphrases - len(row["given"]))
            pairs.append(Wordings(inputs["sources"]["pair_id"], row["instruction"], captions, missing))
        if self.chat:
            for round_number in range(self.config.paraphrase_rounds):
                self.ask([pair for pair in pairs if pair.missing], round_number)
        models = {name: model.description for name, model in (("chat", self.chat), ("embedding", self.embed)) if model}
        return [{"captions": pair.captions, "tries": pair.tries, "models": models, "problem": ""} for pair in pairs]

    def ask(self, pairs: list[Wordings], round_number: int) -> None:
        """Ask once for as many answers per pair as it lacks captions."""
        asked = [
            (pair, seed_of(self.config.seed, pair.pair_id, "paraphrase", round_number, number))
            for pair in pairs
            for number in range(pair.missing)
        ]
        for part in batched(asked, self.config.batch_size):
            chats = [conversation(pair.instruction) for pair, _ in part]
            answers = self.chat.answers(chats, [seed for _, seed in part], LIMIT)
            for (pair, seed), (answer, ended) in zip(part, answers, strict=True):
                self.take(pair, seed, answer, ended)

    def take(self, pair: Wordings, seed: int, answer: str, ended: bool) -> None:
        text, rule = pair.clean_answer(answer, ended)
        tried: Row = {"answer": answer, "seed": seed}
        rule = rule or rule_against(pair.instruction, text, self.parser)
        if not rule and self.embed:
            of_instruction, of_text = self.embed([pair.instruction, text])
            tried["meaning"] = round(float(of_instruction @ of_text), 6)
            # so written that a NaN counts as another meaning
            rule = "" if tried["meaning"] >= self.config.min_meaning else OTHER_MEANING
        pair.tries.append({**tried, "rule": rule or KEPT})
        if not rule:
            pair.captions.append(text)
            pair.missing -= 1
