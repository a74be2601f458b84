"""A password in the URL of a storage is found wherever a driver takes it from, refused by every command before it could
be written anywhere, and hidden in whatever is said.

python -m pytest tests/test_secrets.py
"""

import importlib
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from explore.command import _run
from explore.config import as_yaml, compose
from explore.search.secrets import has_password, hidden, refuse_passwords, without_passwords
from explore.search.storage import open_storage

COMMANDS = "compare dashboard export measure proxy publish report stop sweep train worker"
SECRET = "open-sesame"
WITH_SECRET = [
    f"postgresql://me:{SECRET}@host/name",
    f"postgresql+psycopg://:{SECRET}@host/name",
    f"postgresql://me@company:{SECRET}@host/name",
    f"postgresql://me@host/name?password={SECRET}",
    f"postgresql:///name?host=/run&sslmode=require&PASSWORD={SECRET}&user=me",
    f"postgresql://me@host/name?sslpassword={SECRET}",
    f"postgresql://me:open@{SECRET}@host/name",
    f"postgresql://me:open/{SECRET}@host:1/name",
    f"grpc://me:{SECRET}@host:13000",
]
WITHOUT = [
    "sqlite:///outputs/pareto/study.db",
    "sqlite:////data/me:you/study.db",
    "postgresql://me@host:5432/name?sslmode=require",
    "postgresql+psycopg://host:5432/name",
    "grpc://host:13000",
    "no URL at all",
]


@given(password=st.text(min_size=6), place=st.sampled_from(["me:{}@host", "me@host/name?password={}"]))
@example(password="p@ss:w/rd?#&%", place="me:{}@host")
def test_whatever_the_password_is_nothing_of_it_is_shown(password: str, place: str) -> None:
    written = quote(password, safe="", errors="replace")
    url = "postgresql://" + place.format(written)
    assert has_password(url)
    assert hidden(url) == "postgresql://" + place.format("***")
    password = password.encode(errors="replace").decode()
    assert without_passwords(f"no role for {password} or {written}", url).count("***") >= 2


@pytest.mark.parametrize("url", WITH_SECRET)
def test_it_is_found_hidden_and_refused(url: str) -> None:
    assert has_password(url)
    assert SECRET not in hidden(url)
    for override in (f"storage.url={url}", f"+storage.database='{url}'", f"a_typo={url}"):
        with pytest.raises(ValueError, match=r"must not hold a password.*got .*\*\*\*.*EXPLORE_STORAGE_URL") as refused:
            refuse_passwords([override])
        assert SECRET not in str(refused.value)
        assert f"got {hidden(url)}; put it" in str(refused.value)


@pytest.mark.parametrize("url", WITHOUT)
def test_what_has_none_is_left_alone(url: str) -> None:
    assert not has_password(url)
    assert hidden(url) == url
    refuse_passwords([f"storage.url={url}"])


def test_one_in_a_file_of_settings_is_refused_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of those that a file could hold."""
    from explore import config

    seen: list[str] = []
    monkeypatch.setattr(config, "refuse_passwords", seen.extend)
    compose(["storage=postgres", "storage.url='postgresql://me@host/name'", "warm_start.url='sqlite:///x.db'"])
    assert seen[-3:] == [
        "storage.url=postgresql://me@host/name",
        "storage.database=None",
        "warm_start.url=sqlite:///x.db",
    ]


@pytest.mark.parametrize("command", COMMANDS.split())
@pytest.mark.parametrize("key", ["storage.url", "storage.database", "warm_start.url"])
def test_every_command_refuses_it_and_writes_nothing(
    command: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main = importlib.import_module(f"explore.{command}").main
    storage = "storage=grpc" if key == "storage.database" else "storage=postgres"
    for asked in ([], ["--cfg", "job"]):
        arguments = ["study=shoes", storage, f"{key}='{WITH_SECRET[0]}'", *asked]
        assert _run(main, arguments) == 2
        said = capsys.readouterr()
        assert f"{key} must not hold a password" in said.err
        assert SECRET not in said.out + said.err
    assert not list(tmp_path.iterdir())


def test_a_question_that_hydra_answers_does_not_repeat_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--info", "config", f"storage.url='{WITH_SECRET[0]}'"]
    monkeypatch.setattr("sys.argv", ["sweep", *arguments])
    assert _run(importlib.import_module("explore.sweep").main, arguments) == 2
    said = capsys.readouterr()
    assert "must not hold a password" in said.err
    assert SECRET not in said.out + said.err


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://me:open@sesame@127.0.0.1:1/name", "storage.url must have %40 in place of an @"),
        (
            f"postgresql://me@127.0.0.1:1/name?password={SECRET}",
            r"got postgresql://me@127.0.0.1:1/name\?password=\*\*\*",
        ),
        (f"postgresql://me:{SECRET}@127.0.0.1:1/name", r"got postgresql://me:\*\*\*@127.0.0.1:1/name"),
    ],
)
def test_one_in_the_environment_is_not_shown_when_nobody_answers(url: str, message: str) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(ValueError, match=message) as refused:
        open_storage(url)
    assert "sesame" not in str(refused.value)


def test_what_can_be_shown_of_a_configuration_has_no_password() -> None:
    with pytest.raises(ValueError, match=r"storage\.url must not hold a password"):
        as_yaml(["storage=postgres", f"storage.url='{WITH_SECRET[2]}'"])
