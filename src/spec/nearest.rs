//! "Did you mean …?"

/// The name that `wrong` was most probably meant to be.
pub fn nearest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let small = wrong.to_lowercase();
    let length = small.chars().count();
    let limit = if length < 2 { 0 } else { (length / 3).clamp(1, 4) };
    let near = |name: &'a str| {
        let other = name.to_lowercase();
        let least = length.abs_diff(other.chars().count());
        let distance = if least > limit { least } else { strsim::damerau_levenshtein(&small, &other) };
        let same_words = small.replace(['-', ' '], "_") == other.replace(['-', ' '], "_");
        let extends = length >= 3 && (other.starts_with(&small) || small.starts_with(&other) && other.len() >= 3);
        let rank = match distance {
            _ if same_words => 0,
            near if near <= limit => near,
            _ if extends => limit + 1,
            _ => return None,
        };
        Some((rank, strsim::jaro_winkler(&small, &other), name))
    };
    let closer = |a: &(usize, f64, &str), b: &(usize, f64, &str)| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1));
    names.into_iter().filter_map(near).min_by(closer).map(|(_, _, name)| name)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn finds_what_was_meant() {
        let names = ["batch_size", "chunk_size", "returns", "retries", "map", "a", "env", "on_error"];
        for (wrong, meant) in [
            ("bach_size", Some("batch_size")),
            ("batch-size", Some("batch_size")),
            ("Retries", Some("retries")),
            ("retrys", Some("retries")),
            ("x", None),
            ("mpa", Some("map")),
            ("chunk", Some("chunk_size")),
            ("zzz", None),
            ("", None),
        ] {
            assert_eq!(nearest(wrong, names), meant, "{wrong}");
        }
    }
}
