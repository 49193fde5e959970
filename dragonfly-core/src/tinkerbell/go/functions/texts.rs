//! Functions of texts.

use super::super::MAX_TEXT;
use super::super::value::Value;
use super::{Budget, Group, Made, count, exactly, format, items, text, whole};

/// A function of one text.
macro_rules! of_text {
    ($name:literal, $make:expr) => {
        ($name, |b, v| {
            let make: fn(&str) -> String = $make;
            let made = make(text(&exactly::<1>(v)?[0])?);
            b.text(made)
        })
    };
}

/// A question about two texts; what is looked for stands first.
macro_rules! asks {
    ($name:literal, $ask:expr) => {
        ($name, |_, v| {
            let [part, whole] = exactly(v)?;
            let ask: fn(&str, &str) -> bool = $ask;
            Ok(Value::Bool(ask(text(whole)?, text(part)?)))
        })
    };
}

pub(super) const ALL: Group = &[
    of_text!("trim", |t| t.trim().to_owned()),
    of_text!("upper", str::to_uppercase),
    of_text!("lower", str::to_lowercase),
    of_text!("title", |t| each_word(t, true)),
    of_text!("untitle", |t| each_word(t, false)),
    of_text!("nospace", |t| t.chars().filter(|c| !c.is_whitespace()).collect()),
    of_text!("html", |t| {
        t.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;").replace('\'', "&#39;")
    }),
    of_text!("snakecase", |t| cased(t, '_')),
    of_text!("kebabcase", |t| cased(t, '-')),
    asks!("contains", |t, part| t.contains(part)),
    asks!("hasPrefix", |t, part| t.starts_with(part)),
    asks!("hasSuffix", |t, part| t.ends_with(part)),
    ("trimAll", |b, v| cut(b, v, |t, c| t.trim_matches(|x| c.contains(x)).to_owned())),
    ("trimPrefix", |b, v| cut(b, v, |t, c| t.strip_prefix(c).unwrap_or(t).to_owned())),
    ("trimSuffix", |b, v| cut(b, v, |t, c| t.strip_suffix(c).unwrap_or(t).to_owned())),
    ("repeat", |b, v| {
        let [times, part] = exactly(v)?;
        let (times, part) = (count(times)?, text(part)?);
        if times.saturating_mul(part.len()) > MAX_TEXT {
            return Err(format!("makes a text longer than {MAX_TEXT} bytes"));
        }
        b.text(part.repeat(times))
    }),
    ("replace", |b, v| {
        let [old, new, whole] = exactly(v)?;
        let (old, new, whole) = (text(old)?, text(new)?, text(whole)?);
        let longest = whole.len().saturating_add(1).saturating_mul(new.len().max(1));
        if longest > 16 * MAX_TEXT {
            return Err(format!("may make a text longer than {MAX_TEXT} bytes"));
        }
        b.text(whole.replace(old, new))
    }),
    ("substr", |b, v| {
        let [from, to, whole_text] = exactly(v)?;
        let (from, to, all) = (whole(from)?.max(0), whole(to)?, text(whole_text)?);
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let most = usize::try_from(to).map_or(usize::MAX, |to| to.saturating_sub(from));
        b.text(all.chars().skip(from).take(most).collect::<String>())
    }),
    ("trunc", |b, v| {
        let [most, all] = exactly(v)?;
        let (most, all) = (whole(most)?, text(all)?);
        let length = all.chars().count();
        let size = usize::try_from(most.unsigned_abs()).unwrap_or(usize::MAX);
        let skip = if most < 0 { length.saturating_sub(size) } else { 0 };
        b.text(all.chars().skip(skip).take(size).collect::<String>())
    }),
    ("quote", |b, v| each(b, v, quoted)),
    ("squote", |b, v| each(b, v, |t| format!("'{t}'"))),
    ("cat", |b, v| each(b, v, str::to_owned)),
    ("indent", |b, v| indented(b, v, "")),
    ("nindent", |b, v| indented(b, v, "\n")),
    ("join", |b, v| {
        let [between, list] = exactly(v)?;
        let mut out = String::new();
        for (index, item) in items(list)?.iter().enumerate() {
            if index > 0 {
                out.push_str(text(between)?);
            }
            out.push_str(&format::shown(item, b)?);
            if out.len() > MAX_TEXT {
                return Err(format!("makes a text longer than {MAX_TEXT} bytes"));
            }
        }
        b.text(out)
    }),
    ("splitList", |b, v| {
        let [between, all] = exactly(v)?;
        let (between, all) = (text(between)?, text(all)?);
        if between.is_empty() {
            return Err("splits at nothing".to_owned());
        }
        b.texts(all.split(between))
    }),
    ("split", |b, v| {
        let [between, all] = exactly(v)?;
        let (between, all) = (text(between)?, text(all)?);
        if between.is_empty() {
            return Err("splits at nothing".to_owned());
        }
        let mut parts = std::collections::BTreeMap::new();
        for (index, part) in all.split(between).enumerate() {
            b.spend(1)?;
            parts.insert(format!("_{index}"), b.text(part)?);
        }
        Value::map(parts, super::super::value::Keys::Strict)
    }),
];

/// In double quotes, as a JSON and YAML text.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn cut(budget: &mut Budget, values: &[Value], make: fn(&str, &str) -> String) -> Made {
    let [what, all] = exactly(values)?;
    budget.text(make(text(all)?, text(what)?))
}

/// Each value as text, set apart by blanks; what is not there is left out.
fn each(budget: &mut Budget, values: &[Value], make: fn(&str) -> String) -> Made {
    let mut parts = Vec::new();
    for value in values.iter().filter(|value| !matches!(value, Value::Nil)) {
        parts.push(make(&format::shown(value, budget)?));
    }
    budget.text(parts.join(" "))
}

fn indented(budget: &mut Budget, values: &[Value], before: &str) -> Made {
    let [by, all] = exactly(values)?;
    let (by, all) = (count(by)?, text(all)?);
    let lines = all.split('\n').count();
    if lines.saturating_mul(by) > MAX_TEXT {
        return Err(format!("makes a text longer than {MAX_TEXT} bytes"));
    }
    let pad = " ".repeat(by);
    budget.text(format!("{before}{pad}{}", all.replace('\n', &format!("\n{pad}"))))
}

fn each_word(text: &str, to_upper: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut begins = true;
    for c in text.chars() {
        match (begins, to_upper) {
            (true, true) => out.extend(c.to_uppercase()),
            (true, false) => out.extend(c.to_lowercase()),
            _ => out.push(c),
        }
        begins = c.is_whitespace();
    }
    out
}

/// `OneTwo three` as `one_two_three`.
fn cased(text: &str, between: char) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    let mut was_lower = false;
    for c in text.chars() {
        if c.is_whitespace() || matches!(c, '_' | '-') {
            if !out.ends_with(between) && !out.is_empty() {
                out.push(between);
            }
            was_lower = false;
        } else {
            if c.is_uppercase() && was_lower {
                out.push(between);
            }
            was_lower = c.is_lowercase() || c.is_numeric();
            out.extend(c.to_lowercase());
        }
    }
    out
}
