"""Downloads that say their size first, go on where they broke off, and are never half there."""

from __future__ import annotations

import gzip
import io
import json
import os
import urllib.error
import urllib.request
import zipfile
from email.message import Message
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from graphmoe.benchmark import downloads
from graphmoe.benchmark.downloads import Archive, DownloadEstimate, estimate, obtain
from graphmoe.benchmark.sources import describe_download, load_task
from graphmoe.errors import ConfigError, DataError, MissingDataError

URL = "http://example.test/data/bace.zip"


def zipped(files: dict[str, bytes]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return held.getvalue()


NOISE = np.random.default_rng(0).bytes(5000)
GOOD = zipped({"bace/raw/edge.csv.gz": NOISE, "bace/raw/": b"", "bace/README.md": b"bace"})


class Answer(io.BytesIO):
    """What a server sends back; reading past ``breaks`` bytes fails like a lost connection."""

    def __init__(self, body: bytes, status: int, headers: dict[str, str], breaks: int | None):
        super().__init__(body if breaks is None else body[:breaks])
        self.status = status
        self.headers = Message()
        for key, value in headers.items():
            self.headers[key] = value


class Server:
    """Answers for ``urlopen``: ranges, validators, and connections that break off.

    Args:
        body: The file.
        breaks: After how many bytes each connection breaks; the last one holds for good.
        ranges: Whether parts can be asked for.
    """

    def __init__(
        self, body: bytes = GOOD, breaks: list[int | None] | None = None, ranges: bool = True
    ) -> None:
        self.body, self.breaks, self.ranges = body, breaks or [None], ranges
        self.tag = '"1"'
        self.asked: list[str] = []
        self.sent = 0

    def __call__(self, request: urllib.request.Request, timeout: float) -> Answer:
        span = request.get_header("Range", "")
        self.asked.append(span)
        breaks = self.breaks.pop(0) if len(self.breaks) > 1 else self.breaks[0]
        same = request.get_header("If-range", self.tag) == self.tag
        headers = {"ETag": self.tag}
        begin, end, status = 0, len(self.body), 200
        if span and self.ranges and same:
            first, _, last = span.removeprefix("bytes=").partition("-")
            begin, end = int(first), min(int(last) + 1, end) if last else end
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(self.body)}"
            status = 206
        headers["Content-Length"] = str(end - begin)
        answer = Answer(self.body[begin:end], status, headers, breaks)
        self.sent += len(answer.getvalue())
        return answer


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive("ogbg-molbace", URL, "bace", tmp_path / "ogbg_molbace", ("raw/edge.csv.gz",))


def serve(monkeypatch: pytest.MonkeyPatch, server: Any) -> Any:
    monkeypatch.setattr(urllib.request, "urlopen", server)
    return server


def whole(archive: Archive) -> bool:
    """Whether the dataset is in place, and nothing of the way there is left."""
    rest = {path.name for path in archive.destination.parent.glob(".*") if ".lock" not in path.name}
    content = (archive.destination / "raw" / "edge.csv.gz").read_bytes()
    return content == NOISE and not rest


