"""Experts go to a hub and come back; the hub is a stand-in on this machine, the network is off."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import torch

from graphmoe.checkpoint import ExpertBank
from graphmoe.cli import main
from graphmoe.errors import (
    ConfigError,
    GraphMoEError,
    MissingDataError,
    MissingExtraError,
    VerificationError,
)
from graphmoe.nn import MultiViewEncoder

REPOSITORY = "someone/experts"
TOKEN = "hf_stand_in"


@pytest.fixture
def library() -> None:
    pytest.importorskip("huggingface_hub")


class Hub(ThreadingHTTPServer):
    """What the hub's HTTP interface says of repositories that are kept in memory."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.commits: dict[str, list[dict[str, bytes]]] = {}  # each commit has all files
        self.asked: list[tuple[str, str]] = []
        self.tokens: set[str | None] = set()
        self.claimed: dict[str, int] = {}  # sizes that the listing lies about
        self.refuse = 0

    @property
    def files(self) -> dict[str, bytes]:
        """The files of the newest commit."""
        return self.commits[REPOSITORY][-1]

    def downloads(self) -> set[str]:
        """The files whose content was sent."""
        sent = (path for verb, path in self.asked if verb == "GET" and "/resolve/" in path)
        return {path.split("/", 5)[5] for path in sent}


