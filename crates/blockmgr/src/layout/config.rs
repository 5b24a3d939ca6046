//! What a layout is asked to be.

use super::{AxisOrder, Layout};
use crate::Error;

/// How blocks and layers are divided among regions of memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LayoutType {
    /// One region, `[blocks, layers, outer, page, inner]`: a block lies together.
    #[default]
    FullyContiguous,
    /// A region for each block, `[layers, outer, page, inner]`, placed anywhere and found by a table.
    Paged,
    /// A region for each layer.
    LayerSeparate {
        /// Whether a region is outer-major, `[outer, blocks, page, inner]`, rather than block-major,
        /// `[blocks, outer, page, inner]`.
        outer_major: bool,
    },
}

/// Layers of one shape that follow each other. A model whose layers differ has several groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LayerGroup {
    /// Layers of this shape.
    pub num_layers: usize,
    /// Planes a layer: 2 for keys and values, 1 for what holds both in one.
    pub outer_dim: usize,
    /// Attention heads kept, of this device.
    pub heads: usize,
    /// Elements a head.
    pub head_dim: usize,
}

impl LayerGroup {
    /// Elements of a token in a plane.
    pub fn inner_dim(&self) -> usize {
        self.heads.saturating_mul(self.head_dim)
    }
}

/// The shape of all blocks of a tier. [`LayoutConfig::builder`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayoutConfig {
    pub(super) layout_type: LayoutType,
    pub(super) num_blocks: usize,
    pub(super) groups: Vec<LayerGroup>,
    pub(super) page_size: usize,
    pub(super) dtype_bytes: usize,
    pub(super) alignment: usize,
    pub(super) order: AxisOrder,
}

impl LayoutConfig {
    /// A configuration to be filled in.
    pub fn builder() -> LayoutConfigBuilder {
        LayoutConfigBuilder::default()
    }
}

/// Collects a [`LayoutConfig`]; `build` checks it.
///
/// ```
/// use blockmgr::layout::{AxisOrder, LayoutConfig, LayoutType};
///
/// let layout = LayoutConfig::builder()
///     .layout_type(LayoutType::FullyContiguous)
///     .num_blocks(1000)
///     .num_layers(32)
///     .outer_dim(2)
///     .page_size(16)
///     .heads(32)
///     .head_dim(128)
///     .dtype_bytes(2)
///     .order(AxisOrder::HND)
///     .build()?;
/// assert_eq!(layout.size_bytes(), 8_388_608_000);
/// # Ok::<(), blockmgr::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct LayoutConfigBuilder {
    layout_type: LayoutType,
    num_blocks: Option<usize>,
    groups: Vec<LayerGroup>,
    num_layers: Option<usize>,
    outer_dim: Option<usize>,
    heads: Option<usize>,
    head_dim: Option<usize>,
    page_size: Option<usize>,
    dtype_bytes: Option<usize>,
    alignment: Option<usize>,
    order: AxisOrder,
}

impl LayoutConfigBuilder {
    /// How blocks and layers are divided among regions; fully contiguous by default.
    pub fn layout_type(mut self, layout_type: LayoutType) -> Self {
        self.layout_type = layout_type;
        self
    }

    /// Blocks; required.
    pub fn num_blocks(mut self, num_blocks: usize) -> Self {
        self.num_blocks = Some(num_blocks);
        self
    }

    /// Adds layers of one shape, after those added before. Stands in for `num_layers`, `outer_dim`, `heads` and
    /// `head_dim`, which are for models whose layers are all alike.
    pub fn group(mut self, group: LayerGroup) -> Self {
        self.groups.push(group);
        self
    }

    /// Layers of the model.
    pub fn num_layers(mut self, num_layers: usize) -> Self {
        self.num_layers = Some(num_layers);
        self
    }

    /// Planes a layer: 2 for keys and values. There is no default: 1 and 2 differ in what a layer means.
    pub fn outer_dim(mut self, outer_dim: usize) -> Self {
        self.outer_dim = Some(outer_dim);
        self
    }

