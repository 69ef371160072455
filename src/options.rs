//! Pass arguments → typed [`Options`]. [`OPTIONS`] is the one list that parsing, messages and the documentation come
//! from.

pub mod later;
pub mod spelling;

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use crate::error::Error;
use crate::output;

/// The prefix of all our pass arguments.
pub const PREFIX: &str = "fork-instrument-";
/// The name of the pass.
pub const PASS_NAME: &str = "fork-instrument";
/// The entry that is assumed when none is given.
pub const DEFAULT_ENTRY: &str = "kernel.kernel_fork";

/// An option as documented: name without prefix, form of the value (empty for a switch), meaning.
pub struct OptionInfo {
    pub name: &'static str,
    pub value: &'static str,
    pub help: &'static str,
}

/// All options.
pub const OPTIONS: &[OptionInfo] = &[
    OptionInfo {
        name: "entry",
        value: "module.name[,…]",
        help: "the fork imports; a trailing * matches any rest, @file reads names from a file, one a line; default \
               kernel.kernel_fork. --fork-instrument=module.name is short for it",
    },
    OptionInfo {
        name: "roots",
        value: "names",
        help: "of the functions that could be in a table or a global, only these resume frames when hosts enter them that \
               way (a trailing * matches any rest, @file reads names from a file); without it, all on the fork path, if a \
               table or a global of functions is imported or exported",
    },
    OptionInfo {
        name: "onlylist",
        value: "names",
        help: "only these functions are on the fork path, at your own risk (names, *, @file)",
    },
    OptionInfo { name: "addlist", value: "names", help: "these functions are on the fork path too (names, *, @file)" },
    OptionInfo {
        name: "removelist",
        value: "names",
        help: "these functions are not on the fork path, at your own risk (names, *, @file)",
    },
    OptionInfo {
        name: "propagate-addlist",
        value: "",
        help: "functions that call functions of the addlist are on the fork path, too",
    },
    OptionInfo {
        name: "ignore-indirect",
        value: "",
        help: "calls through tables and references are assumed not to fork, at your own risk",
    },
    OptionInfo {
        name: "memory",
        value: "name",
        help: "the memory that holds the frames; needed when there are several",
    },
    OptionInfo {
        name: "in-secondary-memory",
        value: "",
        help: "the frames go to an additional memory, exported as wpk_fork_memory, that buffer pointers then refer to",
    },
    OptionInfo { name: "secondary-memory-size", value: "pages", help: "the initial size of that memory; default 1" },
    OptionInfo {
        name: "export-globals",
        value: "",
        help: "for the main module of dynamic linking: the state and the resume table are exported, so that side modules \
               share them",
    },
    OptionInfo {
        name: "import-globals",
        value: "",
        help: "for side modules of dynamic linking: the state and the resume table are those of the main module",
    },
    OptionInfo {
        name: "asserts",
        value: "",
        help: "the module checks itself: wrong lists, hosts that break the contract and frames of other functions trap \
               in functions that say so by their names",
    },
    OptionInfo {
        name: "replay",
        value: "none|scalar|effects",
        help: "which operands resume functions compute again instead of keeping them in locals; default effects",
    },
    OptionInfo {
        name: "resume",
        value: "file",
        help: "writes the resume functions to a module of their own, which hosts need only when the program forks",
    },
    OptionInfo {
        name: "refs",
        value: "refuse|tables",
        help: "references that are live across a fork and cannot be made again: refuse the module (the default), or keep \
               them in the exported tables wpk_fork_refs_func, _extern and _any, which the host carries over to the child",
    },
    OptionInfo {
        name: "verify",
        value: "",
        help: "checks the output against what was planned, by executing each landing on symbols; for defects of the pass",
    },
    OptionInfo {
        name: "verbose",
        value: "",
        help: "on standard error, one line a function: why it is on the fork path; and one for each that needs operands after \
               a call: how many are recomputed, read from a local, or spilled, and why",
    },
];

/// Which operands may be computed again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Replay {
    /// None: every operand that is needed after a landing is kept in a local.
    None,
    /// Scalar constants, reads of locals, and integer operations on these that cannot trap.
    Scalar,
    /// Whatever has no effects, cannot trap, and reads only what cannot have changed.
    #[default]
    Effects,
}

/// What happens to references that are live across a landing and cannot be made again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Refs {
    /// The module is refused.
    #[default]
    Refuse,
    /// They are kept in exported tables.
    Tables,
}

/// Whose the state and the resume table are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Sharing {
    /// The module's own.
    #[default]
    None,
    /// Its own, and exported to side modules.
    Export,
    /// Imported from a main module.
    Import,
}

/// A name, or a prefix followed by `*`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pattern(String);

impl Pattern {
    pub fn matches(&self, name: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => self.0 == name,
        }
    }

    pub fn text(&self) -> &str {
        &self.0
    }
}

