//! Rust types that are a tensor's elements.

use std::fmt::Debug;

use half::{bf16, f16};

use crate::{DType, F8E4M3, F8E5M2, ViewError};

/// A Rust type whose values lie in memory exactly as a [`DType`] describes.
///
/// # Safety
/// The type must have no padding, no destructor and no interior mutability, its size must be
/// `DTYPE.size_bytes()` and its alignment `DTYPE.alignment_bytes()`. Bytes that pass
/// [`Element::validate`] must be a valid value.
pub unsafe trait Element: Copy + Debug + PartialEq + Send + Sync + 'static {
    /// The type of the elements.
    const DTYPE: DType;

    /// Checks that the bytes are valid values; every byte is, unless a type says otherwise.
    ///
    /// # Errors
    /// [`ViewError::InvalidValue`] with the first byte at fault.
    fn validate(bytes: &[u8]) -> Result<(), ViewError> {
        let _ = bytes;
        Ok(())
    }
}

macro_rules! plain_elements {
    ($($element:ty => $dtype:ident),* $(,)?) => {$(
        // SAFETY: a primitive number or a transparent wrapper of one, valid for every bit pattern.
        unsafe impl Element for $element {
            const DTYPE: DType = DType::$dtype;
        }

        const _: () = assert!(align_of::<$element>() <= 8 && size_of::<$element>() <= 8);
    )*};
}

plain_elements! {
    u8 => U8,
    i8 => I8,
    u16 => U16,
    i16 => I16,
    u32 => U32,
    i32 => I32,
    u64 => U64,
    i64 => I64,
    f16 => F16,
    bf16 => BF16,
    f32 => F32,
    f64 => F64,
    [f32; 2] => C64,
    F8E4M3 => F8E4M3,
    F8E5M2 => F8E5M2,
}

// SAFETY: one byte, and `validate` lets only 0 and 1 pass.
unsafe impl Element for bool {
    const DTYPE: DType = DType::Bool;

    fn validate(bytes: &[u8]) -> Result<(), ViewError> {
        // A fold vectorises where a search for the first position does not.
        if bytes.iter().fold(0, |seen, &byte| seen | byte) <= 1 {
            return Ok(());
        }
        match bytes.iter().position(|&byte| byte > 1) {
            Some(offset_bytes) => Err(ViewError::InvalidValue {
                dtype: DType::Bool,
                offset_bytes,
                value: bytes[offset_bytes],
            }),
            None => Ok(()),
        }
    }
}

// Elements are stored as they lie in memory, and every format here is little-endian.
const _: () = assert!(
    cfg!(target_endian = "little"),
    "only little-endian machines are supported"
);

/// The bytes of elements.
pub(crate) fn bytes_of<T: Element>(elements: &[T]) -> &[u8] {
    // SAFETY: an element has no padding, so all its bytes are initialised; the length is the slice's.
    unsafe { std::slice::from_raw_parts(elements.as_ptr().cast(), size_of_val(elements)) }
}

/// Checks that bytes at this place can be viewed as elements, and how many they are.
pub(crate) fn typed_len<T: Element>(bytes: &[u8]) -> Result<usize, ViewError> {
    let len_bytes = bytes.len();
    if !len_bytes.is_multiple_of(size_of::<T>()) {
        return Err(ViewError::PartialElement {
            len_bytes,
            dtype: T::DTYPE,
        });
    }
    let address = bytes.as_ptr().addr();
    if len_bytes > 0 && !address.is_multiple_of(align_of::<T>()) {
        return Err(ViewError::Misaligned {
            address,
            required_bytes: align_of::<T>(),
            dtype: T::DTYPE,
        });
    }
    T::validate(bytes)?;
    Ok(len_bytes / size_of::<T>())
}

/// Views bytes as elements.
pub(crate) fn cast_slice<T: Element>(bytes: &[u8]) -> Result<&[T], ViewError> {
    let len = typed_len::<T>(bytes)?;
    if len == 0 {
        return Ok(&[]);
    }
    // SAFETY: alignment, length and values were checked by `typed_len`; the borrow is the bytes' own.
    Ok(unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), len) })
}

/// Views bytes as elements, for writing.
pub(crate) fn cast_mut_slice<T: Element>(bytes: &mut [u8]) -> Result<&mut [T], ViewError> {
    let len = typed_len::<T>(bytes)?;
    if len == 0 {
        return Ok(&mut []);
    }
    // SAFETY: as in `cast_slice`, and the borrow is exclusive; an element's bytes are always valid bytes.
    Ok(unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), len) })
}

/// Reads one element from bytes at any alignment.
pub(crate) fn read_element<T: Element>(bytes: &[u8]) -> Result<T, ViewError> {
    if bytes.len() != size_of::<T>() {
        return Err(ViewError::PartialElement {
            len_bytes: bytes.len(),
            dtype: T::DTYPE,
        });
    }
    T::validate(bytes)?;
    // SAFETY: the length is that of one element, and the bytes passed its validation.
    Ok(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout_matches<T: Element>() {
        assert_eq!(Some(size_of::<T>()), T::DTYPE.size_bytes(), "{}", T::DTYPE);
        assert_eq!(align_of::<T>(), T::DTYPE.alignment_bytes(), "{}", T::DTYPE);
        assert!(!std::mem::needs_drop::<T>());
    }

    #[test]
    fn rust_types_lie_in_memory_as_their_dtype_says() {
        layout_matches::<bool>();
        layout_matches::<u8>();
        layout_matches::<i8>();
        layout_matches::<u16>();
        layout_matches::<i16>();
        layout_matches::<u32>();
        layout_matches::<i32>();
        layout_matches::<u64>();
        layout_matches::<i64>();
        layout_matches::<f16>();
        layout_matches::<bf16>();
        layout_matches::<f32>();
        layout_matches::<f64>();
        layout_matches::<[f32; 2]>();
        layout_matches::<F8E4M3>();
        layout_matches::<F8E5M2>();
    }

    #[test]
    fn only_zero_and_one_are_bools() {
        assert_eq!(cast_slice::<bool>(&[0, 1, 1]).unwrap(), [false, true, true]);
        let error = cast_slice::<bool>(&[0, 1, 2, 3]).unwrap_err();
        assert!(
            matches!(
                error,
                ViewError::InvalidValue {
                    offset_bytes: 2,
                    value: 2,
                    ..
                }
            ),
            "{error}"
        );
        assert!(read_element::<bool>(&[255]).is_err());
    }

    #[test]
    fn misaligned_and_partial_elements_are_refused() {
        let words = [0_u64; 2];
        let bytes = bytes_of(&words);
        assert!(matches!(
            cast_slice::<u32>(&bytes[1..5]),
            Err(ViewError::Misaligned {
                required_bytes: 4,
                ..
            })
        ));
        assert!(matches!(
            cast_slice::<u32>(&bytes[..5]),
            Err(ViewError::PartialElement { len_bytes: 5, .. })
        ));
        assert!(cast_slice::<u32>(&bytes[1..1]).unwrap().is_empty());
        assert_eq!(read_element::<u32>(&bytes[1..5]).unwrap(), 0);
    }
}
