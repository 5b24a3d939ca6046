//! The shape of a model's blocks.

use crate::Error;
use crate::layout::{LayerGroup, Layout, LayoutConfig, LayoutConfigBuilder};

/// What a model's blocks are made of, the same in all tiers.
#[derive(Debug, Clone)]
pub struct KvManagerModelConfig {
    pub(super) name: String,
    shape: LayoutConfigBuilder,
    /// One block, in the order in which its bytes are handed in and out.
    pub(super) canonical: Layout,
}

impl KvManagerModelConfig {
    /// A configuration to be filled in.
    pub fn builder() -> KvManagerModelConfigBuilder {
        KvManagerModelConfigBuilder {
            name: String::new(),
            shape: LayoutConfig::builder(),
        }
    }

    /// A layout of such blocks, to be completed.
    pub(super) fn layout(&self) -> LayoutConfigBuilder {
        self.shape.clone()
    }
}

/// Collects a [`KvManagerModelConfig`].
#[derive(Debug, Clone)]
pub struct KvManagerModelConfigBuilder {
    name: String,
    shape: LayoutConfigBuilder,
}

impl KvManagerModelConfigBuilder {
    /// The model's name, with all that changes the content: revision, precision. Blocks below memory are salted with it,
    /// and match under no other; empty by default.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// As [`LayoutConfigBuilder::num_layers`].
    pub fn num_layers(self, num_layers: usize) -> Self {
        self.with(|shape| shape.num_layers(num_layers))
    }

    /// As [`LayoutConfigBuilder::outer_dim`].
    pub fn outer_dim(self, outer_dim: usize) -> Self {
        self.with(|shape| shape.outer_dim(outer_dim))
    }

    /// As [`LayoutConfigBuilder::page_size`]: tokens a block.
    pub fn page_size(self, page_size: usize) -> Self {
        self.with(|shape| shape.page_size(page_size))
    }

    /// As [`LayoutConfigBuilder::heads`].
    pub fn heads(self, heads: usize) -> Self {
        self.with(|shape| shape.heads(heads))
    }

    /// As [`LayoutConfigBuilder::head_dim`].
    pub fn head_dim(self, head_dim: usize) -> Self {
        self.with(|shape| shape.head_dim(head_dim))
    }

    /// As [`LayoutConfigBuilder::inner_dim`].
    pub fn inner_dim(self, inner_dim: usize) -> Self {
        self.with(|shape| shape.inner_dim(inner_dim))
    }

    /// As [`LayoutConfigBuilder::dtype_bytes`].
    pub fn dtype_bytes(self, dtype_bytes: usize) -> Self {
        self.with(|shape| shape.dtype_bytes(dtype_bytes))
    }

    /// As [`LayoutConfigBuilder::group`].
    pub fn group(self, group: LayerGroup) -> Self {
        self.with(|shape| shape.group(group))
    }

    /// The model.
    ///
    /// # Errors
    /// As [`LayoutConfigBuilder::build`].
    pub fn build(self) -> Result<KvManagerModelConfig, Error> {
        Ok(KvManagerModelConfig {
            canonical: self.shape.clone().num_blocks(1).build()?,
            name: self.name,
            shape: self.shape,
        })
    }

    fn with(self, change: impl FnOnce(LayoutConfigBuilder) -> LayoutConfigBuilder) -> Self {
        Self {
            shape: change(self.shape),
            name: self.name,
        }
    }
}
