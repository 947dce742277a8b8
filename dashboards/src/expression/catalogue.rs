//! Families of the catalogue by their names.

use leadline::collector::CATALOGUE;
use leadline::metric::Descriptor;

/// Whether every observer says it, by its own help.
pub(super) fn is_shared(family: &Descriptor) -> bool {
    family.help.contains("never sum")
}

/// The family of that name. For constants: a name that the catalogue does not have is an error of the compiler.
///
/// # Panics
/// When the catalogue does not have it.
#[must_use]
#[expect(clippy::panic, reason = "in a constant this ends the compilation, and nothing else calls it")]
pub const fn family(name: &str) -> &'static Descriptor {
    let mut collector = 0;
    while collector < CATALOGUE.len() {
        let descriptors = CATALOGUE[collector].1;
        let mut at = 0;
        while at < descriptors.len() {
            if is_same(descriptors[at].name, name) {
                return descriptors[at];
            }
            at += 1;
        }
        collector += 1;
    }
    panic!("no metric of the agent has this name")
}

/// Equality of strings, for constants.
const fn is_same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}
