//! Runs an instrumented WASI command with POSIX processes.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use fork_host::run::{self, Options};
use wasmtime::{Result, error::Context as _};

/// Run an instrumented WASI command with POSIX processes: fork, waitpid, pipe, dup2.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Bytes of the fork buffer at first; it grows when a stack does not fit.
    #[arg(long, default_value_t = 1 << 20)]
    buffer: u64,
    /// Bytes of stack for the wasm code of a process.
    #[arg(long, default_value_t = 16 << 20)]
    stack: usize,
    /// Open a directory for the program, under another name if one follows.
    #[arg(long, value_name = "HOST[::GUEST]")]
    dir: Vec<String>,
    /// Set an environment variable of the program.
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// The module with the resume functions, if they are not in the program.
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Compile fast instead of well.
    #[arg(long)]
    no_optimize: bool,
    /// The program, then its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROGRAM")]
    program: Vec<String>,
}

fn main() -> ExitCode {
    match run_program(Cli::parse()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("fork-run: {error:?}");
            ExitCode::from(125)
        }
    }
}

fn run_program(cli: Cli) -> Result<u8> {
    let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let wasm = read(&PathBuf::from(&cli.program[0]))?;
    let resume = cli.resume.as_ref().map(read).transpose()?;
    let dirs = cli.dir.iter().map(|dir| fork_host::wasi::parse_dir(dir)).collect();
    let (args, env, optimize) = (cli.program, cli.env, !cli.no_optimize);
    let options = Options { args, env, dirs, resume, buffer: cli.buffer, stack: cli.stack, optimize };
    Ok(run::run(&wasm, options)?.shell_code())
}
