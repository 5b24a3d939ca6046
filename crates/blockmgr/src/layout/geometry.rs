//! Offsets and strides of a layout.

use super::requirements::{aligned, product, sum};
use super::{
    Axis, AxisOrder, BlockPiece, LayerGroup, LayerPlace, LayoutConfig, LayoutType, Region,
};
use crate::Error;

/// What the layers of a group have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
struct GroupGeometry {
    group: LayerGroup,
    /// The first layer, in the model.
    first_layer: usize,
    /// Of the group within a block, where layers are not separate.
    offset_bytes: usize,
    /// Strides in the order of [`Axis::ALL`].
    strides_bytes: [usize; 5],
    /// From block to block, where layers are separate.
    block_stride_bytes: usize,
    /// Of a layer's region, where layers are separate.
    region_bytes: usize,
}

/// Where everything of a tier's blocks is. [`LayoutConfig::builder`] makes one.
///
/// ```
/// use blockmgr::layout::{LayoutConfig, LayoutType};
///
/// let layout = LayoutConfig::builder()
///     .layout_type(LayoutType::LayerSeparate { outer_major: false })
///     .num_blocks(4)
///     .num_layers(2)
///     .outer_dim(2)
///     .page_size(16)
///     .inner_dim(64)
///     .build()?;
/// assert_eq!(layout.regions().len(), 2);
/// let key_and_value = 2 * 16 * 64 * 2;
/// assert_eq!(layout.layer(3, 1)?.offset_bytes, 3 * key_and_value);
/// # Ok::<(), blockmgr::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    config: LayoutConfig,
    groups: Vec<GroupGeometry>,
    num_layers: usize,
    block_bytes: usize,
    /// From block to block, where layers are not separate.
    block_stride_bytes: usize,
    regions: Vec<Region>,
    size_bytes: usize,
}

impl Layout {
    pub(super) fn new(config: LayoutConfig) -> Result<Self, Error> {
        let mut layout = Self {
            groups: Vec::with_capacity(config.groups.len()),
            num_layers: 0,
            block_bytes: 0,
            block_stride_bytes: 0,
            regions: Vec::new(),
            size_bytes: 0,
            config,
        };
        for index in 0..layout.config.groups.len() {
            let group = layout.config.groups[index];
            layout.add_group(group)?;
        }
        layout.block_stride_bytes = aligned(
            "the size of a block",
            layout.block_bytes,
            layout.config.alignment,
        )?;
        layout.add_regions()?;
        Ok(layout)
    }

    fn add_group(&mut self, group: LayerGroup) -> Result<(), Error> {
        let config = &self.config;
        let extents = [
            group.num_layers,
            group.outer_dim,
            config.page_size,
            group.heads,
            group.head_dim,
        ];
        let mut strides_bytes = [0; 5];
        let mut stride = config.dtype_bytes;
        for axis in config.order.axes().into_iter().rev() {
            strides_bytes[axis as usize] = stride;
            stride = product("the size of a block", &[stride, extents[axis as usize]])?;
        }
        let offset_bytes = self.block_bytes;
        self.block_bytes = sum("the size of a block", offset_bytes, stride)?;
        let plane_bytes = strides_bytes[Axis::Outer as usize];
        let layer_bytes = strides_bytes[Axis::Layer as usize];
        let mut block_stride_bytes = 0;
        let mut region_bytes = 0;
        if let LayoutType::LayerSeparate { outer_major } = config.layout_type {
            let what = "the size of a layer";
            let unit = if outer_major {
                plane_bytes
            } else {
                layer_bytes
            };
            block_stride_bytes = aligned(what, unit, config.alignment)?;
            let plane = product(what, &[block_stride_bytes, config.num_blocks])?;
            region_bytes = plane;
            if outer_major {
                strides_bytes[Axis::Outer as usize] = plane;
                region_bytes = product(what, &[plane, group.outer_dim])?;
            }
        }
        self.groups.push(GroupGeometry {
            group,
            first_layer: self.num_layers,
            offset_bytes,
            strides_bytes,
            block_stride_bytes,
            region_bytes,
        });
        self.num_layers = sum("the number of layers", self.num_layers, group.num_layers)?;
        Ok(())
    }

    fn add_regions(&mut self) -> Result<(), Error> {
        let what = "the size of all blocks";
        let num_blocks = self.config.num_blocks;
        let (count, size_bytes) = match self.config.layout_type {
            LayoutType::FullyContiguous => {
                (1, product(what, &[self.block_stride_bytes, num_blocks])?)
            }
            LayoutType::Paged => (
                num_blocks,
                product(what, &[self.block_stride_bytes, num_blocks])?,
            ),
            LayoutType::LayerSeparate { .. } => {
                let mut size_bytes = 0;
                for geometry in &self.groups {
                    let group = product(what, &[geometry.region_bytes, geometry.group.num_layers])?;
                    size_bytes = sum(what, size_bytes, group)?;
                }
                (self.num_layers, size_bytes)
            }
        };
        self.size_bytes = size_bytes;
        let alignment = self.config.alignment;
        let separate = matches!(self.config.layout_type, LayoutType::LayerSeparate { .. });
        self.regions = if separate {
            let layers = self.groups.iter().flat_map(|geometry| {
                let len_bytes = geometry.region_bytes;
                std::iter::repeat_n(
                    Region {
                        len_bytes,
                        alignment,
                    },
                    geometry.group.num_layers,
                )
            });
            layers.collect()
        } else {
            vec![
                Region {
                    len_bytes: size_bytes / count,
                    alignment
                };
                count
            ]
        };
        Ok(())
    }

