"""Writes what torch.save makes of all kinds of tensors, and what is in the files to standard output.

Arguments: the folder, and `small` for files that can be kept.
"""

import collections
import hashlib
import io
import pickle
import sys
import warnings
import zipfile

try:
    import torch
except ImportError as error:
    sys.stderr.write(f"torch is missing ({error})")
    sys.exit(77)

warnings.simplefilter("ignore")
FOLDER = sys.argv[1]
SMALL = "small" in sys.argv[2:]
NAMES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "uint32": "U32",
    "int32": "I32", "uint64": "U64", "int64": "I64", "float16": "F16", "bfloat16": "BF16",
    "float32": "F32", "float64": "F64", "complex64": "C64", "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2", "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "float8_e8m0fnu": "F8_E8M0", "float4_e2m1fn_x2": "F4",
}
TYPES = {getattr(torch, name): known for name, known in NAMES.items() if hasattr(torch, name)}


def content(tensor):
    """The bytes in C order."""
    flat = tensor.detach().cpu()
    try:
        told = flat.numpy().tobytes(order="C")
    except (TypeError, RuntimeError):
        told = None
    flat = flat.contiguous().reshape(-1)
    if flat.dtype.is_complex:
        flat = torch.view_as_real(flat).reshape(-1)
    found = flat.view(torch.uint8).numpy().tobytes()
    assert told is None or told == found
    return found


def told(file, name, tensor):
    shape = list(tensor.shape)
    if TYPES[tensor.dtype] == "F4":
        shape[-1] *= 2
    digest = hashlib.sha256(content(tensor)).hexdigest()
    print(file, name, TYPES[tensor.dtype], "[" + ", ".join(map(str, shape)) + "]", digest, sep="\t")


def refused(file, *words):
    print(file, "refused", *words, sep="\t")


def save(value, file, **options):
    torch.save(value, f"{FOLDER}/{file}", **options)


def walk(value, name, visit):
    if isinstance(value, torch.Tensor):
        visit(name, value)
    elif isinstance(value, dict):
        for key, below in value.items():
            walk(below, f"{name}.{key}" if name else str(key), visit)
    elif isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
        for index, below in enumerate(value):
            walk(below, f"{name}.{index}" if name else str(index), visit)


def saved(value, file, alone="", **options):
    """Saves a value and tells the tensors of it, as torch reads them again."""
    save(value, file, **options)
    tell(file, value, alone)


def tell(file, value, alone=""):
    try:
        again = torch.load(f"{FOLDER}/{file}", weights_only=False)
    except TypeError:
        again = torch.load(f"{FOLDER}/{file}")
    found = {}
    walk(again, alone, found.__setitem__)
    walk(value, alone, lambda name, tensor: check(found[name], tensor))
    for name, tensor in found.items():
        told(file, name, tensor)


def check(found, tensor):
    assert found.dtype == tensor.dtype and found.shape == tensor.shape
    assert content(found) == content(tensor)


def noise(dtype, *shape):
    """Any bits: not-a-numbers with payloads and subnormal numbers among them."""
    count = 1
    for dim in shape:
        count *= dim
    if dtype == torch.bool:
        return torch.randint(0, 2, shape).bool()
    width = torch.empty(0, dtype=dtype).element_size()
    if dtype.is_complex:
        raw = torch.randint(-(1 << 31), 1 << 31, (count, 2)).to(torch.int32).view(torch.float32)
        return torch.view_as_complex(raw).reshape(shape)
    raw = torch.randint(0, 256, (count * width,)).to(torch.uint8)
    return raw.view(dtype).reshape(shape)


def types():
    state = collections.OrderedDict()
    for dtype in TYPES:
        state[str(dtype)[6:]] = noise(dtype, 3, 4)
    return state


