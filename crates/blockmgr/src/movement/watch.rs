//! Spans and durations, for whoever listens.

use super::TierId;

/// One piece of work on blocks, from its beginning to its end.
pub(super) struct Watch {
    #[cfg(feature = "tracing")]
    span: tracing::span::EnteredSpan,
    #[cfg(feature = "metrics")]
    _measured: Measured,
}

/// What is measured by the recorder.
#[cfg(feature = "metrics")]
struct Measured {
    name: &'static str,
    tier: &'static str,
    started: std::time::Instant,
}

/// Makes a watch with a span of this name and fields.
macro_rules! watch {
    ($span:literal, $measured:expr, $($field:tt)*) => {
        Self {
            #[cfg(feature = "tracing")]
            span: tracing::debug_span!($span, $($field)*, moved = tracing::field::Empty).entered(),
            #[cfg(feature = "metrics")]
            _measured: $measured,
        }
    };
}

#[cfg_attr(
    not(feature = "tracing"),
    expect(unused_variables, reason = "without spans nobody is told how many")
)]
impl Watch {
    /// A batch on its way down to `tier`.
    pub(super) fn offload(tier: TierId, blocks: usize) -> Self {
        watch!(
            "kv_offload",
            Measured::of("stepwell_kv_offload_seconds", tier),
            tier = tier.name(),
            blocks
        )
    }

    /// A prefix on its way up, its last block from `tier`.
    pub(super) fn onboard(tier: TierId, blocks: usize) -> Self {
        watch!(
            "kv_onboard",
            Measured::of("stepwell_kv_onboard_seconds", tier),
            tier = tier.name(),
            blocks
        )
    }

    /// Blocks that leave a tier below memory.
    pub(super) fn evict(tier: TierId, blocks: usize) -> Self {
        watch!(
            "kv_evict",
            Measured::of("stepwell_kv_evict_seconds", tier),
            tier = tier.name(),
            blocks
        )
    }

    /// A tier below memory is opened.
    pub(super) fn restart() -> Self {
        let tier = TierId::G3;
        watch!(
            "kv_restart",
            Measured::of("stepwell_kv_restart_seconds", tier),
            tier = tier.name()
        )
    }

    /// Says how many blocks it came to.
    pub(super) fn moved(&self, blocks: usize) {
        #[cfg(feature = "tracing")]
        self.span.record("moved", blocks);
    }
}

#[cfg(feature = "metrics")]
impl Measured {
    fn of(name: &'static str, tier: TierId) -> Self {
        Self {
            name,
            tier: tier.name(),
            started: std::time::Instant::now(),
        }
    }
}

#[cfg(feature = "metrics")]
impl Drop for Measured {
    fn drop(&mut self) {
        metrics::histogram!(self.name, "tier" => self.tier).record(self.started.elapsed());
    }
}
