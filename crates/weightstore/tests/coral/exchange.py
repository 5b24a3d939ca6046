"""Coral's side of the exchange of files.

    exchange.py write DIRECTORY   files that Coral writes, and what Coral itself reads from them
    exchange.py read FILE         what Coral reads from a file that was written for it

Both print a line for each tensor: file, kind ("weight", or "delta:" and its kind), key, dtype, shape, and the
bytes in hexadecimal digits.
"""

import sys
import warnings
from pathlib import Path

import h5py
import numpy as np
from coral.core.weight_tensor import WeightMetadata, WeightTensor
from coral.delta.delta_encoder import DeltaConfig, DeltaEncoder, DeltaType
from coral.storage.hdf5_store import HDF5Store

warnings.simplefilter("ignore")

SHAPES = [(6, 5), (7,), (2, 3, 4), (0,), (0, 3)]
DTYPES = "bool int8 uint8 int16 uint16 int32 uint32 int64 uint64 float16 float32 float64 complex64".split()
COMPRESSIONS = {"gzip": ("gzip", 9), "lzf": ("lzf", None), "none": (None, None)}


def show(file, kind, key, array):
    shape = ",".join(str(n) for n in array.shape) or "-"
    content = array.tobytes().hex() or "-"
    print(Path(file).name, kind, key, array.dtype.name, shape, content)


def tensor(array, name, **more):
    metadata = WeightMetadata(name=name, shape=array.shape, dtype=array.dtype, **more)
    return WeightTensor(data=array, metadata=metadata)


def sample(rng, dtype, shape):
    return (rng.standard_normal(shape) * 50).astype(dtype)


def write_weights(directory):
    rng = np.random.default_rng(7)
    for name, (compression, options) in COMPRESSIONS.items():
        path = directory / f"weights-{name}.h5"
        with HDF5Store(str(path), compression, options, "w") as store:
            for dtype in DTYPES:
                for shape in SHAPES:
                    array = sample(rng, dtype, shape)
                    more = {"layer_type": "Linear", "model_name": "größe"} if shape == (7,) else {}
                    store.store(tensor(array, f"{dtype}.{len(shape)}", **more))
            if compression is None:
                store.store(tensor(np.array(2.5, "float32"), "scalar"))
            large = np.tile(np.arange(4096, dtype="float32"), (8, 1))
            store.store(tensor(large, "several chunks"))
        read(path)


def pairs(rng, dtype):
    """A reference and what is stored as a difference from it, with whatever numbers can do."""
    base = sample(rng, dtype, (12, 16))
    changed = base.copy()
    if np.dtype(dtype).kind == "f":
        changed += (rng.standard_normal(base.shape) * 0.05).astype(dtype)
        special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-7, 6e4, -6e4], dtype)
        corner = len(special)
        base[0, :corner] = special
        changed[0, :corner] = special[::-1]
        base[1, :corner] = special
        changed[1, :corner] = special
        finite_base, finite = sample(rng, dtype, (12, 16)), None
        finite = finite_base + (rng.standard_normal(base.shape) * 0.05).astype(dtype)
        return [("special", base, changed), ("finite", finite_base, finite)]
    changed[0] = 0
    changed[1] = np.iinfo(dtype).max
    return [("whole", base, changed)]


def write_deltas(directory):
    rng = np.random.default_rng(11)
    path = directory / "deltas.h5"
    with HDF5Store(str(path), mode="w") as store:
        for dtype in DTYPES[1:-1]:
            for name, base, changed in pairs(rng, dtype):
                reference = tensor(base, f"{dtype}.{name}")
                store.store(reference)
                for kind in DeltaType:
                    encoder = DeltaEncoder(DeltaConfig(delta_type=kind))
                    try:
                        delta = encoder.encode_delta(tensor(changed, "changed"), reference)
                        decoded = encoder.decode_delta(delta, reference)
                        del decoded
                    except Exception as error:
                        print(f"{kind.value} of {dtype} {name}: {error}", file=sys.stderr)
                        continue
                    store.store_delta(delta, f"{kind.value}.{dtype}.{name}")
    read(path)


def check_attributes(path):
    """The types of the attributes are those that h5py gives them."""
    with h5py.File(path) as file:
        assert {"weights", "metadata", "deltas"} <= set(file)
        for dataset in [*file["weights"].values(), *file["deltas"].values()]:
            for name in dataset.attrs:
                kind = dataset.attrs.get_id(name).dtype
                if name in ("shape", "original_shape"):
                    assert kind == np.int64 or dataset.attrs[name].size == 0, (name, kind)
                elif name == "compression_ratio":
                    assert kind == np.float64, (name, kind)
                elif name == "sha256":
                    # Ours alone; of fixed length.
                    assert kind == np.dtype("S64"), (name, kind)
                else:
                    text = h5py.check_string_dtype(kind)
                    assert text.encoding == "utf-8" and text.length is None, (name, kind)


def read(path):
    check_attributes(path)
    with HDF5Store(str(path), mode="r") as store:
        for key in store.list_weights():
            try:
                weight = store.load(key)
            except TypeError:
                # A type that numpy has no name for.
                continue
            assert weight.compute_hash(force=True) == weight.metadata.hash == key, key
            show(path, "weight", key, weight.data)
        for key in store.list_deltas():
            try:
                delta = store.load_delta(key)
            except ValueError:
                # A kind that this version of Coral does not know.
                continue
            reference = store.load(delta.reference_hash)
            if reference is None:
                continue
            decoded = DeltaEncoder().decode_delta(delta, reference)
            show(path, f"delta:{delta.delta_type.value}", key, decoded.data)


def main():
    command, target = sys.argv[1], Path(sys.argv[2])
    if command == "write":
        write_weights(target)
        write_deltas(target)
    else:
        read(target)


main()
