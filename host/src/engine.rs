//! wasmtime with every feature on that it has.

use wasmtime::{Config, Engine, OptLevel, Result};

/// What an engine is made for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Optimise compiled code; else compile fast.
    pub optimize: bool,
    /// Count fuel.
    pub fuel: bool,
    /// Let epochs interrupt the code.
    pub epochs: bool,
    /// Bytes of stack for wasm code. The threads that run it need some more.
    pub stack: usize,
}

/// What a thread needs beyond the wasm stack, in bytes.
pub const HOST_STACK: usize = 4 << 20;

/// An engine. NaNs are canonical, so that runs can be compared bit by bit.
pub fn engine(settings: Settings) -> Result<Engine> {
    let mut config = Config::new();
    config
        .wasm_bulk_memory(true)
        .wasm_custom_page_sizes(true)
        .wasm_exceptions(true)
        .wasm_extended_const(true)
        .wasm_function_references(true)
        .wasm_gc(true)
        .wasm_memory64(true)
        .wasm_multi_memory(true)
        .wasm_multi_value(true)
        .wasm_reference_types(true)
        .wasm_relaxed_simd(true)
        .wasm_simd(true)
        .wasm_tail_call(true)
        .wasm_threads(true)
        .wasm_wide_arithmetic(true)
        .shared_memory(true)
        .relaxed_simd_deterministic(true)
        .cranelift_nan_canonicalization(true)
        .cranelift_opt_level(if settings.optimize { OptLevel::Speed } else { OptLevel::None })
        .consume_fuel(settings.fuel)
        .epoch_interruption(settings.epochs)
        .async_stack_size(settings.stack + HOST_STACK)
        .max_wasm_stack(settings.stack);
    Engine::new(&config)
}
