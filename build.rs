//! Compiles the C++ shim under `cpp/` with the flags that libbinaryen was built with.

use std::env;
use std::path::PathBuf;

fn main() {
    let include = env::var("DEP_BINARYEN_INCLUDE").expect("binaryen-sys publishes its include directories");
    let flags = env::var("DEP_BINARYEN_CXXFLAGS").expect("binaryen-sys publishes its flags");
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));

    let mut build = cxx_build::bridge("src/ir/ffi.rs");
    build.warnings(false).opt_level(1).debug(false);
    for flag in flags.split(' ') {
        build.flag(flag);
    }
    build.include(&root);
    for (i, dir) in include.split(':').enumerate() {
        if i == 0 {
            build.include(dir);
        } else {
            // Third-party headers: no warnings.
            build.flag("-isystem").flag(dir);
        }
    }
    for name in ["tree", "code", "analyses", "module", "references", "registration", "split", "state", "tool"] {
        build.file(format!("cpp/{name}.cpp"));
        println!("cargo:rerun-if-changed=cpp/{name}.cpp");
        println!("cargo:rerun-if-changed=cpp/{name}.h");
    }
    println!("cargo:rerun-if-changed=cpp/bridge.h");
    println!("cargo:rerun-if-changed=src/ir/ffi.rs");
    build.compile("fork_instrument_shim");
}