class Handler(BaseHTTPRequestHandler):
    """The few requests that pushing and pulling make."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def say(self, content: Any, status: int = 200) -> None:
        self.answer(status, json.dumps(content).encode(), Content_Type="application/json")

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append((self.command, path))
        self.server.tokens.add(self.headers.get("Authorization"))
        if self.server.refuse:
            self.answer(self.server.refuse)
            return
        parts = path.strip("/").split("/")
        repository = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        commits = self.server.commits.get(repository)
        if commits is None:
            self.answer(404, X_Error_Code="RepoNotFound")
        elif parts[0] == "api":
            self.describe(repository, parts[5] if len(parts) > 5 else "main", commits)
        else:
            self.send_file(parts[3], "/".join(parts[4:]), commits)

    do_HEAD = do_GET  # noqa: N815

    def describe(self, repository: str, revision: str, commits: list[dict[str, bytes]]) -> None:
        if revision != "main":
            self.answer(404, X_Error_Code="RevisionNotFound")
            return
        siblings = [
            {
                "rfilename": name,
                "size": self.server.claimed.get(name, len(data)),
                "blobId": "0" * 40,
            }
            for name, data in commits[-1].items()
        ]
        sha = f"{len(commits):040x}"
        self.say({"id": repository, "sha": sha, "siblings": siblings, "tags": []})

    def send_file(self, commit: str, name: str, commits: list[dict[str, bytes]]) -> None:
        data = commits[int(commit, 16) - 1].get(name)
        if data is None:
            self.answer(404, X_Error_Code="EntryNotFound")
            return
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        self.answer(200, data, X_Repo_Commit=commit, ETag=etag)

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append(("POST", path))
        self.server.tokens.add(self.headers.get("Authorization"))
        if self.server.refuse:
            self.answer(self.server.refuse)
        elif path == "/api/repos/create":
            given = json.loads(body)
            repository = f"{given['organization']}/{given['name']}"
            self.server.commits.setdefault(repository, [{".gitattributes": b"*.x -text\n"}])
            self.say({"url": f"{self.server.url}/{repository}", "id": repository})
        elif path == "/api/validate-yaml":
            self.say({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            wanted = [file["path"] for file in json.loads(body)["files"]]
            said = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
            self.say({"files": [{"path": name, **said} for name in wanted]})
        else:
            self.commit("/".join(path.split("/")[3:5]), body)

    def commit(self, repository: str, body: bytes) -> None:
        commits = self.server.commits[repository]
        made = dict(commits[-1])
        for line in body.splitlines():
            step = json.loads(line)
            if step["key"] == "file":
                made[step["value"]["path"]] = base64.b64decode(step["value"]["content"])
        commits.append(made)
        sha = f"{len(commits):040x}"
        url = f"{self.server.url}/{repository}/commit/{sha}"
        self.say({"commitUrl": url, "commitOid": sha})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, library: None) -> Iterator[Hub]:
    served = Hub()
    thread = threading.Thread(target=served.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    import huggingface_hub.constants as constants

    monkeypatch.setenv("HF_ENDPOINT", served.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield served
    served.shutdown()
    served.server_close()


def expert(seed: int) -> MultiViewEncoder:
    torch.manual_seed(seed)
    return MultiViewEncoder(16, 8, K=seed).eval()


def banked(path: Path | None, *names: str) -> ExpertBank:
    made = ExpertBank(path)
    for seed, name in enumerate(names, start=1):
        made.add(name, expert(seed), alignment={"mean": torch.arange(4.0)})
    return made


def same(a: ExpertBank, b: ExpertBank, name: str) -> bool:
    mine, other = a.tensors(name), b.tensors(name)
    return mine.keys() == other.keys() and all(torch.equal(mine[key], other[key]) for key in mine)


loopback = pytest.mark.allow_hosts(["127.0.0.1"])


@loopback
def test_experts_go_to_a_hub_and_come_back(hub: Hub, tmp_path: Path) -> None:
    bank = banked(tmp_path / "bank", "cora", "wine")
    url = bank.push_to_hub(REPOSITORY, licence="mit", intended_use="To be fused.")
    assert url.startswith(f"{hub.url}/{REPOSITORY}/commit/")
    assert len(hub.commits[REPOSITORY]) == 2  # all in one commit
    assert set(hub.files) == {
        ".gitattributes", "README.md", "index.json", "cora/manifest.json", "wine/manifest.json",
        "cora/model.safetensors", "wine/model.safetensors",
    }  # fmt: skip
    card = hub.files["README.md"].decode()
    assert "license: mit" in card
    assert f"from_pretrained('{REPOSITORY}')" in card
    back = ExpertBank.from_pretrained(REPOSITORY)
    assert back.names == ("cora", "wine")
    assert all(same(bank, back, name) for name in back)
    assert back.manifest("wine").licence == "mit"
    assert hub.tokens == {f"Bearer {TOKEN}"}


@loopback
def test_only_what_is_asked_for_is_downloaded_and_only_once(hub: Hub, tmp_path: Path) -> None:
    banked(None, "cora", "wine").push_to_hub(REPOSITORY)
    hub.asked.clear()
    assert ExpertBank.from_pretrained(REPOSITORY, names=["wine"]).names == ("wine",)
    assert {name.split("/")[0] for name in hub.downloads()} == {"wine"}
    hub.asked.clear()
    assert ExpertBank.from_pretrained(REPOSITORY, names=["wine"]).names == ("wine",)
    assert hub.downloads() == set()


@loopback
def test_experts_join_those_that_are_there(hub: Hub, tmp_path: Path) -> None:
    first, second = banked(None, "cora"), banked(None, "wine")
    first.push_to_hub(REPOSITORY, licence="cc-by-4.0")
    second.push_to_hub(REPOSITORY, licence="mit")
    card = hub.files["README.md"].decode()
    assert "| cora | cc-by-4.0 |" in card
    assert "| wine | mit |" in card
    assert set(json.loads(hub.files["index.json"])["experts"]) == {"cora", "wine"}
    back = ExpertBank.from_pretrained(REPOSITORY)
    assert same(first, back, "cora")
    assert same(second, back, "wine")
    hub.files["README.md"] = b"# My own page"
    first.push_to_hub(REPOSITORY)
    assert hub.files["README.md"] == b"# My own page"


@loopback
def test_what_arrives_changed_is_refused(hub: Hub, tmp_path: Path) -> None:
    banked(None, "cora", "wine").push_to_hub(REPOSITORY)
    whole = dict(hub.files)
    weights = bytearray(whole["wine/model.safetensors"])
    weights[-1] ^= 1
    manifest = whole["wine/manifest.json"].replace(b'"seed": null', b'"seed": 1')
    assert manifest != whole["wine/manifest.json"]
    changes = {
        "wine/model.safetensors": (bytes(weights), "does not match the hash"),
        "wine/manifest.json": (manifest, "does not match its seal"),
    }
    for name, (data, said) in changes.items():
        hub.commits[REPOSITORY].append({**whole, name: data})
        mine = ExpertBank(tmp_path / "mine")
        with pytest.raises(VerificationError, match=said) as caught:
            mine.pull_from_hub(REPOSITORY)
        assert f"{REPOSITORY}/{name}" in str(caught.value)
        assert len(mine) == 0
    hub.commits[REPOSITORY].append(whole)
    hub.claimed["wine/model.safetensors"] = 1 << 40
    hub.asked.clear()
    with pytest.raises(VerificationError, match="expected at most"):
        ExpertBank.from_pretrained(REPOSITORY)
    assert "wine/model.safetensors" not in hub.downloads()
    hub.claimed.clear()
    hub.commits[REPOSITORY].append(
        {k: v for k, v in whole.items() if k != "wine/model.safetensors"}
    )
    with pytest.raises(VerificationError, match=r"wine/model\.safetensors: the file is missing"):
        ExpertBank.from_pretrained(REPOSITORY)


@loopback
def test_names_of_a_hostile_repository_lead_nowhere(hub: Hub, tmp_path: Path) -> None:
    banked(None, "cora").push_to_hub(REPOSITORY)
    manifest = hub.files["cora/manifest.json"]
    hub.files.update({"../evil/manifest.json": manifest, "logs/manifest.json": manifest})
    hub.files.update({"a/b/manifest.json": manifest, "cora/run.py": b"raise SystemExit"})
    assert ExpertBank.from_pretrained(REPOSITORY).names == ("cora",)
    assert hub.downloads() == {"cora/manifest.json", "cora/model.safetensors", "index.json"}


@loopback
def test_what_is_not_there_is_named(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="no repository nobody/nothing"):
        ExpertBank.from_pretrained("nobody/nothing")
    with pytest.raises(ConfigError, match="cannot name a repository"):
        ExpertBank.from_pretrained("not a name!")
    bank = banked(None, "cora")
    bank.push_to_hub(REPOSITORY)
    with pytest.raises(ConfigError, match="did you mean 'cora'"):
        ExpertBank.from_pretrained(REPOSITORY, names=["cor"])
    with pytest.raises(MissingDataError, match="no such revision"):
        ExpertBank.from_pretrained(REPOSITORY, revision="v9")
    with pytest.raises(ConfigError, match="already has"):
        bank.pull_from_hub(REPOSITORY)
    hub.commits[REPOSITORY].append({"README.md": b"empty"})
    with pytest.raises(MissingDataError, match="no experts"):
        ExpertBank.from_pretrained(REPOSITORY)
    hub.refuse = 403
    with pytest.raises(GraphMoEError, match="hf auth login") as caught:
        bank.push_to_hub(REPOSITORY)
    assert TOKEN not in str(caught.value)


@loopback
def test_a_hub_that_is_gone_is_one_clear_error(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.shutdown()
    hub.server_close()
    with pytest.raises(GraphMoEError, match=r"someone/experts: the hub cannot be reached"):
        ExpertBank.from_pretrained(REPOSITORY)


@loopback
def test_the_commands_push_and_pull(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bank, mine = banked(tmp_path / "bank", "cora", "wine"), tmp_path / "mine"
    line = ["push", str(bank.path), REPOSITORY, "--names", "cora,wine", "--licence", "mit"]
    assert main(["experts", *line]) == 0
    assert f"{hub.url}/{REPOSITORY}/commit/" in capsys.readouterr().out
    assert main(["experts", "pull", str(mine), REPOSITORY, "--names", "wine"]) == 0
    assert capsys.readouterr().out == "added wine\n"
    assert same(bank, ExpertBank.load(mine), "wine")
    assert main(["experts", "pull", str(mine), REPOSITORY]) == 2  # wine is there
    assert ExpertBank.load(mine).names == ("wine",)
    assert main(["experts", "pull", str(mine), REPOSITORY, "--overwrite"]) == 0
    assert main(["experts", "pull", str(mine), "nobody/nothing"]) == 3


def test_the_command_to_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'graphmoe\[hub\]'"):
        ExpertBank.from_pretrained(REPOSITORY)


def test_a_folder_and_an_archive_need_no_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    bank, archive = banked(tmp_path / "bank", "cora", "wine"), str(tmp_path / "a.zip")
    line = ["experts", "export", str(bank.path), archive, "--names", "cora", "--licence", "mit"]
    assert main(line) == 0
    assert main(line) == 2  # it is there
    assert main(["experts", "import", str(tmp_path / "mine"), archive, "--name", "papers"]) == 0
    assert capsys.readouterr().out == f"{archive}\nadded papers\n"
    assert ExpertBank.load(tmp_path / "mine").manifest("papers").licence == "mit"
    for source in (archive, tmp_path / "bank"):
        assert "cora" in ExpertBank.from_pretrained(source)
    with pytest.raises(MissingDataError, match="nowhere"):
        ExpertBank.from_pretrained(tmp_path / "nowhere.zip")
