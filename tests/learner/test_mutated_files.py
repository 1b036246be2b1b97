"""700 exports, weights and checkpoints that were damaged or are meant to harm: each is as it was, or is refused.

A damaged file gives the same numbers to the last bit, or an error. One that is meant to harm has right checksums; what
stops it is that nothing in a file is run. Neither writes anything, and each error is one paragraph that names the file.
"""

import copyreg
import io
import json
import pickle
import pickletools
import random
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn
from warmstart.data import Block, CategoryBlock, DataBlock, IndexSplitter
from warmstart.learner import Checkpoint, Learner, load_learner
from warmstart.learner.export import KEY
from warmstart.learner.files import FileError, load_file, save_file

torch.set_num_threads(1)

CANARY = "canary"  # what harmful files try to make, in the working folder


# ---- files, and what is read from them


def make_net():
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


def make_learner():
    numbers = torch.Generator().manual_seed(0)
    items = list(zip(torch.randn(12, 4, generator=numbers).tolist(), "ab" * 6, strict=True))
    block = DataBlock((Block, CategoryBlock), splitter=IndexSplitter(range(8, 12)))
    torch.manual_seed(0)
    learn = Learner(block.databunch(items, bs=4, num_workers=0, device="cpu"), make_net(), path=".")
    learn.progress.bar = learn.progress.table = False
    return learn


def read_export(path):
    learn = load_learner(path, custom={"Sequential": make_net})
    return {"model": learn.model.state_dict(), "blocks": str(learn.data.blocks), "loss": str(learn.loss_func)}


def read_weights(path):
    learn = make_learner().load(path)
    return {"model": learn.model.state_dict(), "opt": learn.opt.state_dict(), "epochs_begun": learn.epochs_begun}


def read_checkpoint(path):
    learn = make_learner()
    learn.fit(2, cbs=Checkpoint(path.parent))
    return {"model": learn.model.state_dict(), "opt": learn.opt.state_dict(), "losses": learn.recorder.losses}


READERS = {"export": read_export, "weights": read_weights, "checkpoint": read_checkpoint}
NAMES = {"checkpoint": "checkpoint-1.pt"}  # where another than "mutated.pth" is asked for


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A file of each kind as bytes, and what is read from it."""
    folder = tmp_path_factory.mktemp("originals")
    learn = make_learner()
    learn.fit(1)
    make_learner().fit(2, cbs=Checkpoint(folder / "run", every=3))
    files = {
        "export": learn.export(folder / "export.pt"),
        "weights": learn.save(folder / "weights.pt"),
        "checkpoint": folder / "run/checkpoint-2.pt",
    }
    return {kind: (file.read_bytes(), as_bits(READERS[kind](file))) for kind, file in files.items()}


def as_bits(value):
    """Tensors by type, shape and bytes, so that what is equal is equal to the last bit."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.contiguous().numpy().tobytes()
    if isinstance(value, dict):
        return {key: as_bits(part) for key, part in value.items()}
    return [as_bits(part) for part in value] if isinstance(value, (list, tuple)) else value


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The path of a file to be; the working folder is beside its own."""
    (tmp_path / "here").mkdir()
    (tmp_path / "file").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "file" / "mutated.pth"


def check(place, content, kind, expected=None):
    """Read the content: nothing is written, and what comes is `expected`, where that is known, or one paragraph."""
    for other in place.parent.iterdir():  # a fit that went on has written more
        other.unlink()
    place = place.with_name(NAMES.get(kind, place.name))
    place.write_bytes(content)
    before = listing(place, kind)
    try:
        found = READERS[kind](place)
    except (ValueError, KeyError) as error:
        said = str(error)
        assert type(error).__name__ in ("FileError", "MissingObjects", "ValueError")
        assert str(place) in said and said.isprintable()
        assert len(said.replace(str(place), "")) < 600, said
    else:
        assert expected is None or as_bits(found) == expected
    assert listing(place, kind) == before and not Path(CANARY).exists()


def listing(place, kind):
    """All files around, but for those beside a checkpoint, where a fit that goes on writes others."""
    found = {path for path in place.parent.parent.rglob("*") if kind != "checkpoint" or path.parent != place.parent}
    return {(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in found if path.is_file()}


# ---- damage


def flip_a_bit(content, rand):
    content[rand.randrange(len(content))] ^= 1 << rand.randrange(8)


def flip_bits(content, rand):
    for _ in range(rand.randint(2, 50)):
        flip_a_bit(content, rand)


def cut(content, rand):
    del content[rand.randrange(len(content)) :]


def zero_a_block(content, rand):
    begin, n = rand.randrange(len(content)), rand.choice([1, 16, 64, 512])
    content[begin : begin + n] = bytes(len(content[begin : begin + n]))


def swap_blocks(content, rand):
    n = rand.choice([4, 16, 64, 256])
    a, b = (n * rand.randrange(len(content) // n) for _ in range(2))
    content[a : a + n], content[b : b + n] = content[b : b + n], content[a : a + n]


def take_out(content, rand):
    begin = rand.randrange(len(content))
    del content[begin : begin + rand.choice([1, 4, 64])]


def put_in(content, rand):
    begin = rand.randrange(len(content))
    content[begin:begin] = rand.randbytes(rand.choice([1, 4, 64]))


DAMAGE = {flip_a_bit: 60, flip_bits: 30, cut: 30, zero_a_block: 30, swap_blocks: 30, take_out: 16, put_in: 14}


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize(("damage", "n"), DAMAGE.items(), ids=lambda value: getattr(value, "__name__", value))
def test_a_damaged_file_gives_the_same_bits_or_an_error(place, originals, kind, damage, n):
    whole, expected = originals[kind]
    rand = random.Random(f"{kind} {damage.__name__}")
    for _ in range(n if kind == "export" else n // 2):
        content = bytearray(whole)
        damage(content, rand)
        check(place, bytes(content), kind, expected)


# ---- pickle programs with right checksums


def rewritten(whole, name, change):
    """The archive with the content of one entry changed and all checksums right."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(file, "w") as new:
        for entry in old.namelist():
            content = old.read(entry)
            new.writestr(entry, change(content) if entry.endswith(name) else content)
    return file.getvalue()


