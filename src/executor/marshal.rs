//! Python's `marshal` format, as far as cells need it: what frames to and from Python workers are made of.
//!
//! Chosen because Python reads and writes it in C and because it is exact: integers of any size, every float, bytes,
//! `None`. [`Writer`] emits what `marshal.loads` of Python 3.4 and later accepts (short ASCII strings and shared
//! keys included); [`Reader`] accepts what `marshal.dumps(…, 2)` gives. Times travel as tuples of (kind, text):
//! cells hold no other tuples. Damaged bytes give an error, never a panic, a deep recursion or a large allocation.

mod integer;
mod reader;
mod writer;

pub use integer::{MAX_INT_BITS, long_value, small_long};
pub use reader::{Reader, Token, text};
pub use writer::Writer;

use crate::data::value::MAX_DEPTH;

/// The bytes are no marshal data of the expected form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("damaged marshal data")]
pub struct Damaged;

/// Why a value that is well-formed marshal data cannot be kept as a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unkept {
    /// Surrogates that stand alone: no Unicode text.
    #[error("text with lone surrogates cannot be kept")]
    Surrogates,
    /// A mapping with a key that is not text.
    #[error("only text can be a key of a dict")]
    Key,
    /// Nesting beyond [`MAX_DEPTH`].
    #[error("nested more than {MAX_DEPTH} deep")]
    Depth,
    /// An integer so large that to write it in decimal would take seconds.
    #[error("an integer of more than {MAX_INT_BITS} bits cannot be kept")]
    Integer,
    /// A type that is not a cell's.
    #[error("a value of this type cannot be kept")]
    Type,
}

/// What can go wrong with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The frame is damaged.
    #[error(transparent)]
    Damaged(#[from] Damaged),
    /// Only this value is at fault.
    #[error(transparent)]
    Unkept(#[from] Unkept),
}

/// Type codes.
pub mod code {
    pub const NULL: u8 = b'0';
    pub const NONE: u8 = b'N';
    pub const FALSE: u8 = b'F';
    pub const TRUE: u8 = b'T';
    pub const ELLIPSIS: u8 = b'.';
    pub const INT: u8 = b'i';
    pub const LONG: u8 = b'l';
    pub const FLOAT: u8 = b'g';
    pub const BYTES: u8 = b's';
    pub const TEXT: u8 = b'u';
    pub const INTERNED: u8 = b't';
    pub const ASCII: u8 = b'a';
    pub const SHORT_ASCII: u8 = b'z';
    pub const SHORT_ASCII_INTERNED: u8 = b'Z';
    pub const TUPLE: u8 = b'(';
    pub const LIST: u8 = b'[';
    pub const DICT: u8 = b'{';
    pub const REF: u8 = b'r';
    /// Added to a type's code: the object can be referred to.
    pub const FLAG_REF: u8 = 0x80;
}

#[cfg(test)]
mod tests;
