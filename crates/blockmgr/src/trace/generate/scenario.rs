//! The kinds of services.

/// A kind of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scenario {
    /// People talk; most leave after a turn or two, and the longer one stays the likelier the next turn.
    Chat,
    /// Agents call tools in loops: many turns, seconds apart, behind one of a few long prompts.
    Agents,
    /// Questions about documents of very different popularity, which many users share.
    Documents,
    /// Jobs that ask each thing once, behind a prompt per job, between people who talk.
    Batch,
    /// Eight tenants of the other kinds and very different load.
    Tenants,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Chat,
        Self::Agents,
        Self::Documents,
        Self::Batch,
        Self::Tenants,
    ];

    /// The name, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Agents => "agents",
            Self::Documents => "documents",
            Self::Batch => "batch",
            Self::Tenants => "tenants",
        }
    }

    /// Milliseconds between new sessions, in the mean.
    pub(super) const fn arrival_ms(self) -> f64 {
        match self {
            Self::Chat => 480.0,
            Self::Agents => 2_500.0,
            Self::Documents => 500.0,
            Self::Batch => 250.0,
            Self::Tenants => 600.0,
        }
    }
}
