"""Runs the PyTorch reference stage by stage and keeps what each stage computes, as NumPy arrays under fixed names."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from golden_inputs import CLIP_SAMPLES, Encoder, Scenario

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Arrays = dict[str, np.ndarray]


def to_numpy(value: torch.Tensor) -> np.ndarray:
    """Copy a tensor to a NumPy array; a copy, because the reference adds in place here and there."""
    return np.array(value.detach().cpu().numpy(), order="C")


@contextmanager
def recorded(taps: dict[str, torch.nn.Module], keep: Callable[[str, torch.Tensor], None]) -> Iterator[None]:
    """Call `keep(name, output)` each time one of the tapped modules runs; a tuple output gives its first item."""

    def hook(name: str) -> Callable[..., None]:
        def record(module: torch.nn.Module, arguments: Any, output: Any) -> None:
            keep(name, output[0] if isinstance(output, tuple) else output)

        return record

    handles = [module.register_forward_hook(hook(name)) for name, module in taps.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def smallest_gap(logits: np.ndarray, chosen: int = 1) -> float:
    """Measure the smallest distance in `logits` [N, V] between the `chosen`-th largest value and the next."""
    ordered = -np.partition(-logits.astype(np.float64), (chosen - 1, chosen), axis=-1)
    return float((ordered[..., chosen - 1] - ordered[..., chosen]).min())


class Reference:
    """The reference model with recorders around its stages."""

    def __init__(self, model: Any, encoder: Encoder) -> None:
        self.model = model
        self.encoder = encoder
        self.config = model.config
        # 5.23 asks the talker's configuration for audio_config when a prompt holds an image and a sound, and the
        # class has none: lend it the thinker's, which is what the thinker reads in the same function.
        if not hasattr(self.config.talker_config, "audio_config"):
            self.config.talker_config.audio_config = self.config.thinker_config.audio_config

    def audio(self, wave: np.ndarray) -> Arrays:
        """Run the audio encoder on one clip and keep every stage."""
        mel, mask = self.encoder.mel(wave)
        tower = self.model.thinker.model.audio_tower
        taps = {"conv2d3": tower.conv2d3, "conv_out": tower.conv_out, "ln_post": tower.ln_post,
                "proj1": tower.proj1, "proj2": tower.proj2}  # fmt: skip
        taps |= {f"layer{index}": layer for index, layer in enumerate(tower.layers)}
        kept: Arrays = {"wave": wave, "mel": mel, "mel_mask": mask.astype(np.int32)}
        with recorded(taps, lambda name, value: kept.__setitem__(name, to_numpy(value))):
            kept["out"] = self.audio_embeddings(mel)
        return kept

    def audio_embeddings(self, mel: np.ndarray) -> np.ndarray:
        """Run the audio encoder on a log-mel [1, M, F] and return its output [T, D]."""
        frames = torch.tensor([mel.shape[-1]])
        output = self.model.thinker.model.audio_tower(torch.from_numpy(mel[0]), feature_lens=frames)
        return to_numpy(output.last_hidden_state)

    def clips(self, wave: np.ndarray) -> Arrays:
        """Run the audio encoder on clips of awkward lengths; of a long output only some rows are kept."""
        kept: Arrays = {}
        for name, samples in CLIP_SAMPLES.items():
            mel, _ = self.encoder.mel(np.resize(wave, samples))
            out = self.audio_embeddings(mel)
            count = len(out)
            rows = np.arange(count)
            if count > 32:  # both ends, the first window edges, and a few rows in between
                rows = np.unique(np.r_[:14, 24:28, 50:54, 103:count:101, count - 4 : count])
            kept[f"{name}.samples"] = np.array([samples], np.int64)
            kept[f"{name}.mel_frames"] = np.array([mel.shape[-1]], np.int64)
            kept[f"{name}.mel_mean"] = mel[0].mean(axis=1)
            kept[f"{name}.mel_tail"] = mel[0][:, -2:]
            kept[f"{name}.tokens"] = np.array([len(out)], np.int64)
            kept[f"{name}.rows"] = rows.astype(np.int64)
            kept[f"{name}.out"] = out[rows]
            kept[f"{name}.out_mean"] = out.mean(axis=0)
        return kept

    def vision(self, pixels: np.ndarray, grid: np.ndarray) -> Arrays:
        """Run the vision encoder on patches [P, 1536] and keep every stage."""
        tower = self.model.thinker.model.visual
        kept: Arrays = {"pixel_values": pixels, "grid_thw": grid}
        inputs: dict[str, torch.Tensor] = {}

        def keep_block_input(module: Any, arguments: Any, keywords: Any) -> None:
            inputs["block_in"] = arguments[0] if arguments else keywords["hidden_states"]

        def keep_rope(module: Any, arguments: Any, output: Any) -> None:
            kept["rope_cos"], kept["rope_sin"] = (to_numpy(part) for part in output)

        taps = {f"block{index}": block for index, block in enumerate(tower.blocks)}
        taps["patch_embed"] = tower.patch_embed
        handles = [
            tower.blocks[0].register_forward_pre_hook(keep_block_input, with_kwargs=True),
            tower.rotary_pos_emb.register_forward_hook(keep_rope),
        ]
        with recorded(taps, lambda name, value: kept.__setitem__(name, to_numpy(value))):
            output = tower(torch.from_numpy(pixels), grid_thw=torch.from_numpy(grid))
        for handle in handles:
            handle.remove()
        kept["block_in"] = to_numpy(inputs["block_in"])
        kept["out"] = to_numpy(output.pooler_output)
        for index, feature in enumerate(output.deepstack_features):
            kept[f"deepstack{index}"] = to_numpy(feature)
        return kept

    def positions(self, inputs: dict[str, Any], audio_in_video: bool = False) -> Arrays:
        """Compute the thinker's positions [3, 1, T] and delta [1, 1] of a prompt."""
        mask = inputs.get("feature_attention_mask")
        lengths = inputs.get("audio_seqlens") if mask is None else mask.sum(-1)
        if inputs.get("image_grid_thw") is None and inputs.get("video_grid_thw") is None:
            lengths = None
        positions, delta = self.model.thinker.model.get_rope_index(
            inputs["input_ids"], inputs.get("image_grid_thw"), inputs.get("video_grid_thw"), inputs["attention_mask"],
            audio_in_video, lengths, inputs.get("video_second_per_grid"),
        )  # fmt: skip
        return {"position_ids": to_numpy(positions).astype(np.float32), "rope_delta": to_numpy(delta.float())}

    def thinker(self, inputs: dict[str, Any], scenario: Scenario, **options: Any) -> Arrays:
        """Run the thinker on a prompt, then let it answer greedily."""
        thinker = self.model.thinker
        language_model = thinker.model.language_model
        kept: Arrays = {"input_ids": to_numpy(inputs["input_ids"])}
        kept |= self.positions(inputs, scenario.audio_in_video)
        if "video_second_per_grid" in inputs:
            kept["video_second_per_grid"] = to_numpy(inputs["video_second_per_grid"])
        routers: Arrays = {}

        def keep_rope(module: Any, arguments: Any, output: Any) -> None:
            kept["rope_cos"], kept["rope_sin"] = (to_numpy(part[0]) for part in output)

        taps = {f"router{index}": layer.mlp.gate for index, layer in enumerate(language_model.layers)}
        handle = language_model.rotary_emb.register_forward_hook(keep_rope)
        use = {"use_audio_in_video": scenario.audio_in_video}
        with recorded(taps, lambda name, value: routers.__setitem__(name, to_numpy(value))):
            output = thinker(**inputs, **use, output_hidden_states=True, use_cache=False)
        handle.remove()
        kept |= routers
        for index, hidden in enumerate(output.hidden_states):
            kept[f"hidden{index}"] = to_numpy(hidden[0])
        kept["logits"] = to_numpy(output.logits[0])
        thinker.model.rope_deltas = None
        top = self.config.thinker_config.text_config.num_experts_per_tok
        gaps: list[float] = []
        with recorded(taps, lambda name, value: gaps.append(smallest_gap(to_numpy(value), top))):
            answer = thinker.generate(
                **inputs, **use, **options, max_new_tokens=scenario.new_tokens, do_sample=False,
                eos_token_id=self.config.im_end_token_id, return_dict_in_generate=True, output_logits=True,
            )  # fmt: skip
        kept["gap_of_routers"] = np.array([min(gaps)])
        logits = np.stack([to_numpy(step[0]) for step in answer.logits])
        kept["greedy_ids"] = to_numpy(answer.sequences[0, inputs["input_ids"].shape[1] :])
        kept["greedy_logits"] = logits
        ordered = np.sort(logits, axis=-1)
        kept["greedy_margin"] = ordered[:, -1] - ordered[:, -2]
        return kept

    def speech(self, inputs: dict[str, Any], scenario: Scenario, speaker: str = "Ethan", **options: Any) -> Arrays:
        """Let the whole model answer greedily in text and speech, keeping what talker and code predictor do."""
        model, talker = self.model, self.model.talker
        call: dict[str, Any] = {}
        steps: list[dict[str, Any]] = []
        frames: list[dict[str, Any]] = []
        routers: list[float] = []
        talker_generate, predictor_generate = talker.generate, talker.code_predictor.generate

        def generate_speech(**keywords: Any) -> Any:
            call["keywords"] = keywords
            call["result"] = talker_generate(**keywords, output_logits=True, output_scores=True)
            return call["result"]

        def generate_frame(**keywords: Any) -> Any:
            result = predictor_generate(**keywords, output_logits=True)
            frames.append({"in": keywords["inputs_embeds"], "logits": result.logits})
            return result

        def keep_step(module: Any, arguments: Any, keywords: Any, output: Any) -> None:
            steps.append({"embeds": keywords["inputs_embeds"], "positions": keywords["position_ids"], "output": output})

        top = self.config.talker_config.text_config.num_experts_per_tok
        taps = {str(index): layer.mlp.gate for index, layer in enumerate(talker.model.layers)}
        handle = talker.register_forward_hook(keep_step, with_kwargs=True)
        talker.generate, talker.code_predictor.generate = generate_speech, generate_frame
        talker.rope_deltas = model.thinker.model.rope_deltas = None
        try:
            with recorded(taps, lambda name, value: routers.append(smallest_gap(to_numpy(value), top))):
                sequence, wave = model.generate(
                    **inputs, **options, speaker=speaker, use_audio_in_video=scenario.audio_in_video,
                    thinker_do_sample=False, thinker_max_new_tokens=scenario.new_tokens,
                    thinker_eos_token_id=self.config.im_end_token_id, talker_do_sample=False,
                    talker_max_new_tokens=scenario.new_frames + scenario.look_ahead,
                    talker_repetition_penalty=scenario.penalty,
                )  # fmt: skip
        finally:
            handle.remove()
            del talker.generate, talker.code_predictor.generate
        return self._speech_arrays(call, steps, frames, sequence, wave) | {"router_gap": np.array([min(routers)])}

    def _speech_arrays(self, call: Any, steps: Any, frames: Any, sequence: Any, wave: Any) -> Arrays:
        keywords, result = call["keywords"], call["result"]
        prefill = steps[0]["output"].hidden_states[0]
        codes = torch.stack([step[-1] for step in result.hidden_states if step[-1] is not None], dim=1)[0].T
        gaps = [smallest_gap(to_numpy(torch.cat(list(frame["logits"])))) for frame in frames]
        kept: Arrays = {
            "thinker_sequence": to_numpy(sequence[0]),
            "inputs_embeds": to_numpy(keywords["inputs_embeds"][0]),
            "talker_input_ids": to_numpy(keywords["talker_input_ids"][0]),
            "position_ids": to_numpy(steps[0]["positions"]).astype(np.float32),
            "trailing_text_hidden": to_numpy(keywords["trailing_text_hidden"][0]),
            "tts_pad_embed": to_numpy(keywords["tts_pad_embed"][0, 0]),
            "step_embeds": np.concatenate([to_numpy(step["embeds"][0]) for step in steps[1:]]),
            "step_position": np.stack([to_numpy(step["positions"][-3:, 0, -1]) for step in steps], 1).astype(
                np.float32
            ),
            "step_hidden": np.stack([to_numpy(step["output"].hidden_states[0][-1][0, -1]) for step in steps]),
            "step_logits": np.concatenate([to_numpy(step) for step in result.logits]),
            "scores": np.concatenate([to_numpy(step) for step in result.scores]),
            "codec0": to_numpy(result.sequences[0]),
            "codes": to_numpy(codes),
            "cp_margin_min": np.array([min(gaps)], np.float32),
            "wav": to_numpy(wave).reshape(-1),
        }
        for index, hidden in enumerate(prefill):
            kept[f"prefill_hidden{index}"] = to_numpy(hidden[0])
        for index, frame in enumerate(frames[:3]):
            kept[f"cp{index}.in"] = to_numpy(frame["in"][0])
            kept[f"cp{index}.logits"] = to_numpy(torch.cat(list(frame["logits"])))
        return kept

    def code2wav(self, codes: np.ndarray, *, stages: bool) -> Arrays:
        """Decode codes [K, F] in one go, keeping every stage when asked."""
        vocoder = self.model.code2wav
        kept: Arrays = {"codes": codes}
        taps: dict[str, torch.nn.Module] = {}
        if stages:
            taps = {f"pre_layer{index}": layer for index, layer in enumerate(vocoder.pre_transformer.layers)}
            for index, (transposed, block) in enumerate(vocoder.upsample):
                taps |= {f"upsample{index}_tconv": transposed, f"upsample{index}_convnext": block}
            # The last block (large, two channels), the last snake and the output convolution show in `wav`.
            taps |= {f"decoder{index}": block for index, block in enumerate(vocoder.decoder[:-3])}
            taps |= {f"decoder1_block{index}": block for index, block in enumerate(vocoder.decoder[1].block)}

        batch = torch.from_numpy(codes)[None]
        with recorded(taps, lambda name, value: kept.__setitem__(name, to_numpy(value[0]))):
            kept["wav"] = to_numpy(vocoder(batch)).reshape(-1)
        if stages:
            embedded = vocoder.code_embedding(batch + vocoder.code_offset).mean(1)
            kept["embed"] = to_numpy(embedded[0])
            kept["pre_out"] = to_numpy(vocoder.pre_transformer(inputs_embeds=embedded).last_hidden_state[0])
        return kept
