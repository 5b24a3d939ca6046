//! How much memory blocks need.

use crate::Error;

/// Bytes that `num_blocks` blocks need, without padding: each has, for each layer, `outer_dim` planes of `page_size`
/// tokens of `inner_dim` elements of `dtype_bytes`.
///
/// ```
/// use blockmgr::layout::calculate_storage_requirements;
///
/// assert_eq!(calculate_storage_requirements(32, 2, 16, 4096, 2, 1000)?, 8_388_608_000);
/// # Ok::<(), blockmgr::Error>(())
/// ```
///
/// # Errors
/// [`Error::SizeOverflow`] beyond what a machine can address.
pub fn calculate_storage_requirements(
    num_layers: usize,
    outer_dim: usize,
    page_size: usize,
    inner_dim: usize,
    dtype_bytes: usize,
    num_blocks: usize,
) -> Result<usize, Error> {
    product(
        "the size of all blocks",
        &[
            num_layers,
            outer_dim,
            page_size,
            inner_dim,
            dtype_bytes,
            num_blocks,
        ],
    )
}

/// A product, if a machine can address it.
pub(super) fn product(what: &'static str, factors: &[usize]) -> Result<usize, Error> {
    let product = factors
        .iter()
        .try_fold(1usize, |product, &factor| product.checked_mul(factor));
    product
        .filter(|&product| isize::try_from(product).is_ok())
        .ok_or(Error::SizeOverflow { what })
}

/// A sum, if a machine can address it.
pub(super) fn sum(what: &'static str, one: usize, other: usize) -> Result<usize, Error> {
    one.checked_add(other)
        .filter(|&sum| isize::try_from(sum).is_ok())
        .ok_or(Error::SizeOverflow { what })
}

/// The next multiple of a power of two.
pub(super) fn aligned(what: &'static str, bytes: usize, alignment: usize) -> Result<usize, Error> {
    Ok(sum(what, bytes, alignment - 1)? & !(alignment - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_beyond_the_machine_are_refused() {
        assert!(calculate_storage_requirements(usize::MAX, 2, 1, 1, 1, 1).is_err());
        assert!(calculate_storage_requirements(1 << 31, 1 << 31, 2, 1, 1, 1).is_err());
        assert_eq!(aligned("x", 4097, 4096).ok(), Some(8192));
        assert_eq!(aligned("x", 4096, 4096).ok(), Some(4096));
        assert!(aligned("x", isize::MAX as usize, 4096).is_err());
    }
}
