"""Collections."""

import pytest
from huggingface_hub.errors import HfHubHTTPError


@pytest.fixture
def collection(api):
    api.create_repo("me/a")
    api.create_repo("me/b", repo_type="dataset")
    return api.create_collection("My Family: all of it!", description="d")


def items(collection):
    return [(item.item_type, item.item_id, item.note, item.position) for item in collection.items]


def test_create_and_find(api, hub, collection):
    assert (
        collection.slug.startswith("me/my-family-all-of-it-")
        and collection.url == f"{hub.endpoint}/collections/{collection.slug}"
    )
    assert (collection.title, collection.owner, collection.private) == ("My Family: all of it!", "me", False)
    assert api.create_collection("My Family: all of it!", exists_ok=True).slug == collection.slug
    with pytest.raises(HfHubHTTPError, match="already exists") as error:
        api.create_collection("My Family: all of it!")
    assert error.value.response.status_code == 409
    other = api.create_collection("日本")
    assert api.get_collection(other.slug).title == "日本"
    assert [found.slug for found in api.list_collections(owner="me")] == [other.slug, collection.slug]
    assert [found.slug for found in api.list_collections(item="models/me/a")] == []


def test_items(api, collection):
    slug = collection.slug
    api.add_collection_item(slug, "me/a", "model", note="first")
    both = api.add_collection_item(slug, "me/b", "dataset")
    assert items(both) == [("model", "me/a", "first", 0), ("dataset", "me/b", None, 1)]
    assert items(api.add_collection_item(slug, "me/a", "model", exists_ok=True)) == items(both)
    with pytest.raises(HfHubHTTPError, match="already") as error:
        api.add_collection_item(slug, "me/a", "model")
    assert error.value.response.status_code == 409
    api.update_collection_item(slug, both.items[1].item_object_id, note="second", position=0)
    assert items(api.get_collection(slug)) == [("dataset", "me/b", "second", 0), ("model", "me/a", "first", 1)]
    api.delete_collection_item(slug, both.items[1].item_object_id)
    api.delete_collection_item(slug, both.items[1].item_object_id, missing_ok=True)
    with pytest.raises(HfHubHTTPError):
        api.delete_collection_item(slug, both.items[1].item_object_id)
    assert items(api.get_collection(slug)) == [("model", "me/a", "first", 0)]
    for name, kind in (("me/nowhere", "model"), ("me/a", "dataset"), ("../a", "model"), ("2307.09288", "paper")):
        with pytest.raises(HfHubHTTPError):
            api.add_collection_item(slug, name, kind)


def test_items_follow_their_repos(api, collection):
    api.add_collection_item(collection.slug, "me/a", "model")
    api.add_collection_item(collection.slug, "me/b", "dataset")
    api.move_repo("me/a", "me/c")
    api.delete_repo("me/b", repo_type="dataset")
    api.create_repo("me/b", repo_type="dataset")
    assert items(api.get_collection(collection.slug)) == [("model", "me/c", None, 0)]
    api.update_repo_settings("me/c", private=True)
    assert items(api.get_collection(collection.slug, token=False)) == []


def test_update_and_delete(api, collection):
    changed = api.update_collection_metadata(collection.slug, title="New", private=True, theme="green")
    assert (changed.slug, changed.title, changed.private, changed.theme) == (collection.slug, "New", True, "green")
    with pytest.raises(HfHubHTTPError, match="Collection not found"):
        api.get_collection(collection.slug, token=False)
    assert list(api.list_collections(token=False)) == []
    api.delete_collection(collection.slug)
    api.delete_collection(collection.slug, missing_ok=True)
    with pytest.raises(HfHubHTTPError):
        api.delete_collection(collection.slug)


def test_bad_requests(api, raw, collection):
    path = f"/api/collections/{collection.slug}"
    assert raw("POST", "/api/collections", {"title": " "}).status == 400
    assert raw("POST", "/api/collections", {"title": "t", "namespace": "others"}).status == 403
    assert raw("POST", "/api/collections", {"title": 3}).status == 400
    assert raw("POST", "/api/collections", {"title": "t"}, token=None).status == 401
    assert raw("DELETE", path, token="read").status == 403
    assert raw("PATCH", path, {"position": "first"}).status == 400
    for slug in ("others/" + collection.slug[3:], "me/my-family", "me/..%2F..%2Ftokens", "me/" + "0" * 24):
        assert raw("GET", f"/api/collections/{slug}").status == 404
    made = raw("POST", "/api/collections", {"title": "With item", "item": {"type": "model", "id": "me/a"}})
    assert [item["id"] for item in made.json["items"]] == ["me/a"]
    assert api.get_collection(collection.slug).title == collection.title
