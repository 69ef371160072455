//! Reads and assembles wasm binaries.

use std::collections::BTreeMap;
use std::ops::Range;

use wasmparser::{BinaryReader, KnownCustom, Name, Parser, Payload, Validator, WasmFeatures};

/// Panics unless an engine with every feature takes the module.
#[track_caller]
pub fn validate(module: &[u8]) {
    if let Err(e) = Validator::new_with_features(WasmFeatures::all()).validate_all(module) {
        panic!("the module is not valid: {e}");
    }
}

#[track_caller]
pub fn payloads(module: &[u8]) -> Vec<Payload<'_>> {
    Parser::new(0).parse_all(module).map(|p| p.expect("a readable module")).collect()
}

pub fn exports(module: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    for payload in payloads(module) {
        if let Payload::ExportSection(section) = payload {
            names.extend(section.into_iter().map(|e| e.expect("a readable export").name.to_string()));
        }
    }
    names
}

/// Custom sections by name, in order.
pub fn custom_sections(module: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut sections = Vec::new();
    for payload in payloads(module) {
        if let Payload::CustomSection(section) = payload {
            sections.push((section.name().to_string(), section.data().to_vec()));
        }
    }
    sections
}

pub fn custom_section(module: &[u8], name: &str) -> Option<Vec<u8>> {
    custom_sections(module).into_iter().find(|(n, _)| n == name).map(|(_, data)| data)
}

/// Contents of the active and passive data segments.
pub fn data(module: &[u8]) -> Vec<Vec<u8>> {
    let mut segments = Vec::new();
    for payload in payloads(module) {
        if let Payload::DataSection(section) = payload {
            segments.extend(section.into_iter().map(|d| d.expect("a readable segment").data.to_vec()));
        }
    }
    segments
}

/// What the name section calls functions and their locals.
#[derive(Default)]
pub struct Names {
    pub functions: BTreeMap<u32, String>,
    pub locals: BTreeMap<u32, BTreeMap<u32, String>>,
}

impl Names {
    pub fn of(module: &[u8]) -> Names {
        let mut names = Names::default();
        for payload in payloads(module) {
            let Payload::CustomSection(section) = payload else { continue };
            let KnownCustom::Name(reader) = section.as_known() else { continue };
            for subsection in reader {
                match subsection.expect("a readable name section") {
                    Name::Function(map) => {
                        for naming in map {
                            let naming = naming.expect("a readable name");
                            names.functions.insert(naming.index, naming.name.into());
                        }
                    }
                    Name::Local(map) => {
                        for function in map {
                            let function = function.expect("readable names of locals");
                            let locals = names.locals.entry(function.index).or_default();
                            for naming in function.names {
                                let naming = naming.expect("a readable name");
                                locals.insert(naming.index, naming.name.into());
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
        names
    }

    #[track_caller]
    pub fn index(&self, function: &str) -> u32 {
        let found = self.functions.iter().find(|(_, name)| *name == function);
        *found.unwrap_or_else(|| panic!("no function is named {function}")).0
    }

    /// Names of the locals of a function, sorted.
    #[track_caller]
    pub fn locals_of(&self, function: &str) -> Vec<&str> {
        let locals = self.locals.get(&self.index(function));
        let mut names: Vec<&str> = locals.into_iter().flatten().map(|(_, name)| name.as_str()).collect();
        names.sort_unstable();
        names
    }
}

/// Where the body of each function is in the file, by the function's index.
pub fn bodies(module: &[u8]) -> BTreeMap<u32, Range<usize>> {
    let mut index = 0;
    let mut bodies = BTreeMap::new();
    for payload in payloads(module) {
        match payload {
            Payload::ImportSection(section) => {
                let imports = section.into_imports().map(|i| i.expect("a readable import"));
                index += imports.filter(|i| matches!(i.ty, wasmparser::TypeRef::Func(_))).count() as u32;
            }
            Payload::CodeSectionEntry(body) => {
                bodies.insert(index, body.range().start..body.range().end);
                index += 1;
            }
            _ => {}
        }
    }
    bodies
}

/// Offsets where sections start, the end of the header first.
pub fn section_starts(module: &[u8]) -> Vec<usize> {
    let mut starts = vec![8];
    let mut at = 8;
    while at < module.len() {
        let mut reader = BinaryReader::new(&module[at + 1..], 0);
        let size = reader.read_var_u32().expect("the size of a section") as usize;
        at += 1 + reader.current_position() + size;
        starts.push(at);
    }
    starts
}

pub fn leb(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}

/// Bytes behind their length.
pub fn sized(contents: &[u8]) -> Vec<u8> {
    [leb(contents.len()), contents.to_vec()].concat()
}

/// A vector of the binary format: the items behind their count.
pub fn list(items: &[Vec<u8>]) -> Vec<u8> {
    [leb(items.len()), items.concat()].concat()
}

pub fn section(id: u8, contents: &[u8]) -> Vec<u8> {
    [vec![id], sized(contents)].concat()
}

pub fn custom(name: impl AsRef<[u8]>, contents: &[u8]) -> Vec<u8> {
    section(0, &[sized(name.as_ref()), contents.to_vec()].concat())
}

pub fn module(sections: &[Vec<u8>]) -> Vec<u8> {
    [b"\0asm\x01\0\0\0".to_vec(), sections.concat()].concat()
}

/// The place of an instruction in its source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// In the file.
    pub offset: usize,
    /// `file:line:column`, as in text annotations; none for code without a source.
    pub location: Option<String>,
}

/// The mappings of a source map.
pub fn mappings(map: &str) -> Vec<Mapping> {
    let field = |name: &str, end: char| {
        let start = map.find(name).unwrap_or_else(|| panic!("no {name} in {map}")) + name.len();
        let length = map[start..].find(end).expect("the field ends");
        &map[start..start + length]
    };
    let sources: Vec<&str> = field("\"sources\":[", ']').split(',').map(|s| s.trim_matches('"')).collect();
    let (mut offset, mut file, mut line, mut column) = (0i64, 0i64, 1i64, 0i64);
    let segments = field("\"mappings\":\"", '"').split(',').filter(|s| !s.is_empty());
    segments
        .map(|segment| {
            let values = vlq(segment);
            offset += values[0];
            let location = (values.len() >= 4).then(|| {
                file += values[1];
                line += values[2];
                column += values[3];
                format!("{}:{line}:{column}", sources[file as usize])
            });
            Mapping { offset: offset as usize, location }
        })
        .collect()
}

fn vlq(segment: &str) -> Vec<i64> {
    const DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut values, mut value, mut shift) = (Vec::new(), 0i64, 0);
    for c in segment.chars() {
        let digit = DIGITS.find(c).expect("a base64 digit") as i64;
        value |= (digit & 31) << shift;
        shift += 5;
        if digit & 32 == 0 {
            values.push(if value & 1 == 1 { -(value >> 1) } else { value >> 1 });
            (value, shift) = (0, 0);
        }
    }
    values
}
