//! The run itself: every effect is journalled before it is made.

pub mod cleanup;
pub mod clock;
pub mod journal;
pub mod machine;
mod outstanding;
pub mod process;
