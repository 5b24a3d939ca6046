//! The contracts that all tiers share.

mod error;

pub use error::{ContractError, ErrorKind};
