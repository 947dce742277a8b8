//! Offsets of kernel structure members, from the running kernel's BTF (Documentation/bpf/btf.rst): Rust programs carry
//! no relocations, so the agent resolves offsets and hands them over as load-time constants. Every offset is resolved
//! or the feature that needs it stays off.

use std::io;
use std::path::Path;

const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const MAGIC: u32 = 0xeb9f;
const MEMBER: usize = 12;

/// Why BTF gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file cannot be read; kernels without `CONFIG_DEBUG_INFO_BTF` have none.
    #[error("{path}: {source}")]
    Read {
        /// The BTF file.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// The data is cut short or not BTF.
    #[error("not valid BTF at byte {0}")]
    Malformed(usize),
    /// This kernel has no such structure or member.
    #[error("the kernel has no {0}")]
    Absent(String),
}

struct Type {
    name: usize,
    kind: u32,
    members: usize,
    bitfields: bool,
    /// Size, or the type that this one modifies.
    reference: u32,
    /// Where what follows the common header starts.
    extra: usize,
}

/// A parsed BTF section.
pub struct Btf {
    data: Vec<u8>,
    strings: usize,
    types: Vec<Type>,
}

impl Btf {
    /// Reads `/sys/kernel/btf/vmlinux`, or another file of that format.
    ///
    /// # Errors
    /// When it cannot be read or is not BTF.
    pub fn read(path: &Path) -> Result<Self, BtfError> {
        let data = std::fs::read(path)
            .map_err(|source| BtfError::Read { path: path.display().to_string(), source })?;
        Self::parse(data)
    }

    /// Parses a BTF section.
    ///
    /// # Errors
    /// When it is cut short or not BTF.
    pub fn parse(data: Vec<u8>) -> Result<Self, BtfError> {
        if word(&data, 0)? & 0xffff != MAGIC {
            return Err(BtfError::Malformed(0));
        }
        let header = index(&data, 4)?;
        let (start, length) = (header + index(&data, 8)?, index(&data, 12)?);
        let mut btf = Self {
            strings: header + index(&data, 16)?,
            types: vec![Type { name: 0, kind: 0, members: 0, bitfields: false, reference: 0, extra: 0 }],
            data,
        };
        let mut offset = start;
        while offset < start + length {
            let found = btf.type_at(offset)?;
            offset = found.extra + extra_length(found.kind, found.members);
            btf.types.push(found);
        }
        Ok(btf)
    }

    fn type_at(&self, offset: usize) -> Result<Type, BtfError> {
        let info = word(&self.data, offset + 4)?;
        Ok(Type {
            name: index(&self.data, offset)?,
            kind: (info >> 24) & 0x1f,
            members: (info & 0xffff) as usize,
            bitfields: info >> 31 == 1,
            reference: word(&self.data, offset + 8)?,
            extra: offset + MEMBER,
        })
    }

    fn text(&self, offset: usize) -> Option<&str> {
        let rest = self.data.get(self.strings + offset..)?;
        let end = rest.iter().position(|byte| *byte == 0)?;
        std::str::from_utf8(rest.get(..end)?).ok()
    }

    /// Follows typedefs and qualifiers.
    fn resolve(&self, mut id: usize) -> Option<&Type> {
        // Longer chains do not exist; malformed data could make a loop.
        for _ in 0..32 {
            let found = self.types.get(id)?;
            match found.kind {
                // TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG
                8..=11 | 18 => id = found.reference as usize,
                _ => return Some(found),
            }
        }
        None
    }

    /// Offset in bits of a member, looking into anonymous members, and its type.
    fn member(&self, of: &Type, name: &str, depth: u32) -> Option<(u32, usize)> {
        if !is_aggregate(of.kind) || depth > 8 {
            return None;
        }
        (0..of.members).find_map(|number| {
            let at = of.extra + MEMBER * number;
            let kind = word(&self.data, at + 4).ok()? as usize;
            let raw = word(&self.data, at + 8).ok()?;
            let bits = if of.bitfields { raw & 0x00ff_ffff } else { raw };
            let own = self.text(index(&self.data, at).ok()?)?;
            if own == name {
                return Some((bits, kind));
            }
            if !own.is_empty() {
                return None;
            }
            let (inner, kind) = self.member(self.resolve(kind)?, name, depth + 1)?;
            Some((bits + inner, kind))
        })
    }

    /// Offset in bytes of `path` (`a.b`) in `structure`.
    ///
    /// # Errors
    /// When this kernel has no such member.
    pub fn offset_of(&self, structure: &str, path: &str) -> Result<u32, BtfError> {
        self.bit_of(structure, path).map(|bits| bits / 8)
    }

