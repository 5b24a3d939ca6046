//! What every allocator must do, as a suite to run.
