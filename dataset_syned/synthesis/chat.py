"""Any chat model of transformers: many short answers at once, each with its own seed."""

import os

import torch
from jinja2.exceptions import TemplateError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
)

from .settings import SettingsError, SynthesisConfig, describe_model

Chat = list[dict[str, str]]


def pick_device() -> str:
    """Return this process's GPU, or "cpu"."""
    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count()}"


class SeededSampling(LogitsProcessor):
    """Sampling that does not depend on the rest of the batch: the largest of logits plus Gumbel noise is a sample."""

    def __init__(self, seeds: list[int]):
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        noise = torch.stack([torch.rand(scores.shape[-1], generator=generator) for generator in self.generators])
        gumbel = -torch.log(-torch.log(noise.clamp_(1e-10, 1 - 1e-7)))
        return scores.float() + gumbel.to(scores.device)  # [B, vocabulary]


class ChatModel:
    """The chat model of the config.

    Raises: SettingsError if it cannot be loaded or has no chat template.
    """

    def __init__(self, config: SynthesisConfig):
        model, gguf = config.chat_model, config.chat_gguf
        place = {"revision": config.chat_revision, "trust_remote_code": False}  # foreign code is never run
        place |= {"gguf_file": gguf} if gguf else {}
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left", **place)
            self.model = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, config.dtype), **place)
        except (OSError, ValueError) as error:  # not the fault of the first pair
            raise SettingsError(f"chat model {model!r} cannot be loaded: {error}") from error
        if not self.tokenizer.chat_template:
            raise SettingsError(f"chat model {model!r} has no chat template: name a model that was tuned for chats")
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.model.to(pick_device()).eval()
        ends = self.model.generation_config.eos_token_id  # often more than the tokenizer's own
        self.ends = {self.tokenizer.eos_token_id, self.tokenizer.pad_token_id}
        self.ends |= set(ends if isinstance(ends, list) else [ends])
        self.temperature = config.temperature
        self.description = describe_model(model, config.chat_revision)

    def accepted(self, chat: Chat) -> Chat:
        """Return the chat with the system prompt in the first user turn if the template refuses a system turn."""
        if chat[0]["role"] != "system":
            return chat
        try:
            self.tokenizer.apply_chat_template(chat, tokenize=False)
            return chat
        except TemplateError:  # as Gemma's
            system, user, *others = chat
            return [{**user, "content": f"{system['content']}\n\n{user['content']}"}, *others]

    @torch.no_grad()
    def answers(self, chats: list[Chat], seeds: list[int], max_new_tokens: int) -> list[tuple[str, bool]]:
        """Return each answer, and whether it ended within the limit."""
        inputs = self.tokenizer.apply_chat_template(
            [self.accepted(chat) for chat in chats],
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
            return_dict=True,
            enable_thinking=False,  # ignored by templates without thinking
        ).to(self.model.device)
        sampling = [TemperatureLogitsWarper(self.temperature), SeededSampling(seeds)]
        tokens = self.model.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            logits_processor=LogitsProcessorList(sampling),
            pad_token_id=self.tokenizer.pad_token_id,
        )
        new = tokens[:, inputs["input_ids"].shape[1] :]  # [B, new tokens]
        ended = [bool(self.ends & set(row)) for row in new.tolist()]
        return list(zip(self.tokenizer.batch_decode(new, skip_special_tokens=True), ended, strict=True))
