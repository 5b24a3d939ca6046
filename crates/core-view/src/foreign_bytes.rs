//! `bytes::Bytes` as an owner and as a view.

use std::ptr::NonNull;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::{Access, BufferOwner, TensorStorage};

/// The bytes, shared at first; unshared once somebody wants to write to them and they can be.
enum BytesOwner {
    Shared(Bytes),
    Unique { _bytes: BytesMut },
}

// SAFETY: `Bytes` and `BytesMut` stay at their address while they live; the latter is not touched here
// after its pointer was given out.
unsafe impl BufferOwner for BytesOwner {
    fn access(&self) -> Access {
        match self {
            Self::Shared(_) => Access::ReadOnly,
            Self::Unique { .. } => Access::ReadWrite,
        }
    }

    fn make_writable(&mut self) -> Option<NonNull<u8>> {
        let Self::Shared(bytes) = self else {
            return None;
        };
        match std::mem::take(bytes).try_into_mut() {
            Ok(mut unique) => {
                // The pointer that views hold may only be read through, so that they need this one.
                let pointer = NonNull::new(unique.as_mut_ptr())?;
                *self = Self::Unique { _bytes: unique };
                Some(pointer)
            }
            Err(bytes) => {
                *self = Self::Shared(bytes);
                None
            }
        }
    }
}

impl From<Bytes> for TensorStorage {
    /// Takes over the bytes, without a copy. They can be written to if nobody else holds them.
    fn from(bytes: Bytes) -> Self {
        let pointer = NonNull::new(bytes.as_ptr().cast_mut()).unwrap_or(NonNull::dangling());
        let len = bytes.len();
        // SAFETY: the bytes stay valid and unchanged while the owner lives; it lets nobody write before it
        // is their only holder, and hands out a pointer for that.
        unsafe { Self::from_owner(pointer, len, Arc::new(BytesOwner::Shared(bytes))) }
    }
}

impl From<TensorStorage> for Bytes {
    /// The same bytes, without a copy; the memory lives as long as any part of them.
    fn from(storage: TensorStorage) -> Self {
        Self::from_owner(storage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ViewError;

    #[test]
    fn bytes_go_both_ways_without_a_copy() {
        let bytes = Bytes::from(vec![1, 2, 3, 4]);
        let address = bytes.as_ptr();
        let storage = TensorStorage::from(bytes.slice(1..));
        assert_eq!(
            (storage.as_slice(), storage.as_ptr()),
            (&[2, 3, 4][..], address.wrapping_add(1))
        );
        let back = Bytes::from(storage.view(1, 2).unwrap());
        drop((bytes, storage));
        assert_eq!(
            (&back[..], back.as_ptr()),
            (&[3, 4][..], address.wrapping_add(2))
        );
        assert!(TensorStorage::from(Bytes::new()).is_empty());
        assert!(Bytes::from(TensorStorage::from_vec(Vec::<u8>::new())).is_empty());
    }

    #[test]
    fn bytes_are_written_only_by_their_only_holder() {
        let bytes = Bytes::from(vec![1, 2, 3, 4]);
        let mut storage = TensorStorage::from(bytes.clone()).view(2, 2).unwrap();
        assert!(matches!(storage.get_mut(), Err(ViewError::ReadOnly)));
        let mut storage = storage.try_into_unique().unwrap_err();
        drop(bytes);
        let address = storage.as_ptr();
        storage.get_mut().unwrap()[0] = 9;
        let buffer = storage.try_into_unique().unwrap();
        assert_eq!((&buffer[..], buffer.as_ptr()), (&[9, 4][..], address));
    }

    #[test]
    fn bytes_of_others_stay_read_only() {
        let mut storage = TensorStorage::from(Bytes::from_static(b"abc"));
        assert!(matches!(storage.get_mut(), Err(ViewError::ReadOnly)));
        storage.make_mut().unwrap()[0] = b'x';
        assert_eq!(storage.as_slice(), b"xbc");
    }
}
