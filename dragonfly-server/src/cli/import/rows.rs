//! A CSV file of expected machines, read strictly: all of it is right, or nothing is done.

use std::collections::{BTreeMap, HashMap};

use dragonfly_core::near::did_you_mean;
use dragonfly_core::{Mac, name};
use url::Url;

/// One machine that somebody has ordered or racked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expected {
    /// Its line in the file.
    pub(super) line: usize,
    /// Its name in the store.
    pub(super) name: String,
    pub(super) mac: Option<Mac>,
    pub(super) serial: Option<String>,
    pub(super) bmc: Option<Url>,
    /// The Secret with its controller's account.
    pub(super) secret: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
}

const COLUMNS: [&str; 6] = ["name", "mac", "serial", "bmc", "secret", "labels"];

/// Reads a file's text. The errors are every problem with its line.
pub(super) fn read(text: &str) -> Result<Vec<Expected>, Vec<String>> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).comment(Some(b'#')).from_reader(text.as_bytes());
    let head: Vec<String> = match reader.headers() {
        Ok(head) => head.iter().map(|column| column.trim_start_matches('\u{feff}').to_lowercase()).collect(),
        Err(error) => return Err(vec![error.to_string()]),
    };
    let mut problems = Vec::new();
    for (index, column) in head.iter().enumerate() {
        if !COLUMNS.contains(&column.as_str()) {
            let meant = did_you_mean(column, COLUMNS).unwrap_or_else(|| format!("there are: {}", COLUMNS.join(", ")));
            problems.push(format!("line 1: no column is called `{column}`; {meant}"));
        }
        if head[..index].contains(column) {
            problems.push(format!("line 1: the column `{column}` stands here twice"));
        }
    }
    if !head.iter().any(|column| column == "mac" || column == "serial") {
        problems
            .push("line 1: the first line names the columns; a machine is known by `mac`, `serial` or both".to_owned());
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut all: Vec<Expected> = Vec::new();
    let (mut seen, mut lines) = (Seen::default(), Lines::of(text));
    for record in reader.records() {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                problems.push(error.to_string());
                continue;
            }
        };
        let line = record.position().map_or(0, |position| lines.at(position.byte()));
        let field = |wanted: &str| {
            let index = head.iter().position(|column| column == wanted)?;
            record.get(index).filter(|value| !value.is_empty())
        };
        let before = problems.len();
        let row = row(line, &field, &mut problems);
        if let (Some(row), true) = (row, problems.len() == before) {
            seen.twice(&row, &mut problems);
            all.push(row);
        }
    }
    if all.is_empty() && problems.is_empty() {
        problems.push("there is no machine in it".to_owned());
    }
    if problems.is_empty() { Ok(all) } else { Err(problems) }
}

/// On which line each word stands that may stand there once.
#[derive(Debug, Default)]
struct Seen {
    macs: HashMap<Mac, usize>,
    serials: HashMap<String, usize>,
    names: HashMap<String, (usize, Option<Mac>)>,
}

impl Seen {
    fn twice(&mut self, row: &Expected, problems: &mut Vec<String>) {
        let line = row.line;
        let mac = row.mac.and_then(|mac| self.macs.insert(mac, line));
        let serial = row.serial.as_ref().and_then(|serial| self.serials.insert(serial.clone(), line));
        // Of one machine that stands there twice its name is not told as well.
        let name = self.names.insert(row.name.clone(), (line, row.mac));
        let name = name.filter(|(_, mac)| row.mac.is_none() || row.mac != *mac).map(|(line, _)| line);
        for (what, other) in [("mac", mac), ("serial", serial), ("name", name)] {
            problems.extend(other.map(|other| format!("line {line}: this {what} stands on line {other} too")));
        }
    }
}

/// Counts the lines of a text once, from its beginning to its end.
struct Lines<'a> {
    text: &'a str,
    at: usize,
    before: usize,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Self {
        Self { text, at: 0, before: 0 }
    }

    /// The line that a record stands on, of records in their order. Its position is where the one before it ended: blank
    /// lines and comments between them are counted to it.
    fn at(&mut self, byte: u64) -> usize {
        let at = usize::try_from(byte).unwrap_or(usize::MAX).min(self.text.len());
        let passed = self.text.as_bytes().get(self.at..at).unwrap_or_default();
        self.before += passed.iter().filter(|byte| **byte == b'\n').count();
        self.at = self.at.max(at);
        let rest = self.text.get(at..).unwrap_or_default();
        let skipped = rest.lines().take_while(|line| line.trim().is_empty() || line.starts_with('#')).count();
        self.before + skipped + 1
    }
}

