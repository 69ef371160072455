//! Binaryen's `wasm-opt` with `--fork-instrument`.

fn main() {
    std::process::exit(fork_instrument::wasm_opt(std::env::args_os().collect()));
}
