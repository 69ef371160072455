//! Passes behind ours on a command line. They run on the first module, and a second has been taken out of it by then.

use super::PASS_NAME;
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

/// Those that break forks in one module, too. What they make of the stack pointer and its limits is neither saved nor
/// undone when functions are resumed; lowered memories are others than those that hosts are told of.
const OF_THE_PROGRAM: [&str; 5] = [
    "memory64-lowering",
    "multi-memory-lowering",
    "multi-memory-lowering-with-bounds-checks",
    "spill-pointers",
    "stack-check",
];

/// Options for a pass that runs after all others, and that pass.
const AT_THE_END: [(&str, &str); 2] =
    [("emit-exnref", "--translate-to-exnref"), ("experimental-new-eh", "--translate-to-exnref")];

/// Names of a command line's options, those of passes among them.
fn names(words: &[String]) -> impl Iterator<Item = &str> {
    words.iter().filter_map(|word| Some(word.strip_prefix("--")?.split('=').next().unwrap_or_default()))
}

/// An error if a later pass of the command line would break what ours has made, or would change only one of two modules.
pub fn check(words: &[String]) -> Option<Error> {
    match names(words).filter(|&name| name == PASS_NAME).count() {
        0 => return None,
        1 => {}
        _ => return Some(Error::PassTwice),
    }
    // Where the pipeline is repeated, what is in front of ours comes behind it, too.
    let repeats = words.iter().any(|word| word == "--converge" || word == "-c");
    let earlier = if repeats { "it, in a command without --converge," } else { "it" };
    let later = || names(words).skip_while(|&name| !repeats && name != PASS_NAME);
    if let Some(pass) = later().find(|name| OF_THE_PROGRAM.contains(name)) {
        return Some(Error::LaterPassOfProgram { pass: pass.to_owned(), earlier });
    }
    let second = super::resume_file(words)?;
    let error = |pass: &str, earlier: &'static str| {
        Some(Error::LaterPass { pass: pass.to_owned(), second: second.to_owned(), earlier })
    };
    if let Some((option, pass)) =
        names(words).find_map(|name| AT_THE_END.into_iter().find(|(option, _)| *option == name))
    {
        return error(option, pass);
    }
    let pass = later().find(|name| OF_ALL_MODULES.contains(name))?;
    error(pass, earlier)
}

/// The pass of a command without ours that breaks what ours has made, if there is one.
pub fn of_the_program(words: &[String]) -> Option<String> {
    let pass =
        names(words).find(|name| OF_THE_PROGRAM.contains(name)).filter(|_| !names(words).any(|n| n == PASS_NAME));
    pass.map(str::to_owned)
}
