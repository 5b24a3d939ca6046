//! Tensors as views of a file.
