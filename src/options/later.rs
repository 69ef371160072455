//! Passes behind ours on a command line. They run on the first module, and a second has been taken out of it by then.

use super::{PASS_NAME, PREFIX, pass_arguments};
use crate::error::Error;

/// Passes that change what code does or may use, or what modules import and export: one of two modules is not enough. All
/// others leave a pair as it was.
pub const OF_ALL_MODULES: &[&str] = &[
    "alignment-lowering",
    "asyncify",
    "denan",
    "enclose-world",
    "extract-function",
    "extract-function-index",
    "fpcast-emu",
    "generate-dyncalls",
    "generate-i64-dyncalls",
    "i64-to-i32-lowering",
    "instrument-branch-hints",
    "instrument-locals",
    "instrument-memory",
    "intrinsic-lowering",
    "legalize-and-prune-js-interface",
    "legalize-js-interface",
    "llvm-memory-copy-fill-lowering",
    "llvm-nontrapping-fptoint-lowering",
    "log-execution",
    "make-shared-objects",
    "mark-js-called",
    "memory64-lowering",
    "minify-imports",
    "minify-imports-and-exports",
    "minify-imports-and-exports-and-modules",
    "multi-memory-lowering",
    "multi-memory-lowering-with-bounds-checks",
    "poppify",
    "post-emscripten",
    "remove-exports",
    "remove-imports",
    "remove-memory",
    "remove-memory-init",
    "remove-non-js-ops",
    "remove-relaxed-simd",
    "safe-heap",
    "separate-data-segments",
    "set-globals",
    "signext-lowering",
    "spill-pointers",
    "stack-check",
    "string-lifting",
    "string-lowering",
    "string-lowering-magic-imports",
    "string-lowering-magic-imports-assert",
    "strip-eh",
    "stub-unsupported-js",
    "table64-lowering",
    "trace-calls",
    "translate-to-exnref",
    "translate-to-new-eh",
    "trap-mode-clamp",
    "trap-mode-js",
];

/// Options for a pass that runs after all others, and that pass.
const AT_THE_END: [(&str, &str); 2] =
    [("emit-exnref", "--translate-to-exnref"), ("experimental-new-eh", "--translate-to-exnref")];

/// An error if the command line makes two modules, and a later pass of it would change only one.
pub fn check(words: &[String]) -> Option<Error> {
    let (_, second) = pass_arguments(words).find(|(key, _)| key.strip_prefix(PREFIX) == Some("resume"))?;
    let names = || words.iter().filter_map(|word| Some(word.strip_prefix("--")?.split('=').next().unwrap_or_default()));
    if !names().any(|name| name == PASS_NAME) {
        return None;
    }
    let error = |pass: &str, earlier: &'static str| {
        Some(Error::LaterPass { pass: pass.to_owned(), second: second.to_owned(), earlier })
    };
    if let Some((option, pass)) = names().find_map(|name| AT_THE_END.into_iter().find(|(option, _)| *option == name)) {
        return error(option, pass);
    }
    // Where the pipeline is repeated, what is in front of ours comes behind it, too.
    let repeats = words.iter().any(|word| word == "--converge" || word == "-c");
    let mut later = names().skip_while(|&name| !repeats && name != PASS_NAME);
    let pass = later.find(|name| OF_ALL_MODULES.contains(name))?;
    error(pass, if repeats { "it, in a command without --converge," } else { "it" })
}
