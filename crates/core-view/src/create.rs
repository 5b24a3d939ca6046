//! A storage for given data on a given device, converted on the way.

use half::{bf16, f16};

use crate::element::bytes_of;
use crate::storage::zeroed_buffer;
use crate::{DType, Device, Element, F8E4M3, F8E5M2, Tensor, TensorStorage, ViewError};

/// Copies data to a device as a tensor of one dimension, converted to `dtype` if one is given.
///
/// Floats are rounded to the nearest value of the target type; an integer, a `bool` or the magnitude of a
/// float that the target type can't hold is an error and never wraps or saturates.
///
/// ```
/// use core_view::{DType, Device, create_storage};
///
/// let tensor = create_storage(&[1_i64, 2, 3], "cpu".parse()?, Some(DType::F32))?;
/// assert_eq!(tensor.to_vec::<f32>()?, [1.0, 2.0, 3.0]);
/// assert!(create_storage(&[300_i32], Device::Cpu, Some(DType::U8)).is_err());
/// # Ok::<(), core_view::ViewError>(())
/// ```
///
/// # Errors
/// [`ViewError::UnsupportedDevice`], [`ViewError::Unrepresentable`] for a value that the type can't hold,
/// [`ViewError::NotConvertible`] between types that have no conversion, [`ViewError::Storage`].
pub fn create_storage<T: Element>(
    data: &[T],
    device: Device,
    dtype: Option<DType>,
) -> Result<Tensor, ViewError> {
    device.require_available()?;
    let target = dtype.unwrap_or(T::DTYPE);
    if target == T::DTYPE {
        return Tensor::from_slice(data, &[data.len()]);
    }
    let not_convertible = || ViewError::NotConvertible {
        from: T::DTYPE,
        to: target,
    };
    let size_bytes = target
        .size_bytes()
        .filter(|_| is_number(target) && is_number(T::DTYPE))
        .ok_or_else(not_convertible)?;
    let mut buffer = zeroed_buffer(data.len().saturating_mul(size_bytes))?;
    for (index, (value, place)) in data
        .iter()
        .zip(buffer.chunks_exact_mut(size_bytes))
        .enumerate()
    {
        let number =
            decode(T::DTYPE, bytes_of(std::slice::from_ref(value))).ok_or_else(not_convertible)?;
        encode(number, target, place).ok_or_else(|| ViewError::Unrepresentable {
            index,
            value: format!("{value:?}"),
            dtype: target,
        })?;
    }
    Tensor::from_storage(TensorStorage::from(buffer), target, &[data.len()])
}

/// A value between two types.
#[derive(Clone, Copy)]
enum Number {
    Integer(i128),
    Float(f64),
}

fn is_number(dtype: DType) -> bool {
    !matches!(
        dtype,
        DType::C64
            | DType::F8E8M0
            | DType::F8E4M3Fnuz
            | DType::F8E5M2Fnuz
            | DType::F6E2M3
            | DType::F6E3M2
            | DType::F4
    )
}

/// The value of one element; `None` if the bytes are not one element of a type with numbers.
fn decode(dtype: DType, bytes: &[u8]) -> Option<Number> {
    macro_rules! integer {
        ($type:ty) => {
            Number::Integer(<$type>::from_ne_bytes(bytes.try_into().ok()?).into())
        };
    }
    Some(match dtype {
        DType::Bool | DType::U8 => integer!(u8),
        DType::I8 => integer!(i8),
        DType::U16 => integer!(u16),
        DType::I16 => integer!(i16),
        DType::U32 => integer!(u32),
        DType::I32 => integer!(i32),
        DType::U64 => integer!(u64),
        DType::I64 => integer!(i64),
        DType::F16 => Number::Float(f16::from_ne_bytes(bytes.try_into().ok()?).to_f64()),
        DType::BF16 => Number::Float(bf16::from_ne_bytes(bytes.try_into().ok()?).to_f64()),
        DType::F32 => Number::Float(f32::from_ne_bytes(bytes.try_into().ok()?).into()),
        DType::F64 => Number::Float(f64::from_ne_bytes(bytes.try_into().ok()?)),
        DType::F8E4M3 => Number::Float(F8E4M3(*bytes.first()?).to_f32().into()),
        DType::F8E5M2 => Number::Float(F8E5M2(*bytes.first()?).to_f32().into()),
        _ => return None,
    })
}

impl Number {
    /// The value as an integer, where it is one.
    fn to_integer(self) -> Option<i128> {
        match self {
            Self::Integer(value) => Some(value),
            // All integer types end far below the point where `as` saturates.
            Self::Float(value) => (value.fract() == 0.0).then_some(value as i128),
        }
    }

    fn to_f64(self) -> f64 {
        match self {
            Self::Integer(value) => value as f64,
            Self::Float(value) => value,
        }
    }

    fn to_f32(self) -> f32 {
        match self {
            // Through `f64` it would be rounded twice.
            Self::Integer(value) => value as f32,
            Self::Float(value) => value as f32,
        }
    }
}

