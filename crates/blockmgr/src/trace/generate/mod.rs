//! Traces made from a seed, for what services of different kinds are asked.
//!
//! ```
//! use blockmgr::trace::generate::{Generator, Scenario};
//!
//! let made: Vec<_> = Generator::new(Scenario::Agents, 7).take(100).collect();
//! assert_eq!(made, Generator::new(Scenario::Agents, 7).take(100).collect::<Vec<_>>());
//! assert!(made.windows(2).all(|pair| pair[0].timestamp_ms <= pair[1].timestamp_ms));
//! ```

mod random;
mod scenario;
mod service;
mod session;

pub use scenario::Scenario;
pub use service::Generator;
