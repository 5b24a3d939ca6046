//! The structures of DLPack 1, laid out as its C header demands.

use std::ffi::c_void;

use crate::DType;

/// The major version; another one has another layout.
pub const VERSION_MAJOR: u32 = 1;
/// The minor version that exported tensors carry.
pub const VERSION_MINOR: u32 = 1;

/// The tensor may not be written.
pub const FLAG_READ_ONLY: u64 = 1;
/// The producer made a copy for the consumer.
pub const FLAG_IS_COPIED: u64 = 1 << 1;
/// Elements narrower than a byte take a byte each.
pub const FLAG_SUBBYTE_PADDED: u64 = 1 << 2;

/// `kDLCPU`
pub(super) const DEVICE_CPU: i32 = 1;
/// `kDLCUDAHost`: page-locked host memory.
pub(super) const DEVICE_CUDA_HOST: i32 = 3;

/// `DLPackVersion`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct DlVersion {
    /// Major version.
    pub major: u32,
    /// Minor version.
    pub minor: u32,
}

/// `DLDevice`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct DlDevice {
    /// `DLDeviceType`: 1 for the host.
    pub device_type: i32,
    /// Which of several.
    pub device_id: i32,
}

/// `DLDataType`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct DlDataType {
    /// `DLDataTypeCode`
    pub code: u8,
    /// Width in bits.
    pub bits: u8,
    /// Elements in a vector element; 1 for plain ones.
    pub lanes: u16,
}

/// `DLTensor`
#[derive(Debug)]
#[repr(C)]
pub struct DlTensor {
    /// Start of the memory; null if there are no elements.
    pub data: *mut c_void,
    /// Where the memory is.
    pub device: DlDevice,
    /// Number of dimensions.
    pub ndim: i32,
    /// Type of the elements.
    pub dtype: DlDataType,
    /// `ndim` lengths.
    pub shape: *mut i64,
    /// `ndim` strides in elements; null for row-major order.
    pub strides: *mut i64,
    /// Distance in bytes of the first element from `data`.
    pub byte_offset: u64,
}

/// `DLManagedTensorVersioned`
#[derive(Debug)]
#[repr(C)]
pub struct DlManagedTensorVersioned {
    /// Version of the layout.
    pub version: DlVersion,
    /// The producer's own.
    pub manager_ctx: *mut c_void,
    /// Frees the tensor; called by the consumer exactly once.
    pub deleter: Option<unsafe extern "C" fn(*mut DlManagedTensorVersioned)>,
    /// Bits of `FLAG_…`.
    pub flags: u64,
    /// The tensor.
    pub dl_tensor: DlTensor,
}

#[cfg(target_pointer_width = "64")]
const _: () = {
    assert!(size_of::<DlTensor>() == 48);
    assert!(size_of::<DlManagedTensorVersioned>() == 80);
    assert!(std::mem::offset_of!(DlManagedTensorVersioned, manager_ctx) == 8);
    assert!(std::mem::offset_of!(DlManagedTensorVersioned, flags) == 24);
    assert!(std::mem::offset_of!(DlManagedTensorVersioned, dl_tensor) == 32);
};

/// Code and width in DLPack of each type.
const DTYPES: [(DType, u8, u8); 22] = [
    (DType::I8, 0, 8),
    (DType::I16, 0, 16),
    (DType::I32, 0, 32),
    (DType::I64, 0, 64),
    (DType::U8, 1, 8),
    (DType::U16, 1, 16),
    (DType::U32, 1, 32),
    (DType::U64, 1, 64),
    (DType::F16, 2, 16),
    (DType::F32, 2, 32),
    (DType::F64, 2, 64),
    (DType::BF16, 4, 16),
    (DType::C64, 5, 64),
    (DType::Bool, 6, 8),
    (DType::F8E4M3, 10, 8),
    (DType::F8E4M3Fnuz, 11, 8),
    (DType::F8E5M2, 12, 8),
    (DType::F8E5M2Fnuz, 13, 8),
    (DType::F8E8M0, 14, 8),
    (DType::F6E2M3, 15, 6),
    (DType::F6E3M2, 16, 6),
    (DType::F4, 17, 4),
];

impl DlDataType {
    /// The counterpart of a type; `None` if DLPack has none.
    pub(super) fn of(dtype: DType) -> Option<Self> {
        let (_, code, bits) = DTYPES.into_iter().find(|row| row.0 == dtype)?;
        Some(Self {
            code,
            bits,
            lanes: 1,
        })
    }

    /// The type; `None` if there is no counterpart here.
    pub(super) fn to_dtype(self) -> Option<DType> {
        let row = DTYPES
            .into_iter()
            .find(|row| (row.1, row.2, 1) == (self.code, self.bits, self.lanes))?;
        Some(row.0)
    }
}
