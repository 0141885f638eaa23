//! Reads marshal data of version 2.

use super::integer::{DIGIT_MASK, long_value};
use super::{Damaged, ReadError, Unkept, code};
use crate::data::value::{MAX_DEPTH, TimeKind, Value};

/// Python's own limit of nesting in marshal data.
const MAX_STACK: usize = 2000;

/// A scalar or the head of a container, as it stands in the data.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Token<'a> {
    /// End of a dict.
    End,
    None,
    Bool(bool),
    Int(i32),
    /// Sign and digits (two bytes each, checked) of an integer.
    Long(bool, &'a [u8]),
    Float(f64),
    /// UTF-8, but surrogates may stand alone.
    Text(&'a [u8]),
    Bytes(&'a [u8]),
    Tuple(usize),
    List(usize),
    Dict,
}

/// Reads marshal data of version 2.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// Whether everything was read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// How many bytes were not read yet.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    #[inline]
    fn take(&mut self, n: usize) -> Result<&'a [u8], Damaged> {
        let (head, tail) = self.rest.split_at_checked(n).ok_or(Damaged)?;
        self.rest = tail;
        Ok(head)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or(Damaged)?;
        self.rest = tail;
        Ok(*head)
    }

    #[inline]
    fn size(&mut self) -> Result<usize, Damaged> {
        let n = i32::from_le_bytes(self.array()?);
        usize::try_from(n).map_err(|_| Damaged)
    }

    /// The size of a container, whose elements take a byte each at least.
    fn count(&mut self) -> Result<usize, Damaged> {
        let n = self.size()?;
        if n <= self.rest.len() { Ok(n) } else { Err(Damaged) }
    }

    /// The next token.
    #[inline]
    pub fn token(&mut self) -> Result<Token<'a>, Damaged> {
        let [code] = self.array()?;
        Ok(match code {
            code::NULL => Token::End,
            code::NONE => Token::None,
            code::FALSE => Token::Bool(false),
            code::TRUE => Token::Bool(true),
            code::INT => Token::Int(i32::from_le_bytes(self.array()?)),
            code::LONG => self.long()?,
            code::FLOAT => Token::Float(f64::from_le_bytes(self.array()?)),
            code::BYTES => {
                let n = self.size()?;
                Token::Bytes(self.take(n)?)
            }
            code::TEXT | code::INTERNED | code::ASCII => {
                let n = self.size()?;
                Token::Text(self.take(n)?)
            }
            code::SHORT_ASCII | code::SHORT_ASCII_INTERNED => {
                let [n] = self.array()?;
                Token::Text(self.take(usize::from(n))?)
            }
            code::TUPLE => Token::Tuple(self.count()?),
            code::LIST => Token::List(self.count()?),
            code::DICT => Token::Dict,
            _ => return Err(Damaged),
        })
    }

    fn long(&mut self) -> Result<Token<'a>, Damaged> {
        let n = i32::from_le_bytes(self.array()?);
        let digits = self.take(n.unsigned_abs() as usize * 2)?;
        let fits = digits.as_chunks::<2>().0.iter().all(|d| u32::from(u16::from_le_bytes(*d)) <= DIGIT_MASK);
        if fits { Ok(Token::Long(n < 0, digits)) } else { Err(Damaged) }
    }

    /// Passes over one value, be it one that cannot be kept.
    pub fn skip(&mut self) -> Result<(), Damaged> {
        // What is open: `None` is a dict, else the number of elements to come.
        let mut open: Vec<Option<usize>> = Vec::new();
        loop {
            match self.token()? {
                Token::Dict | Token::Tuple(1..) | Token::List(1..) if open.len() > MAX_STACK => return Err(Damaged),
                Token::Dict => {
                    open.push(None);
                    continue;
                }
                Token::Tuple(n) | Token::List(n) if n > 0 => {
                    open.push(Some(n));
                    continue;
                }
                Token::End if open.pop() != Some(None) => return Err(Damaged),
                _ => {}
            }
            if count_off(&mut open) {
                return Ok(());
            }
        }
    }

    /// One cell.
    pub fn value(&mut self) -> Result<Value, ReadError> {
        let token = self.token()?;
        self.value_of(token, 0)
    }

    /// The cell that `token` begins, `depth` containers deep. After an [`Unkept`] the reader stands somewhere in it.
    pub fn value_of(&mut self, token: Token<'a>, depth: usize) -> Result<Value, ReadError> {
        if depth > MAX_DEPTH {
            return Err(Unkept::Depth.into());
        }
        Ok(match token {
            Token::End => return Err(Damaged.into()),
            Token::None => Value::Null,
            Token::Bool(v) => Value::Bool(v),
            Token::Int(v) => Value::Int(v.into()),
            Token::Long(negative, digits) => long_value(negative, digits)?,
            Token::Float(v) => Value::Float(v),
            Token::Text(v) => Value::Text(text(v)?.to_string()),
            Token::Bytes(v) => Value::Bytes(v.to_vec()),
            Token::Tuple(2) => self.time()?,
            Token::Tuple(_) => return Err(Unkept::Type.into()),
            Token::List(n) => {
                let mut items = Vec::new();
                for _ in 0..n {
                    let token = self.token()?;
                    items.push(self.value_of(token, depth + 1)?);
                }
                Value::List(items)
            }
            Token::Dict => {
                let mut entries = Vec::new();
                while let Some(name) = self.key()? {
                    let token = self.token()?;
                    entries.push((name.to_string(), self.value_of(token, depth + 1)?));
                }
                Value::Map(entries)
            }
        })
    }

    /// A dict's next key; `None` at its end.
    #[inline]
    pub fn key(&mut self) -> Result<Option<&'a str>, ReadError> {
        match self.token()? {
            Token::End => Ok(None),
            Token::Text(name) => Ok(Some(text(name)?)),
            _ => Err(Unkept::Key.into()),
        }
    }

    fn time(&mut self) -> Result<Value, ReadError> {
        let (kind, written) = (self.token()?, self.token()?);
        let kind = match kind {
            Token::Int(0) => TimeKind::DateTime,
            Token::Int(1) => TimeKind::Date,
            Token::Int(2) => TimeKind::Time,
            Token::Int(3) => TimeKind::Duration,
            _ => return Err(Unkept::Type.into()),
        };
        match written {
            Token::Text(written) => Ok(Value::Time(kind, text(written)?.to_string())),
            _ => Err(Unkept::Type.into()),
        }
    }
}

/// A value has ended: counts it in what is open around it. Whether nothing stays open.
fn count_off(open: &mut Vec<Option<usize>>) -> bool {
    while let Some(Some(n)) = open.last_mut() {
        *n -= 1;
        if *n > 0 {
            return false;
        }
        open.pop();
    }
    open.is_empty()
}

/// Text, if it is Unicode.
#[inline]
pub fn text(bytes: &[u8]) -> Result<&str, Unkept> {
    std::str::from_utf8(bytes).map_err(|_| Unkept::Surrogates)
}
