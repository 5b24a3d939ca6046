//! Both engines under disturbed calls, held calls, and drops at any moment.

mod disturbed;
mod fixture;
mod held;