/// The pass's options.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Fork imports, as `module.name`.
    pub entry: Vec<Pattern>,
    pub roots: Option<Vec<Pattern>>,
    pub only_list: Option<Vec<Pattern>>,
    pub add_list: Vec<Pattern>,
    pub remove_list: Vec<Pattern>,
    pub propagate_add_list: bool,
    pub ignore_indirect: bool,
    pub memory: Option<String>,
    /// Initial pages of an additional memory for the frames.
    pub secondary_memory: Option<u64>,
    pub sharing: Sharing,
    pub asserts: bool,
    pub replay: Replay,
    /// The file for the resume functions, if they get a module of their own.
    pub resume: Option<String>,
    pub refs: Refs,
    pub verify: bool,
    pub verbose: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            entry: vec![Pattern(DEFAULT_ENTRY.into())],
            roots: None,
            only_list: None,
            add_list: Vec::new(),
            remove_list: Vec::new(),
            propagate_add_list: false,
            ignore_indirect: false,
            memory: None,
            secondary_memory: None,
            sharing: Sharing::default(),
            asserts: false,
            replay: Replay::default(),
            resume: None,
            refs: Refs::default(),
            verify: false,
            verbose: false,
        }
    }
}

impl Options {
    /// Parses all `--pass-arg`s of a pipeline (those of other passes are left alone) and the pass's own argument, which
    /// is short for the entry.
    pub fn parse(own: &str, arguments: &[(String, String)]) -> Result<Options, Error> {
        let mut options = Options::default();
        for (key, value) in arguments {
            if let Some(name) = key.strip_prefix(PREFIX) {
                options.set(name, value)?;
            }
        }
        if !own.is_empty() {
            let also = arguments.iter().any(|(key, _)| key.strip_prefix(PREFIX) == Some("entry"));
            let listed = if also { std::mem::take(&mut options.entry) } else { Vec::new() };
            options.entry = entries(own)?;
            options.entry.extend(listed);
        }
        options.check_combinations()?;
        for (argument, meant) in spelling::misspelt(arguments) {
            eprintln!("warning: --fork-instrument: no pass takes --pass-arg={argument}: did you mean {meant}?");
        }
        Ok(options)
    }

    fn check_combinations(&self) -> Result<(), Error> {
        let conflict = |one: &str, other: &str| {
            let problem = format!("this does not go together with {PREFIX}{other}");
            Err(bad(one, "", &problem))
        };
        if self.secondary_memory.is_some() && self.memory.is_some() {
            return conflict("in-secondary-memory", "memory");
        }
        if self.sharing != Sharing::None {
            let name = if self.sharing == Sharing::Export { "export-globals" } else { "import-globals" };
            if self.secondary_memory.is_some() {
                return conflict(name, "in-secondary-memory");
            }
            if self.resume.is_some() {
                return conflict(name, "resume");
            }
        }
        Ok(())
    }

