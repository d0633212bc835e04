"""BLIP-2 for image difference captioning, which refuses inputs for which BLIP-2 would silently ignore the images.

model = Blip2IdcForConditionalGeneration.from_pretrained("Salesforce/blip2-opt-2.7b")
new_tokens = model.generate(**processor(before="a.png", after="b.png"))
"""

import copy
from typing import Any

import torch
from transformers import Blip2ForConditionalGeneration, GenerationConfig, GenerationMixin
from transformers.models.blip_2.modeling_blip_2 import BaseModelOutputWithVisionQformerOutputs

from .configuration_blip2idc import Blip2IdcConfig
from .pipeline_blip2idc import ImageDifferenceCaptioningPipeline  # noqa: F401  it travels with the model

OPT_NEWLINE = 50118  # BLIP-2 was pre-trained with OPT's newline as its end of text
NO_INPUT_IDS = "input_ids is missing: pass the one that Blip2IdcProcessor makes, which contains the image tokens."


# GenerationMixin is named although the parent has it: the loader of remote code wraps classes that do not name it.
class Blip2IdcForConditionalGeneration(Blip2ForConditionalGeneration, GenerationMixin):
    config: Blip2IdcConfig
    config_class = Blip2IdcConfig
    _auto_class = "AutoModelForImageTextToText"

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.LongTensor | None = None,
        labels: torch.LongTensor | None = None,
        interpolate_pos_encoding: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
        vision_features: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Return BLIP-2's outputs; position embeddings are interpolated automatically for other canvas sizes.

        With `labels`, the loss is the sum over their tokens divided by `num_items_in_batch` (the tokens of a whole
        step, over all its processes and batches), or by the number of these tokens when None. A decoder-only model
        then returns only the logits of positions where some row has a label, [B, labelled, V].

        Args:
            pixel_values: canvases, [B, 3, H, W].
            input_ids, attention_mask, labels: [B, T], as Blip2IdcProcessor makes them.
            vision_features: instead of `pixel_values`, what `encode_vision` has made of them, [B, P, D].

        Raises: ValueError unless each row contains exactly `num_query_tokens` image tokens.
        """
        if input_ids is None and kwargs.get("inputs_embeds") is None:
            raise ValueError(NO_INPUT_IDS)
        if vision_features is not None:
            if pixel_values is not None:
                raise ValueError("pixel_values and vision_features are both given: pass one of them.")
            self._check_batch(vision_features, kwargs["inputs_embeds"] if input_ids is None else input_ids)
        if pixel_values is not None:
            self._check_batch(pixel_values, kwargs["inputs_embeds"] if input_ids is None else input_ids)
            interpolate_pos_encoding = self.must_interpolate(*pixel_values.shape[-2:]) or interpolate_pos_encoding
        targets = None
        if labels is not None:
            targets, places = self._targets(labels)
            kwargs |= places
        outputs = super().forward(
            pixel_values=pixel_values if vision_features is None else vision_features,  # for get_image_features
            input_ids=input_ids,
            attention_mask=attention_mask,
            interpolate_pos_encoding=interpolate_pos_encoding,
            **kwargs,
        )
        if targets is not None:
            outputs.loss = caption_loss(outputs.logits, targets, num_items_in_batch)
        return outputs

    def encode_vision(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return what the vision encoder makes of canvases: [B, 3, H, W] -> [B, P, D].

        Raises: ValueError for a canvas that is not a multiple of the patch size.
        """
        interpolate = self.must_interpolate(*pixel_values.shape[-2:])
        return self.vision_model(
            pixel_values=pixel_values, interpolate_pos_encoding=interpolate, return_dict=True
        ).last_hidden_state

    def get_image_features(self, pixel_values: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return BLIP-2's output of vision encoder and Q-Former, whose `pooler_output` the language model reads.

        Args:
            pixel_values: [B, 3, H, W], or what `encode_vision` has made of them, [B, P, D].
        """
        if pixel_values.ndim == 4:
            return super().get_image_features(pixel_values, *args, **kwargs)
        # As BLIP-2 does it, the mask of ones included, with which attention may take another kernel than without.
        queries = self.query_tokens.expand(len(pixel_values), -1, -1)
        mask = torch.ones(pixel_values.shape[:2], dtype=torch.long, device=pixel_values.device)
        outputs = self.qformer(
            query_embeds=queries, encoder_hidden_states=pixel_values, encoder_attention_mask=mask, return_dict=True
        )
        projected = self.language_projection(outputs.last_hidden_state.to(pixel_values.dtype))
        return BaseModelOutputWithVisionQformerOutputs(
            last_hidden_state=pixel_values, pooler_output=projected, qformer_outputs=outputs
        )

    def _targets(self, labels: torch.LongTensor) -> tuple[torch.LongTensor, dict[str, Any]]:
        """Return the tokens to compare the logits with, [B, T], and the arguments that limit the logits to these."""
        if self.language_model.config.is_encoder_decoder:
            return labels, {"decoder_input_ids": self.language_model.prepare_decoder_input_ids_from_labels(labels)}
        targets, columns = labelled_targets(labels)
        return targets, {"logits_to_keep": columns}

    @property
    def caption_decoder(self) -> Any:
        """Return the language model, which reads what `encode_images` returns."""
        return self.language_model

    def encode_images(
        self,
        pixel_values: torch.Tensor,
        input_ids: torch.LongTensor,
        attention_mask: torch.LongTensor,
        interpolate_pos_encoding: bool = False,
    ) -> dict[str, torch.Tensor]:
        """Return the arguments of `generate` with the encoded images, for several calls about the same pairs.

        Returns: `input_ids` and `attention_mask` as they are, and `inputs_embeds` [B, T, D] with the images.

        Raises: ValueError as `forward` does.
        """
        self._check_batch(pixel_values, input_ids)
        places = input_ids == self.config.image_token_id
        self._check_image_tokens(places)
        interpolate = self.must_interpolate(*pixel_values.shape[-2:]) or interpolate_pos_encoding
        images = self.get_image_features(pixel_values, interpolate_pos_encoding=interpolate, return_dict=True)
        words = self.get_input_embeddings()(input_ids)
        embeds = words.masked_scatter(places.unsqueeze(-1), images.pooler_output.to(words))
        return {"input_ids": input_ids, "attention_mask": attention_mask, "inputs_embeds": embeds}

    @torch.no_grad()
    def generate(
        self,
        pixel_values: torch.Tensor | None = None,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.LongTensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        generation_config: GenerationConfig | None = None,
        **kwargs: Any,
    ) -> Any:
        """Return the new tokens only, [B, new], for decoder-only and encoder-decoder language models alike.

        Args:
            inputs_embeds: what `encode_images` returns, instead of `pixel_values`.

        Raises: ValueError as `forward` does.
        """
        if inputs_embeds is not None and (pixel_values is not None or input_ids is None):
            raise ValueError(
                "generate takes pixel_values, not inputs_embeds, unless encode_images has made all of it."
            )
        if input_ids is None:
            raise ValueError(NO_INPUT_IDS)
        settings, kwargs = self._generation_settings(generation_config, kwargs)
        self.check_length(input_ids.shape[1], settings.max_new_tokens or 0)
        if inputs_embeds is None:
            attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            inputs_embeds = self.encode_images(pixel_values, input_ids, attention_mask, interpolate_pos_encoding)[
                "inputs_embeds"
            ]
        if hasattr(self, "hf_device_map"):
            self._preprocess_accelerate()
        inputs = {"inputs_embeds": inputs_embeds, "attention_mask": attention_mask}
        if not self.language_model.config.is_encoder_decoder:
            inputs["input_ids"] = input_ids
        output = self.language_model.generate(**inputs, generation_config=settings, **kwargs)
        # OPT repeats its whole input, T5 begins with its start token: [B, given + new] -> [B, new]
        given = 1 if self.language_model.config.is_encoder_decoder else input_ids.shape[1]
        if isinstance(output, torch.Tensor):
            return output[:, given:]
        output.sequences = output.sequences[:, given:]
        return output

    def get_placeholder_mask(
        self, input_ids: torch.LongTensor | None, inputs_embeds: torch.Tensor
    ) -> torch.BoolTensor:
        """Return where the image features go, [B, T, 1]; BLIP-2 itself accepts any number of places, even none."""
        mask = super().get_placeholder_mask(input_ids, inputs_embeds)
        self._check_image_tokens(mask.squeeze(-1))
        return mask

    def _check_batch(self, pixel_values: torch.Tensor, rows: torch.Tensor) -> None:
        if len(pixel_values) != len(rows):  # BLIP-2 would silently reuse the rows
            raise ValueError(f"{len(pixel_values)} canvases in pixel_values, but {len(rows)} rows of tokens.")
        self.check_length(rows.shape[1])

    def _check_image_tokens(self, mask: torch.BoolTensor) -> None:
        if torch.compiler.is_compiling():
            return  # counting depends on the data, which would break the graph
        found, wanted = mask.sum(dim=1).tolist(), self.config.num_query_tokens
        if any(count != wanted for count in found):
            raise ValueError(
                f"Each row of input_ids must contain exactly {wanted} image tokens (id {self.config.image_token_id}), "
                f"found {found}. Blip2IdcProcessor makes them: pass its input_ids, and check its num_query_tokens."
            )

    def must_interpolate(self, height: int, width: int) -> bool:
        """Return whether a canvas differs from the size that the position embeddings were trained for.

        Raises: ValueError for a canvas that is not a multiple of the patch size.
        """
        patch, image_size = self.config.vision_config.patch_size, self.config.vision_config.image_size
        if height % patch or width % patch:
            raise ValueError(
                f"Canvas {height}x{width} is not a multiple of the patch size {patch}: set the processor's canvas to "
                f"multiples of {patch} such as {[-(-height // patch) * patch, -(-width // patch) * patch]}."
            )
        return (height, width) != (image_size, image_size)

    def check_length(self, tokens: int, new_tokens: int = 0) -> None:
        """Raise ValueError if an input and new tokens are more than the language model has positions for.

        T5 has none: its positions are relative.
        """
        positions = getattr(self.config.text_config, "max_position_embeddings", None)
        if positions is not None and tokens + new_tokens > positions:
            raise ValueError(
                f"{tokens} tokens of image and prompt and {new_tokens} of caption are more than the {positions} "
                "positions of the language model: shorten the prompt, or lower max_caption_length or max_new_tokens."
            )

    def end_token_ids(self) -> list[int]:
        """Return the tokens that end a caption."""
        ids = self._generation_settings(None, {})[0].eos_token_id
        return ids if isinstance(ids, list) else [ids]

    def _generation_settings(
        self, generation_config: GenerationConfig | None, kwargs: dict[str, Any]
    ) -> tuple[GenerationConfig, dict[str, Any]]:
        """Return this model's generation_config and unused keywords; BLIP-2 itself would use its language model's."""
        settings = copy.deepcopy(self.generation_config if generation_config is None else generation_config)
        for name in ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"):
            if getattr(settings, name) is None:
                setattr(settings, name, getattr(self.config.text_config, name, None))
        if settings.eos_token_id == OPT_NEWLINE and settings.bos_token_id is not None:
            # Fine-tuned captions end with </s>, which is also OPT's BOS; without it generation runs to the limit.
            settings.eos_token_id = [OPT_NEWLINE, settings.bos_token_id]
        return settings, settings.update(**kwargs)


def labelled_targets(labels: torch.LongTensor) -> tuple[torch.LongTensor, torch.LongTensor]:
    """Return the tokens to compare a decoder's logits with, and the positions of these logits.

    [B, T] -> [B, labelled] and [labelled]: the positions where some row has a label.
    """
    following = labels[:, 1:]  # position t predicts token t + 1
    if torch.compiler.is_compiling():  # how many columns remain depends on the data, which would break the graph
        columns = torch.arange(following.shape[1], device=labels.device)
    else:
        columns = (following >= 0).any(dim=0).nonzero().squeeze(1)
    return following[:, columns], columns


def caption_loss(
    logits: torch.Tensor, targets: torch.LongTensor, num_items_in_batch: torch.Tensor | int | None
) -> torch.Tensor:
    """Return the cross-entropy in float32; [B, T, V] and [B, T] -> scalar."""
    total = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="sum")
    return total / ((targets >= 0).sum() if num_items_in_batch is None else num_items_in_batch)
