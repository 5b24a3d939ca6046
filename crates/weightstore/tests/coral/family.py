"""Stores the safetensors files of a directory in a Coral repository, a commit for each.

    family.py DIRECTORY

Prints the bytes of the repository's HDF5 file, and how many tensors come back bit for bit.
"""

import json
import logging
import sys
import tempfile
from pathlib import Path

import numpy as np
from coral.core.weight_tensor import WeightMetadata, WeightTensor
from coral.version_control.repository import Repository

logging.disable(logging.CRITICAL)


def tensors(path):
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    for name, about in json.loads(content[8:start]).items():
        begin, end = (start + offset for offset in about["data_offsets"])
        yield name, np.frombuffer(content[begin:end], "float32").reshape(about["shape"])


def weight(model, name, array):
    about = WeightMetadata(name=f"{model}.{name}", shape=array.shape, dtype=array.dtype, model_name=model)
    return WeightTensor(data=array, metadata=about)


def main():
    files = sorted(Path(sys.argv[1]).glob("*.safetensors"))
    with tempfile.TemporaryDirectory() as directory:
        repository = Repository(Path(directory) / "repository", init=True)
        commits = []
        for path in files:
            weights = {f"{path.stem}.{name}": weight(path.stem, name, array) for name, array in tensors(path)}
            repository.stage_weights(weights)
            commits.append(repository.commit(path.stem).commit_hash)
        exact = 0
        for path, commit in zip(files, commits):
            found = repository.get_all_weights(commit)
            for name, array in tensors(path):
                restored = found.get(f"{path.stem}.{name}")
                exact += restored is not None and restored.data.tobytes() == array.tobytes()
        store = next(Path(directory).rglob("weights.h5"))
        print(store.stat().st_size, exact)


main()
