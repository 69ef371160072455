//! POSIX `fork()` for WebAssembly: a pass of Binaryen's `wasm-opt`, `--fork-instrument`.
//!
//! Modules in reading order: [`options`] and [`error`]; [`abi`] and [`frame`], the layouts; [`plan`], what is decided
//! about a function; [`analysis`], which decides; [`transform`], which rewrites; [`pass`], the recipe; [`ir`], safe
//! handles over Binaryen.

pub mod abi;
pub mod analysis;
pub mod error;
pub mod frame;
pub mod ir;
pub mod options;
pub mod pass;
pub mod plan;
pub mod transform;

/// Runs `wasm-opt` with our pass in its registry. `arguments` starts with the program's name. Returns only on failure,
/// with the exit status; a fatal error has been printed.
pub fn wasm_opt(arguments: Vec<String>) -> i32 {
    pass::register();
    match ir::run_wasm_opt(arguments) {
        Ok(status) => status,
        Err(message) => {
            eprintln!("{message}");
            1
        }
    }
}
