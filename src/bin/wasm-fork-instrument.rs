//! `wasm-opt --fork-instrument` with the pass's options as options of its own.

use clap::Parser;
use fork_instrument::options::{OPTIONS, PREFIX};

/// Let a WebAssembly program fork: instrument it to unwind its stack to memory and to rewind it.
#[derive(Parser)]
#[command(version, after_help = after_help())]
struct Cli {
    /// The module, binary or text.
    input: String,
    /// Where the instrumented module goes.
    #[arg(short, long)]
    output: String,
    /// Write text instead of a binary.
    #[arg(short = 'S', long)]
    emit_text: bool,
    /// Write names.
    #[arg(short = 'g', long)]
    debuginfo: bool,
    /// An option of the pass, NAME or NAME@VALUE. May be repeated.
    #[arg(short = 'f', long = "fork", value_name = "NAME[@VALUE]")]
    fork: Vec<String>,
    /// Optimise first, as wasm-opt does: 1, 2, 3, 4, s or z.
    #[arg(short = 'O', value_name = "LEVEL")]
    optimize: Option<String>,
    /// More arguments for wasm-opt, such as --enable-simd.
    #[arg(last = true)]
    wasm_opt: Vec<String>,
}

fn after_help() -> String {
    let mut text = String::from("Options of the pass:\n");
    for option in OPTIONS {
        let usage = match option.value {
            "" => option.name.to_string(),
            value => format!("{}@{value}", option.name),
        };
        text += &format!("  {usage}\n      {}\n", option.help);
    }
    text
}

fn main() {
    let cli = Cli::parse();
    let mut arguments = vec!["wasm-fork-instrument".to_string(), cli.input, "-o".into(), cli.output];
    arguments.extend(cli.optimize.map(|level| format!("-O{level}")));
    arguments.extend(cli.wasm_opt);
    arguments.push("--fork-instrument".into());
    arguments.extend(cli.fork.into_iter().map(|option| format!("--pass-arg={PREFIX}{option}")));
    if cli.emit_text {
        arguments.push("-S".into());
    }
    if cli.debuginfo {
        arguments.push("-g".into());
    }
    std::process::exit(fork_instrument::wasm_opt(arguments.into_iter().map(Into::into).collect()));
}