fn row<'a>(line: usize, field: &impl Fn(&str) -> Option<&'a str>, problems: &mut Vec<String>) -> Option<Expected> {
    let mut wrong = |problem: String| problems.push(format!("line {line}: {problem}"));
    let mac = match field("mac").map(str::parse::<Mac>) {
        None => None,
        Some(Ok(mac)) => Some(mac),
        Some(Err(error)) => {
            wrong(format!("mac: {error}"));
            return None;
        }
    };
    let serial = field("serial").map(str::to_owned);
    let bmc = match field("bmc").map(Url::parse) {
        None => None,
        Some(Ok(url)) => Some(url),
        Some(Err(_)) => {
            wrong(format!("bmc: `{}` is no address; write ipmi://10.0.0.6", field("bmc").unwrap_or_default()));
            return None;
        }
    };
    let secret = field("secret").map(str::to_owned);
    if secret.is_some() && bmc.is_none() {
        wrong("secret: it opens a controller, and `bmc` is empty".to_owned());
    }
    let mut labels = BTreeMap::new();
    for word in field("labels").unwrap_or_default().split([';', ' ']).filter(|word| !word.is_empty()) {
        match word.split_once('=') {
            Some((key, value)) if !key.is_empty() => drop(labels.insert(key.to_owned(), value.to_owned())),
            _ => wrong(format!("labels: `{word}` is not KEY=VALUE; several are set apart by `;`")),
        }
    }
    let name = match (field("name"), mac, &serial) {
        (Some(name), _, _) => name.to_lowercase(),
        (None, Some(mac), _) => name::memorable(mac).to_lowercase(),
        (None, None, Some(serial)) => of_serial(serial),
        (None, None, None) => {
            wrong("neither mac nor serial: nothing tells this machine from others".to_owned());
            return None;
        }
    };
    Some(Expected { line, name, mac, serial, bmc, secret, labels })
}

/// `sn-` and what of a serial number may stand in a name.
fn of_serial(serial: &str) -> String {
    let word: String = serial.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    format!("sn-{}", word.trim_matches('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_machines() {
        let text = "MAC, serial ,bmc,secret,name,labels
# rack a1
52:54:00:ab:cd:01,SN-1,ipmi://10.0.0.6,rack-a1,,rack=a1; role=db

52-54-00-ab-cd-02,,,,db-2,
,S/N 3,redfish://10.0.0.8?tls=insecure,rack-a1,,\n";
        let all = read(text).unwrap();
        let names: Vec<_> = all.iter().map(|row| (row.line, row.name.as_str())).collect();
        assert_eq!(names, [(3, "censusablequalityparent"), (5, "db-2"), (6, "sn-s-n-3")]);
        assert_eq!(all[0].serial.as_deref(), Some("SN-1"));
        assert_eq!(all[0].labels, BTreeMap::from([("rack".into(), "a1".into()), ("role".into(), "db".into())]));
        assert_eq!((all[1].bmc.as_ref(), all[1].mac), (None, "52:54:00:ab:cd:02".parse().ok()));
        assert_eq!(all[2].bmc.as_ref().unwrap().as_str(), "redfish://10.0.0.8?tls=insecure");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let table = [
            ("", "line 1: the first line names the columns"),
            ("mac\n", "there is no machine in it"),
            ("mac,sreial\n", "line 1: no column is called `sreial`; did you mean `serial`?"),
            ("mac,mac\n", "line 1: the column `mac` stands here twice"),
            ("bmc\nipmi://a\n", "line 1: the first line names the columns; a machine is known by"),
            ("mac\n52:54:00:ab:cd\n", "line 2: mac: "),
            ("mac,bmc\n52:54:00:ab:cd:01,10.0.0.6\n", "line 2: bmc: `10.0.0.6` is no address"),
            ("mac,secret\n52:54:00:ab:cd:01,x\n", "line 2: secret: it opens a controller, and `bmc` is empty"),
            ("mac,serial,name\n,,x\n,S1,\n", ""),
            ("mac\n52:54:00:ab:cd:01\n52:54:00:ab:cd:01\n", "line 3: this mac stands on line 2 too"),
            ("serial\nS1\nS1\n", "line 3: this serial stands on line 2 too"),
            ("name,serial\na,S1\nA,S2\n", "line 3: this name stands on line 2 too"),
            ("mac,labels\n52:54:00:ab:cd:01,rack\n", "line 2: labels: `rack` is not KEY=VALUE"),
            ("mac,serial\n52:54:00:ab:cd:01\n", "found record with 1 fields"),
        ];
        for (text, wanted) in table {
            match read(text) {
                Ok(_) => assert_eq!(wanted, "", "{text:?}"),
                Err(problems) => {
                    assert!(!wanted.is_empty() && problems.join("; ").contains(wanted), "{text:?}: {problems:?}")
                }
            }
        }
        let several = read("mac,bmc\nx,\n52:54:00:ab:cd:01,y\n").unwrap_err();
        assert_eq!(several.len(), 2, "every problem is told: {several:?}");
    }
}
