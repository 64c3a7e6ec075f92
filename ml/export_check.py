"""Load this adapter with stock transformers and peft, and compare its loss with the one recorded in check.json.

    python check.py [FOLDER OF THE BASE]

Exit code 0: equal to 0.001 bits per byte; 1: not. Needs torch, transformers and peft, nothing else.
"""

import hashlib
import json
import math
import sys
from pathlib import Path


def main() -> int:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = Path(__file__).resolve().parent
    recorded = json.loads((folder / "check.json").read_text())
    named = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    base = Path(sys.argv[1] if len(sys.argv) > 1 else named)
    for item in recorded["base_files"]:
        file = base / item["name"]
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != item["sha256"]:
            print(f"{file} is not the file this adapter was made for: give the folder of the base as an argument")
            return 1
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[recorded["dtype"]]
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=dtype), folder).eval()
    nats = 0.0
    with torch.inference_mode():
        for line in (folder / "sample.jsonl").read_text(encoding="utf-8").splitlines():
            tokens = tokenizer(json.loads(line)["text"], add_special_tokens=False)["input_ids"][: recorded["tokens"]]
            ids = torch.tensor([tokens])
            nats += model(input_ids=ids, labels=ids).loss.item() * (len(tokens) - 1)
    loss = nats / math.log(2) / recorded["target_bytes"]
    off = abs(loss - recorded["bits_per_byte"])
    print(f"loss {loss:.6f} bits per byte, recorded {recorded['bits_per_byte']:.6f}, off by {off:.6f}")
    return 0 if off <= 1e-3 else 1


if __name__ == "__main__":
    sys.exit(main())
