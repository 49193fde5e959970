//! Values as text: what `{{ }}` prints, `print`, `printf`.

use super::super::MAX_TEXT;
use super::super::value::Value;
use super::{Budget, Group, Made, some, text, whole};

pub(super) const ALL: Group = &[
    ("print", |b, v| {
        let mut out = String::new();
        let mut was_text = true;
        for (index, value) in v.iter().enumerate() {
            let is_text = matches!(value, Value::Text(_));
            if index > 0 && !is_text && !was_text {
                out.push(' ');
            }
            push(&mut out, &shown(value, b)?)?;
            was_text = is_text;
        }
        b.text(out)
    }),
    ("println", |b, v| {
        let mut out = String::new();
        for (index, value) in v.iter().enumerate() {
            if index > 0 {
                out.push(' ');
            }
            push(&mut out, &shown(value, b)?)?;
        }
        out.push('\n');
        b.text(out)
    }),
    ("printf", |b, v| {
        let (format, values) = some(v)?;
        printf(b, text(format)?, values)
    }),
    ("toString", |b, v| {
        let shown = shown(&super::exactly::<1>(v)?[0], b)?;
        b.text(shown)
    }),
];

/// What `{{ value }}` prints. Nothing is an error: a manifest that leaves a field out is meant to be told.
pub(in crate::tinkerbell::go) fn shown(value: &Value, budget: &mut Budget) -> Result<String, String> {
    let mut out = String::new();
    show(value, budget, &mut out)?;
    Ok(out)
}

fn push(out: &mut String, text: &str) -> Result<(), String> {
    if out.len() + text.len() > MAX_TEXT {
        return Err(format!("makes a text longer than {MAX_TEXT} bytes"));
    }
    out.push_str(text);
    Ok(())
}

/// As Go's `%v`: lists in brackets, maps with their keys.
fn show(value: &Value, budget: &mut Budget, out: &mut String) -> Result<(), String> {
    budget.spend(1)?;
    match value {
        Value::Nil => Err("this is printed, and the manifest leaves it out".to_owned()),
        Value::Bool(b) => push(out, &b.to_string()),
        Value::Int(n) => push(out, &n.to_string()),
        Value::Float(n) => push(out, &n.to_string()),
        Value::Text(text) => {
            budget.spend(text.len() / 1024)?;
            push(out, text)
        }
        Value::Late(name) => push(out, &format!("{LATE_BEGINS}{name}{LATE_ENDS}")),
        Value::List(list) => {
            push(out, "[")?;
            for (index, item) in list.items.iter().enumerate() {
                push(out, if index > 0 { " " } else { "" })?;
                show(item, budget, out)?;
            }
            push(out, "]")
        }
        Value::Map(map) => {
            push(out, "map[")?;
            for (index, (key, item)) in map.entries.iter().enumerate() {
                push(out, if index > 0 { " " } else { "" })?;
                push(out, key)?;
                push(out, ":")?;
                show(item, budget, out)?;
            }
            push(out, "]")
        }
    }
}

/// Around the name of a value that is not known yet, in what was printed; no template may hold them itself.
pub(in crate::tinkerbell) const LATE_BEGINS: char = '\u{f8f0}';
/// As [`LATE_BEGINS`].
pub(in crate::tinkerbell) const LATE_ENDS: char = '\u{f8f1}';

fn printf(budget: &mut Budget, format: &str, values: &[Value]) -> Made {
    let mut out = String::new();
    let mut rest = format;
    let mut values = values.iter();
    while let Some(at) = rest.find('%') {
        push(&mut out, rest.get(..at).unwrap_or_default())?;
        rest = rest.get(at + 1..).unwrap_or_default();
        let flags = rest.len() - rest.trim_start_matches(['-', '0', '+', ' ', '#']).len();
        let (flags, after) = rest.split_at(flags);
        let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        let (width, after) = after.split_at(digits);
        let (precision, after) = match after.strip_prefix('.') {
            Some(after) => {
                let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
                let (precision, after) = after.split_at(digits);
                (Some(precision.parse::<usize>().unwrap_or(0).min(1000)), after)
            }
            None => (None, after),
        };
        let verb = after.chars().next().ok_or("the format ends behind `%`")?;
        rest = after.get(verb.len_utf8()..).unwrap_or_default();
        if verb == '%' {
            push(&mut out, "%")?;
            continue;
        }
        let value = values.next().ok_or_else(|| format!("nothing is given for `%{verb}`"))?;
        budget.spend(1)?;
        let made = match verb {
            's' | 'v' => {
                let all = shown(value, budget)?;
                match precision {
                    Some(most) if verb == 's' => all.chars().take(most).collect(),
                    _ => all,
                }
            }
            'q' => super::texts::quoted(&shown(value, budget)?),
            't' => value.is_true()?.to_string(),
            'd' => whole(value)?.to_string(),
            'x' => match value {
                Value::Text(text) => hex::encode(text.as_bytes()),
                other => format!("{:x}", whole(other)?),
            },
            'X' => format!("{:X}", whole(value)?),
            'o' => format!("{:o}", whole(value)?),
            'b' => format!("{:b}", whole(value)?),
            'c' => u32::try_from(whole(value)?).ok().and_then(char::from_u32).unwrap_or('\u{fffd}').to_string(),
            'f' => {
                #[expect(clippy::cast_precision_loss, reason = "a whole number is printed as one with a fraction")]
                let number = match value {
                    Value::Float(n) => *n,
                    other => whole(other)? as f64,
                };
                format!("{number:.*}", precision.unwrap_or(6))
            }
            other => return Err(format!("`%{other}` is not known here; there are %s %v %q %d %t %f %x %X %o %b %c")),
        };
        let width = width.parse::<usize>().unwrap_or(0).min(1000);
        let missing = width.saturating_sub(made.chars().count());
        let is_number = matches!(verb, 'd' | 'x' | 'X' | 'o' | 'b' | 'f');
        if flags.contains('-') {
            push(&mut out, &format!("{made}{}", " ".repeat(missing)))?;
        } else if flags.contains('0') && is_number {
            let (sign, digits) = match made.strip_prefix('-') {
                Some(digits) => ("-", digits),
                None => ("", made.as_str()),
            };
            push(&mut out, &format!("{sign}{}{digits}", "0".repeat(missing)))?;
        } else {
            push(&mut out, &format!("{}{made}", " ".repeat(missing)))?;
        }
    }
    if values.next().is_some() {
        return Err("more is given than the format names".to_owned());
    }
    push(&mut out, rest)?;
    budget.text(out)
}
