//! Taking blocks from one layout to another.

use super::{LayerPlace, Layout};
use crate::Error;

/// Bytes that are copied together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyRun {
    /// The source's region.
    pub source_region: usize,
    /// First byte there.
    pub source_offset_bytes: usize,
    /// The target's region.
    pub target_region: usize,
    /// First byte there.
    pub target_offset_bytes: usize,
    /// How many.
    pub len_bytes: usize,
}

/// What has to be copied to take one block from a layout to another: as few and as long runs as the two allow. It is a
/// value; whoever can reach the memory carries it out.
///
/// ```
/// use blockmgr::layout::{AxisOrder, ConversionPlan, LayoutConfig};
///
/// let builder = || {
///     let model = LayoutConfig::builder().num_layers(1).outer_dim(1).page_size(2);
///     model.num_blocks(1).heads(2).head_dim(1).dtype_bytes(1)
/// };
/// let (nhd, hnd) = (builder().build()?, builder().order(AxisOrder::HND).build()?);
/// let plan = ConversionPlan::new(&nhd, 0, &hnd, 0)?;
/// let mut target = [0; 4];
/// plan.copy(&[&[1, 2, 3, 4]], &mut [&mut target])?;
/// assert_eq!(target, [1, 3, 2, 4]);
/// # Ok::<(), blockmgr::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversionPlan {
    runs: Vec<CopyRun>,
}

impl ConversionPlan {
    /// From a block of one layout to a block of another.
    ///
    /// # Errors
    /// [`Error::LayoutMismatch`] if the layouts are not of one model, [`Error::OutOfRange`] for a block that is not
    /// there.
    pub fn new(
        source: &Layout,
        source_block: usize,
        target: &Layout,
        target_block: usize,
    ) -> Result<Self, Error> {
        target.check_same_model(source)?;
        let mut plan = Self { runs: Vec::new() };
        for layer in 0..source.num_layers() {
            let from = source.layer(source_block, layer)?;
            let to = target.layer(target_block, layer)?;
            plan.add_layer(&from, &to, source.dtype_bytes());
        }
        Ok(plan)
    }

    /// The runs, in order of the target's layers.
    pub fn runs(&self) -> &[CopyRun] {
        &self.runs
    }

    fn add_layer(&mut self, from: &LayerPlace, to: &LayerPlace, dtype_bytes: usize) {
        // From the axis that strides least in the target: those that lie together on both sides make up a run.
        let mut axes = [0, 1, 2, 3];
        axes.sort_by_key(|&axis| (to.strides_bytes[axis], to.extents[axis]));
        let mut len_bytes = dtype_bytes;
        let mut looped = Vec::with_capacity(4);
        for axis in axes {
            let together =
                from.strides_bytes[axis] == len_bytes && to.strides_bytes[axis] == len_bytes;
            if to.extents[axis] == 1 {
                continue;
            }
            if together && looped.is_empty() {
                len_bytes *= to.extents[axis];
            } else {
                looped.push(axis);
            }
        }
        let count: usize = looped.iter().map(|&axis| to.extents[axis]).product();
        for index in 0..count {
            let (mut source, mut target) = (from.offset_bytes, to.offset_bytes);
            let mut rest = index;
            for &axis in &looped {
                let place = rest % to.extents[axis];
                rest /= to.extents[axis];
                source += place * from.strides_bytes[axis];
                target += place * to.strides_bytes[axis];
            }
            self.add(CopyRun {
                source_region: from.region,
                source_offset_bytes: source,
                target_region: to.region,
                target_offset_bytes: target,
                len_bytes,
            });
        }
    }

    /// Adds a run, or lengthens the one before where both continue it.
    fn add(&mut self, run: CopyRun) {
        if let Some(last) = self.runs.last_mut()
            && last.source_region == run.source_region
            && last.target_region == run.target_region
            && last.source_offset_bytes + last.len_bytes == run.source_offset_bytes
            && last.target_offset_bytes + last.len_bytes == run.target_offset_bytes
        {
            last.len_bytes += run.len_bytes;
            return;
        }
        self.runs.push(run);
    }

    /// Carries the plan out between regions in reach of the host.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] if a region is missing or too short; what was copied before stays copied.
    pub fn copy(&self, source: &[&[u8]], target: &mut [&mut [u8]]) -> Result<(), Error> {
        let counts = (source.len(), target.len());
        for run in &self.runs {
            let missing = |what, index, count| Error::OutOfRange { what, index, count };
            let from = source
                .get(run.source_region)
                .ok_or_else(|| missing("source region", run.source_region, counts.0))?;
            let to = target
                .get_mut(run.target_region)
                .ok_or_else(|| missing("target region", run.target_region, counts.1))?;
            let source_end = run.source_offset_bytes + run.len_bytes;
            let target_end = run.target_offset_bytes + run.len_bytes;
            let (from_len, to_len) = (from.len(), to.len());
            let from = from
                .get(run.source_offset_bytes..source_end)
                .ok_or_else(|| missing("source byte", source_end, from_len))?;
            let to = to
                .get_mut(run.target_offset_bytes..target_end)
                .ok_or_else(|| missing("target byte", target_end, to_len))?;
            to.copy_from_slice(from);
        }
        Ok(())
    }
}