    /// Attention heads; 1 by default, with `inner_dim`.
    pub fn heads(mut self, heads: usize) -> Self {
        self.heads = Some(heads);
        self
    }

    /// Elements a head.
    pub fn head_dim(mut self, head_dim: usize) -> Self {
        self.head_dim = Some(head_dim);
        self
    }

    /// Elements of a token in a plane, where heads are not told apart: one head of so many elements.
    pub fn inner_dim(self, inner_dim: usize) -> Self {
        self.heads(1).head_dim(inner_dim)
    }

    /// Tokens a block; required.
    pub fn page_size(mut self, page_size: usize) -> Self {
        self.page_size = Some(page_size);
        self
    }

    /// Bytes an element; 2 by default.
    pub fn dtype_bytes(mut self, dtype_bytes: usize) -> Self {
        self.dtype_bytes = Some(dtype_bytes);
        self
    }

    /// What the address of each block is a multiple of, in its region and in memory; a power of two, 1 by default.
    pub fn alignment(mut self, alignment: usize) -> Self {
        self.alignment = Some(alignment);
        self
    }

    /// The order of the axes within a block; [`AxisOrder::NHD`] by default.
    pub fn order(mut self, order: AxisOrder) -> Self {
        self.order = order;
        self
    }

    /// The layout.
    ///
    /// # Errors
    /// [`Error::MissingConfig`] and [`Error::InvalidConfig`] name the field; [`Error::SizeOverflow`] for more than a
    /// machine can address.
    pub fn build(self) -> Result<Layout, Error> {
        let groups = self.groups()?;
        let config = LayoutConfig {
            layout_type: self.layout_type,
            num_blocks: required("num_blocks", self.num_blocks)?,
            groups,
            page_size: required("page_size", self.page_size)?,
            dtype_bytes: positive("dtype_bytes", self.dtype_bytes.unwrap_or(2))?,
            alignment: positive("alignment", self.alignment.unwrap_or(1))?,
            order: self.order,
        };
        if !config.alignment.is_power_of_two() {
            return Err(Error::InvalidConfig {
                field: "alignment",
                value: config.alignment.to_string(),
                reason: "it is a power of two",
            });
        }
        let separate = matches!(config.layout_type, LayoutType::LayerSeparate { .. });
        if separate && !config.order.is_by_plane() {
            return Err(Error::InvalidConfig {
                field: "order",
                value: format!("{:?}", config.order.axes()),
                reason: "with a region for each layer, layer and outer come first",
            });
        }
        Layout::new(config)
    }

    fn groups(&self) -> Result<Vec<LayerGroup>, Error> {
        let uniform = [self.num_layers, self.outer_dim, self.heads, self.head_dim];
        if self.groups.is_empty() {
            return Ok(vec![LayerGroup {
                num_layers: required("num_layers", self.num_layers)?,
                outer_dim: required("outer_dim", self.outer_dim)?,
                heads: positive("heads", self.heads.unwrap_or(1))?,
                head_dim: required("head_dim", self.head_dim)?,
            }]);
        }
        if uniform.iter().any(Option::is_some) {
            return Err(Error::InvalidConfig {
                field: "group",
                value: format!("{} groups beside a shape for all layers", self.groups.len()),
                reason: "set either groups, or num_layers, outer_dim, heads and head_dim",
            });
        }
        for group in &self.groups {
            positive("num_layers", group.num_layers)?;
            positive("outer_dim", group.outer_dim)?;
            positive("heads", group.heads)?;
            positive("head_dim", group.head_dim)?;
        }
        Ok(self.groups.clone())
    }
}

fn required(field: &'static str, value: Option<usize>) -> Result<usize, Error> {
    positive(field, value.ok_or(Error::MissingConfig { field })?)
}

fn positive(field: &'static str, value: usize) -> Result<usize, Error> {
    if value == 0 {
        return Err(Error::InvalidConfig {
            field,
            value: "0".to_owned(),
            reason: "it is at least 1",
        });
    }
    Ok(value)
}
