//! Where a tensor's memory is.

use std::fmt;
use std::str::FromStr;

use crate::ViewError;

/// A place where tensors can live.
///
/// ```
/// use core_view::Device;
///
/// assert_eq!("cuda:1".parse::<Device>()?, Device::Cuda(1));
/// assert_eq!("cuda".parse::<Device>()?.to_string(), "cuda:0");
/// assert!("gpu".parse::<Device>().is_err());
/// # Ok::<(), core_view::ViewError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Device {
    /// Host memory of any kind, page-locked memory included.
    #[default]
    Cpu,
    /// Memory of the CUDA device with this ordinal.
    Cuda(u32),
}

impl Device {
    /// The devices that tensors of this crate can be placed on, for messages.
    pub(crate) const AVAILABLE: &'static str = "cpu";

    /// Passes for a device that tensors of this crate can be placed on.
    pub(crate) fn require_available(self) -> Result<(), ViewError> {
        match self {
            Self::Cpu => Ok(()),
            device => Err(ViewError::UnsupportedDevice {
                device,
                available: Self::AVAILABLE,
            }),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

impl FromStr for Device {
    type Err = ViewError;

    fn from_str(name: &str) -> Result<Self, ViewError> {
        let unknown = || ViewError::UnknownDevice { name: name.into() };
        match name.split_once(':') {
            None if name == "cpu" => Ok(Self::Cpu),
            None if name == "cuda" => Ok(Self::Cuda(0)),
            // `parse` alone would take a leading plus sign.
            Some(("cuda", ordinal)) if ordinal.bytes().all(|byte| byte.is_ascii_digit()) => {
                ordinal.parse().map(Self::Cuda).map_err(|_| unknown())
            }
            _ => Err(unknown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_exactly() {
        assert_eq!("cpu".parse::<Device>().unwrap(), Device::Cpu);
        assert_eq!("cuda".parse::<Device>().unwrap(), Device::Cuda(0));
        assert_eq!("cuda:12".parse::<Device>().unwrap(), Device::Cuda(12));
        for wrong in [
            "",
            "CPU",
            "cpu:0",
            "cuda:",
            "cuda:+1",
            "cuda:-1",
            "cuda:99999999999",
            "tpu",
        ] {
            let error = wrong.parse::<Device>().unwrap_err().to_string();
            assert!(error.contains("cuda:N"), "{error}");
        }
    }

    #[test]
    fn an_unsupported_device_says_which_exist() {
        let error = Device::Cuda(1).require_available().unwrap_err().to_string();
        assert!(
            error.contains("cuda:1") && error.contains("available: cpu"),
            "{error}"
        );
    }
}
