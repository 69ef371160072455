//! The programs and folders that measuring needs.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use wasmtime::{Result, bail, ensure, error::Context as _};

use crate::columns::FEATURES;
use crate::modules::Module;

pub struct Tools {
    /// The root of the repository.
    pub root: PathBuf,
    pub wasm_opt: PathBuf,
    pub node: PathBuf,
    pub programs: PathBuf,
    /// Where instrumented modules go.
    pub out: PathBuf,
    /// This program.
    pub own: PathBuf,
}

/// Where the pinned Node is, among the tools.
fn node() -> String {
    let pins = include_str!("../../scripts/lib.sh");
    let version = pins.lines().find_map(|line| line.strip_prefix("node_version=")).expect("scripts/lib.sh pins Node");
    format!("node-{version}/bin/node")
}

impl Tools {
    pub fn find(wasm_opt: Option<&Path>, programs: Option<&Path>) -> Result<Tools> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in a workspace").to_owned();
        let own = std::env::current_exe()?;
        let release = own.parent().expect("a program is in a folder").to_owned();
        let target = release.parent().expect("the folder is in cargo's").to_owned();
        let dependencies = std::env::var_os("FORK_INSTRUMENT_DEPS").map(PathBuf::from);
        let tools = Tools {
            wasm_opt: wasm_opt.map_or_else(|| release.join("wasm-opt"), Path::to_owned),
            node: dependencies.unwrap_or_else(|| root.join("third_party")).join(node()),
            programs: programs.map_or_else(|| target.join("programs"), Path::to_owned),
            out: target.join("bench"),
            own,
            root,
        };
        std::fs::create_dir_all(&tools.out)?;
        Ok(tools)
    }

    pub fn docs(&self) -> PathBuf {
        self.root.join("docs")
    }

    /// The module as it is before anything.
    pub fn source(&self, module: &Module) -> Result<PathBuf> {
        let path = match module.example {
            true => self.root.join(format!("examples/{}.wat", module.name)),
            false => self.programs.join(format!("{}.O2.wasm", module.name)),
        };
        ensure!(path.exists(), "{} is missing: make bench builds it", path.display());
        Ok(path)
    }

    /// The arguments of wasm-opt.
    pub fn arguments(&self, input: &Path, passes: &[&str], output_options: &[&str], output: &Path) -> Vec<String> {
        let mut arguments: Vec<String> = FEATURES.iter().map(|&text| text.to_owned()).collect();
        arguments.push(input.display().to_string());
        arguments.extend(passes.iter().chain(output_options).map(|&text| text.to_owned()));
        arguments.extend(["-q".to_owned(), "-o".to_owned(), output.display().to_string()]);
        arguments
    }

    /// Runs wasm-opt.
    pub fn wasm_opt(&self, input: &Path, passes: &[&str], output_options: &[&str], output: &Path) -> Result<()> {
        let arguments = self.arguments(input, passes, output_options, output);
        let run = Command::new(&self.wasm_opt).args(&arguments).output();
        let run = run.with_context(|| format!("cannot run {}", self.wasm_opt.display()))?;
        ensure!(
            run.status.success(),
            "wasm-opt {}: {}\n{}",
            arguments.join(" "),
            run.status,
            String::from_utf8_lossy(&run.stderr)
        );
        Ok(())
    }

    /// Runs a measuring process of ours, and reads what it prints.
    pub fn worker(&self, arguments: &[String]) -> Result<Value> {
        let mut command = Command::new(&self.own);
        command.arg("worker").args(arguments);
        output_of(command)
    }
}

/// Runs a command that prints JSON.
pub fn output_of(mut command: Command) -> Result<Value> {
    let run = command.output().with_context(|| format!("cannot run {:?}", command.get_program()))?;
    if !run.status.success() {
        bail!("{command:?}: {}\n{}", run.status, String::from_utf8_lossy(&run.stderr));
    }
    let text = String::from_utf8_lossy(&run.stdout);
    serde_json::from_str(&text).with_context(|| format!("{command:?} printed {text:?}"))
}
