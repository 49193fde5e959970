//! Arithmetic with whole numbers, as sprig does it; what overflows is an error.

use super::super::value::Value;
use super::{Group, Made, exactly, some, whole};

const OVERFLOW: &str = "the number becomes too large";

/// A function that goes through all its numbers.
macro_rules! through {
    ($name:literal, $join:expr) => {
        ($name, |_, v| fold(v, $join))
    };
}

pub(super) const ALL: Group = &[
    through!("add", i64::checked_add),
    through!("mul", i64::checked_mul),
    through!("max", |a, b| Some(a.max(b))),
    through!("min", |a, b| Some(a.min(b))),
    ("sub", |_, v| two(v, |a, b| a.checked_sub(b).ok_or(OVERFLOW))),
    ("div", |_, v| two(v, |a, b| if b == 0 { Err("divides by 0") } else { a.checked_div(b).ok_or(OVERFLOW) })),
    ("mod", |_, v| two(v, |a, b| if b == 0 { Err("divides by 0") } else { a.checked_rem(b).ok_or(OVERFLOW) })),
    ("add1", |_, v| Ok(Value::Int(whole(&exactly::<1>(v)?[0])?.checked_add(1).ok_or(OVERFLOW)?))),
    ("int", |_, v| Ok(Value::Int(whole(&exactly::<1>(v)?[0])?))),
    ("int64", |_, v| Ok(Value::Int(whole(&exactly::<1>(v)?[0])?))),
    ("atoi", |_, v| Ok(Value::Int(whole(&exactly::<1>(v)?[0])?))),
    ("float64", |_, v| match &exactly::<1>(v)?[0] {
        Value::Float(n) => Ok(Value::Float(*n)),
        Value::Text(text) => match text.trim().parse::<f64>() {
            Ok(n) if n.is_finite() => Ok(Value::Float(n)),
            _ => Err(format!("`{text}` is not a number")),
        },
        #[expect(clippy::cast_precision_loss, reason = "that is what a conversion to float64 is")]
        other => Ok(Value::Float(whole(other)? as f64)),
    }),
];

fn fold(values: &[Value], join: fn(i64, i64) -> Option<i64>) -> Made {
    let (first, rest) = some(values)?;
    let mut all = whole(first)?;
    for value in rest {
        all = join(all, whole(value)?).ok_or(OVERFLOW)?;
    }
    Ok(Value::Int(all))
}

fn two(values: &[Value], make: fn(i64, i64) -> Result<i64, &'static str>) -> Made {
    let [a, b] = exactly(values)?;
    Ok(Value::Int(make(whole(a)?, whole(b)?)?))
}
