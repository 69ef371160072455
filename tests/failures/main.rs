//! Forks that cannot be made, programs that end in the middle, and buffers that somebody has written to: nothing is lost.

mod corrupted;
mod full_buffer;
mod guest;
#[path = "../support/mod.rs"]
mod support;
mod traps;
mod v8;