/// Writes a value as an element; `None` if the type can't hold it.
fn encode(number: Number, dtype: DType, place: &mut [u8]) -> Option<()> {
    macro_rules! integer {
        ($type:ty) => {
            place.copy_from_slice(&<$type>::try_from(number.to_integer()?).ok()?.to_ne_bytes())
        };
    }
    let wide = number.to_f64();
    // A finite value must not become infinite.
    let kept = |is_infinite: bool| (!is_infinite || wide.is_infinite()).then_some(());
    match dtype {
        DType::Bool => place
            .copy_from_slice(&[number.to_integer().filter(|value| matches!(value, 0 | 1))? as u8]),
        DType::U8 => integer!(u8),
        DType::I8 => integer!(i8),
        DType::U16 => integer!(u16),
        DType::I16 => integer!(i16),
        DType::U32 => integer!(u32),
        DType::I32 => integer!(i32),
        DType::U64 => integer!(u64),
        DType::I64 => integer!(i64),
        DType::F16 => {
            let value = f16::from_f64(wide);
            kept(value.is_infinite())?;
            place.copy_from_slice(&value.to_ne_bytes());
        }
        DType::BF16 => {
            let value = bf16::from_f64(wide);
            kept(value.is_infinite())?;
            place.copy_from_slice(&value.to_ne_bytes());
        }
        DType::F32 => {
            let value = number.to_f32();
            kept(value.is_infinite())?;
            place.copy_from_slice(&value.to_ne_bytes());
        }
        DType::F64 => place.copy_from_slice(&wide.to_ne_bytes()),
        DType::F8E4M3 => place.copy_from_slice(&[F8E4M3::from_f64(wide)?.0]),
        DType::F8E5M2 => place.copy_from_slice(&[F8E5M2::from_f64(wide)?.0]),
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted<T: Element, U: Element>(data: &[T]) -> Result<Vec<U>, ViewError> {
        create_storage(data, Device::Cpu, Some(U::DTYPE))?.to_vec::<U>()
    }

    #[test]
    fn data_keeps_its_type_unless_another_is_asked_for() {
        let tensor = create_storage(&[1_u16, 2], Device::Cpu, None).unwrap();
        assert_eq!((tensor.dtype(), tensor.shape()), (DType::U16, &[2][..]));
        assert_eq!(converted::<bool, i64>(&[true, false]).unwrap(), [1, 0]);
        assert_eq!(converted::<u8, bool>(&[1, 0]).unwrap(), [true, false]);
        assert_eq!(converted::<f64, i8>(&[-128.0]).unwrap(), [-128]);
        assert_eq!(
            converted::<f32, bf16>(&[1.0, -2.5]).unwrap(),
            [bf16::ONE, bf16::from_f32(-2.5)]
        );
        assert_eq!(
            converted::<u64, f32>(&[u64::MAX]).unwrap(),
            [18446744073709551615.0]
        );
        assert!(converted::<f64, f32>(&[f64::NAN]).unwrap()[0].is_nan());
        assert_eq!(
            converted::<f64, f16>(&[f64::INFINITY]).unwrap(),
            [f16::INFINITY]
        );
        assert_eq!(converted::<F8E5M2, f32>(&[F8E5M2(0x3c)]).unwrap(), [1.0]);
        assert!(
            create_storage::<f32>(&[], Device::Cpu, Some(DType::I8))
                .unwrap()
                .shape()
                == [0]
        );
    }

    #[test]
    fn nothing_wraps_saturates_or_overflows() {
        fn refused<T: Element, U: Element>(value: T) {
            let error = converted::<T, U>(&[value]).unwrap_err();
            assert!(
                matches!(error, ViewError::Unrepresentable { index: 0, dtype, .. } if dtype == U::DTYPE),
                "{error}"
            );
        }
        refused::<i32, u8>(256);
        refused::<i32, u64>(-1);
        refused::<u64, i64>(u64::MAX);
        refused::<f64, i64>(9.3e18);
        refused::<f32, i32>(0.5);
        refused::<f32, i32>(f32::NAN);
        refused::<f32, i64>(f32::INFINITY);
        refused::<u8, bool>(2);
        refused::<f64, f32>(1e300);
        refused::<f32, f16>(70000.0);
        refused::<f32, F8E4M3>(500.0);
        refused::<f32, F8E4M3>(f32::INFINITY);
        refused::<f32, F8E5M2>(1e6);
    }

    #[test]
    fn types_without_numbers_and_missing_devices_are_named() {
        assert!(matches!(
            create_storage(&[1.0_f32], Device::Cpu, Some(DType::F4)),
            Err(ViewError::NotConvertible {
                from: DType::F32,
                to: DType::F4
            })
        ));
        assert!(create_storage(&[[1.0_f32, 0.0]], Device::Cpu, Some(DType::F32)).is_err());
        let error = create_storage(&[1_u8], Device::Cuda(0), None)
            .unwrap_err()
            .to_string();
        assert!(error.contains("available: cpu"), "{error}");
    }
}
