//! What a chassis measures: its sensors (DSP0268, Sensor), or in older services its Thermal and Power.

use super::control::Controller;
use super::resource::Resource;
use crate::power::{Health, Result, Sensor};

const WHAT: &str = "tell its sensors";

/// What a service thinks of a thing.
pub(super) fn health(word: Option<&str>) -> Health {
    match word {
        Some("OK") => Health::Ok,
        Some("Warning") => Health::Warning,
        Some("Critical") => Health::Critical,
        _ => Health::Unknown,
    }
}

/// Units as in UCUM, in words.
fn unit(code: &str) -> String {
    match code {
        "Cel" => "degrees C",
        "RPM" | "{rev}/min" => "RPM",
        "V" => "Volts",
        "A" => "Amps",
        "W" => "Watts",
        "Percent" => "%",
        other => other,
    }
    .to_owned()
}

fn measured(of: &Resource, kind: &str, value: Option<f64>, unit: String) -> Sensor {
    let state = of.text(&["Status", "State"]);
    let is_there = !matches!(state, Some("Absent" | "Disabled" | "UnavailableOffline"));
    let name = of.owned(&["Name"]).or_else(|| of.owned(&["FanName"])).or_else(|| of.owned(&["MemberId"]));
    Sensor {
        name: name.unwrap_or_else(|| of.name()),
        kind: kind.to_owned(),
        value: value.filter(|_| is_there),
        unit,
        health: if is_there { health(of.text(&["Status", "Health"])) } else { Health::Unknown },
    }
}

/// One of a collection of sensors.
fn sensor(of: &Resource) -> Sensor {
    let unit = unit(of.text(&["ReadingUnits"]).unwrap_or_default());
    let kind = match (of.text(&["ReadingType"]), &*unit) {
        (Some("Rotational"), _) | (None, "RPM") => "Fan",
        (Some(kind), _) => kind,
        (None, "degrees C") => "Temperature",
        (None, "Volts") => "Voltage",
        (None, _) => "Other",
    };
    measured(of, kind, of.number(&["Reading"]), unit)
}

fn thermal(of: &Resource) -> Vec<Sensor> {
    let mut all = vec![];
    for part in of.parts(&["Temperatures"]) {
        all.push(measured(&part, "Temperature", part.number(&["ReadingCelsius"]), unit("Cel")));
    }
    for part in of.parts(&["Fans"]) {
        let unit = unit(part.text(&["ReadingUnits"]).unwrap_or("RPM"));
        all.push(measured(&part, "Fan", part.number(&["Reading"]).or_else(|| part.number(&["ReadingRPM"])), unit));
    }
    all
}

fn power(of: &Resource) -> Vec<Sensor> {
    let mut all = vec![];
    for part in of.parts(&["Voltages"]) {
        all.push(measured(&part, "Voltage", part.number(&["ReadingVolts"]), unit("V")));
    }
    for part in of.parts(&["PowerControl"]) {
        all.push(measured(&part, "Power", part.number(&["PowerConsumedWatts"]), unit("W")));
    }
    for part in of.parts(&["PowerSupplies"]) {
        let value = ["PowerOutputWatts", "LastPowerOutputWatts", "PowerInputWatts"];
        let value = value.iter().find_map(|name| part.number(&[name]));
        all.push(measured(&part, "Power Supply", value, unit("W")));
    }
    all
}

impl Controller {
    pub(super) async fn read_sensors(&self) -> Result<Vec<Sensor>> {
        let mut all = vec![];
        for path in &self.found.chassis {
            let chassis = self.service.read(path, WHAT).await?.resource;
            let mut of_this = vec![];
            if let Some(sensors) = chassis.link(&["Sensors"]) {
                match self.service.members(sensors, WHAT).await {
                    Err(crate::power::PowerError::Refused { .. }) => {}
                    members => of_this.extend(members?.iter().map(sensor)),
                }
            }
            if of_this.is_empty() {
                for (name, parse) in [("Thermal", thermal as fn(&Resource) -> Vec<Sensor>), ("Power", power)] {
                    if let Some(path) = chassis.link(&[name]) {
                        of_this.extend(self.service.find(path, WHAT).await?.iter().flat_map(parse));
                    }
                }
            }
            all.append(&mut of_this);
        }
        Ok(all)
    }
}

/// Everything here, of one resource.
#[cfg(test)]
pub(super) fn read_anything(of: &Resource) {
    let _ = (sensor(of), thermal(of), power(of));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn short(sensor: &Sensor) -> (&str, &str, Option<f64>, &str, Health) {
        (&sensor.name, &sensor.kind, sensor.value, &sensor.unit, sensor.health)
    }

    #[test]
    fn sensors_of_either_kind() {
        let one = sensor(&Resource(json!({ "Name": "CPU1 Temp", "ReadingType": "Temperature", "Reading": 37,
            "ReadingUnits": "Cel", "Status": { "Health": "OK", "State": "Enabled" } })));
        assert_eq!(short(&one), ("CPU1 Temp", "Temperature", Some(37.0), "degrees C", Health::Ok));
        let absent = sensor(&Resource(json!({ "Name": "Fan 2", "ReadingType": "Rotational", "Reading": 0,
            "ReadingUnits": "{rev}/min", "Status": { "Health": "OK", "State": "Absent" } })));
        assert_eq!(short(&absent), ("Fan 2", "Fan", None, "RPM", Health::Unknown));
        let all = thermal(&Resource(json!({
            "Temperatures": [{ "Name": "Inlet", "ReadingCelsius": null, "Status": { "Health": "Warning" } }],
            "Fans": [{ "FanName": "Fan 1", "Reading": 51, "ReadingUnits": "Percent" }] })));
        assert_eq!(short(&all[0]), ("Inlet", "Temperature", None, "degrees C", Health::Warning));
        assert_eq!(short(&all[1]), ("Fan 1", "Fan", Some(51.0), "%", Health::Unknown));
        let all = power(&Resource(json!({ "PowerControl": [{ "MemberId": "0", "PowerConsumedWatts": 531 }] })));
        assert_eq!(short(&all[0]), ("0", "Power", Some(531.0), "Watts", Health::Unknown));
    }
}
