//! "Did you mean …?"

/// The name that `wrong` was most probably meant to be.
pub fn nearest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let small = wrong.to_lowercase();
    let limit = (small.chars().count() / 3).clamp(1, 4);
    let near = |name: &'a str| {
        let other = name.to_lowercase();
        let distance = strsim::damerau_levenshtein(&small, &other);
        let same_words = small.replace(['-', ' '], "_") == other.replace(['-', ' '], "_");
        let extends = small.len() >= 3 && (other.starts_with(&small) || small.starts_with(&other) && other.len() >= 3);
        let rank = if same_words {
            0
        } else if distance <= limit {
            distance
        } else {
            limit + 1
        };
        (same_words || distance <= limit || extends).then_some((rank, name))
    };
    names.into_iter().filter_map(near).min_by_key(|(rank, _)| *rank).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn finds_what_was_meant() {
        let names = ["batch_size", "chunk_size", "retries", "map", "env", "on_error"];
        for (wrong, meant) in [
            ("bach_size", Some("batch_size")),
            ("batch-size", Some("batch_size")),
            ("Retries", Some("retries")),
            ("retry", None),
            ("mpa", Some("map")),
            ("chunk", Some("chunk_size")),
            ("zzz", None),
            ("", None),
        ] {
            assert_eq!(nearest(wrong, names), meant, "{wrong}");
        }
    }
}
