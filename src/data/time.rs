//! Dates and times as the text that Python's `isoformat()` gives.

use jiff::civil::{DateTime, Time};

/// `2026-01-31T12:00:00`, with six decimals of a second where they are not zero.
pub(crate) fn date_time_text(t: DateTime) -> String {
    format!("{}T{}", t.date(), time_text(t.time()))
}

/// `12:00:00`, with six decimals of a second where they are not zero.
pub(crate) fn time_text(t: Time) -> String {
    let micros = t.subsec_nanosecond() / 1000;
    let whole = format!("{:02}:{:02}:{:02}", t.hour(), t.minute(), t.second());
    if micros == 0 { whole } else { format!("{whole}.{micros:06}") }
}

/// `+05:30`, with seconds only where there are some.
pub(crate) fn offset_text(seconds: i32) -> String {
    let (sign, s) = (if seconds < 0 { '-' } else { '+' }, seconds.unsigned_abs());
    let minutes = format!("{sign}{:02}:{:02}", s / 3600, s / 60 % 60);
    if s % 60 == 0 { minutes } else { format!("{minutes}:{:02}", s % 60) }
}
