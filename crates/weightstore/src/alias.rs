//! Coral's hash of a tensor.

use core_view::DType;
use xxhash_rust::xxh3::Xxh3;

use crate::CoralAlias;

/// Computes Coral's alias of a tensor whose bytes arrive in order.
///
/// ```
/// use core_view::DType;
/// use weightstore::AliasHasher;
///
/// let mut hasher = AliasHasher::new(DType::U8, &[0, 3]);
/// hasher.update(&[]);
/// assert_eq!(hasher.finish().to_string(), "fc0288bbfe646ce8");
/// ```
#[derive(Clone)]
pub struct AliasHasher(Xxh3);

impl AliasHasher {
    /// Starts with type and shape.
    pub fn new(dtype: DType, shape: &[u64]) -> Self {
        let mut hasher = Xxh3::new();
        hasher.update(python_tuple(shape).as_bytes());
        hasher.update(dtype.numpy_name().as_bytes());
        Self(hasher)
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The alias.
    pub fn finish(&self) -> CoralAlias {
        CoralAlias::from_u64(self.0.digest())
    }
}

impl std::fmt::Debug for AliasHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("AliasHasher").field(&self.finish()).finish()
    }
}

/// The shape as Python prints a tuple of integers.
fn python_tuple(shape: &[u64]) -> String {
    match shape {
        [only] => format!("({only},)"),
        _ => {
            let dimensions: Vec<String> = shape.iter().map(u64::to_string).collect();
            format!("({})", dimensions.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_print_as_python_prints_them() {
        assert_eq!(python_tuple(&[]), "()");
        assert_eq!(python_tuple(&[5]), "(5,)");
        assert_eq!(python_tuple(&[10, 5]), "(10, 5)");
        assert_eq!(
            python_tuple(&[u64::MAX, 0, 1]),
            "(18446744073709551615, 0, 1)"
        );
    }
}
