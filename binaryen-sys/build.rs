//! Builds libbinaryen and the `wasm-opt` tool from Binaryen's source, once, and binds the C API.
//!
//! The build lives beside the source under `FORK_INSTRUMENT_DEPS`, outside cargo's target folder, so that every
//! profile shares it and `cargo clean` leaves it alone. A stamp file holds the settings it was made with; while they
//! match, nothing is compiled again.
//!
//! Dependents read the metadata `DEP_BINARYEN_INCLUDE` (directories joined by `:`) and `DEP_BINARYEN_CXXFLAGS` (flags
//! joined by spaces): code that includes Binaryen's headers must be compiled with exactly these.

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// The one version that the shim and the C API bindings are written for.
const VERSION: &str = "132";

/// Flags that change what Binaryen's headers mean; the library and everything that includes them use the same.
const CXXFLAGS: &[&str] = &["-std=c++20", "-O2", "-fno-rtti", "-fPIC", "-DTHROW_ON_FATAL", "-DBUILD_LLVM_DWARF"];

fn main() {
    println!("cargo:rerun-if-env-changed=BINARYEN_SRC");
    println!("cargo:rerun-if-env-changed=FORK_INSTRUMENT_DEPS");
    println!("cargo:rerun-if-env-changed=FORK_INSTRUMENT_SANITIZE");
    println!("cargo:rerun-if-changed=build.rs");

    let (source, build) = locate();
    check_version(&source);
    check_compiler();
    let sanitize = env::var("FORK_INSTRUMENT_SANITIZE").ok().filter(|s| !s.is_empty());
    let mut flags: Vec<String> = CXXFLAGS.iter().map(|s| s.to_string()).collect();
    if let Some(kinds) = &sanitize {
        flags.push(format!("-fsanitize={kinds}"));
        // With these, GCC takes no comparison of member functions for constant, and Binaryen needs that. A null pointer
        // ends the process anyway.
        flags.push("-fno-sanitize=null,nonnull-attribute,returns-nonnull-attribute".to_string());
    }

    build_library(&source, &build, &flags);
    build_tool(&source, &build, &flags);
    bind_c_api(&source);

    println!("cargo:rustc-link-search=native={}", build.join("lib").display());
    println!("cargo:rustc-link-lib=static=binaryen_wasm_opt");
    println!("cargo:rustc-link-lib=static=binaryen");
    println!("cargo:rustc-link-lib=dylib=stdc++");
    println!("cargo:rerun-if-changed={}", build.join("lib/libbinaryen.a").display());
    let include = [
        source.join("src"),
        source.join("third_party/FP16/include"),
        source.join("third_party/llvm-project/include"),
        build.clone(),
    ];
    let include: Vec<_> = include.iter().map(|p| p.display().to_string()).collect();
    println!("cargo:include={}", include.join(":"));
    println!("cargo:cxxflags={}", flags.join(" "));
}

/// The source tree and the folder to build it in.
fn locate() -> (PathBuf, PathBuf) {
    let deps = PathBuf::from(env::var_os("FORK_INSTRUMENT_DEPS").unwrap_or_else(|| "../third_party".into()));
    let suffix = match env::var("FORK_INSTRUMENT_SANITIZE") {
        Ok(kinds) if !kinds.is_empty() => format!("-build-{}", kinds.replace(',', "-")),
        _ => "-build".to_string(),
    };
    if let Some(source) = env::var_os("BINARYEN_SRC") {
        let source = fs::canonicalize(&source).unwrap_or_else(|e| {
            fail(&format!("BINARYEN_SRC names {}, which cannot be read: {e}", Path::new(&source).display()))
        });
        let name = source.display().to_string().replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        return (source, deps.join(format!("binaryen{name}{suffix}")));
    }
    let source = deps.join(format!("binaryen-{VERSION}.0.0"));
    let build = deps.join(format!("binaryen-{VERSION}.0.0{suffix}"));
    if !source.join("src/binaryen-c.h").exists() {
        fail(&format!(
            "there is no Binaryen source at {}: run `make setup` (it fetches it), or set BINARYEN_SRC to a Binaryen \
             {VERSION} source tree",
            source.display()
        ));
    }
    (source, build)
}

fn check_version(source: &Path) {
    let lists = source.join("CMakeLists.txt");
    let text = fs::read_to_string(&lists)
        .unwrap_or_else(|e| fail(&format!("{} cannot be read ({e}); is it a Binaryen source tree?", lists.display())));
    if !text.contains(&format!("VERSION {VERSION})")) {
        fail(&format!("{} is not Binaryen {VERSION}; set BINARYEN_SRC to that version", source.display()));
    }
}

fn check_compiler() {
    let named = env::var("CXX").ok();
    let compiler = named.as_deref().and_then(|words| words.split_whitespace().next()).unwrap_or("c++");
    if !found(compiler) {
        fail(&format!(
            "the C++ compiler {compiler} cannot be started: apt-get install g++, or set CXX to a compiler for C++20"
        ));
    }
}

