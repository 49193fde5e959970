//! YAML that is a template too: what stands in `{{ }}` must not be escaped.

use serde_json::Value;

/// Characters that YAML takes for line breaks or does not print.
fn is_odd(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
}

/// A line, or several, with a field. `indent` is that of the field.
pub(super) fn field(out: &mut String, name: &str, value: &Value, indent: usize) -> Result<(), String> {
    let is_plain = |name: &str| {
        !name.is_empty()
            && name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-'))
            && name.starts_with(|c: char| c.is_ascii_alphabetic())
            // What YAML 1.1 takes for a boolean or for nothing.
            && !matches!(name.to_ascii_lowercase().as_str(), "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false" | "null")
    };
    if is_plain(name) {
        out.push_str(name);
    } else {
        out.push_str(&quoted(name));
    }
    out.push(':');
    below(out, value, indent)
}

/// What stands behind a colon.
fn below(out: &mut String, value: &Value, indent: usize) -> Result<(), String> {
    let deeper = indent + 2;
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            out.push('\n');
            for (name, value) in fields {
                out.push_str(&" ".repeat(deeper));
                field(out, name, value, deeper)?;
            }
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            for item in items {
                out.push_str(&" ".repeat(deeper));
                out.push('-');
                match item {
                    Value::Object(_) | Value::Array(_) => {
                        return Err("is nested deeper than Tinkerbell's are".to_owned());
                    }
                    scalar => below(out, scalar, deeper)?,
                }
            }
        }
        Value::Object(_) => out.push_str(" {}\n"),
        Value::Array(_) => out.push_str(" []\n"),
        Value::String(text) => {
            out.push(' ');
            out.push_str(&scalar(text, deeper)?);
            out.push('\n');
        }
        other => out.push_str(&format!(" {other}\n")),
    }
    Ok(())
}

fn scalar(text: &str, indent: usize) -> Result<String, String> {
    if text.contains('\n')
        && let Some(block) = block(text, indent)
    {
        return Ok(block);
    }
    let mut parts = text.split("{{").skip(1).filter_map(|part| part.split("}}").next());
    if !parts.any(|part| part.contains(['"', '\\', '\n'])) {
        return Ok(quoted(text));
    }
    if !text.contains(|c: char| c == '\'' || is_odd(c)) {
        return Ok(format!("'{text}'"));
    }
    block(text, indent)
        .ok_or_else(|| "has an expression that cannot be put into YAML; write it with `backquotes`".to_owned())
}

/// As it stands, on lines of its own.
fn block(text: &str, indent: usize) -> Option<String> {
    let odd = |c: char| c != '\n' && c != '\t' && is_odd(c);
    if text.contains(odd) || text.starts_with([' ', '\t', '\n']) || text.is_empty() {
        return None;
    }
    let (body, mark) = match text.strip_suffix('\n') {
        Some(body) if body.ends_with('\n') => return None,
        Some(body) => (body, "|"),
        None => (text, "|-"),
    };
    if body.split('\n').any(|line| line.starts_with('\t') || (!line.is_empty() && line.trim().is_empty())) {
        return None;
    }
    let mut out = mark.to_owned();
    for line in body.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            out.push_str(&" ".repeat(indent));
            out.push_str(line);
        }
    }
    Some(out)
}

/// In double quotes.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if is_odd(c) => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
