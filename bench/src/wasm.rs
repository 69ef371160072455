//! What can be read from a module's bytes.

use std::collections::BTreeMap;
use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use wasmparser::{BinaryReaderError, KnownCustom, Name, Parser, Payload, TypeRef};
use wasmtime::Result;

/// A defined function.
pub struct Function {
    /// Its name; a number, the index, if it has none.
    pub name: String,
    /// Bytes of its body, the length in front included.
    pub size: usize,
    /// Declared locals, parameters not among them.
    pub locals: usize,
}

/// Bytes of a module compressed by `gzip -9`.
pub fn gzip_size(bytes: &[u8]) -> Result<usize> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?.len())
}

/// The module without its name section.
pub fn without_names(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut output = bytes[..8].to_vec();
    let mut at = 8;
    while at < bytes.len() {
        let id = bytes[at];
        let (length, header) = leb(&bytes[at + 1..]);
        let end = at + 1 + header + length;
        let (name_length, name_header) = leb(&bytes[at + 1 + header..]);
        let name_at = at + 1 + header + name_header;
        if id != 0 || bytes.get(name_at..name_at + name_length) != Some(b"name") {
            output.extend_from_slice(&bytes[at..end]);
        }
        at = end;
    }
    Ok(output)
}

/// Names and sizes of sections, headers included.
pub fn sections(bytes: &[u8]) -> Vec<(String, usize)> {
    const KNOWN: [&str; 14] = [
        "custom",
        "type",
        "import",
        "function",
        "table",
        "memory",
        "global",
        "export",
        "start",
        "element",
        "code",
        "data",
        "data count",
        "tag",
    ];
    let mut sections = Vec::new();
    let mut at = 8;
    while at < bytes.len() {
        let id = usize::from(bytes[at]);
        let (length, header) = leb(&bytes[at + 1..]);
        let start = at + 1 + header;
        let name = match id {
            0 => {
                let (length, header) = leb(&bytes[start..]);
                String::from_utf8_lossy(&bytes[start + header..start + header + length]).into_owned()
            }
            id => KNOWN.get(id).unwrap_or(&"unknown").to_string(),
        };
        sections.push((name, start + length - at));
        at = start + length;
    }
    sections
}

/// An unsigned number and how many bytes it takes.
fn leb(bytes: &[u8]) -> (usize, usize) {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate().take(5) {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return (value, index + 1);
        }
    }
    (value, bytes.len().min(5))
}

/// Bytes that a number takes.
pub fn leb_size(value: usize) -> usize {
    (usize::BITS - value.max(1).leading_zeros()).div_ceil(7) as usize
}

/// Names of functions by index, imports among them.
pub fn function_names(bytes: &[u8]) -> Result<(BTreeMap<u32, String>, u32)> {
    let mut names = BTreeMap::new();
    let mut imported = 0;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    imported += u32::from(matches!(import?.ty, TypeRef::Func(_)));
                }
            }
            Payload::CustomSection(section) => {
                let KnownCustom::Name(section) = section.as_known() else { continue };
                for subsection in section {
                    let Name::Function(map) = subsection? else { continue };
                    for naming in map {
                        let naming = naming?;
                        names.insert(naming.index, naming.name.to_owned());
                    }
                }
            }
            _ => {}
        }
    }
    Ok((names, imported))
}

/// All defined functions, in order.
pub fn functions(bytes: &[u8]) -> Result<Vec<Function>> {
    let (names, mut index) = function_names(bytes)?;
    let mut functions = Vec::new();
    for payload in Parser::new(0).parse_all(bytes) {
        let Payload::CodeSectionEntry(body) = payload? else { continue };
        let name = names.get(&index).cloned().unwrap_or_else(|| index.to_string());
        let length = body.range().len();
        let locals = body.get_locals_reader()?.into_iter().map(|local| Ok(local?.0 as usize));
        let locals = locals.sum::<Result<usize, BinaryReaderError>>()?;
        functions.push(Function { name, size: length + leb_size(length), locals });
        index += 1;
    }
    Ok(functions)
}