    /// The regions of memory that the layout needs, in order of their numbers.
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// Bytes of all regions.
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// Bytes of a block, without padding.
    pub fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    /// From block to block, with padding; where layers are separate, what a block takes of all layers together.
    pub fn block_stride_bytes(&self) -> usize {
        self.block_stride_bytes
    }

    /// Blocks.
    pub fn num_blocks(&self) -> usize {
        self.config.num_blocks
    }

    /// Layers of all groups.
    pub fn num_layers(&self) -> usize {
        self.num_layers
    }

    /// Tokens a block.
    pub fn page_size(&self) -> usize {
        self.config.page_size
    }

    /// Bytes an element.
    pub fn dtype_bytes(&self) -> usize {
        self.config.dtype_bytes
    }

    /// What the address of each block is a multiple of.
    pub fn alignment(&self) -> usize {
        self.config.alignment
    }

    /// How blocks and layers are divided among regions.
    pub fn layout_type(&self) -> LayoutType {
        self.config.layout_type
    }

    /// The order of the axes within a block.
    pub fn order(&self) -> AxisOrder {
        self.config.order
    }

    /// The groups of layers.
    pub fn groups(&self) -> &[LayerGroup] {
        &self.config.groups
    }

    /// Where a layer of a block is.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] if there is no such block or layer.
    pub fn layer(&self, block: usize, layer: usize) -> Result<LayerPlace, Error> {
        self.check_block(block)?;
        let geometry = self
            .groups
            .iter()
            .rfind(|geometry| geometry.first_layer <= layer)
            .filter(|_| layer < self.num_layers)
            .ok_or(Error::OutOfRange {
                what: "layer",
                index: layer,
                count: self.num_layers,
            })?;
        let [layer_stride, strides_bytes @ ..] = geometry.strides_bytes;
        let in_block = geometry.offset_bytes + (layer - geometry.first_layer) * layer_stride;
        let (region, offset_bytes) = match self.config.layout_type {
            LayoutType::FullyContiguous => (0, block * self.block_stride_bytes + in_block),
            LayoutType::Paged => (block, in_block),
            LayoutType::LayerSeparate { .. } => (layer, block * geometry.block_stride_bytes),
        };
        let group = &geometry.group;
        Ok(LayerPlace {
            region,
            offset_bytes,
            extents: [
                group.outer_dim,
                self.config.page_size,
                group.heads,
                group.head_dim,
            ],
            strides_bytes,
        })
    }

    /// The pieces of a block, in order of their addresses within the block: one, or one for each layer or plane.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] if there is no such block.
    pub fn pieces(&self, block: usize) -> Result<Vec<BlockPiece>, Error> {
        self.check_block(block)?;
        let piece = |region, start: usize, len: usize| BlockPiece {
            region,
            range_bytes: start..start + len,
        };
        let outer_major = match self.config.layout_type {
            LayoutType::FullyContiguous => {
                let start = block * self.block_stride_bytes;
                return Ok(vec![piece(0, start, self.block_bytes)]);
            }
            LayoutType::Paged => return Ok(vec![piece(block, 0, self.block_bytes)]),
            LayoutType::LayerSeparate { outer_major } => outer_major,
        };
        let mut pieces = Vec::new();
        for layer in 0..self.num_layers {
            let place = self.layer(block, layer)?;
            let [outer_dim, tokens, heads, dim] = place.extents;
            let plane_bytes = tokens * heads * dim * self.config.dtype_bytes;
            if outer_major {
                let [outer_stride, ..] = place.strides_bytes;
                pieces.extend((0..outer_dim).map(|outer| {
                    let start = place.offset_bytes + outer * outer_stride;
                    piece(place.region, start, plane_bytes)
                }));
            } else {
                pieces.push(piece(
                    place.region,
                    place.offset_bytes,
                    outer_dim * plane_bytes,
                ));
            }
        }
        Ok(pieces)
    }

    fn check_block(&self, block: usize) -> Result<(), Error> {
        if block < self.config.num_blocks {
            return Ok(());
        }
        Err(Error::OutOfRange {
            what: "block",
            index: block,
            count: self.config.num_blocks,
        })
    }

    /// Checks that a block of the other layout means the same as one of this.
    ///
    /// # Errors
    /// [`Error::LayoutMismatch`] names the first field that differs.
    pub fn check_same_model(&self, other: &Self) -> Result<(), Error> {
        let same = |field, expected, found| {
            if expected == found {
                return Ok(());
            }
            Err(Error::LayoutMismatch {
                field,
                expected,
                found,
            })
        };
        let (one, two) = (&self.config, &other.config);
        same("page_size", one.page_size, two.page_size)?;
        same("dtype_bytes", one.dtype_bytes, two.dtype_bytes)?;
        same("num_layers", self.num_layers, other.num_layers)?;
        for (one, two) in self.layer_shapes().zip(other.layer_shapes()) {
            same("outer_dim", one.outer_dim, two.outer_dim)?;
            same("heads", one.heads, two.heads)?;
            same("head_dim", one.head_dim, two.head_dim)?;
        }
        Ok(())
    }

    /// The shape of each layer, however they are grouped.
    fn layer_shapes(&self) -> impl Iterator<Item = &LayerGroup> {
        let groups = self.config.groups.iter();
        groups.flat_map(|group| std::iter::repeat_n(group, group.num_layers))
    }
}
