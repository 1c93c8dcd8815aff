"""Makes what the engines are compared on: random experts of one shape, and each engine's own form of them.

    python tests/bench/peers/models.py FOLDER [--genai-python PATH] [--llama-python PATH]

A form that is there is kept. `genai` needs a python with onnxruntime-genai, `gguf` one with llama-cpp-python and gguf.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

EXPERTS, VOCABULARY, RANK = 8, 32_000, 16
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
HERE = Path(__file__).parent


def save_tokenizer(folder: Path) -> None:
    """A word for each id."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<bos>": 1, "<eos>": 2, "<unk>": 3} | {f"w{number}": number for number in range(4, VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {f"{name}_token": f"<{name}>" for name in ("pad", "bos", "eos", "unk")}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)


def save_expert(folder: Path, seed: int) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    LlamaForCausalLM(LlamaConfig(**SHAPE)).save_pretrained(folder)
    save_tokenizer(folder)


def save_adapter(base: Path, folder: Path, seed: int) -> None:
    """A random LoRA adapter of all linear layers but the vocabulary's."""
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    model = peft.get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        peft.LoraConfig(task_type="CAUSAL_LM", r=RANK, target_modules="all-linear"),
    )
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(0, 0.02)
    model.save_pretrained(folder)
    save_tokenizer(folder)


def save_half(expert: Path, folder: Path) -> None:
    """The expert as a checkpoint in bfloat16."""
    import torch
    from transformers import LlamaForCausalLM

    LlamaForCausalLM.from_pretrained(expert, dtype=torch.bfloat16).save_pretrained(folder)
    save_tokenizer(folder)


def missing(folder: Path) -> bool:
    """Whether the folder is still to be made; says so if it is."""
    if not folder.exists():
        print(f"making {folder}", flush=True)
    return not folder.exists()


def bundles(home: Path, experts: list[Path], halves: list[Path], adapters: list[Path]) -> None:
    """Octavo's own forms."""
    from octavo.exporters.export import export_bundle

    for precision in ("fp32", "int8", "int4"):
        if missing(home / f"bundle-{precision}"):
            export_bundle(experts, home / f"bundle-{precision}", precision=precision, verify=False)
    if missing(home / "bundle-bf16"):
        export_bundle(halves, home / "bundle-bf16", precision="fp32", verify=False)
    if missing(home / "bundle-lora"):
        export_bundle(adapters, home / "bundle-lora", base=experts[0], verify=False)


def optimum_forms(home: Path, experts: list[Path]) -> None:
    from optimum.exporters.onnx import main_export

    for expert in experts:
        if missing(home / "optimum" / expert.name):
            main_export(
                str(expert), home / "optimum" / expert.name, task="text-generation-with-past", do_validation=False
            )


def genai_forms(python: str, home: Path, experts: list[Path], halves: list[Path]) -> None:
    """As genai's own builder makes them; int4 in octavo's block size and accuracy level, bf16 checkpoints in fp32."""
    for form, precision, sources in (("fp32", "fp32", experts), ("bf16", "fp32", halves), ("int4", "int4", experts)):
        more = ["--extra_options", "int4_block_size=32", "int4_accuracy_level=4"] if precision == "int4" else []
        for expert in sources:
            out = home / f"genai-{form}" / expert.name
            if missing(out):
                program = ["-m", "onnxruntime_genai.models.builder", "-m", str(expert), "-o", str(out), "-e", "cpu"]
                run(python, *program, "-p", precision, "-c", str(home / "cache"), *more)


def gguf_forms(python: str, home: Path, experts: list[Path]) -> None:
    for expert in experts:
        if missing(home / "gguf" / f"{expert.name}-f32.gguf"):
            run(python, str(HERE / "to_gguf.py"), str(expert), str(home / "gguf"))


def run(python: str, *arguments: str) -> None:
    done = subprocess.run([python, *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr[-2000:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--genai-python")
    parser.add_argument("--llama-python")
    given = parser.parse_args()
    home = given.folder
    experts = [home / "experts" / f"expert-{number}" for number in range(EXPERTS)]
    adapters = [home / "adapters" / f"expert-{number}" for number in range(EXPERTS)]
    for number, folder in enumerate(experts):
        if missing(folder):
            save_expert(folder, number)
    for number, folder in enumerate(adapters):
        if missing(folder):
            save_adapter(experts[0], folder, number)
    halves = [home / "experts-bf16" / folder.name for folder in experts]
    for expert, half in zip(experts, halves, strict=True):
        if missing(half):
            save_half(expert, half)
    bundles(home, experts, halves, adapters)
    if given.llama_python:
        gguf_forms(given.llama_python, home, experts)
    if given.genai_python:
        genai_forms(given.genai_python, home, experts, halves)
    optimum_forms(home, experts)


if __name__ == "__main__":
    main()