    fn share(&mut self, name: &str, value: &str, sharing: Sharing) -> Result<(), Error> {
        if switch(name, value)? {
            if self.sharing != Sharing::None {
                return Err(bad(name, value, "a module either exports the globals or imports them"));
            }
            self.sharing = sharing;
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), Error> {
        match name {
            "entry" => self.entry = entries(value)?,
            "roots" => self.roots = Some(names(name, value)?),
            "onlylist" => self.only_list = Some(names(name, value)?),
            "addlist" => self.add_list = names(name, value)?,
            "removelist" => self.remove_list = names(name, value)?,
            "propagate-addlist" => self.propagate_add_list = switch(name, value)?,
            "ignore-indirect" => self.ignore_indirect = switch(name, value)?,
            "memory" => self.memory = Some(non_empty(name, value)?),
            "in-secondary-memory" => {
                if switch(name, value)? {
                    self.secondary_memory.get_or_insert(1);
                }
            }
            "secondary-memory-size" => match value.parse() {
                Ok(pages @ 1..=65536) => self.secondary_memory = Some(pages),
                _ => return Err(bad(name, value, "the value is a number of pages from 1 to 65536")),
            },
            "export-globals" => self.share(name, value, Sharing::Export)?,
            "import-globals" => self.share(name, value, Sharing::Import)?,
            "asserts" => self.asserts = switch(name, value)?,
            "replay" => {
                self.replay = match value {
                    "none" => Replay::None,
                    "scalar" => Replay::Scalar,
                    "effects" => Replay::Effects,
                    _ => return Err(bad(name, value, "the value is none, scalar or effects")),
                }
            }
            // An argument without `@`; a file of that name can be written ./1.
            "resume" if value == "1" => return Err(missing(name)),
            "resume" if value == "-" => return Err(bad(name, value, "the second module needs a file of its own")),
            "resume" if value.contains(char::REPLACEMENT_CHARACTER) => {
                return Err(bad(name, value, "the name of the file is not UTF-8, or has U+FFFD in it"));
            }
            "resume" => self.resume = Some(non_empty(name, value)?),
            "refs" => {
                self.refs = match value {
                    "refuse" => Refs::Refuse,
                    "tables" => Refs::Tables,
                    _ => return Err(bad(name, value, "the value is refuse or tables")),
                }
            }
            "verify" => self.verify = switch(name, value)?,
            "verbose" => self.verbose = switch(name, value)?,
            _ => return Err(spelling::unknown(name)),
        }
        Ok(())
    }
}

/// An option as it is written on the command line.
pub fn usage(option: &OptionInfo) -> String {
    match option.value {
        "" => format!("{PREFIX}{}", option.name),
        value => format!("{PREFIX}{}@{value}", option.name),
    }
}

/// The description of the pass for `--help`.
pub fn description() -> String {
    let mut text = String::from("lets a program fork: instruments it to unwind its stack to memory and to rewind it");
    for (i, option) in OPTIONS.iter().enumerate() {
        text += if i == 0 { " (--pass-arg=" } else { ", " };
        text += &usage(option);
    }
    text + ")"
}

/// An error in the value of one of our options.
pub fn bad(name: &str, value: &str, problem: &str) -> Error {
    let value = if value.is_empty() { String::new() } else { format!("@{value}") };
    Error::BadOption { argument: format!("{PREFIX}{name}{value}"), problem: problem.into() }
}

/// For an option that needs a value and has none.
fn missing(name: &str) -> Error {
    let usage = OPTIONS.iter().find(|option| option.name == name).map(usage).unwrap_or_default();
    bad(name, "", &format!("a value is missing: write {usage}"))
}

/// What is wrong with a command line as a whole, ours and Binaryen's options together.
pub fn mistake(words: &[String]) -> Option<Error> {
    given_twice(words).or_else(|| later::check(words)).or_else(|| resume_file_taken(words))
}

/// The file of resume functions of a command line. Of several, Binaryen hands on the last.
fn resume_file(words: &[String]) -> Option<&str> {
    let files = pass_arguments(words).filter(|(key, _)| key.strip_prefix(PREFIX) == Some("resume"));
    files.map(|(_, file)| file).last()
}

/// Options of Binaryen's that name a file, besides those for modules.
const FILE_OPTIONS: [&str; 5] = ["--symbolmap", "--output-source-map", "-osm", "--input-source-map", "-ism"];

/// A file of resume functions that the command line names elsewhere: as its input, as a list of names, or for what Binaryen
/// writes besides modules.
fn resume_file_taken(words: &[String]) -> Option<Error> {
    let file = resume_file(words)?;
    let is_output = |option: &str| option == "-o" || option == "--output";
    let is_file_option = |option: &str| FILE_OPTIONS.contains(&option);
    // Whatever else is a file.
    let is_file = |value: &str| std::fs::metadata(value).is_ok_and(|data| data.is_file());
    let named = words.iter().zip(&words[1..]).filter_map(|(before, word)| match word.split_once('=') {
        Some((option, value)) if option.starts_with('-') => {
            (!is_output(option) && (is_file_option(option) || is_file(value))).then_some(value)
        }
        _ => (!is_output(before) && (is_file_option(before) || is_file(word))).then_some(word.as_str()),
    });
    let lists = pass_arguments(words).filter_map(|(_, value)| value.strip_prefix('@'));
    let place = output::place(Path::new(file));
    let is_taken = named.chain(lists).any(|name| output::place(Path::new(name)) == place);
    is_taken.then(|| Error::ResumeFileTaken(file.to_owned()))
}

/// A list of names that a command line gives twice. Binaryen hands only the last on, and without the names of the first a
/// program can be wrong. Other options can be given again, to change them.
fn given_twice(words: &[String]) -> Option<Error> {
    let is_list = |name: &str| {
        OPTIONS.iter().any(|option| option.name == name && matches!(option.value, "names" | "module.name[,…]"))
    };
    let mut given: HashMap<&str, &str> = HashMap::new();
    for (key, value) in pass_arguments(words) {
        let Some(name) = key.strip_prefix(PREFIX).filter(|name| is_list(name)) else { continue };
        if let Some(other) = given.insert(name, value).filter(|&other| other != value) {
            let problem =
                format!("there is another list already, {other}: write all names in one, separated by commas");
            return Some(bad(name, value, &problem));
        }
    }
    None
}

/// Keys and values of the pass arguments of a command line.
fn pass_arguments(words: &[String]) -> impl Iterator<Item = (&str, &str)> {
    let mut words = words.iter();
    std::iter::from_fn(move || {
        loop {
            let word = words.next()?;
            let argument = match word.split_once('=') {
                Some(("--pass-arg" | "-pa", argument)) => argument,
                None if word == "--pass-arg" || word == "-pa" => words.next()?,
                _ => continue,
            };
            return Some(argument.split_once('@').unwrap_or((argument, "")));
        }
    })
}

/// Binaryen gives a pass argument without `@` the value "1".
fn switch(name: &str, value: &str) -> Result<bool, Error> {
    match value {
        "" | "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(bad(name, value, "this option is a switch and takes no value")),
    }
}

fn non_empty(name: &str, value: &str) -> Result<String, Error> {
    match value {
        "" => Err(missing(name)),
        _ => Ok(value.into()),
    }
}

fn entries(value: &str) -> Result<Vec<Pattern>, Error> {
    let entries = names("entry", value)?;
    match entries.iter().find(|p| !p.0.contains('.') && !p.0.ends_with('*')) {
        Some(p) => Err(bad("entry", &p.0, "an entry is written module.name")),
        None => Ok(entries),
    }
}

/// A list of names, separated by commas outside of parentheses (C++ names have some); `@file` reads one name a line.
fn names(option: &str, value: &str) -> Result<Vec<Pattern>, Error> {
    // What Binaryen passes for an argument without `@`; a function of that name can be written twice.
    if value.is_empty() || value == "1" {
        return Err(missing(option));
    }
    let mut patterns = Vec::new();
    for name in split_names(value) {
        if let Some(path) = name.strip_prefix('@') {
            let text = fs::read_to_string(path).map_err(|e| bad(option, value, &format!("cannot read {path}: {e}")))?;
            patterns.extend(text.lines().map(str::trim).filter(|l| !l.is_empty()).map(|l| Pattern(l.into())));
        } else if name.is_empty() {
            return Err(bad(option, value, "a name is missing"));
        } else {
            patterns.push(Pattern(name));
        }
    }
    Ok(patterns)
}

/// Whether angle brackets that follow are no parentheses, as in `operator<`, `operator->` and `operator<<`.
fn is_operator(name: &str) -> bool {
    name.rsplit_once("operator").is_some_and(|(_, symbol)| symbol.chars().all(|c| matches!(c, '<' | '>' | '-')))
}

fn split_names(value: &str) -> Vec<String> {
    let mut names = vec![String::new()];
    let mut depth = 0usize;
    for c in value.chars() {
        match c {
            '<' | '>' if names.last().is_some_and(|name| is_operator(name)) => {}
            '(' | '<' | '[' => depth += 1,
            ')' | '>' | ']' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                names.push(String::new());
                continue;
            }
            _ => {}
        }
        names.last_mut().expect("there is always a last name").push(c);
    }
    names.into_iter().map(|n| n.trim().to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[(&str, &str)]) -> Result<Options, Error> {
        let arguments: Vec<_> = arguments.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        Options::parse("", &arguments)
    }

