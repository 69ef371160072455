//! A reference host for modules that `fork-instrument` has instrumented, on wasmtime.
//!
//! Two hosts share one implementation of WASI preview 1:
//!
//! * [`run`] gives a program POSIX processes: every process is a wasmtime store on a thread of its own, and
//!   `fork()` copies memory into a fresh instance, shares the open file descriptions, and rewinds both sides.
//!   The binary `fork-run` is its command line.
//! * [`replay`] runs one module under a schedule of forks and records everything that can be observed, so that
//!   tests can compare an instrumented module with its original. The binary `fork-replay` is its command line.
//!
//! WASI is code of its own, on `cap-std`, because `wasmtime-wasi` keeps a process's descriptors in a resource table that
//! cannot be copied: a forked child needs the same open file descriptions under the same numbers ([`descriptors`]),
//! pipes that block until the last copy of their other end is closed, both pointer widths, and, for [`replay`], clocks and
//! random bytes that repeat themselves.
//!
//! Reading order: [`protocol`] (the contract with instrumented modules), [`process`], [`pipe`] and
//! [`descriptors`] (POSIX without wasm), [`wasi`], then the two hosts.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod carry;
pub mod descriptors;
pub mod engine;
pub mod errno;
mod expose;
pub mod pipe;
pub mod process;
pub mod protocol;
pub mod replay;
pub mod run;
pub mod wasi;
