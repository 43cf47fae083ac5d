"""A tiny random encoder, made on the spot: nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

from flatcoat.data.toy import toy_sentences
from flatcoat.files import write_json


def write_tiny(folder: Path, *, dim: int = 32, layers: int = 2, seed: int = 0, pooling: str = "mean") -> Path:
    """Write a random BERT over the toy collection's words, in sentence-transformers' layout, unit vectors."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = sorted({w for _, q, d in toy_sentences() for w in f"{q} {d}".lower().replace(".", " .").split()})
    vocab = {word: i for i, word in enumerate([*special, *"abcdefghijklmnopqrstuvwxyz", *words])}
    vocab |= {f"##{c}": len(vocab) + i for i, c in enumerate("abcdefghijklmnopqrstuvwxyz")}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocab), hidden_size=dim, num_hidden_layers=layers, num_attention_heads=2,
        intermediate_size=2 * dim, max_position_embeddings=64,
    )  # fmt: skip
    backbone = BertModel(config)
    torch.set_rng_state(state)
    folder.mkdir(parents=True, exist_ok=True)
    backbone.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=32, **names).save_pretrained(folder)
    kinds = ["Transformer", "Pooling", "Normalize"]
    paths = ["", "1_Pooling", "2_Normalize"]
    entries = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    write_json(folder / "modules.json", entries)
    write_json(folder / "1_Pooling" / "config.json", {"embedding_dimension": dim, "pooling_mode": pooling})
    (folder / "2_Normalize").mkdir(exist_ok=True)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 32, "do_lower_case": False})
    return folder


def write_tiny_mlm(folder: Path, *, seed: int = 0, terms: int = 40) -> Path:
    """Write a tiny masked-language model as a plain folder: `terms` of its entries are above zero for a text of random tokens."""
    import tempfile

    import torch

    from flatcoat.models.mlm import calibrate, load_mlm, save_mlm

    state = torch.get_rng_state()
    torch.manual_seed(seed)  # before reading: a head that is not in the checkpoint is drawn
    with tempfile.TemporaryDirectory() as place:
        network, tokenizer = load_mlm(write_tiny(Path(place) / "dense", seed=seed))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "transform" in name or "decoder" in name:
                parameter.add_(0.05 * torch.randn_like(parameter))
    torch.set_rng_state(state)
    calibrate(network, terms)
    save_mlm(network, tokenizer, folder, 32)
    return folder
