//! GRUB's shell: what the statements come to.

use std::collections::BTreeMap;

use super::super::{Item, Loads, Menu, What};
use super::Beside;
use super::tree::Statement;
use super::words::{Part, Word};

/// The longest value of a variable, and the longest word, in bytes. `a=$a$a` would grow without end.
const LONGEST: usize = 16 << 10;
/// The most lines of a menu, submenus included.
const MOST_ITEMS: usize = 1000;

type Variables = BTreeMap<String, String>;

pub(super) fn run(statements: &[Statement], directory: &str, environment: Option<&str>, bls: &Beside<'_>) -> Menu {
    let mut shell = Shell { variables: initial(directory), environment, bls, left: MOST_ITEMS };
    let mut lines = Vec::new();
    shell.execute(statements, &mut Sink { lines: Some(&mut lines), loads: None });
    // Bodies run when they are chosen: after the whole script has set its variables.
    let items = shell.open(&lines);
    let default = shell.value("default");
    Menu { items, default: if default.is_empty() { "0".to_owned() } else { default.to_owned() } }
}

/// What GRUB itself sets before a script.
fn initial(directory: &str) -> Variables {
    let features = [
        "feature_menuentry_id",
        "feature_platform_search_hint",
        "feature_default_font_path",
        "feature_timeout_style",
        "feature_all_video_module",
        "feature_nativedisk_cmd",
        "feature_200_final",
    ];
    let mut variables: Variables = features.iter().map(|f| ((*f).to_owned(), "y".to_owned())).collect();
    for (name, value) in [
        ("prefix", directory),
        ("config_directory", directory),
        ("grub_platform", if cfg!(target_arch = "x86_64") { "pc" } else { "efi" }),
        ("grub_cpu", std::env::consts::ARCH),
    ] {
        variables.insert(name.to_owned(), value.to_owned());
    }
    variables
}

/// A line of the menu whose body has not run yet.
struct Line<'a> {
    title: String,
    id: Option<String>,
    submenu: bool,
    body: &'a [Statement],
    /// Already known: from `blscfg`.
    item: Option<Item>,
}

/// Where statements put what they make.
struct Sink<'s, 'a> {
    lines: Option<&'s mut Vec<Line<'a>>>,
    loads: Option<&'s mut Option<Loads>>,
}

struct Shell<'a> {
    variables: Variables,
    environment: Option<&'a str>,
    bls: &'a Beside<'a>,
    left: usize,
}