def test_an_archive_becomes_a_folder(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(monkeypatch, Server())
    assert obtain(archive) == archive.destination
    assert whole(archive)
    assert (archive.destination / "README.md").read_text() == "bace"
    obtain(archive)  # another process was faster: nothing is asked for
    assert server.asked == [""]


def test_a_download_that_breaks_off_goes_on(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(monkeypatch, Server(breaks=[1000, 500, None]))
    obtain(archive)
    assert whole(archive)
    assert server.asked == ["", "bytes=1000-", "bytes=1500-"]
    assert server.sent == len(GOOD)


def test_what_has_come_is_kept_for_the_next_attempt(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Server(breaks=[3000, 0])
    serve(monkeypatch, broken)
    with pytest.raises(MissingDataError, match=r"broke off after 3000 of \d+ bytes.*goes on from"):
        obtain(archive)
    assert not archive.destination.exists()
    server = serve(monkeypatch, Server())
    obtain(archive)
    assert whole(archive)
    assert server.asked == ["bytes=3000-"]


def test_a_file_that_changed_meanwhile_is_fetched_from_the_start(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Server(body=b"x" * 9000, breaks=[3000, 0])
    old.tag = '"0"'
    serve(monkeypatch, old)
    with pytest.raises(MissingDataError):
        obtain(archive)
    server = serve(monkeypatch, Server())
    obtain(archive)
    assert whole(archive)
    assert server.sent == len(GOOD)


@pytest.mark.parametrize("note", ["", "{}", json.dumps({"url": "other", "validator": "1"})])
def test_a_part_of_nobody_knows_what_is_not_built_on(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, note: str
) -> None:
    part = archive.destination.parent / ".ogbg_molbace.zip.part"
    part.write_bytes(b"something else")
    if note:
        part.with_name(f"{part.name}.json").write_text(note)
    server = serve(monkeypatch, Server())
    obtain(archive)
    assert whole(archive)
    assert server.asked == [""]


def test_a_server_without_ranges_or_validators(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(monkeypatch, Server(breaks=[1000, None], ranges=False))
    server.tag = ""
    obtain(archive)
    assert whole(archive)


def test_a_flipped_byte_is_found_and_the_archive_fetched_again(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = GOOD.index(NOISE) + 100
    bad = GOOD[:at] + bytes([GOOD[at] ^ 1]) + GOOD[at + 1 :]
    servers = [Server(bad), Server()]
    serve(monkeypatch, lambda request, timeout: servers.pop(0)(request, timeout))
    obtain(archive)
    assert whole(archive)

    other = Archive(**{**vars(archive), "destination": archive.destination.with_name("other")})
    serve(monkeypatch, Server(bad))
    with pytest.raises(MissingDataError, match="is not a whole ZIP file; it was removed"):
        obtain(other)
    assert not other.destination.exists()
    assert not list(other.destination.parent.glob("*.part*"))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"bace/raw/edge.csv.gz": b"", "../evil": b""}, r"the folder 'bace' only, got '\.\./evil'"),
        ({"/bace/raw/edge.csv.gz": b""}, "the folder 'bace' only"),
        ({"bace/../../evil": b""}, "the folder 'bace' only"),
        ({"bbbp/raw/edge.csv.gz": b""}, "the folder 'bace' only, got 'bbbp/raw"),
        ({"bace/README.md": b""}, r"lacks raw/edge\.csv\.gz"),
    ],
)
def test_an_archive_of_something_else_is_not_put_in_place(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes], message: str
) -> None:
    serve(monkeypatch, Server(zipped(files)))
    with pytest.raises(DataError, match=message):
        obtain(archive)
    assert not archive.destination.exists()
    assert not (archive.destination.parent / "evil").exists()
    assert not (archive.destination.parent.parent / "evil").exists()


def test_a_folder_that_is_not_whole_is_moved_aside_not_removed(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, Server())
    for number in ("", "-2"):
        archive.destination.mkdir()
        (archive.destination / "mine.txt").write_text(number)
        obtain(archive)
        assert whole(archive)
        aside = archive.destination.with_name(f"ogbg_molbace.incomplete{number}")
        assert (aside / "mine.txt").read_text() == number
        (archive.destination / "raw" / "edge.csv.gz").unlink()
        archive.destination.rename(archive.destination.with_name(f"spent{number}"))


def test_no_room_and_no_permission(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    serve(monkeypatch, Server())
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(MissingDataError, match=r"takes 5\.0 kB in .* but 100 B are free there"):
        obtain(archive)
    assert not archive.destination.exists()
    (tmp_path / "file").write_text("")
    blocked = Archive(**{**vars(archive), "destination": tmp_path / "file" / "ogbg_molbace"})
    with pytest.raises(MissingDataError, match="cannot write .*name a writable folder"):
        obtain(blocked)


def test_a_root_that_may_only_be_read(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:
        # The administrator may write anywhere: stand in for the file system's refusal.
        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(downloads.FileLock, "acquire", refuse)
    else:
        archive.destination.parent.chmod(0o555)
    with pytest.raises(MissingDataError, match="cannot write .*Permission denied"):
        obtain(archive)


def test_an_address_that_does_not_answer(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route")

    serve(monkeypatch, fail)
    for ask in (obtain, estimate):
        with pytest.raises(MissingDataError, match=rf"could not download {URL}: no route"):
            ask(archive)

    def gone(request: urllib.request.Request, timeout: float) -> None:
        raise urllib.error.HTTPError(request.full_url, 404, "Not Found", Message(), None)

    serve(monkeypatch, gone)
    with pytest.raises(MissingDataError, match="could not download .*Not Found"):
        obtain(archive)
    local = Archive(**{**vars(archive), "url": "file:///etc/passwd"})
    with pytest.raises(MissingDataError, match="not an address of the web"):
        obtain(local)


def test_size_and_time_are_said_before(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 10.5])
    monkeypatch.setattr(downloads, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    server = serve(monkeypatch, Server(body=bytes(downloads.PROBE_BYTES * 400)))
    told = estimate(archive)
    # A four-hundredth in half a second: 200 s in all.
    assert (told.size, told.seconds) == (downloads.PROBE_BYTES * 400, 200.0)
    assert server.asked == [f"bytes=0-{downloads.PROBE_BYTES - 1}"]
    place = archive.destination
    assert str(told) == f"ogbg-molbace: 104.9 MB from {URL} to {place}, about 3 min"
    assert "an unknown size from its source" in str(DownloadEstimate("x", "", place))


@pytest.mark.usefixtures("ogb")
def test_an_official_name_all_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    serve(monkeypatch, forbidden)
    for offline, yes in ((True, False), (True, True)):
        with pytest.raises(MissingDataError, match=r"looked in .*ogbg_molbace\).*yes=True"):
            load_task("ogbg-molbace", root=tmp_path, offline=offline, yes=yes)
    server = serve(monkeypatch, Server())
    with pytest.raises(MissingDataError, match=r"would bring ogbg-molbace: 5\.\d kB from .*--yes"):
        load_task("ogbg-molbace", root=tmp_path, offline=False)
    assert describe_download("ogbg-molbace", root=tmp_path).size == len(GOOD)
    assert not list(tmp_path.iterdir())
    assert len(server.asked) == 2
    # What comes lacks most raw files: said, and not put in place.
    with pytest.raises(DataError, match=r"lacks raw/num-node-list\.csv\.gz"):
        load_task("ogbg-molbace", root=tmp_path, offline=False, yes=True)
    assert not (tmp_path / "ogbg_molbace").exists()
    with pytest.raises(ConfigError, match="not one whose download can be estimated"):
        describe_download("planted")


@pytest.mark.usefixtures("ogb")
def test_a_dataset_that_is_half_there_is_replaced_only_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "ogbg_molbace"
    (folder / "raw").mkdir(parents=True)
    (folder / "raw" / "edge.csv.gz").write_bytes(b"mine")
    for offline, yes in ((True, True), (False, False)):
        with pytest.raises(MissingDataError, match="not whole: there lack num-node-list"):
            load_task("ogbg-molbace", root=tmp_path, offline=offline, yes=yes)
    names = ["edge", "num-node-list", "num-edge-list", "graph-label"]
    files = {f"bace/raw/{name}.csv.gz": gzip.compress(b"1\n") for name in names}
    serve(monkeypatch, Server(zipped(files)))
    with pytest.raises(DataError, match=r"edge\.csv\.gz: expected two whole numbers a line"):
        load_task("ogbg-molbace", root=tmp_path, offline=False, yes=True)
    kept = tmp_path / "ogbg_molbace.incomplete" / "raw" / "edge.csv.gz"
    assert kept.read_bytes() == b"mine"
    # What OGB's class made of the raw files is a way to read it: nothing is fetched or moved.
    (folder / "raw" / "edge.csv.gz").unlink()
    (folder / "processed").mkdir()
    (folder / "processed" / "geometric_data_processed.pt").write_bytes(b"")
    with pytest.raises(DataError, match=r"geometric_data_processed\.pt: cannot be read"):
        load_task("ogbg-molbace", root=tmp_path, offline=False, yes=True)
    assert folder.is_dir()


def test_an_archive_fetched_by_hand(ogb_root: Path, tmp_path: Path) -> None:
    source = ogb_root / "ogbg_molesol"
    files = {
        f"esol/{path.relative_to(source).as_posix()}": path.read_bytes()
        for path in source.rglob("*")
        if path.is_file()
    }
    body = zipped(files)
    (tmp_path / "esol.zip").write_bytes(body[: len(body) // 2])
    with pytest.raises(MissingDataError, match=r"esol\.zip is there, but broken or not whole"):
        load_task("ogbg-molesol", root=tmp_path)
    (tmp_path / "esol.zip").write_bytes(body)
    task = load_task("ogbg-molesol", root=tmp_path)
    assert task.fingerprint() == load_task("ogbg-molesol", root=ogb_root).fingerprint()
    assert (tmp_path / "esol.zip").exists()
