//! Properties of the format, and its borders.

use proptest::prelude::*;

use super::*;
use crate::data::{Table, TimeKind, Value};

fn written(value: &Value) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.value(value);
    writer.into_bytes()
}

fn read(bytes: &[u8]) -> Result<Value, ReadError> {
    Reader::new(bytes).value()
}

fn any_value() -> impl Strategy<Value = Value> {
    let time =
        prop_oneof![Just(TimeKind::DateTime), Just(TimeKind::Date), Just(TimeKind::Time), Just(TimeKind::Duration)];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<i16>().prop_map(|v| Value::Int(v.into())),
        "-?[1-9][0-9]{18,80}".prop_map(|digits| Value::integer(&digits)),
        any::<f64>().prop_map(Value::Float),
        any::<String>().prop_map(Value::Text),
        "[a-z]{250,260}".prop_map(Value::Text),
        any::<Vec<u8>>().prop_map(Value::Bytes),
        (time, "[0-9T:.-]{0,30}").prop_map(|(kind, text)| Value::Time(kind, text)),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::List),
            proptest::collection::vec((any::<String>(), inner), 0..5).prop_map(Value::Map),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(value in any_value()) {
        let bytes = written(&value);
        prop_assert_eq!(read(&bytes), Ok(value));
        let mut reader = Reader::new(&bytes);
        prop_assert_eq!(reader.skip(), Ok(()));
        prop_assert!(reader.is_empty());
    }

    #[test]
    fn damage_is_an_error_and_nothing_worse(value in any_value(), at in any::<prop::sample::Index>(), with: u8, cut in any::<prop::sample::Index>()) {
        let mut bytes = written(&value);
        let at = at.index(bytes.len());
        bytes[at] = with;
        let _ = read(&bytes);
        let _ = Reader::new(&bytes).skip();
        let _ = read(&bytes[..cut.index(bytes.len())]);
    }

    #[test]
    fn any_bytes_are_survived(bytes: Vec<u8>) {
        let _ = read(&bytes);
        let _ = Reader::new(&bytes).skip();
    }

    #[test]
    fn integers_of_128_bits(v: i128) {
        prop_assert_eq!(read(&written(&Value::integer(&v.to_string()))), Ok(Value::integer(&v.to_string())));
    }
}

#[test]
fn huge_counts_allocate_nothing() {
    for code in [code::LIST, code::TUPLE, code::BYTES, code::TEXT, code::LONG] {
        assert_eq!(read(&[code, 0xFF, 0xFF, 0xFF, 0x7F, code::NONE]), Err(Damaged.into()), "{}", char::from(code));
    }
}

#[test]
fn depth_is_limited() {
    let nested = |depth: usize| {
        let mut bytes = [code::LIST, 1, 0, 0, 0].repeat(depth);
        bytes.push(code::NONE);
        bytes
    };
    assert!(read(&nested(MAX_DEPTH)).is_ok());
    assert_eq!(read(&nested(MAX_DEPTH + 1)), Err(Unkept::Depth.into()));
    assert_eq!(Reader::new(&nested(1000)).skip(), Ok(()));
    assert_eq!(Reader::new(&nested(100_000)).skip(), Err(Damaged));
}

#[test]
fn integers_at_the_borders() {
    for text in ["0", "-1", "2147483647", "2147483648", "-2147483648", "-2147483649", "9223372036854775807"] {
        let value = Value::Int(text.parse().unwrap());
        assert_eq!(read(&written(&value)), Ok(value));
    }
    for text in ["9223372036854775808", "-9223372036854775809", "1000000000000000000000000000000000000"] {
        assert_eq!(read(&written(&Value::BigInt(text.into()))), Ok(Value::BigInt(text.into())));
    }
    assert_eq!(read(&written(&Value::BigInt("007".into()))), Ok(Value::Int(7)));
    assert_eq!(read(&written(&Value::BigInt("-0".into()))), Ok(Value::Int(0)));
}

#[test]
fn rows_leave_out_absent_cells_and_name_those_with_times() {
    let day = Value::Time(TimeKind::Date, "2024-02-29".into());
    let row = |cells: &[(&str, Value)]| cells.iter().map(|(n, v)| (n.to_string(), v.clone())).collect::<Vec<_>>();
    let table = Table::from_rows([
        row(&[("a", Value::Int(1))]),
        row(&[("a", Value::Absent), ("b", Value::List(vec![day.clone()]))]),
        row(&[("b", Value::Null), ("a", day)]),
    ]);
    let mut writer = Writer::default();
    assert_eq!(writer.rows(&table), [1, 2]);
}

#[test]
fn file_and_aside_arrive_plain() {
    let file = Value::File { path: "a/b.csv".into(), digest: [7; 32], size: None };
    assert_eq!(read(&written(&file)), Ok(Value::Text("a/b.csv".into())));
    assert_eq!(read(&written(&Value::Aside(Box::new(Value::Int(5))))), Ok(Value::Int(5)));
}