def views(rows, columns):
    base = noise(torch.float32, rows, columns)
    state = {
        "plain": base, "tied": base, "transposed": base.t(), "part": base[1:4, 2:10:2], "row": base[2],
        "column": base[:, 3], "scalar": base[2, 3], "none": base[:, :0], "empty": torch.empty(0),
        "empty.rank": torch.empty(3, 0, 2, dtype=torch.int64), "expanded": base[:, :1].expand(rows, 7),
        "expanded.row": base[:1].expand(4, columns), "unsqueezed": base[None, :, None], "stepped": base[::2, 1::3],
        "overlapping": base.as_strided((4, 4), (1, 1), 5), "unfolded": base[0].unfold(0, 4, 1),
        "diagonal": base.diagonal(), "permuted": noise(torch.bfloat16, 2, 3, 5).permute(2, 0, 1),
        "channels_last": noise(torch.float16, 2, 3, 4, 5).to(memory_format=torch.channels_last),
        "complex": noise(torch.complex64, 3, 4).t(), "imaginary": torch.view_as_real(noise(torch.complex64, 3, 4))[..., 1],
    }
    if hasattr(torch, "float8_e4m3fn"):
        state["float8"] = noise(torch.float8_e4m3fn, 3, 4).t()
    return state


def modules():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = torch.nn.Embedding(7, 4)
            self.norm = torch.nn.BatchNorm1d(4)
            self.head = torch.nn.Linear(4, 7)
            self.head.weight = self.embed.weight
            self.register_buffer("mask", torch.ones(3, 3).tril().bool())

    return Model().bfloat16()


def nested():
    model = modules().float()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    model.head(model.embed(torch.tensor([1, 2]))).sum().backward()
    optimizer.step()
    state = model.state_dict()
    assert state._metadata
    attributed = torch.nn.Parameter(torch.ones(2))
    attributed.note = "kept"
    plain = torch.zeros(3)
    plain.note = "kept"
    values = {
        "epoch": 3, "loss": 0.5, "none": None, "done": True, "text": "größe", "bytes": b"\x00\xff", "large": 2**80,
        "complex": 1 + 2j, "set": {1, 2}, "counter": collections.Counter("aab"), "device": torch.device("cpu"),
        "dtype": torch.complex128, "size": torch.Size([2, 3]), "bytearray": bytearray(b"ab"),
    }
    whole = {
        "model": state, "optimizer": optimizer.state_dict(), "list": [torch.ones(1), (torch.zeros(2), 3)], 7: torch.ones(2),
        -1: torch.zeros(1), "größe": torch.ones(1), "parameter": torch.nn.Parameter(torch.ones(3)),
        "frozen": torch.nn.Parameter(torch.ones(3), requires_grad=False), "attributed": attributed,
        "plain": plain, "values": values, "generator": torch.get_rng_state()[:40].clone(),
    }
    if hasattr(torch.nn, "Buffer"):
        whole["buffer"] = torch.nn.Buffer(torch.ones(3))
    return whole


