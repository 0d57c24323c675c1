"""Which files go to LFS and which are ignored, by the repo's own `.gitattributes` and `.gitignore`."""

from fnmatch import fnmatchcase


# Larger files go to LFS whatever they are called, as on the Hub.
MAX_REGULAR_SIZE = 10 * 1024 * 1024
_LFS_PATTERNS = """
*.7z *.arrow *.bin *.bz2 *.ckpt *.ftz *.gz *.h5 *.joblib *.lfs.* *.mlmodel *.model *.msgpack *.npy *.npz *.onnx *.ot
*.parquet *.pb *.pickle *.pkl *.pt *.pth *.rar *.safetensors saved_model/**/* *.tar.* *.tar *.tflite *.tgz *.wasm *.xz
*.zip *.zst *tfevents* *.png *.jpg *.jpeg *.webp
""".split()
GIT_ATTRIBUTES = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in _LFS_PATTERNS).encode()


def is_lfs(path: str, size: int, attributes: str) -> bool:
    """Whether a file is to be stored with LFS."""
    if size == 0:
        return False
    if size > MAX_REGULAR_SIZE:
        return True
    lfs = False
    for line in attributes.splitlines():
        words = line.split()
        if len(words) > 1 and not line.startswith("#") and _matches(path, words[0]):
            lfs = "filter=lfs" in words or (lfs and not {"-filter", "!filter"} & set(words))
    return lfs


def is_ignored(path: str, ignore: str) -> bool:
    """Whether a `.gitignore` leaves a file out."""
    ignored = False
    for line in ignore.splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        keep = pattern.startswith("!")
        pattern = pattern.removeprefix("!")
        parts = path.split("/")
        # A pattern that matches a folder covers all that lies in it.
        names = ["/".join(parts[:end]) for end in range(1, len(parts) + (not pattern.endswith("/")))]
        if any(_matches(name, pattern.removesuffix("/")) for name in names):
            ignored = not keep
    return ignored


def _matches(path: str, pattern: str) -> bool:
    if "/" not in pattern:
        return fnmatchcase(path.rsplit("/", 1)[-1], pattern)
    return fnmatchcase(path, pattern.removeprefix("/").replace("**/", "*"))
