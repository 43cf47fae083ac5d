"""What `make reproduce` starts."""

from __future__ import annotations

from test_reproduce import claims, reproduce  # noqa: F401  a fixture


def test_every_command_begins_with_a_program_with_and_without_the_peers_python(claims, tmp_path):  # noqa: F811
    others = [name for name in claims.names() if "other_python" in claims.said["claims"][name]]
    assert others
    for name in claims.names():
        words, _ = reproduce.without_peers(claims, name, reproduce.Place(tmp_path))
        assert words[0] in ("python", "flatcoat"), name
        if name in others:
            assert "python" not in words[1:] and not {"--openvino", "--peers-python"} & set(words), name
        whole, _ = reproduce.without_peers(claims, name, reproduce.Place(tmp_path, peers_python=tmp_path))
        assert whole == claims.words(name)


def test_a_command_that_cannot_be_started_is_told(tmp_path):
    assert (
        reproduce.run([str(tmp_path)], reproduce.Place(tmp_path), "x")
        == f"{tmp_path} cannot be started: Permission denied"
    )
