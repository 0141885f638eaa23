//! Integers of any size: marshal's digits of 15 bits, and decimal text.

use super::Unkept;
use crate::data::Value;

/// Integers beyond this many bits are refused.
pub const MAX_INT_BITS: usize = 1 << 20;

/// The bits of a digit.
const DIGIT_BITS: usize = 15;
pub(super) const DIGIT_MASK: u32 = (1 << DIGIT_BITS) - 1;

/// The digits of an integer, least significant first.
pub(super) fn digits_of(mut v: u64) -> Vec<u16> {
    let mut digits = Vec::with_capacity(5);
    while v > 0 {
        digits.push((v as u32 & DIGIT_MASK) as u16);
        v >>= DIGIT_BITS;
    }
    digits
}

/// Decimal digits (no sign) as marshal's digits, least significant first.
pub(super) fn decimal_to_digits(decimal: &str) -> Option<Vec<u16>> {
    if decimal.is_empty() || !decimal.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let mut limbs: Vec<u32> = Vec::new();
    let head = decimal.len() % 9;
    let (first, rest) = decimal.split_at(head);
    let groups = (0..rest.len()).step_by(9).map(|at| &rest[at..at + 9]);
    for group in std::iter::once(first).filter(|g| !g.is_empty()).chain(groups) {
        let mut carry = group.parse::<u64>().ok()?;
        for limb in &mut limbs {
            carry += u64::from(*limb) * 1_000_000_000;
            *limb = carry as u32;
            carry >>= 32;
        }
        if carry > 0 {
            limbs.push(carry as u32);
        }
    }
    let mut digits = Vec::with_capacity(limbs.len() * 32 / DIGIT_BITS + 1);
    regroup(limbs.iter().map(|&l| (l, 32)), DIGIT_BITS, |digit| digits.push(digit as u16));
    while digits.last() == Some(&0) {
        digits.pop();
    }
    Some(digits)
}

/// Marshal's digits as an integer's decimal text.
fn digits_to_decimal(negative: bool, digits: &[u8]) -> String {
    let mut limbs = Vec::with_capacity(digits.len() * DIGIT_BITS / 64 + 1);
    let digits = digits.as_chunks::<2>().0.iter().map(|d| (u32::from(u16::from_le_bytes(*d)), DIGIT_BITS));
    regroup(digits, 32, |limb| limbs.push(limb));
    let mut groups = Vec::new();
    while limbs.last() == Some(&0) {
        limbs.pop();
    }
    while !limbs.is_empty() {
        let mut rest = 0u64;
        for limb in limbs.iter_mut().rev() {
            let part = (rest << 32) | u64::from(*limb);
            *limb = (part / 1_000_000_000) as u32;
            rest = part % 1_000_000_000;
        }
        groups.push(rest);
        while limbs.last() == Some(&0) {
            limbs.pop();
        }
    }
    let mut text = String::from(if negative { "-" } else { "" });
    let mut groups = groups.iter().rev();
    text += &groups.next().map_or_else(|| "0".to_string(), u64::to_string);
    groups.for_each(|g| text += &format!("{g:09}"));
    text
}

/// Cuts a little-endian stream of (bits, how many) anew into pieces of `width` bits.
fn regroup(pieces: impl Iterator<Item = (u32, usize)>, width: usize, mut put: impl FnMut(u32)) {
    let (mut held, mut bits) = (0u64, 0);
    for (piece, n) in pieces {
        held |= u64::from(piece) << bits;
        bits += n;
        while bits >= width {
            put((held & ((1u64 << width) - 1)) as u32);
            held >>= width;
            bits -= width;
        }
    }
    if held > 0 {
        put(held as u32);
    }
}

/// An integer from marshal's digits.
pub fn long_value(negative: bool, digits: &[u8]) -> Result<Value, Unkept> {
    if digits.len() / 2 * DIGIT_BITS > MAX_INT_BITS {
        return Err(Unkept::Integer);
    }
    match small_long(negative, digits) {
        Some(v) => Ok(Value::Int(v)),
        None => Ok(Value::integer(&digits_to_decimal(negative, digits))),
    }
}

/// The integer, if it has few digits and 64 bits.
#[inline]
pub fn small_long(negative: bool, digits: &[u8]) -> Option<i64> {
    if digits.len() > 2 * 5 {
        return None;
    }
    let digits = digits.as_chunks::<2>().0.iter().rev();
    let v = digits.fold(0i128, |v, d| (v << DIGIT_BITS) | i128::from(u16::from_le_bytes(*d)));
    i64::try_from(if negative { -v } else { v }).ok()
}
