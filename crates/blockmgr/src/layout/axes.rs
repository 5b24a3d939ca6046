//! The axes of a block, and their order.

use crate::Error;

/// What an index into a block counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Axis {
    /// Layers of the model.
    Layer,
    /// Planes of a layer, as keys and values.
    Outer,
    /// Tokens of the page.
    Token,
    /// Attention heads.
    Head,
    /// Elements of a head.
    Dim,
}

impl Axis {
    /// All axes, in the order of [`AxisOrder::NHD`].
    pub const ALL: [Self; 5] = [Self::Layer, Self::Outer, Self::Token, Self::Head, Self::Dim];
}

/// The order of a block's axes, from the one that strides most to the one that strides least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AxisOrder([Axis; 5]);

impl AxisOrder {
    /// Layer, plane, token, head, element: what attention kernels call NHD. All elements of a token lie together.
    pub const NHD: Self = Self(Axis::ALL);

    /// Layer, plane, head, token, element: HND. All tokens of a head lie together.
    pub const HND: Self = Self([Axis::Layer, Axis::Outer, Axis::Head, Axis::Token, Axis::Dim]);

    /// Head first: a share of the heads is one range of the block, whatever the layers, so that blocks can be cut
    /// anew for another number of devices.
    pub const UNIVERSAL: Self =
        Self([Axis::Head, Axis::Layer, Axis::Outer, Axis::Token, Axis::Dim]);

    /// An order of one's own.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] unless each axis occurs once.
    pub fn new(axes: [Axis; 5]) -> Result<Self, Error> {
        let mut sorted = axes;
        sorted.sort_unstable();
        if sorted == Axis::ALL {
            Ok(Self(axes))
        } else {
            Err(Error::InvalidConfig {
                field: "order",
                value: format!("{axes:?}"),
                reason: "each axis occurs once",
            })
        }
    }

    /// The axes, from the one that strides most.
    pub const fn axes(self) -> [Axis; 5] {
        self.0
    }

    /// Whether all of a layer lies together.
    pub fn is_by_layer(self) -> bool {
        self.0[0] == Axis::Layer
    }

    /// Whether all of a layer's plane lies together.
    pub fn is_by_plane(self) -> bool {
        self.0[0] == Axis::Layer && self.0[1] == Axis::Outer
    }
}

impl Default for AxisOrder {
    fn default() -> Self {
        Self::NHD
    }
}
