"""Large files."""

import hashlib

import pytest


BATCH = "/me/x.git/info/lfs/objects/batch"
CONTENT = b"weights" * 100
OID = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def place(raw, api):
    """Address at which the content is to be uploaded."""
    api.create_repo("me/x")
    body = {"operation": "upload", "objects": [{"oid": OID, "size": len(CONTENT)}], "hash_algo": "sha256"}
    (answer,) = raw("POST", BATCH, body).json["objects"]
    return {name: action["href"].split("/api", 1)[1] for name, action in answer["actions"].items()}


def test_upload_verify_and_never_again(raw, place):
    facts = {"oid": OID, "size": len(CONTENT)}
    assert raw("POST", f"/api{place['verify']}", facts).status == 404
    assert raw("PUT", f"/api{place['upload']}", CONTENT, token=None).status == 200
    assert raw("POST", f"/api{place['verify']}", facts).status == 200
    assert raw("POST", f"/api{place['verify']}", {**facts, "size": 1}).status == 404
    (answer,) = raw("POST", BATCH, {"operation": "upload", "objects": [facts]}).json["objects"]
    assert "actions" not in answer


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT + b"x", b"x" + CONTENT[1:], b""])
def test_another_content_is_refused(raw, hub, place, content):
    assert raw("PUT", f"/api{place['upload']}", content, token=None).status in (400, 413)
    assert hub.objects.size(OID) is None
    # Nothing half-written stays behind.
    assert not [path for path in hub.objects.folder.rglob("*") if path.name.endswith(".tmp")]


def test_another_size_than_announced_is_refused(raw, hub, place):
    item = {"oid": OID, "size": len(CONTENT) + 1}
    (answer,) = raw("POST", BATCH, {"operation": "upload", "objects": [item]}).json["objects"]
    address = answer["actions"]["upload"]["href"].split("/api", 1)[1]
    assert raw("PUT", f"/api{address}", CONTENT, token=None).status == 400
    assert hub.objects.size(OID) is None


def test_the_address_of_an_upload_cannot_be_made_up(raw, hub, place):
    address = f"/api{place['upload']}"
    other = hashlib.sha256(b"other").hexdigest()
    forged = [
        address.replace(f"size={len(CONTENT)}", "size=5"),
        address.replace(OID, other),
        address.replace("expires=", "expires=9"),
        address[:-1] + ("0" if address[-1] != "0" else "1"),
        address.split("?")[0],
        address.split("&signature")[0],
        address.split("&signature")[0] + "&signature=%C3%A9",
        address.replace("size=", "size=-"),
    ]
    for path in forged:
        for content in (CONTENT, b"other"):
            assert raw("PUT", path, content, token=None).status == 403, path
    assert raw("PUT", address.replace(OID, "..%2F..%2Fx"), b"x").status == 400
    assert raw("PUT", address.replace(OID, OID.upper()), CONTENT).status == 400


def test_bad_batches(raw, place):
    good = {"oid": OID, "size": 1}
    bad = [{"oid": "../../x", "size": 1}, {"oid": OID}, {"oid": OID, "size": "1"}, {"oid": OID, "size": True}, "x"]
    for item in bad:
        assert raw("POST", BATCH, {"operation": "upload", "objects": [item]}).status == 400
    assert raw("POST", BATCH, {"operation": "download", "objects": [good]}).status == 400
    assert raw("POST", BATCH, {"operation": "upload"}).status == 400
    assert raw("POST", "/me/nowhere.git/info/lfs/objects/batch", {"operation": "upload", "objects": []}).status == 404


def test_too_large_files_are_named_before_they_are_sent(hub, api, fill, monkeypatch):
    monkeypatch.setattr(hub, "max_upload_bytes", 1000)
    api.create_repo("me/x")
    with pytest.raises(ValueError, match="2000 bytes, the limit of this hub is 1000"):
        fill("me/x", {"a.bin": b"x" * 2000})
    assert not [request for request in hub.requests if request.method == "PUT"]
    assert len(hub.commits("me/x")) == 1


def test_xet_is_not_announced(raw, fill):
    fill("me/x", {"a.bin": CONTENT})
    headers = raw("HEAD", "/me/x/resolve/main/a.bin").headers
    assert not [name for name in headers if "xet" in name.lower()]
    answer = raw("GET", "/api/models/me/x/xet-write-token/main")
    assert answer.status == 404 and "HF_HUB_DISABLE_XET" in answer.json["error"]