def text(value):
    return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()


EXTENSION = 0x77
TOUCH = f"open({CANARY!r}, 'w').close()"
RUN, SHELL = text(TOUCH), text(f"touch {CANARY}")
PAYLOADS = {  # each leaves the stack as it was
    "GLOBAL and REDUCE": b"cbuiltins\nexec\n" + RUN + b"\x85R0",
    "the shell": b"cos\nsystem\n" + SHELL + b"\x85R0",
    "the shell by its other name": b"cposix\nsystem\n" + SHELL + b"\x85R0",
    "STACK_GLOBAL": text("builtins") + text("exec") + b"\x93" + RUN + b"\x85R0",
    "a dotted name": text("torch") + text("serialization.os.system") + b"\x93" + SHELL + b"\x85R0",
    "INST": b"(" + RUN + b"ibuiltins\nexec\n0",
    "OBJ": b"(cbuiltins\nexec\n" + RUN + b"o0",
    "EXT1": b"\x82" + bytes([EXTENSION]) + RUN + b"\x85R0",
    "NEWOBJ": b"csubprocess\nPopen\n]" + text("touch") + b"a" + text(CANARY) + b"a\x85\x810",
    "NEWOBJ_EX": b"csubprocess\nPopen\n]" + text("touch") + b"a" + text(CANARY) + b"a\x85}\x920",
    "BUILD": b"ctorch\nTensor\n)\x81}" + text("__class__") + b"cbuiltins\nexec\nsb0",
    "what torch has of its own": b"ctorch.utils._config_module\nexec\n" + RUN + b"\x85R0",
    "another pickle": b"c_pickle\nloads\n" + text("cbuiltins\nexec\n") + b"\x85R0",
    "getattr": b"cbuiltins\ngetattr\ncos\npath\n" + text("os") + b"\x86R0",
    "import": b"cbuiltins\n__import__\n" + text("antigravity") + b"\x85R0",
    "a file of ours": b"cwarmstart.learner.files\nsave_file\n}" + text(CANARY) + b"\x86R0",
    "a file of torch's": b"ctorch.serialization\nsave\n}" + text(CANARY) + b"\x86R0",
    "a file of numpy's": b"cnumpy\nsave\n" + text(CANARY) + b"K\x01\x86R0",
    "BINPERSID": text("storage") + b"cbuiltins\nexec\n" + RUN + text("cpu") + b"K\x01t0",
    "a persistent name": b"Pcanary\n0",
    "a great deal of nothing": b"cbuiltins\nbytearray\n\x8a\x07\x00\x00\x00\x00\x00\x00\x01\x85R0",
}


@pytest.fixture(scope="module", autouse=True)
def exec_as_an_extension():
    copyreg.add_extension("builtins", "exec", EXTENSION)
    yield
    copyreg.remove_extension("builtins", "exec", EXTENSION)


def with_payload(program, payload, rand):
    positions = [position for _, _, position in pickletools.genops(program)]
    at = rand.choice(positions[1:])  # between any two operations
    return program[:at] + payload + program[at:]


@pytest.mark.parametrize("name", ["GLOBAL and REDUCE", "STACK_GLOBAL", "INST", "OBJ", "EXT1"])
def test_the_payloads_are_real(place, name):
    pickle.loads(with_payload(pickle.dumps([1, 2], protocol=2), PAYLOADS[name], random.Random(0)))
    assert Path(CANARY).exists()


