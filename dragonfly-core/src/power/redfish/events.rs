//! The event log (DSP0268, LogService and LogEntry).

use super::control::Controller;
use super::resource::Resource;
use super::sensors::health;
use crate::clock::Timestamp;
use crate::power::{LoggedEvent, PowerError, Result};

const WHAT: &str = "tell its event log";

/// How near a log is to what IPMI calls the system event log: controllers keep others of logins and of themselves.
fn rank(log: &Resource) -> u8 {
    let id = log.text(&["Id"]).unwrap_or_default().to_ascii_lowercase();
    match (log.text(&["LogEntryType"]), &*id) {
        (Some("SEL"), _) | (_, "sel" | "iml") => 0,
        (_, "event" | "eventlog" | "log1" | "systemevent") => 1,
        (Some("Event"), _) => 2,
        _ => 3,
    }
}

fn event(entry: &Resource) -> LoggedEvent {
    let at = entry.text(&["EventTimestamp"]).or_else(|| entry.text(&["Created"]));
    let at = at.and_then(|at| at.parse::<jiff::Timestamp>().ok());
    let sensor = entry.owned(&["SensorType"]).or_else(|| entry.owned(&["OemSensorType"]));
    let message = entry.owned(&["Message"]).or_else(|| entry.owned(&["MessageId"]));
    LoggedEvent {
        id: entry.owned(&["Id"]).unwrap_or_default(),
        at: at.map(|at| Timestamp::from_unix_millis(at.as_millisecond())),
        sensor: sensor.unwrap_or_else(|| entry.owned(&["Name"]).unwrap_or_default()),
        message: message.unwrap_or_default(),
        health: health(entry.text(&["Severity"])),
    }
}

/// The number of an entry, by its path or its id.
fn number(entry: &Resource) -> Option<u64> {
    let of_path = || entry.path()?.trim_end_matches('/').rsplit('/').next()?.parse().ok();
    entry.text(&["Id"]).and_then(|id| id.parse().ok()).or_else(of_path)
}

/// Oldest first, however the service lists them.
fn in_order(mut entries: Vec<Resource>) -> Vec<Resource> {
    let is_numbered = entries.iter().all(|entry| number(entry).is_some());
    let time = |entry: &Resource| event(entry).at.map(Timestamp::unix_millis);
    if entries.iter().all(|entry| time(entry).is_some()) {
        // Those of one second are in the order of their numbers.
        entries.sort_by_key(|entry| (time(entry), number(entry)));
    } else if is_numbered {
        entries.sort_by_key(number);
    }
    entries
}

impl Controller {
    pub(super) async fn read_events(&self, most: usize) -> Result<Vec<LoggedEvent>> {
        let mut logs = vec![];
        for services in &self.found.logs {
            match self.service.members(services, WHAT).await {
                Err(PowerError::Refused { .. }) => {}
                services => logs.extend(services?),
            }
        }
        let log = logs.iter().filter(|log| log.link(&["Entries"]).is_some()).min_by_key(|log| rank(log));
        let Some(entries) = log.and_then(|log| log.link(&["Entries"])) else { return Ok(vec![]) };
        // Entries come whole, unasked (DSP0266, 7.3.3), and a log is long: it is not asked for more at once.
        let entries = in_order(self.service.pages(entries, WHAT).await?);
        let newest = entries.into_iter().rev().take(most);
        let mut events = vec![];
        for entry in newest {
            match entry.path() {
                // It may have been cleared in the meantime.
                Some(path) if entry.is_reference() => {
                    events.extend(self.service.find(path, WHAT).await?.as_ref().map(event));
                }
                _ => events.push(event(&entry)),
            }
        }
        events.reverse();
        Ok(events)
    }
}

/// Everything here, of one resource.
#[cfg(test)]
pub(super) fn read_anything(of: &Resource) {
    let _ = (event(of), rank(of), in_order(vec![of.clone(), of.clone()]));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::power::Health;

    #[test]
    fn an_entry() {
        let seen = event(&Resource(json!({ "Id": "1024", "Created": "2024-06-11T00:13:00-05:00", "Name": "Log Entry",
            "Message": "A fan stopped.", "SensorType": "Fan", "Severity": "Critical" })));
        let wanted = LoggedEvent {
            id: "1024".into(),
            at: Some(Timestamp::from_unix_seconds(1_718_082_780)),
            sensor: "Fan".into(),
            message: "A fan stopped.".into(),
            health: Health::Critical,
        };
        assert_eq!(seen, wanted);
        assert_eq!(event(&Resource(json!({ "Created": "yesterday" }))).at, None);
    }

    #[test]
    fn oldest_first() {
        let ids = |entries: Vec<serde_json::Value>| {
            let entries = in_order(entries.into_iter().map(Resource).collect());
            entries.iter().map(|entry| number(entry).unwrap()).collect::<Vec<_>>()
        };
        let at = |id: &str, second: u32| json!({ "Id": id, "Created": format!("2024-06-11T00:13:0{second}Z") });
        assert_eq!(ids(vec![at("10", 2), at("9", 1), at("8", 1)]), [8, 9, 10]);
        let links = ["/e/10", "/e/9/", "/e/100"].map(|path| json!({ "@odata.id": path }));
        assert_eq!(ids(links.to_vec()), [9, 10, 100]);
    }

    #[test]
    fn the_log_of_the_machine_and_not_that_of_logins() {
        let rank = |id: &str, kind: Option<&str>| rank(&Resource(json!({ "Id": id, "LogEntryType": kind })));
        assert!(rank("Sel", Some("SEL")) < rank("Lclog", None));
        assert!(rank("IML", None) < rank("Event", None) && rank("Event", None) < rank("SL", None));
    }
}
