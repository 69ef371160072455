//! V8, by the scripts in `bench/js`.

use std::process::Command;

use serde_json::Value;
use wasmtime::Result;

use crate::tools::{Tools, output_of};

/// Runs one of the scripts with options of V8.
pub fn run(tools: &Tools, flags: &[&str], script: &str, arguments: &[String]) -> Result<Value> {
    let mut command = Command::new(&tools.node);
    command.args(flags).arg(tools.root.join("bench/js").join(script)).args(arguments);
    output_of(command)
}
