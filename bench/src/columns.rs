//! The ways in which a module is instrumented, and the files that come of it.

use std::path::{Path, PathBuf};

use wasmtime::{Result, error::Context as _};

use crate::modules::Module;
use crate::tools::Tools;
use crate::wasm;

/// One way to instrument a module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Column {
    /// Not at all: read and written again.
    Plain,
    /// `--asyncify` with the entry as its list of imports, and `-O2` after it.
    Asyncify,
    /// Ours, where every operand is kept in a local.
    ReplayNone,
    /// Ours, where scalar operands are computed again.
    ReplayScalar,
    /// Ours, as it is by default.
    Effects,
    /// Ours, with the resume functions in a module of their own.
    Separate,
}

pub const ALL: &[Column] =
    &[Column::Plain, Column::Asyncify, Column::ReplayNone, Column::ReplayScalar, Column::Effects, Column::Separate];

/// What every command gets, so that the files of compilers with newer defaults are understood.
pub const FEATURES: &[&str] = &[
    "--enable-bulk-memory",
    "--enable-bulk-memory-opt",
    "--enable-exception-handling",
    "--enable-multivalue",
    "--enable-mutable-globals",
    "--enable-nontrapping-float-to-int",
    "--enable-reference-types",
    "--enable-sign-ext",
];

impl Column {
    /// The key in the JSON file, and a part of file names.
    pub fn key(self) -> &'static str {
        match self {
            Column::Plain => "plain",
            Column::Asyncify => "asyncify",
            Column::ReplayNone => "none",
            Column::ReplayScalar => "scalar",
            Column::Effects => "effects",
            Column::Separate => "separate",
        }
    }

    /// The head of the column in tables.
    pub fn title(self) -> &'static str {
        match self {
            Column::Plain => "uninstrumented",
            Column::Asyncify => "Asyncify",
            Column::ReplayNone => "ours, replay none",
            Column::ReplayScalar => "ours, replay scalar",
            Column::Effects => "ours",
            Column::Separate => "ours, separate",
        }
    }

    /// Which exports unwind and rewind it, as the engines' drivers name them.
    pub fn kind(self) -> &'static str {
        match self {
            Column::Plain => "plain",
            Column::Asyncify => "asyncify",
            _ => "fork",
        }
    }

    /// The options of wasm-opt; the resume module goes to `resume`.
    pub fn options(self, module: &Module, resume: &Path) -> Vec<String> {
        let entry = module.entry;
        let ours = |more: String| {
            let entry = format!("--pass-arg=fork-instrument-entry@{entry}");
            vec!["--fork-instrument".to_owned(), entry, format!("--pass-arg=fork-instrument-{more}")]
        };
        match self {
            Column::Plain => Vec::new(),
            Column::Asyncify => {
                vec!["--asyncify".to_owned(), format!("--pass-arg=asyncify-imports@{entry}"), "-O2".to_owned()]
            }
            Column::ReplayNone => ours("replay@none".to_owned()),
            Column::ReplayScalar => ours("replay@scalar".to_owned()),
            Column::Effects => ours("replay@effects".to_owned()),
            Column::Separate => ours(format!("resume@{}", resume.display())),
        }
    }
}

/// A module in one column.
#[derive(Clone)]
pub struct Variant {
    pub column: Column,
    /// Without names.
    pub file: PathBuf,
    /// The same with function names.
    pub named: PathBuf,
    /// The resume module, and with names.
    pub resume: Option<(PathBuf, PathBuf)>,
}

impl Variant {
    /// How the engines' drivers are told of it: `KIND=FILE[,RESUME]`.
    pub fn argument(&self) -> String {
        let resume = self.resume.as_ref().map(|(file, _)| format!(",{}", file.display())).unwrap_or_default();
        format!("{}={}{resume}", self.column.kind(), self.file.display())
    }

    /// The same without the resume module, for runs that do not fork.
    pub fn argument_without_resume(&self) -> String {
        format!("{}={}", self.column.kind(), self.file.display())
    }
}

/// The input of every column, without names and with: numbers, if the program has lost its own.
pub fn input(tools: &Tools, module: &Module) -> Result<(PathBuf, PathBuf)> {
    let source = tools.source(module)?;
    let path = |end: &str| tools.out.join(format!("{}.{end}", module.name));
    let (text, named, file) = (path("input.wat"), path("input.names.wasm"), path("input.wasm"));
    if !newer(&file, &[&source]) {
        // Text has a name for everything.
        let options: &[&str] = if module.example { &[] } else { &["-O2"] };
        tools.wasm_opt(&source, options, &["-g", "-S"], &text)?;
        tools.wasm_opt(&text, &[], &["-g"], &named)?;
        strip(&named, &file)?;
    }
    Ok((file, named))
}

/// Instruments a module in one way, unless what is there is newer than wasm-opt and the input.
pub fn build(tools: &Tools, module: &Module, column: Column) -> Result<Variant> {
    let (_, input) = input(tools, module)?;
    let path = |end: &str| tools.out.join(format!("{}.{}{end}", module.name, column.key()));
    let (file, named) = (path(".wasm"), path(".names.wasm"));
    let resume = (column == Column::Separate).then(|| (path(".resume.wasm"), path(".resume.names.wasm")));
    // Binaryen's own passes do not change with our pass.
    let ours = column.kind() == "fork";
    let sources: &[&Path] = if ours { &[&input, &tools.wasm_opt] } else { &[&input] };
    if !newer(&file, sources) {
        let resume_file = resume.as_ref().map(|(_, named)| named.clone()).unwrap_or_default();
        let options = column.options(module, &resume_file);
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        tools.wasm_opt(&input, &options, &["-g"], &named)?;
        if let Some((file, named)) = &resume {
            strip(named, file)?;
        }
        strip(&named, &file)?;
    }
    Ok(Variant { column, file, named, resume })
}

fn strip(from: &Path, to: &Path) -> Result<()> {
    let bytes = std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    Ok(std::fs::write(to, wasm::without_names(&bytes)?)?)
}

fn newer(file: &Path, sources: &[&Path]) -> bool {
    let time = |path: &Path| path.metadata().and_then(|data| data.modified()).ok();
    let Some(made) = time(file) else { return false };
    sources.iter().all(|source| time(source).is_some_and(|time| time <= made))
}
