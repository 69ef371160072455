//! Runs an instrumented WASI command with POSIX processes.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use fork_host::run::{self, Options};
use wasmtime::{Result, error::Context as _};

/// Run an instrumented WASI command with POSIX processes: fork, waitpid, pipe, dup2.
#[derive(Parser)]
#[command(name = "fork-run", version)]
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
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<String>,
    /// The module with the resume functions, if they are not in the program; read at the first fork.
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Compile fast instead of well.
    #[arg(long)]
    no_optimize: bool,
    /// The program, then its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROGRAM")]
    program: Vec<String>,
}

fn variable(text: &str) -> Result<String, String> {
    if text.contains('=') { Ok(text.to_owned()) } else { Err("an = is missing".to_owned()) }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Everything from the program's name on is the program's, which makes a misspelt option one.
    if cli.program[0].starts_with('-') {
        let message = format!("unknown option {}", cli.program[0]);
        Cli::command().error(ErrorKind::UnknownArgument, message).exit();
    }
    match run_program(cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("fork-run: {error:?}");
            ExitCode::from(125)
        }
    }
}

fn run_program(cli: Cli) -> Result<u8> {
    let wasm = std::fs::read(&cli.program[0]).with_context(|| format!("cannot read {}", cli.program[0]))?;
    let dirs = cli.dir.iter().map(|dir| fork_host::wasi::parse_dir(dir)).collect();
    let (args, env, resume, optimize) = (cli.program, cli.env, cli.resume, !cli.no_optimize);
    let options = Options { args, env, dirs, resume, buffer: cli.buffer, stack: cli.stack, optimize };
    Ok(run::run(&wasm, options)?.shell_code())
}
