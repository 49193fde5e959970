//! `eq`, `lt`, `not`, `default`: what is chosen by what.

use std::cmp::Ordering;

use super::super::value::Value;
use super::{Budget, Group, Made, exactly, some};

pub(super) const ALL: Group = &[
    ("not", |_, v| Ok(Value::Bool(!exactly::<1>(v)?[0].is_true()?))),
    ("eq", |_, v| {
        let (first, rest) = some(v)?;
        if rest.is_empty() {
            return Err("takes two or more".to_owned());
        }
        let mut is = false;
        for other in rest {
            is |= equal(first, other)?;
        }
        Ok(Value::Bool(is))
    }),
    ("ne", |_, v| {
        let [a, b] = exactly(v)?;
        Ok(Value::Bool(!equal(a, b)?))
    }),
    ("lt", |_, v| ordered(v, |o| o == Ordering::Less)),
    ("le", |_, v| ordered(v, |o| o != Ordering::Greater)),
    ("gt", |_, v| ordered(v, |o| o == Ordering::Greater)),
    ("ge", |_, v| ordered(v, |o| o != Ordering::Less)),
    ("default", |_, v| match v {
        [default] => Ok(default.clone()),
        [default, value] => Ok(if value.is_true()? { value } else { default }.clone()),
        _ => Err(format!("takes 2, and is given {}", v.len())),
    }),
    ("empty", |_, v| Ok(Value::Bool(!exactly::<1>(v)?[0].is_true()?))),
    ("coalesce", |_, v| {
        for value in v {
            if value.is_true()? {
                return Ok(value.clone());
            }
        }
        Ok(Value::Nil)
    }),
    ("ternary", |_, v| {
        let [yes, no, which] = exactly(v)?;
        Ok(if which.is_true()? { yes } else { no }.clone())
    }),
    ("required", |_, v| {
        let [said, value] = exactly(v)?;
        match value {
            Value::Nil => Err(super::text(said)?.to_owned()),
            Value::Text(text) if text.is_empty() => Err(super::text(said)?.to_owned()),
            value => Ok(value.clone()),
        }
    }),
    ("fail", |_, v| Err(super::text(&exactly::<1>(v)?[0])?.to_owned())),
    ("kindOf", |b, v| kind_of(b, &exactly::<1>(v)?[0])),
    ("typeOf", |b, v| kind_of(b, &exactly::<1>(v)?[0])),
    ("kindIs", |b, v| {
        let [kind, value] = exactly(v)?;
        let is = kind_of(b, value)?;
        Ok(Value::Bool(equal(kind, &is)?))
    }),
];

/// Whether two simple values are the same; lists and maps are not compared, as in Go.
pub(super) fn equal(a: &Value, b: &Value) -> Result<bool, String> {
    Ok(match (a, b) {
        (Value::Nil, Value::Nil) => true,
        (Value::Nil, _) | (_, Value::Nil) => false,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Text(a), Value::Text(b)) => a == b,
        _ => order(a, b)? == Ordering::Equal,
    })
}

fn ordered(values: &[Value], fits: fn(Ordering) -> bool) -> Made {
    let [a, b] = exactly(values)?;
    Ok(Value::Bool(fits(order(a, b)?)))
}

pub(super) fn order(a: &Value, b: &Value) -> Result<Ordering, String> {
    #[expect(clippy::cast_precision_loss, reason = "as Go compares after a conversion")]
    let float = |value: &Value| match value {
        Value::Int(n) => Some(*n as f64),
        Value::Float(n) => Some(*n),
        _ => None,
    };
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => Ok(a.cmp(b)),
        (Value::Text(a), Value::Text(b)) => Ok(a.cmp(b)),
        _ => match (float(a), float(b)) {
            (Some(a), Some(b)) => a.partial_cmp(&b).ok_or_else(|| "a number is not comparable".to_owned()),
            _ => Err(format!("{} and {} cannot be compared", a.kind(), b.kind())),
        },
    }
}

fn kind_of(budget: &mut Budget, value: &Value) -> Made {
    budget.text(match value {
        Value::Nil => "invalid",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int",
        Value::Float(_) => "float64",
        Value::Text(_) | Value::Late(_) => "string",
        Value::List(_) => "slice",
        Value::Map(_) => "map",
    })
}