@pytest.mark.parametrize("kind", READERS)
def test_a_payload_between_any_two_operations_does_not_run(place, originals, kind):
    whole, expected = originals[kind]
    rand = random.Random(f"payloads {kind}")
    for payload in [*PAYLOADS.values(), *rand.choices(list(PAYLOADS.values()), k=9)]:
        content = rewritten(whole, "data.pkl", lambda program, payload=payload: with_payload(program, payload, rand))
        check(place, content, kind, expected)


def with_another_operation(program, rand):
    """One to three operations replaced: a name by another, or the code of an operation, or bytes of its argument."""
    program = bytearray(program)
    for _ in range(rand.randint(1, 3)):
        try:
            operations = list(pickletools.genops(bytes(program)))
        except (ValueError, IndexError, UnicodeDecodeError):
            break
        operation, argument, at = rand.choice(operations)
        if operation.name == "GLOBAL" and argument:
            old = b"c" + argument.replace(" ", "\n").encode() + b"\n"
            program[at : at + len(old)] = rand.choice([b"cbuiltins\nexec\n", b"cos\nsystem\n", b"ctorch\nload\n"])
        elif rand.random() < 0.5:
            program[at] = rand.randrange(256)
        else:
            program[min(at + 1, len(program) - 1)] ^= 1 << rand.randrange(8)
    return bytes(program)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(("kind", "n"), [("export", 30), ("weights", 40), ("checkpoint", 40)])
def test_other_operations_run_nothing(place, originals, kind, n):
    rand = random.Random(f"operations {kind}")
    for _ in range(n):
        content = rewritten(originals[kind][0], "data.pkl", lambda program: with_another_operation(program, rand))
        check(place, content, kind)  # which may hold other numbers: it is a right file of somebody else


# ---- descriptions in exports


def deep(n):
    value = 1
    for _ in range(n):
        value = {"list": [value]}
    return value


TRICKS = [
    None, True, -1, 0, 10**30, 1e300, float("inf"), float("nan"), "", "x" * 100_000, "a\nb\x1b[31m", [], {}, [[]],
    deep(50), deep(400),
    {"class": "os.system", "fields": {}},
    {"class": "subprocess.Popen", "fields": {"args": ["touch", CANARY]}},
    {"class": "data.getters.os.system", "fields": {"command": f"touch {CANARY}"}},
    {"class": "learner.learner.Learner", "fields": {}},
    {"class": "data.datablock.DataBlock", "fields": {"blocks": {"custom": "os.system"}}},
    {"class": "vision.vision_model.VisionModel", "fields": {"arch": "hf-hub:a/b", "n_out": 2}},
    {"class": "vision.vision_model.VisionModel", "fields": {"arch": "resnet18", "n_out": 10**9}},
    {"class": ["data", "blocks"], "fields": []},
    {"function": "os.system"},
    {"function": "data.downloads.download_url"},
    {"function": "learner.files.save_file"},
    {"function": "data.getters.get_image_files"},
    {"function": "builtins.exec"},
    {"function": "..os.system"},
    {"v2": "functional", "fields": {}},
    {"v2": "Lambda", "fields": {"lambda": {"function": "os.system"}}},
    {"v2": "__builtins__", "fields": {}},
    {"dtype": "hub"},
    {"enum": "InterpolationMode", "value": "os"},
    {"custom": "os.system"},
    {"custom": "Sequential", "fields": {"args": 3}},
    {"custom": "x" * 5000},
    {"custom": "a\nb"},
    {"list": [{"custom": f"own_{i}"} for i in range(1000)]},
    {"path": f"../{CANARY}"},
    {"dict": [[{"list": []}, 1]]},
    {"tuple": 7},
]  # fmt: skip


def places_in(value, path=()):
    """The paths of all values in nested lists and dicts, the whole included."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield from places_in(part, (*path, key))


def with_trick(value, path, trick):
    if not path:
        return trick
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = with_trick(value[path[0]], path[1:], trick)
    return copy


def test_a_description_with_a_trick_in_it_builds_nothing_harmful(place, originals):
    content = load_file(write(place, originals["export"][0]))
    description, rand = json.loads(content[KEY]), random.Random(0)
    paths = list(places_in(description))
    for trick in [*TRICKS, *rand.choices(TRICKS, k=90 - len(TRICKS))]:
        tricked = with_trick(description, rand.choice(paths), trick)
        save_file({**content, KEY: json.dumps(tricked)}, place)
        check(place, place.read_bytes(), "export")


def write(path, content):
    path.write_bytes(content)
    return path


def test_a_description_that_lacks_a_part_is_refused(place, originals):
    content = load_file(write(place, originals["export"][0]))
    description = json.loads(content[KEY])
    for part in description.keys() - {"version", "torch"}:
        without = {name: value for name, value in description.items() if name != part}
        save_file({**content, KEY: json.dumps(without)}, place)
        with pytest.raises(FileError, match=rf"mutated\.pth (is damaged|cannot be built).*({part}. is missing|Export)"):
            load_learner(place, custom={"Sequential": make_net})