impl Shell<'_> {
    fn value(&self, name: &str) -> &str {
        self.variables.get(name).map_or("", String::as_str)
    }

    fn open(&mut self, lines: &[Line<'_>]) -> Vec<Item> {
        lines
            .iter()
            .map(|line| {
                if let Some(item) = &line.item {
                    return item.clone();
                }
                let kept = self.variables.clone();
                let what = if line.submenu {
                    let mut inner = Vec::new();
                    self.execute(line.body, &mut Sink { lines: Some(&mut inner), loads: None });
                    What::Submenu(self.open(&inner))
                } else {
                    let mut loads = None;
                    self.execute(line.body, &mut Sink { lines: None, loads: Some(&mut loads) });
                    What::Entry(loads.filter(|l| !l.kernel.is_empty()))
                };
                self.variables = kept;
                Item { title: line.title.clone(), id: line.id.clone(), what }
            })
            .collect()
    }

    /// Runs statements; the result is whether the last of them succeeded.
    fn execute<'b>(&mut self, statements: &'b [Statement], sink: &mut Sink<'_, 'b>) -> bool {
        let mut succeeded = true;
        for statement in statements {
            succeeded = match statement {
                Statement::Command(words) => self.command(words, sink),
                Statement::If { arms, otherwise } => {
                    let mut body = otherwise;
                    for (condition, then) in arms {
                        if self.execute(condition, sink) {
                            body = then;
                            break;
                        }
                    }
                    self.execute(body, sink)
                }
                Statement::Menu { words, body } => {
                    if let Some(lines) = &mut sink.lines
                        && self.left > 0
                    {
                        self.left -= 1;
                        lines.push(self.line(words, body));
                    }
                    true
                }
            };
        }
        succeeded
    }

    fn line<'b>(&self, words: &[Word], body: &'b [Statement]) -> Line<'b> {
        let mut words = self.expand(words).into_iter();
        let submenu = words.next().as_deref() == Some("submenu");
        let (mut title, mut id) = (None, None);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--class" | "--users" | "--hotkey" | "--source" => drop(words.next()),
                "--unrestricted" => {}
                "--id" => id = words.next(),
                other => match other.strip_prefix("--").and_then(|option| option.split_once('=')) {
                    Some(("id", value)) => id = Some(value.to_owned()),
                    Some(_) => {}
                    None => title = title.or(Some(word)),
                },
            }
        }
        Line { title: title.unwrap_or_default(), id, submenu, body, item: None }
    }

    fn command(&mut self, words: &[Word], sink: &mut Sink<'_, '_>) -> bool {
        if let Some((name, value)) = self.assignment(words) {
            self.set(name, value);
            return true;
        }
        let words = self.expand(words);
        let Some((name, arguments)) = words.split_first() else { return true };
        match name.as_str() {
            "set" => {
                for argument in arguments {
                    if let Some((name, value)) = argument.split_once('=') {
                        self.set(name.to_owned(), value.to_owned());
                    }
                }
            }
            "unset" => {
                for name in arguments {
                    self.variables.remove(name);
                }
            }
            "[" => return self.test(arguments.strip_suffix(&["]".to_owned()]).unwrap_or(arguments)),
            "test" => return self.test(arguments),
            "true" => {}
            "false" => return false,
            "load_env" => self.load_environment(),
            "blscfg" => {
                if let Some(lines) = &mut sink.lines {
                    let items = (self.bls)(&self.variables);
                    for item in items.into_iter().take(self.left) {
                        self.left -= 1;
                        lines.push(Line {
                            title: String::new(),
                            id: None,
                            submenu: false,
                            body: &[],
                            item: Some(item),
                        });
                    }
                }
            }
            "linux" | "linux16" | "linuxefi" => {
                if let (Some(loads), Some((kernel, rest))) = (sink.loads.as_deref_mut(), arguments.split_first()) {
                    *loads = Some(Loads { kernel: path(kernel), initrds: Vec::new(), cmdline: join(rest) });
                }
            }
            "initrd" | "initrd16" | "initrdefi" => {
                if let Some(Some(loads)) = sink.loads.as_deref_mut() {
                    let paths = arguments.iter().filter(|a| !a.starts_with("newc:")).map(|a| path(a));
                    loads.initrds = paths.collect();
                }
            }
            _ => {}
        }
        true
    }

    fn set(&mut self, name: String, value: String) {
        // A script of bounded length sets a bounded number of names.
        self.variables.insert(name, value);
    }

    /// `name=value` as a command of its own.
    fn assignment(&self, words: &[Word]) -> Option<(String, String)> {
        let [word] = words else { return None };
        let Some(Part::Text(first)) = word.parts.first() else { return None };
        let (name, _) = first.split_once('=')?;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(plain) || name.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let whole = self.expand(words).join(" ");
        let (name, value) = whole.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    }

    /// Fills variables and splits where they stand unquoted.
    fn expand(&self, words: &[Word]) -> Vec<String> {
        let mut out = Vec::with_capacity(words.len());
        for word in words {
            let mut current = word.quoted.then(String::new);
            for part in &word.parts {
                let (text, split) = match part {
                    Part::Text(text) => (text.as_str(), false),
                    Part::Variable { name, quoted } => (self.value(name), !quoted),
                };
                if !split {
                    append(current.get_or_insert_default(), text);
                    continue;
                }
                for (index, piece) in text.split(char::is_whitespace).enumerate() {
                    if index > 0 {
                        out.extend(current.take().filter(|done| !done.is_empty()));
                    }
                    if !piece.is_empty() {
                        append(current.get_or_insert_default(), piece);
                    }
                }
            }
            out.extend(current);
        }
        out
    }

    /// `grubenv`: a signature line, `name=value` lines, then padding (GRUB manual, "The GRUB environment block").
    fn load_environment(&mut self) {
        for line in self.environment.unwrap_or("").lines().take(1000) {
            if let Some((name, value)) = line.split_once('=')
                && !line.starts_with('#')
            {
                self.variables.insert(name.to_owned(), value.chars().take(LONGEST / 4).collect());
            }
        }
    }

    /// The `test` command, without parentheses: `-o` binds weaker than `-a`, `!` stronger.
    fn test(&self, arguments: &[String]) -> bool {
        arguments.split(|a| a == "-o").any(|either| either.split(|a| a == "-a").all(|all| self.one_test(all)))
    }

    fn one_test(&self, arguments: &[String]) -> bool {
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        match words[..] {
            [] => false,
            ["!", ref rest @ ..] => {
                let rest: Vec<String> = rest.iter().map(|s| (*s).to_owned()).collect();
                !self.one_test(&rest)
            }
            [one] => !one.is_empty(),
            ["-n", text] => !text.is_empty(),
            ["-z", text] => text.is_empty(),
            // The environment block is the one file whose presence matters here.
            ["-s" | "-f" | "-e", file] => file.ends_with("/grubenv") && self.environment.is_some(),
            [a, "=" | "==", b] => a == b,
            [a, "!=", b] => a != b,
            [a, "<", b] => a < b,
            [a, ">", b] => a > b,
            [a, operator @ ("-eq" | "-ne" | "-lt" | "-le" | "-gt" | "-ge"), b] => {
                let (a, b) = (a.parse::<i64>().unwrap_or(0), b.parse::<i64>().unwrap_or(0));
                match operator {
                    "-eq" => a == b,
                    "-ne" => a != b,
                    "-lt" => a < b,
                    "-le" => a <= b,
                    "-gt" => a > b,
                    _ => a >= b,
                }
            }
            _ => false,
        }
    }
}

fn append(to: &mut String, text: &str) {
    let room = LONGEST.saturating_sub(to.len());
    let mut end = text.len().min(room);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    to.push_str(&text[..end]);
}

/// Without the device: `($root)/vmlinuz`, `(hd0,gpt2)/vmlinuz`.
fn path(word: &str) -> String {
    match word.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
        Some((_, path)) => path.to_owned(),
        None => word.to_owned(),
    }
}

/// A command line of words; one that holds blanks is quoted for the kernel, as GRUB does.
fn join(words: &[String]) -> String {
    words
        .iter()
        .map(|word| if word.contains(char::is_whitespace) { format!("\"{word}\"") } else { word.clone() })
        .collect::<Vec<_>>()
        .join(" ")
}
