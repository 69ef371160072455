//! Raw bindings to the C API of Binaryen 132 (`binaryen-c.h`). Linking this crate links libbinaryen and the body of its
//! `wasm-opt` tool, whose `main` is the C++ function `binaryen_wasm_opt_main(int, const char*[])`; a caller of that must
//! define `wasm::binaryen_wasm_opt_exit(int)`, by which the tool ends the process.
#![allow(non_camel_case_types, non_snake_case, non_upper_case_globals, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/binaryen-c.rs"));
