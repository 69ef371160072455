//! POSIX `fork()` for WebAssembly: a pass of Binaryen's `wasm-opt`, `--fork-instrument`.
//!
//! Modules in reading order: [`options`] and [`error`]; [`abi`] and [`frame`], the layouts; [`plan`], what is decided
//! about a function; [`analysis`], which decides; [`transform`], which rewrites; [`verify`], which checks
//! what came of it; [`separate`], which moves resume functions out; [`pass`], the
//! recipe; [`output`], the tool's files; [`ir`], safe handles over Binaryen.

use std::ffi::OsString;

pub mod abi;
pub mod analysis;
pub mod error;
pub mod frame;
pub mod ir;
pub mod limits;
pub mod options;
pub mod output;
pub mod pass;
pub mod plan;
pub mod separate;
pub mod transform;
pub mod verify;

/// Runs `wasm-opt` with our pass in its registry. `arguments` starts with the program's name. Returns only on failure,
/// with the exit status; a fatal error has been printed.
pub fn wasm_opt(arguments: Vec<OsString>) -> i32 {
    pass::register();
    ir::at_successful_exit(output::finish);
    // Binaryen only says that it does not know it, and ends the process.
    for word in arguments
        .iter()
        .skip(1)
        .filter_map(|word| word.to_str())
        .filter(|word| options::spelling::is_misspelt_pass(word))
    {
        eprintln!("{word}: did you mean --{}?", options::PASS_NAME);
    }
    let words: Vec<String> = arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    if let Some(error) = options::mistake(&words) {
        eprintln!("Fatal: --{}: {error}", options::PASS_NAME);
        return 1;
    }
    output::refuse_after(options::later::of_the_program(&words));
    match output::redirect(arguments).map_err(|e| format!("Fatal: {e}")).and_then(ir::run_wasm_opt) {
        Ok(status) => status,
        Err(message) => {
            eprintln!("{message}");
            if message.contains("DW_") || message.to_lowercase().contains("dwarf") {
                eprintln!("Binaryen cannot read this DWARF debug information: strip it first with --strip-dwarf");
            }
            1
        }
    }
}
