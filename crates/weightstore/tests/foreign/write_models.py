"""Writes models in numpy's format and torch's, and what they hold to standard output.

Torch is not needed: its format is written by Python's own pickler from stand-ins of its names.
"""

import collections
import hashlib
import io
import pickle
import sys
import types
import zipfile

try:
    import numpy as np
except ImportError as error:
    sys.stderr.write(f"numpy is missing ({error})")
    sys.exit(77)

FOLDER = sys.argv[1]
NAMES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "uint32": "U32",
    "int32": "I32", "uint64": "U64", "int64": "I64", "float16": "F16", "float32": "F32",
    "float64": "F64", "complex64": "C64",
}


def told(file, name, array):
    little = array.astype(array.dtype.newbyteorder("<"))
    digest = hashlib.sha256(little.tobytes(order="C")).hexdigest()
    shape = "[" + ", ".join(str(dim) for dim in array.shape) + "]"
    print(file, name, NAMES[little.dtype.name], shape, digest, sep="\t")


def arrays():
    rng = np.random.default_rng(7)
    found = {}
    for dtype in NAMES:
        plain = rng.integers(0, 200, (5, 6, 7)) % 2 if dtype == "bool" else rng.standard_normal((5, 6, 7)) * 40
        array = plain.astype(dtype)
        found[f"{dtype}.c"] = array
        found[f"{dtype}.f"] = np.asfortranarray(array)
        found[f"{dtype}.big"] = array.astype(array.dtype.newbyteorder(">"))
        found[f"{dtype}.both"] = np.asfortranarray(array.astype(array.dtype.newbyteorder(">")))
    found["scalar"] = np.float32(3.5).reshape(())
    found["none"] = np.zeros((0, 4), np.float32)
    found["row"] = rng.standard_normal((1, 300)).astype(np.float32)
    found["large"] = rng.standard_normal((380, 710)).astype(np.float32)
    found["large.f"] = np.asfortranarray(found["large"])
    found["special"] = np.array([np.nan, -np.nan, np.inf, -0.0, 1e-45], np.float32)
    return found


def numpy_files():
    found = arrays()
    np.savez(f"{FOLDER}/plain.npz", **found)
    np.savez_compressed(f"{FOLDER}/deflated.npz", **found)
    for file in ("plain.npz", "deflated.npz"):
        for name, array in found.items():
            told(file, name, array)
    for name in ("large.f", "int16.both", "scalar"):
        np.save(f"{FOLDER}/{name}.npy", found[name])
        told(f"{name}.npy", name, found[name])


STORAGES = {
    "float64": "DoubleStorage", "float32": "FloatStorage", "float16": "HalfStorage",
    "int64": "LongStorage", "int32": "IntStorage", "int16": "ShortStorage", "int8": "CharStorage",
    "uint8": "ByteStorage", "bool": "BoolStorage", "complex64": "ComplexFloatStorage",
}


class Storage:
    def __init__(self, array):
        self.array = array


class View:
    """What the stand-in pickles as a tensor: a view of a storage."""

    def __init__(self, storage, offset, shape, strides):
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides

    def __reduce_ex__(self, protocol):
        hooks = collections.OrderedDict()
        return _rebuild_tensor_v2, (self.storage, self.offset, self.shape, self.strides, False, hooks)

    def numpy(self):
        base = self.storage.array
        strides = [stride * base.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(base[self.offset:], self.shape, strides)


def _rebuild_tensor_v2(*arguments):
    raise RuntimeError("stand-in")


def stand_ins():
    """Modules whose names the pickler writes down."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch._utils = utils
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    _rebuild_tensor_v2.__module__ = "torch._utils"
    for name in STORAGES.values():
        kind = type(name, (), {})
        kind.__module__ = "torch"
        setattr(torch, name, kind)
    sys.modules["torch"], sys.modules["torch._utils"] = torch, utils
    return torch


def views():
    found = {}
    for dtype in STORAGES:
        base = (np.arange(60) % 2 if dtype == "bool" else np.arange(60) * 3).astype(dtype)
        storage = Storage(base)
        found[f"{dtype}.plain"] = View(storage, 0, (5, 12), (12, 1))
        found[f"{dtype}.transposed"] = View(storage, 0, (12, 5), (1, 12))
        found[f"{dtype}.part"] = View(storage, 7, (3, 4), (12, 2))
        found[f"{dtype}.tied"] = View(storage, 0, (5, 12), (12, 1))
    large = Storage(np.random.default_rng(3).standard_normal(470 * 610).astype(np.float32))
    found["large.t"] = View(large, 0, (610, 470), (1, 610))
    return found


def stand_in_file(found, protocol):
    torch = stand_ins()
    keys = {}

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if not isinstance(value, Storage):
                return None
            key = keys.setdefault(id(value), (str(len(keys)), value))[0]
            kind = getattr(torch, STORAGES[value.array.dtype.name])
            return ("storage", kind, key, "cpu", value.array.size)

    state = collections.OrderedDict(found)
    state._metadata = collections.OrderedDict([("", {"version": 1})])
    buffer = io.BytesIO()
    Pickler(buffer, protocol).dump(state)
    file = f"protocol{protocol}.pt"
    with zipfile.ZipFile(f"{FOLDER}/{file}", "w") as archive:
        archive.writestr("archive/data.pkl", buffer.getvalue())
        archive.writestr("archive/byteorder", "little")
        for key, storage in keys.values():
            archive.writestr(f"archive/data/{key}", storage.array.tobytes())
        archive.writestr("archive/version", "3\n")
    for name, view in found.items():
        told(file, name, view.numpy())


numpy_files()
for protocol in (2, 4, 5):
    stand_in_file(views(), protocol)
