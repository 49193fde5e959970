//! extlinux, syslinux and U-Boot's distro boot: `extlinux.conf`, `syslinux.cfg`.

use super::{Item, Loads, Menu, What};

#[derive(Debug, Default)]
struct Label {
    name: String,
    title: Option<String>,
    kernel: Option<String>,
    initrds: Vec<String>,
    append: Option<String>,
    default: bool,
}

/// The menu of a configuration at `path`. Keywords are case-insensitive; what is not known is skipped,
/// as syslinux does.
pub(super) fn read(path: &str, text: &str) -> Menu {
    let mut labels: Vec<Label> = Vec::new();
    let mut default = None;
    let mut append_all = None;
    for line in text.lines().take(10_000) {
        let line = line.trim();
        let (key, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let value = value.trim();
        let key = key.to_ascii_lowercase();
        match (key.as_str(), labels.last_mut()) {
            ("default", _) => default = Some(value.to_owned()),
            ("label", _) => labels.push(Label { name: value.to_owned(), ..Label::default() }),
            ("append", None) => append_all = Some(value.to_owned()),
            ("append", Some(label)) => label.append = Some(value.to_owned()),
            ("kernel" | "linux", Some(label)) => label.kernel = Some(value.to_owned()),
            ("initrd", Some(label)) => label.initrds = list(value),
            ("menu", Some(label)) => {
                let (what, text) = value.split_once(char::is_whitespace).unwrap_or((value, ""));
                match what.to_ascii_lowercase().as_str() {
                    // A caret marks the letter that chooses the line.
                    "label" => label.title = Some(text.trim().replace('^', "")),
                    "default" => label.default = true,
                    _ => {}
                }
            }
            _ => {}
        }
    }
    let default = labels
        .iter()
        .find(|label| label.default)
        .map(|label| label.name.clone())
        .or(default)
        .unwrap_or_else(|| "0".to_owned());
    let items = labels.into_iter().map(|label| item(path, label, append_all.as_deref())).collect();
    Menu { items, default }
}

fn item(path: &str, label: Label, append_all: Option<&str>) -> Item {
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let append = match label.append.as_deref().or(append_all) {
        None | Some("-") => "",
        Some(text) => text,
    };
    let mut initrds = label.initrds;
    let mut words = Vec::new();
    for word in append.split_whitespace() {
        match word.strip_prefix("initrd=") {
            Some(paths) => initrds.extend(list(paths)),
            None => words.push(word),
        }
    }
    // `.c32`, `.com` and their like are syslinux's own programs.
    let kernel = label.kernel.filter(|kernel| {
        let name = kernel.to_ascii_lowercase();
        ![".c32", ".com", ".cbt", ".0", ".bin", ".bs", ".bss", ".img"].iter().any(|end| name.ends_with(end))
    });
    let loads = kernel.map(|kernel| Loads {
        kernel: beside(directory, &kernel),
        initrds: initrds.iter().map(|initrd| beside(directory, initrd)).collect(),
        cmdline: words.join(" "),
    });
    Item { title: label.title.unwrap_or_else(|| label.name.clone()), id: Some(label.name), what: What::Entry(loads) }
}

fn list(value: &str) -> Vec<String> {
    value.split(',').map(str::trim).filter(|path| !path.is_empty()).map(str::to_owned).collect()
}

/// Relative paths count from the configuration's directory.
fn beside(directory: &str, path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("{directory}/{path}") }
}
