//! What an item used.

/// `512 KiB`, `1.5 GiB`: a size as people read it.
pub fn bytes_in_words(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.into_iter().find(|(_, shift)| bytes >> shift > 0) {
        Some((unit, shift)) => {
            let size = format!("{:.1}", bytes as f64 / (1u64 << shift) as f64);
            format!("{} {unit}", size.strip_suffix(".0").unwrap_or(&size))
        }
        None => format!("{bytes} bytes"),
    }
}

/// Time and memory of an item.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Microseconds that it took; of items too quick to be timed alone, the mean.
    pub micros: u32,
    /// The most memory that its worker, with all that it started, was seen to hold meanwhile, in KiB; 0: unknown.
    pub peak_kib: u32,
}

impl Usage {
    /// So much time, and memory that is unknown.
    pub fn of_micros(micros: u32) -> Usage {
        Usage { micros, peak_kib: 0 }
    }

    /// Seconds that it took.
    pub fn seconds(self) -> f64 {
        f64::from(self.micros) / 1e6
    }

    /// The most memory, in bytes, where it is known.
    pub fn peak_bytes(self) -> Option<u64> {
        (self.peak_kib > 0).then_some(u64::from(self.peak_kib) << 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_in_their_unit() {
        let told = [0, 1023, 1 << 10, 3 << 19, 2 << 30, (5 << 40) + 1].map(bytes_in_words);
        assert_eq!(told, ["0 bytes", "1023 bytes", "1 KiB", "1.5 MiB", "2 GiB", "5120 GiB"]);
    }
}
