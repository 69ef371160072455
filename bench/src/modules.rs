//! The modules that are measured.

/// A program, and what it is asked to do.
pub struct Module {
    pub name: &'static str,
    pub about: &'static str,
    /// The import that it forks at, as `module.name`.
    pub entry: &'static str,
    /// Arguments of a run that is mostly compilation, and in which every call of the entry can be forked.
    pub small: &'static [&'static str],
    /// Arguments of a run whose time is measured. `=N` is a number for the root function.
    pub large: &'static [&'static str],
    /// Whether it comes as text from `examples/`, as it is; else from `scripts/build-programs`, and through -O2.
    pub example: bool,
}

const FD_WRITE: &str = "wasi_snapshot_preview1.fd_write";

const fn program(
    name: &'static str,
    about: &'static str,
    small: &'static [&'static str],
    large: &'static [&'static str],
) -> Module {
    Module { name, about, entry: FD_WRITE, small, large, example: false }
}

/// The recursive one, whose stack depth is measured.
pub const WALK: &str = "benchmark_walk";
/// The one that most of the figures are about.
pub const SQLITE: &str = "sqlite";

/// All modules, in the order of the tables.
pub const ALL: &[Module] = &[
    Module {
        name: WALK,
        about: "a recursive function with four locals that forks at the bottom",
        entry: "kernel.kernel_fork",
        small: &["=100"],
        large: &["=4000"],
        example: true,
    },
    program(SQLITE, "SQLite; 100,000 rows in memory", &["1000"], &["100000"]),
    program("lua", "the Lua interpreter", &["20"], &["4000"]),
    program("quickjs", "the QuickJS JavaScript interpreter", &["12"], &["1500"]),
    program("wasm3", "the wasm3 WebAssembly interpreter", &["12"], &["29"]),
    program("bzip2", "bzip2, there and back", &["64"], &["1500"]),
    program("zlib", "zlib at all levels", &["16"], &["256"]),
    program("lz4", "LZ4 at two levels", &["128"], &["2048"]),
    program("zstd", "Zstandard at several levels", &["64"], &["512"]),
    program("onig", "the Oniguruma regular expressions", &["2"], &["200"]),
];