    #[test]
    fn arguments_of_other_passes_are_left_alone() {
        assert_eq!(parse(&[("asyncify-imports", "x.y"), ("stack-check-handler", "h")]), Ok(Options::default()));
    }

    #[test]
    fn commas_within_parentheses_do_not_separate() {
        let options = parse(&[("fork-instrument-removelist", "f(int, char),std::pair<int, int>::g,h*")]).unwrap();
        let names: Vec<_> = options.remove_list.iter().map(Pattern::text).collect();
        assert_eq!(names, ["f(int, char)", "std::pair<int, int>::g", "h*"]);
    }

    #[test]
    fn angle_brackets_of_operators_are_no_parentheses() {
        for operator in ["operator<", "operator<<", "operator->", "operator< <int, int>", "a<int, b>::operator>>"] {
            let options = parse(&[("fork-instrument-removelist", &format!("{operator},h"))]).unwrap();
            let names: Vec<_> = options.remove_list.iter().map(Pattern::text).collect();
            assert_eq!(names, [operator, "h"]);
        }
    }

    #[test]
    fn a_trailing_star_matches_any_rest() {
        assert!(Pattern("kernel.*".into()).matches("kernel.kernel_fork"));
        assert!(!Pattern("kernel.*".into()).matches("env.kernel_fork"));
        assert!(!Pattern("kernel.fork".into()).matches("kernel.fork2"));
    }

    #[test]
    fn an_entry_without_a_module_is_refused() {
        assert!(parse(&[("fork-instrument-entry", "fork")]).is_err());
    }

    #[test]
    fn every_documented_option_is_parsed() {
        for option in OPTIONS {
            let value = match option.name {
                "replay" => "scalar",
                "refs" => "tables",
                "entry" => "a.b",
                "secondary-memory-size" => "2",
                _ if option.value.is_empty() => "1",
                _ => "x",
            };
            parse(&[(&format!("{PREFIX}{}", option.name), value)]).unwrap();
        }
    }
}
