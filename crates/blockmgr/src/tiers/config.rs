//! All tiers together.

use std::fmt;

use super::{KvManagerLayoutConfig, KvManagerModelConfig};
use crate::{Error, TieredCacheBuilder};

/// Sets how blocks move.
type Movement = Box<dyn FnOnce(TieredCacheBuilder) -> TieredCacheBuilder + Send>;

/// The process that a block manager serves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KvManagerRuntimeConfig {
    /// Tells this process from others that serve the same model.
    pub worker_id: u64,
}

impl KvManagerRuntimeConfig {
    /// For one process.
    pub fn new(worker_id: u64) -> Self {
        Self { worker_id }
    }
}

/// What a [`KvBlockManager`](super::KvBlockManager) is made of.
pub struct KvBlockManagerConfig {
    pub(super) runtime: KvManagerRuntimeConfig,
    pub(super) model: KvManagerModelConfig,
    pub(super) device: Option<KvManagerLayoutConfig>,
    pub(super) host: Option<KvManagerLayoutConfig>,
    pub(super) disk: Option<KvManagerLayoutConfig>,
    pub(super) movement: Option<Movement>,
}

impl fmt::Debug for KvBlockManagerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvBlockManagerConfig")
            .field("runtime", &self.runtime)
            .field("model", &self.model)
            .field("device", &self.device)
            .field("host", &self.host)
            .field("disk", &self.disk)
            .finish_non_exhaustive()
    }
}

impl KvBlockManagerConfig {
    /// A configuration to be filled in.
    pub fn builder() -> KvBlockManagerConfigBuilder {
        KvBlockManagerConfigBuilder::default()
    }
}

/// Collects a [`KvBlockManagerConfig`].
#[derive(Default)]
pub struct KvBlockManagerConfigBuilder {
    runtime: KvManagerRuntimeConfig,
    model: Option<KvManagerModelConfig>,
    device: Option<KvManagerLayoutConfig>,
    host: Option<KvManagerLayoutConfig>,
    disk: Option<KvManagerLayoutConfig>,
    movement: Option<Movement>,
}

impl KvBlockManagerConfigBuilder {
    /// The process; worker 0 by default.
    pub fn runtime(mut self, runtime: KvManagerRuntimeConfig) -> Self {
        self.runtime = runtime;
        self
    }

    /// What the blocks are made of; required.
    pub fn model(mut self, model: KvManagerModelConfig) -> Self {
        self.model = Some(model);
        self
    }

    /// The tier that the engine computes in.
    pub fn device_layout(mut self, layout: KvManagerLayoutConfig) -> Self {
        self.device = Some(layout);
        self
    }

    /// The tier in host memory.
    pub fn host_layout(mut self, layout: KvManagerLayoutConfig) -> Self {
        self.host = Some(layout);
        self
    }

    /// The tier on disk.
    pub fn disk_layout(mut self, layout: KvManagerLayoutConfig) -> Self {
        self.disk = Some(layout);
        self
    }

    /// How blocks move between the tiers: filters, deadlines, bounds, who is told.
    pub fn movement(
        mut self,
        configure: impl FnOnce(TieredCacheBuilder) -> TieredCacheBuilder + Send + 'static,
    ) -> Self {
        self.movement = Some(Box::new(configure));
        self
    }

    /// The configuration.
    ///
    /// # Errors
    /// [`Error::MissingConfig`] without a model, or without any tier.
    pub fn build(self) -> Result<KvBlockManagerConfig, Error> {
        let model = self.model.ok_or(Error::MissingConfig { field: "model" })?;
        if self.device.is_none() && self.host.is_none() && self.disk.is_none() {
            return Err(Error::MissingConfig {
                field: "device_layout, host_layout or disk_layout",
            });
        }
        Ok(KvBlockManagerConfig {
            runtime: self.runtime,
            model,
            device: self.device,
            host: self.host,
            disk: self.disk,
            movement: self.movement,
        })
    }
}

impl fmt::Debug for KvBlockManagerConfigBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvBlockManagerConfigBuilder")
            .field("runtime", &self.runtime)
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}
