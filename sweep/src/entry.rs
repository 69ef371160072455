//! Guesses the import at which a module could fork.

use crate::module::{ImportedFunction, Summary};

/// Imports that stand for a system call, best first; a `*` at an end matches any rest.
const KNOWN: &[&str] = &[
    "kernel.kernel_fork",
    "wasix_32v1.proc_fork",
    "env.fork",
    "env.__syscall_fork",
    "wasi_snapshot_preview1.fd_write",
    "wasi_unstable.fd_write",
    "env.fd_write",
    "env.__wasi_fd_write",
    "gojs.runtime.wasmWrite",
    "go.runtime.wasmWrite",
    "env.*write*",
];

/// Imports that do not return, or through which the program calls itself: a fork there cannot be.
const UNFIT: &[&str] = &["invoke_*", "*abort*", "*throw*", "*proc_exit", "*exit", "*assert*", "*unreachable*"];

/// The import that the module would fork at, as `module.name`; `None` when it calls no import.
pub fn guess(summary: &Summary) -> Option<String> {
    let candidates: Vec<&ImportedFunction> =
        summary.functions.iter().filter(|f| f.calls > 0 && is_writable(&f.path())).collect();
    for pattern in KNOWN {
        if let Some(found) = candidates.iter().find(|f| matches(pattern, &f.path())) {
            return Some(found.path());
        }
    }
    // Minified names tell nothing: the first will do.
    if let Some(minified) = candidates.iter().find(|f| f.module.len() == 1 && f.name.len() <= 2) {
        return Some(minified.path());
    }
    let fit = |f: &&&ImportedFunction| !UNFIT.iter().any(|pattern| matches(pattern, &f.name));
    let used = candidates.iter().filter(fit).max_by_key(|f| f.calls);
    used.or(candidates.first()).map(|f| f.path())
}

/// Whether the name can be written as an entry on the command line, and is none of the builtins of engines.
fn is_writable(path: &str) -> bool {
    !path.starts_with("wasm:")
        && !path.starts_with('@')
        && !path.ends_with('*')
        && !path.contains([',', '(', '<', '[', ')', '>', ']'])
}

fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    for (i, part) in parts.iter().enumerate() {
        if i + 1 == parts.len() && !part.is_empty() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    parts.last().is_some_and(|last| last.is_empty()) || rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(module: &str, name: &str, calls: usize) -> ImportedFunction {
        ImportedFunction { module: module.into(), name: name.into(), calls }
    }

    fn guess_among(functions: Vec<ImportedFunction>) -> Option<String> {
        guess(&Summary { functions, ..Summary::default() })
    }

    #[test]
    fn system_calls_come_before_what_is_called_more_often() {
        let functions = vec![function("env", "log", 9), function("wasi_snapshot_preview1", "fd_write", 1)];
        assert_eq!(guess_among(functions).as_deref(), Some("wasi_snapshot_preview1.fd_write"));
    }

    #[test]
    fn an_import_that_is_not_called_is_no_entry() {
        assert_eq!(guess_among(vec![function("kernel", "kernel_fork", 0)]), None);
    }

    #[test]
    fn invoke_is_no_entry_unless_there_is_nothing_else() {
        let functions = vec![function("env", "invoke_vi", 9), function("env", "now", 2)];
        assert_eq!(guess_among(functions).as_deref(), Some("env.now"));
    }

    #[test]
    fn stars_match_at_both_ends() {
        assert!(matches("env.*write*", "env.js_write_all"));
        assert!(matches("*exit", "proc_exit"));
        assert!(matches("a.b", "a.b"));
        assert!(!matches("*exit", "exit_code"));
        assert!(!matches("a.b", "a.bc"));
    }
}