fn build_library(source: &Path, build: &Path, flags: &[String]) {
    let stamp = build.join("fork-instrument.stamp");
    let library = build.join("lib/libbinaryen.a");
    let key = format!("{}\n{}\n", source.display(), flags.join(" "));
    if library.exists() && fs::read_to_string(&stamp).is_ok_and(|s| s == key) {
        return;
    }
    // CMake sets the standard, -fPIC, -fno-rtti and the DWARF define itself.
    let own: Vec<&str> =
        flags.iter().map(String::as_str).filter(|f| f.starts_with("-DTHROW") || f.contains("sanitize")).collect();
    let generator = if found("ninja") { "Ninja" } else { "Unix Makefiles" };
    let mut configure = Command::new("cmake");
    configure
        .arg("-S")
        .arg(source)
        .arg("-B")
        .arg(build)
        .args(["-G", generator, "-DCMAKE_BUILD_TYPE=Release"])
        .arg(format!("-DCMAKE_CXX_FLAGS_RELEASE={}", level(&own)))
        .arg(format!("-DCMAKE_CXX_FLAGS={}", own.join(" ")))
        .args(["-DBUILD_TESTS=OFF", "-DBUILD_TOOLS=OFF", "-DBUILD_SHARED_LIBS=OFF"])
        .args(["-DENABLE_WERROR=OFF", "-DBUILD_LLVM_DWARF=ON", "-DINSTALL_LIBS=OFF"]);
    run(&mut configure, "cmake", "apt-get install cmake ninja-build (or run `make setup`)");
    let jobs = env::var("NUM_JOBS").unwrap_or_else(|_| "2".into());
    let mut compile = Command::new("cmake");
    compile.arg("--build").arg(build).args(["--target", "binaryen", "-j", &jobs]);
    run(&mut compile, "cmake --build", "a compiler for C++20 is needed: apt-get install g++, or set CXX");
    fs::write(&stamp, key).unwrap_or_else(|e| fail(&format!("{}: {e}", stamp.display())));
}

/// A sanitizer's checks take an optimiser several times as long.
fn level(flags: &[&str]) -> &'static str {
    if flags.iter().any(|f| f.starts_with("-fsanitize")) { "-O1" } else { "-O2" }
}

/// Compiles `tools/wasm-opt.cpp` with its `main` under the name `binaryen_wasm_opt_main`, and what it links with. It
/// ends the process through `wasm::binaryen_wasm_opt_exit(int)`, which whoever calls it defines.
fn build_tool(source: &Path, build: &Path, flags: &[String]) {
    let stamp = build.join("fork-instrument-tool.stamp");
    let library = build.join("lib/libbinaryen_wasm_opt.a");
    let key = format!("{}\n{}\nown exit\n", source.display(), flags.join(" "));
    if library.exists() && fs::read_to_string(&stamp).is_ok_and(|s| s == key) {
        return;
    }
    let tools = source.join("src/tools");
    let mut cc = cc::Build::new();
    cc.cpp(true).cargo_metadata(false).warnings(false).out_dir(build.join("lib"));
    cc.opt_level(2).debug(false);
    for flag in flags {
        cc.flag(flag);
    }
    cc.include(source.join("src"))
        .include(source.join("third_party/FP16/include"))
        .include(build)
        .include(tools.join("fuzzing"))
        .define("main", "binaryen_wasm_opt_main")
        .define("flush_and_quick_exit", "binaryen_wasm_opt_exit")
        .file(tools.join("wasm-opt.cpp"));
    for name in ["fuzzing", "heap-types", "parameters", "random"] {
        cc.file(tools.join(format!("fuzzing/{name}.cpp")));
    }
    cc.compile("binaryen_wasm_opt");
    fs::write(&stamp, key).unwrap_or_else(|e| fail(&format!("{}: {e}", stamp.display())));
}

const CLANG_REMEDY: &str = "bindgen needs libclang and its headers: apt-get install clang libclang-dev (or run `make setup`), or set LIBCLANG_PATH";

fn bind_c_api(source: &Path) {
    let header = source.join("src/binaryen-c.h");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("binaryen-c.rs");
    let builder = bindgen::Builder::default()
        .header(header.display().to_string())
        .clang_arg(format!("-I{}", source.join("src").display()))
        .allowlist_function("Binaryen.*")
        .allowlist_type("Binaryen.*")
        .layout_tests(false);
    // A libclang that cannot be loaded is a panic, and says what was looked for.
    let bindings = match std::panic::catch_unwind(AssertUnwindSafe(|| builder.generate())) {
        Ok(Ok(bindings)) => bindings,
        Ok(Err(e)) => fail(&format!("the C API of Binaryen could not be bound ({e}): {CLANG_REMEDY}")),
        Err(_) => fail(&format!("libclang could not be loaded: {CLANG_REMEDY}")),
    };
    bindings.write_to_file(&out).unwrap_or_else(|e| fail(&format!("{}: {e}", out.display())));
}

fn found(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success())
}

fn run(command: &mut Command, name: &str, remedy: &str) {
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!("{name} failed ({status}); is everything there? {remedy}")),
        Err(e) => fail(&format!("{name} could not be started ({e}): {remedy}")),
    }
}

fn fail(message: &str) -> ! {
    eprintln!("error: {message}");
    std::process::exit(1);
}