def turned_round():
    """A file as a machine of the other byte order writes it: storages turned, and a record that says so."""
    state = {str(dtype)[6:]: noise(dtype, 5) for dtype in TYPES if torch.empty(0, dtype=dtype).element_size() > 1}
    # Storages without a type are read as they are by torch, whatever the record says.
    typed = {"float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "complex64"}
    state = {name: tensor for name, tensor in state.items() if name in typed}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with zipfile.ZipFile(buffer) as source:
        if not any(entry.endswith("/byteorder") for entry in source.namelist()):
            return
    widths = {}
    for tensor in state.values():
        width = tensor.element_size() // (2 if tensor.dtype.is_complex else 1)
        widths[len(widths)] = width
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(f"{FOLDER}/big-endian.pt", "w") as target:
        for entry in source.namelist():
            held = source.read(entry)
            if "/data/" in entry and not entry.rpartition("/")[0].endswith(".data"):
                width = widths[int(entry.rpartition("/")[2])]
                held = b"".join(held[at:at + width][::-1] for at in range(0, len(held), width))
            if entry.endswith("/byteorder"):
                continue
            target.writestr(entry, held)
        target.writestr("archive/byteorder", "big")
    tell("big-endian.pt", state)


def other_kinds():
    """Each of these is refused, and the message says the words."""
    floats = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    kinds = {
        "quantised": (lambda: torch.quantize_per_tensor(floats, 0.1, 3, torch.qint8), "dequantize"),
        "quantised-channels": (
            lambda: torch.quantize_per_channel(floats, torch.ones(2), torch.zeros(2), 0, torch.quint8), "dequantize"),
        "sparse": (floats.to_sparse, "to_dense"),
        "sparse-rows": (floats.to_sparse_csr, "to_dense"),
        "nested-tensor": (lambda: torch.nested.nested_tensor([floats, floats[:1]]), "parts"),
        "meta": (lambda: torch.empty(3, device="meta"), "no values"),
        "complex128": (lambda: floats.to(torch.complex128), "complex128"),
        "complex32": (lambda: torch.view_as_complex(floats[:, :2].half().contiguous()), "complex32"),
        "conjugated": (lambda: noise(torch.complex64, 2).conj(), "resolve_conj"),
        "negated": (lambda: noise(torch.complex64, 2).conj().imag, "resolve_neg"),
    }
    for kind, (make, *words) in kinds.items():
        try:
            save({"before": floats, "it": make()}, f"{kind}.pt")
        except (RuntimeError, NotImplementedError, KeyError, AttributeError, TypeError) as error:
            sys.stderr.write(f"{kind}: torch does not save it: {error}\n")
            continue
        refused(f"{kind}.pt", '"it"', *words)


def other_files():
    state = {"w": torch.ones(2)}
    save(state, "legacy.pt", _use_new_zipfile_serialization=False)
    refused("legacy.pt", "before 1.6")
    save(state, "legacy4.pt", _use_new_zipfile_serialization=False, pickle_protocol=4)
    refused("legacy4.pt", "before 1.6")
    with open(f"{FOLDER}/plain.pkl", "wb") as file:
        pickle.dump({"w": [1, 2, 3]}, file)
    refused("plain.pkl", "torch.save")
    save(torch.nn.Linear(2, 2), "module.pt")
    refused("module.pt", "torch.nn.modules.linear.Linear", "state_dict")
    torch.jit.script(torch.nn.Linear(2, 2)).save(f"{FOLDER}/script.pt")
    refused("script.pt", "TorchScript", "state_dict")
    save({"epoch": 3}, "nothing.pt")
    refused("nothing.pt", "no tensors")
    bytes_of = torch.tensor([0, 0, 128, 63, 0, 0, 0, 64, 9, 9], dtype=torch.uint8)
    odd = torch.empty(0, dtype=torch.float32).set_(bytes_of.untyped_storage(), 0, (2,), (1,))
    # Not every version reads it again: its storage has bytes behind the last element.
    save({"odd": odd}, "odd.pt")
    told("odd.pt", "odd", odd)
    saved(torch.arange(5, dtype=torch.int16), "alone.pt", alone="alone")


def options():
    """Ways to save that newer versions have."""
    config = getattr(getattr(torch.utils, "serialization", None), "config", None)
    if not hasattr(config, "save"):
        return
    state = views(5, 12)
    with config.patch("save.storage_alignment", 4096):
        saved(state, "aligned.pt")
    with config.patch("save.use_pinned_memory_for_d2h", False):
        saved(state, "again.pt")
    with config.patch("save.compute_crc32", False):
        save(state, "unchecked.pt")
    refused("unchecked.pt", "checksum")


def large():
    state = views(700, 1100)
    state["long"] = noise(torch.bfloat16, 3, 1 << 20)
    state["long.t"] = state["long"].t()
    saved(state, "large.pt")
    for protocol in (3, 4, 5):
        saved({**nested(), **views(5, 12)}, f"protocol{protocol}.pt", pickle_protocol=protocol)


torch.manual_seed(7)
print("#", "torch", torch.__version__)
saved(types(), "types.pt")
saved(views(5, 12), "views.pt")
saved(modules().state_dict(), "modules.pt")
saved(nested(), "nested.pt")
turned_round()
other_kinds()
other_files()
if not SMALL:
    options()
    large()