    /// The same in bits, for a bit field.
    ///
    /// # Errors
    /// When this kernel has no such member.
    pub fn bit_of(&self, structure: &str, path: &str) -> Result<u32, BtfError> {
        let absent = || BtfError::Absent(format!("member {path} in struct {structure}"));
        // A handful of look-ups: an index of all names would cost more than it saves.
        let is_it = |found: &Type| is_aggregate(found.kind) && self.text(found.name) == Some(structure);
        let mut id = self.types.iter().position(is_it).ok_or_else(absent)?;
        let mut bits = 0;
        for name in path.split('.') {
            let (offset, kind) =
                self.resolve(id).and_then(|of| self.member(of, name, 0)).ok_or_else(absent)?;
            bits += offset;
            id = kind;
        }
        Ok(bits)
    }
}

fn is_aggregate(kind: u32) -> bool {
    kind == KIND_STRUCT || kind == KIND_UNION
}

/// Bytes that follow the common header of a type.
fn extra_length(kind: u32, members: usize) -> usize {
    match kind {
        // INT, VAR, DECL_TAG
        1 | 14 | 17 => 4,
        KIND_ARRAY => 12,
        // STRUCT, UNION, DATASEC, ENUM64
        KIND_STRUCT | KIND_UNION | 15 | 19 => MEMBER * members,
        // ENUM, FUNC_PROTO
        6 | 13 => 8 * members,
        _ => 0,
    }
}

fn word(data: &[u8], offset: usize) -> Result<u32, BtfError> {
    data.get(offset..offset + 4)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u32::from_ne_bytes)
        .ok_or(BtfError::Malformed(offset))
}

fn index(data: &[u8], offset: usize) -> Result<usize, BtfError> {
    word(data, offset).map(|value| value as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct outer { int a; union { int b; struct inner c; }; }` with `inner { int x; int y; }`.
    fn sample() -> Vec<u8> {
        let strings = b"\0outer\0inner\0a\0b\0c\0x\0y\0".to_vec();
        let name = |text: &str| {
            let needle = format!("\0{text}\0");
            let at = strings.windows(needle.len()).position(|w| w == needle.as_bytes()).unwrap();
            u32::try_from(at + 1).unwrap()
        };
        let mut types: Vec<u32> = Vec::new();
        types.extend([0, 1 << 24, 4, 32]); // 1: int
        types.extend([name("inner"), KIND_STRUCT << 24 | 2, 8, name("x"), 1, 0, name("y"), 1, 32]); // 2
        types.extend([0, KIND_UNION << 24 | 2, 8, name("b"), 1, 0, name("c"), 2, 0]); // 3
        types.extend([name("outer"), KIND_STRUCT << 24 | 2, 12, name("a"), 1, 0, 0, 3, 32]); // 4
        let length = u32::try_from(types.len() * 4).unwrap();
        let header = [MAGIC | 1 << 16, 24, 0, length, length, u32::try_from(strings.len()).unwrap()];
        let mut data: Vec<u8> = header.iter().chain(&types).flat_map(|w| w.to_ne_bytes()).collect();
        data.extend(strings);
        data
    }

    #[test]
    fn members_are_found_through_anonymous_unions() {
        let btf = Btf::parse(sample()).unwrap();
        assert_eq!(btf.offset_of("outer", "a").unwrap(), 0);
        assert_eq!(btf.offset_of("outer", "b").unwrap(), 4);
        assert_eq!(btf.offset_of("outer", "c.y").unwrap(), 8);
    }

    #[test]
    fn an_absent_member_is_named() {
        let text = Btf::parse(sample()).unwrap().offset_of("outer", "z").unwrap_err().to_string();
        assert_eq!(text, "the kernel has no member z in struct outer");
    }

    #[test]
    fn data_cut_anywhere_is_an_error_or_lacks_members_but_never_panics() {
        let whole = sample();
        for length in 0..whole.len() {
            if let Ok(btf) = Btf::parse(whole[..length].to_vec()) {
                let _found_or_not = btf.offset_of("outer", "c.y");
            }
        }
    }

    #[test]
    fn the_running_kernel_is_understood() {
        let btf = Btf::read(Path::new("/sys/kernel/btf/vmlinux")).unwrap();
        assert_eq!(btf.offset_of("sock", "__sk_common.skc_daddr").unwrap(), 0);
        assert!(btf.offset_of("kernfs_node", "id").unwrap() > 0);
        let bits = ["skc_reuseport", "skc_ipv6only"].map(|name| btf.bit_of("sock_common", name).unwrap());
        assert_eq!(bits[0] + 1, bits[1]);
    }
}
