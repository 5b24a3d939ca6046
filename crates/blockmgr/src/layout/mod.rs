//! Where the parts of a block lie in memory.
//!
//! A block holds, for each layer of a model, `outer_dim` planes (keys and values, say) of `page_size` tokens by `heads`
//! by `head_dim` elements. [`LayoutType`] says how blocks and layers are divided among regions of memory,
//! [`AxisOrder`] in which order the axes follow within a block. [`Layout`] computes the rest, checked; and a
//! [`ConversionPlan`] takes a block from any layout to any other of the same model.

mod axes;
mod config;
mod convert;
mod geometry;
mod place;
mod requirements;

pub use axes::{Axis, AxisOrder};
pub use config::{LayerGroup, LayoutConfig, LayoutConfigBuilder, LayoutType};
pub use convert::{ConversionPlan, CopyRun};
pub use geometry::Layout;
pub use place::{BlockPiece, LayerPlace, Region};
pub use requirements::calculate_storage_requirements;
