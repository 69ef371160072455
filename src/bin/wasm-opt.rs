//! Binaryen's `wasm-opt` with `--fork-instrument`.

fn main() {
    let arguments = std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect();
    std::process::exit(fork_instrument::wasm_opt(arguments));
}
