//! How elements are stored in a dataset.

use core_view::DType;
use hdf5_pure::{
    CompoundTypeBuilder, Datatype, DatatypeByteOrder, EnumTypeBuilder, FixedPointLayout,
    FloatingPointLayout, make_f32_type, make_f64_type, make_i8_type, make_u8_type,
};

use crate::WeightError;

/// The datatype that h5py gives an array of the numpy type of that name.
///
/// bfloat16, which numpy lacks, becomes the 16-bit float that it is, which h5py reads as float32. The
/// narrow floats become bytes; those below a byte are packed, see [`is_packed`].
pub(super) fn datatype_of(dtype: DType) -> Result<Datatype, WeightError> {
    Ok(match dtype {
        DType::U8
        | DType::F8E4M3
        | DType::F8E5M2
        | DType::F8E8M0
        | DType::F8E4M3Fnuz
        | DType::F8E5M2Fnuz
        | DType::F6E2M3
        | DType::F6E3M2
        | DType::F4 => make_u8_type(),
        DType::Bool => EnumTypeBuilder::with_base(make_i8_type())
            .value("FALSE", 0)
            .value("TRUE", 1)
            .build()
            .map_err(|error| WeightError::storage("describe booleans", error))?,
        DType::I8 => make_i8_type(),
        DType::U16 => integer(2, false),
        DType::I16 => integer(2, true),
        DType::U32 => integer(4, false),
        DType::I32 => integer(4, true),
        DType::U64 => integer(8, false),
        DType::I64 => integer(8, true),
        DType::F16 => float16(10, 5, 15),
        DType::BF16 => float16(7, 8, 127),
        DType::F32 => make_f32_type(),
        DType::F64 => make_f64_type(),
        DType::C64 => CompoundTypeBuilder::new()
            .f32_field("r")
            .f32_field("i")
            .build()
            .map_err(|error| WeightError::storage("describe complex numbers", error))?,
        other => {
            return Err(WeightError::InvalidConfig {
                field: "dtype",
                reason: format!("{other} has no counterpart in HDF5"),
            });
        }
    })
}

/// Whether elements share bytes: the dataset is then one row of the packed bytes, whatever the shape.
pub(super) fn is_packed(dtype: DType) -> bool {
    dtype.size_bytes().is_none()
}

/// Whether a dataset's elements are those of `dtype`, bit for bit.
pub(super) fn holds(stored: &Datatype, dtype: DType) -> bool {
    if datatype_of(dtype).is_ok_and(|expected| expected == *stored) {
        return true;
    }
    match (stored, dtype) {
        // The names of the two values are not ours to prescribe.
        (Datatype::Enumeration { size: 1, .. }, DType::Bool) => true,
        // What has no name in numpy may have been stored as bytes of its width.
        (Datatype::Opaque { size, .. }, DType::BF16) => *size == 2,
        (Datatype::FixedPoint { size, .. }, DType::BF16) => *size == 2 && is_little_endian(stored),
        _ => false,
    }
}

/// Whether numbers are stored in the order in which they are kept here.
pub(super) fn is_little_endian(stored: &Datatype) -> bool {
    match stored {
        Datatype::FixedPoint {
            size, byte_order, ..
        }
        | Datatype::FloatingPoint {
            size, byte_order, ..
        } => *size == 1 || *byte_order == DatatypeByteOrder::LittleEndian,
        _ => true,
    }
}

fn integer(size: u32, signed: bool) -> Datatype {
    Datatype::FixedPoint {
        size,
        byte_order: DatatypeByteOrder::LittleEndian,
        layout: FixedPointLayout {
            signed,
            bit_offset: 0,
            bit_precision: (8 * size) as u16,
        },
    }
}

fn float16(mantissa_size: u8, exponent_size: u8, exponent_bias: u32) -> Datatype {
    Datatype::FloatingPoint {
        size: 2,
        byte_order: DatatypeByteOrder::LittleEndian,
        layout: FloatingPointLayout {
            bit_offset: 0,
            bit_precision: 16,
            exponent_location: mantissa_size,
            exponent_size,
            mantissa_location: 0,
            mantissa_size,
            exponent_bias,
        },
    }
}
