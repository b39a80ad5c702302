from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from bough.models.tokenizer import Tokenizer, load_tokenizer
from tests.checkpoints import BOS, EOS, VOCAB_SIZE, make_checkpoint, make_tokenizer

CHAT = [{"role": "user", "content": "the leaf?"}, {"role": "assistant", "content": "a tree"}]


def loaded(folder: Path) -> Tokenizer:
    tokenizer = load_tokenizer(folder)
    assert tokenizer is not None
    return tokenizer


def test_text_survives_the_way_to_ids_and_back(tmp_path: Path) -> None:
    tokenizer = loaded(make_tokenizer(tmp_path))
    assert tokenizer.vocab_size <= VOCAB_SIZE
    for text in ("def branch(self):\n    return 1 .", "é 猫 🌳", "  spaces , kept ' t", ""):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert all(0 <= token_id < tokenizer.vocab_size for token_id in ids)
    assert len(tokenizer.encode("the leaf")) < len("the leaf")


def test_long_prompts_are_encoded_in_silence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    file = make_tokenizer(tmp_path) / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": 4}))
    assert len(loaded(tmp_path).encode("def branch(self):\n    return 1")) > 4
    assert capfd.readouterr().err == "" and not caplog.records


def test_special_tokens_are_left_out_of_text_unless_asked_for(tmp_path: Path) -> None:
    tokenizer = loaded(make_tokenizer(tmp_path))
    ids = [BOS, *tokenizer.encode("tree"), EOS]
    assert tokenizer.decode(ids) == "tree"
    assert tokenizer.decode(ids, skip_special_tokens=False) == "<s>tree</s>"


def test_a_chat_becomes_the_prompt_that_transformers_makes(tmp_path: Path) -> None:
    tokenizer = loaded(make_tokenizer(tmp_path))
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    text = tokenizer.format_chat(CHAT)
    assert text == "<s><user>the leaf?</user><assistant>a tree</assistant><assistant>"
    assert tokenizer.format_chat(CHAT, add_generation_prompt=False) + "<assistant>" == text
    expected = theirs.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=False)
    assert tokenizer.encode_chat(CHAT) == expected
    assert expected.count(BOS) == 1


def test_chats_need_a_template_that_takes_them(tmp_path: Path) -> None:
    plain = loaded(make_tokenizer(tmp_path / "plain", chat_template=None))
    assert not plain.has_chat_template
    with pytest.raises(ValueError, match=r"^chat_template must be in the model's folder, got none"):
        plain.format_chat(CHAT)
    template = "{{ raise_exception('roles must alternate') }}"
    strict = loaded(make_tokenizer(tmp_path / "strict", chat_template=template))
    with pytest.raises(ValueError, match=r"^messages must fit .*, got roles must alternate$"):
        strict.encode_chat(CHAT)


def test_a_folder_without_a_tokenizer_has_none(tmp_path: Path) -> None:
    assert load_tokenizer(make_checkpoint("llama", tmp_path)) is None
    with pytest.raises(FileNotFoundError, match=r"^model must be a folder, got '.*nowhere'$"):
        load_tokenizer(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "text", ["{broken", "[]", "{}", '{"added_tokens": [], "model": {"type": "Unknown"}}']
)
def test_broken_tokenizers_are_refused_in_one_line(text: str, tmp_path: Path) -> None:
    make_checkpoint("llama", tmp_path)
    make_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(ValueError, match=r"^tokenizer in .* must be readable, got ") as caught:
        load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


def test_code_beside_a_tokenizer_is_refused(tmp_path: Path) -> None:
    make_tokenizer(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    values = json.loads(file.read_text())
    file.write_text(json.dumps(values | {"auto_map": {"AutoTokenizer": ["x.Y", None]}}))
    with pytest.raises(ValueError, match=r"^tokenizer_config.json auto_map must be absent"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_of_an_own_family_loads_without_a_warning(tmp_path: Path) -> None:
    make_tokenizer(make_checkpoint("bough_gla", tmp_path))
    code = (
        "from bough.models.tokenizer import load_tokenizer\n"
        f"print(load_tokenizer({str(tmp_path)!r}).encode('the leaf'))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer is not None
    assert run.stdout.split("\n")[0] == str(tokenizer.encode("the leaf"))
    assert "bough_gla" not in run.stderr
