from pathlib import Path

import pytest

from bough.train.export import new_folder


def test_a_failed_block_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("written")
        raise RuntimeError("stopped")

    with (
        pytest.raises(RuntimeError, match="stopped"),
        new_folder(tmp_path / "output", overwrite=False) as folder,
    ):
        fail(folder)
    assert list(tmp_path.iterdir()) == []
