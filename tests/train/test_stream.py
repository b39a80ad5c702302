import pytest
import torch

from bough.train.stream import TokenStream
from bough.train.tokenizer import train_tokenizer

CPU = torch.device("cpu")


def test_an_end_of_text_token_follows_every_file() -> None:
    tokenizer = train_tokenizer(["abcd" * 9], 258)
    stream = TokenStream.encode(tokenizer, ["ab", "c", "abd"], 2, CPU)
    assert tokenizer.decode(stream.token_ids.tolist(), skip_special_tokens=True) == "abcabd"
    assert (stream.token_ids == 0).sum() == 3
    assert stream.token_ids[stream.file_starts[1:] - 1].tolist() == [0, 0]


def test_windows_are_slices_of_the_stream_and_many_begin_at_a_file() -> None:
    stream = TokenStream(torch.arange(10_000), torch.tensor([0, 7_000, 9_999]), 16)
    windows = stream.sample(400, seed=0)
    assert windows.shape == (400, 17)
    assert (windows.diff(dim=1) == 1).all()
    num_at_file = int(((windows[:, 0] == 0) | (windows[:, 0] == 7_000)).sum())
    assert 25 <= num_at_file <= 80
    assert torch.equal(windows, stream.sample(400, seed=0))
    assert not torch.equal(windows, stream.sample(400, seed=1))


def test_batches_cover_the_stream_in_order() -> None:
    stream = TokenStream(torch.arange(41), torch.tensor([0]), 10)
    batches = list(stream.batches(2))
    assert [batch[:, 0].tolist() for batch in batches] == [[0, 10], [20, 30]]
    assert [batch.shape for batch in stream.batches(9)] == [(4, 11)]


def test_a_stream_shorter_than_a_window_is_refused() -> None:
    with pytest.raises(ValueError, match="seq_len must be less than 10 tokens, got 10"):
        TokenStream(torch.arange(10), torch.tensor([0]), 10)
