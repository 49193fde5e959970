//! What a simulated service says of everything.

use serde_json::{Value, json};

use super::door::missing;
use super::http::Reply;
use super::{Machine, State, Tags};
use crate::power::Health;

const ROOT: &str = "/redfish/v1";

fn link(path: String) -> Value {
    json!({ "@odata.id": path })
}

impl State {
    pub(super) fn get(&self, path: &str, query: &str) -> Reply {
        let Some(mut resource) = self.resource(path) else { return missing(path) };
        if let Some(members) = resource.get("Members").and_then(Value::as_array).cloned() {
            resource = self.page(path, &resource, members, query);
        }
        let reply = Reply::ok(resource);
        match self.tag(path) {
            Some(tag) => reply.with("ETag", tag),
            None => reply,
        }
    }

    /// The tag of what can be changed.
    pub(super) fn tag(&self, path: &str) -> Option<String> {
        let machine = self.machine(path)?;
        match self.is.tags {
            Tags::None => None,
            Tags::Strong => Some(format!("\"{}\"", machine.version)),
            Tags::Weak | Tags::WeakAlways => Some(format!("W/\"{}\"", machine.version)),
        }
    }

    fn machine(&self, path: &str) -> Option<&Machine> {
        self.machines.get(self.number(path)?)
    }

    /// The machine that a path is of: `/redfish/v1/Systems/blade2` is of the second.
    pub(super) fn number(&self, path: &str) -> Option<usize> {
        let id = path.split('/').find_map(|word| word.strip_prefix("blade"))?;
        id.parse::<usize>().ok()?.checked_sub(1).filter(|number| *number < self.machines.len())
    }

    fn page(&self, path: &str, collection: &Value, members: Vec<Value>, query: &str) -> Value {
        let option = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name));
        let from = option("$skip=").and_then(|from| from.parse().ok()).unwrap_or(0).min(members.len());
        let to = from.saturating_add(self.is.page).min(members.len());
        let whole = |member: &Value| self.resource(member["@odata.id"].as_str()?);
        let is_whole = self.is.expands && query.contains("expand");
        let mut page = collection.clone();
        page["Members@odata.count"] = members.len().into();
        page["Members"] = members[from..to]
            .iter()
            .map(|member| if is_whole { whole(member).unwrap_or_default() } else { member.clone() })
            .collect();
        if to < members.len() {
            let expand = if is_whole { "&$expand=." } else { "" };
            page["Members@odata.nextLink"] = format!("{path}?$skip={to}{expand}").into();
        }
        page
    }

    /// A resource, or a collection of references.
    pub(super) fn resource(&self, path: &str) -> Option<Value> {
        let words: Vec<&str> = path.strip_prefix(ROOT)?.split('/').filter(|word| !word.is_empty()).collect();
        let of_machine = |found: Option<Value>| self.machine(path).and(found);
        let blades = |of: &str| {
            (1..=self.machines.len()).map(|number| link(format!("{ROOT}/{of}/blade{number}"))).collect::<Vec<_>>()
        };
        let few = |ids: &[&str]| ids.iter().map(|id| link(format!("{path}/{id}"))).collect::<Vec<_>>();
        let (mut found, members) = match words[..] {
            [] => (Some(self.root()), None),
            ["SessionService"] if self.is.has_sessions => {
                (Some(json!({ "Name": "Sessions", "Sessions": link(format!("{ROOT}/SessionService/Sessions")) })), None)
            }
            [of @ ("Systems" | "Managers" | "Chassis")] => (None, Some(blades(of))),
            ["Systems", id] => (of_machine(self.system(path, id)), None),
            ["Systems", _, "SD"] if self.is.has_future_state => (of_machine(self.future(path)), None),
            ["Systems", _, "ResetActionInfo"] => (Some(self.action_info()), None),
            ["Systems", _, "Bios" | "BiosSettings"] => (of_machine(self.bios(path)), None),
            ["Systems", _, "Processors"] => (None, Some(few(&["CPU1"]))),
            ["Systems", _, "Memory"] => (None, Some(few(&["DIMM1", "DIMM2"]))),
            ["Systems", _, "Storage"] => (None, Some(few(&["1"]))),
            ["Systems", _, "EthernetInterfaces"] => (None, Some(few(&["NIC1"]))),
            ["Systems", _, "LogServices"] => (None, Some(few(&["Access", "SEL"]))),
            ["Systems", _, "LogServices", id] => {
                (Some(json!({ "Id": id, "Entries": link(format!("{path}/Entries")) })), None)
            }
            ["Systems", _, "LogServices", "Access", "Entries"] => (None, Some(vec![])),
            ["Systems", _, "LogServices", "SEL", "Entries"] => {
                let ids: Vec<&str> = self.is.events.iter().rev().map(|event| &*event.id).collect();
                (None, Some(few(&ids)))
            }
            ["Systems", _, "LogServices", "SEL", "Entries", id] => (self.entry(id), None),
            ["Systems", _, ref part @ ..] => (part_of(path, part), None),
            ["Managers", id] => (of_machine(Some(self.manager(path, id))), None),
            ["Managers", _, "VirtualMedia"] => (None, Some(few(&["1", "2"]))),
            ["Managers", _, "VirtualMedia", id] => (self.drive(path, id), None),
            ["Chassis", _] => (of_machine(Some(self.chassis(path))), None),
            ["Chassis", _, "Sensors"] if self.is.has_sensors => (None, Some(few(&["Temp1", "Fan1", "Fan2"]))),
            ["Chassis", _, ref part @ ..] => (sensor(part), None),
            ["UpdateService"] => {
                (Some(json!({ "FirmwareInventory": link(format!("{ROOT}/UpdateService/FirmwareInventory")) })), None)
            }
            ["UpdateService", "FirmwareInventory"] => (None, Some(few(&["BIOS", "BMC"]))),
            ["UpdateService", "FirmwareInventory", id @ ("BIOS" | "BMC")] => {
                (Some(json!({ "Id": id, "Version": "1.2.3", "Updateable": id == "BIOS" })), None)
            }
            _ => (None, None),
        };
        if let Some(members) = members {
            found = Some(json!({ "Members": members, "Members@odata.count": members.len() }));
        }
        let mut found = found?;
        found["@odata.id"] = if words.is_empty() { format!("{ROOT}/").into() } else { path.into() };
        for (name, value) in [("Id", words.last()), ("Name", words.last())] {
            if found.get(name).is_none() {
                found[name] = (*value.unwrap_or(&"Root")).into();
            }
        }
        Some(found)
    }

    fn root(&self) -> Value {
        let of = |name: &str| link(format!("{ROOT}/{name}"));
        let mut root = json!({
            "@odata.type": "#ServiceRoot.v1_9_0.ServiceRoot", "RedfishVersion": "1.11.0", "Vendor": self.is.vendor,
            "UUID": "92384634-2938-2342-8820-489239905423",
            "Systems": of("Systems"), "Managers": of("Managers"), "Chassis": of("Chassis"),
            "UpdateService": of("UpdateService"),
            "ProtocolFeaturesSupported": { "ExpandQuery": { "NoLinks": self.is.expands } },
        });
        if self.is.has_sessions {
            root["SessionService"] = of("SessionService");
            root["Links"] = json!({ "Sessions": of("SessionService/Sessions") });
        }
        root
    }

    fn system(&self, path: &str, id: &str) -> Option<Value> {
        let machine = self.machine(path)?;
        let of = |name: &str| link(format!("{path}/{name}"));
        let mut reset = json!({ "target": format!("{path}/Actions/ComputerSystem.Reset") });
        match self.is.has_action_info {
            true => reset["@Redfish.ActionInfo"] = format!("{path}/ResetActionInfo").into(),
            false => reset["ResetType@Redfish.AllowableValues"] = json!(self.is.allowed),
        }
        let mut system = json!({
            "@odata.type": "#ComputerSystem.v1_13_0.ComputerSystem", "SystemType": "Physical",
            "Manufacturer": self.is.vendor, "Model": self.is.model, "SerialNumber": "SN0001",
            "UUID": "38947555-7742-3448-3784-823347823834", "BiosVersion": "P79 v1.45",
            "Status": { "State": "Enabled", "Health": "OK" },
            "PowerState": if machine.is_on { "On" } else { "Off" },
            "Boot": self.boot(machine),
            "LocationIndicatorActive": machine.is_lit,
            "ProcessorSummary": { "Count": 1, "Model": "Acme C1" },
            "MemorySummary": { "TotalSystemMemoryGiB": 16 },
            "Actions": { "#ComputerSystem.Reset": reset },
            "Links": { "Chassis": [link(format!("{ROOT}/Chassis/{id}"))],
                       "ManagedBy": [link(format!("{ROOT}/Managers/{id}"))] },
        });
        for name in ["Bios", "Processors", "Memory", "Storage", "EthernetInterfaces", "LogServices"] {
            system[name] = of(name);
        }
        if !self.is.has_links {
            system["Links"] = json!({});
        }
        if self.is.has_future_state {
            // What is to be stands in its own resource.
            system["Boot"] = json!({ "BootSourceOverrideEnabled": "Disabled", "BootSourceOverrideTarget": "None" });
            system["@Redfish.Settings"] = json!({ "SettingsObject": of("SD") });
        }
        Some(system)
    }

    fn boot(&self, machine: &Machine) -> Value {
        let mut boot = json!({
            "BootSourceOverrideEnabled": machine.boot.enabled,
            "BootSourceOverrideTarget": machine.boot.target,
            "BootSourceOverrideTarget@Redfish.AllowableValues": ["None", "Pxe", "Hdd", "Cd", "BiosSetup", "UefiHttp"],
            "HttpBootUri": machine.boot.uri,
        });
        if self.is.has_boot_mode {
            boot["BootSourceOverrideMode"] = machine.boot.mode.clone().into();
        }
        boot
    }

    fn future(&self, path: &str) -> Option<Value> {
        Some(json!({ "Boot": self.boot(self.machine(path)?) }))
    }

    fn bios(&self, path: &str) -> Option<Value> {
        let mode = &self.machine(path)?.tls_mode;
        let settings = format!("{}Settings", path.trim_end_matches("Settings"));
        Some(json!({ "Attributes": { "HttpDev1TlsMode": mode },
                     "@Redfish.Settings": { "SettingsObject": link(settings) } }))
    }

    fn action_info(&self) -> Value {
        json!({ "Parameters": [{ "Name": "ResetType", "Required": true, "AllowableValues": self.is.allowed }] })
    }

    fn entry(&self, id: &str) -> Option<Value> {
        let event = self.is.events.iter().find(|event| event.id == id)?;
        let severity = match event.health {
            Health::Critical => "Critical",
            Health::Warning => "Warning",
            Health::Ok | Health::Unknown => "OK",
        };
        let created = event.at.and_then(|at| jiff::Timestamp::from_second(at.unix_seconds()).ok());
        Some(json!({ "EntryType": "SEL", "SensorType": event.sensor, "Message": event.message, "Severity": severity,
            "Created": created.map(|at| at.to_string()) }))
    }

    fn manager(&self, path: &str, id: &str) -> Value {
        json!({
            "@odata.type": "#Manager.v1_10_0.Manager", "ManagerType": "BMC", "Model": "B1", "FirmwareVersion": "1.2.3",
            "Status": { "State": "Enabled", "Health": "OK" },
            "VirtualMedia": link(format!("{path}/VirtualMedia")),
            "Actions": { "#Manager.Reset": { "target": format!("{path}/Actions/Manager.Reset") } },
            "Links": { "ManagerForServers": [link(format!("{ROOT}/Systems/{id}"))] },
        })
    }

    fn drive(&self, path: &str, id: &str) -> Option<Value> {
        let machine = self.machine(path)?;
        let (kinds, image) = match id {
            "1" => (json!(["Floppy", "USBStick"]), None),
            "2" => (json!(["CD", "DVD"]), machine.media.clone()),
            _ => return None,
        };
        let action = |name: &str| json!({ "target": format!("{path}/Actions/VirtualMedia.{name}") });
        Some(json!({ "MediaTypes": kinds, "Image": image, "Inserted": image.is_some(), "ConnectedVia": "URI",
            "Actions": { "#VirtualMedia.InsertMedia": action("InsertMedia"),
                         "#VirtualMedia.EjectMedia": action("EjectMedia") } }))
    }

    fn chassis(&self, path: &str) -> Value {
        let of = |name: &str| link(format!("{path}/{name}"));
        let mut chassis = json!({ "ChassisType": "RackMount", "Thermal": of("Thermal"), "Power": of("Power") });
        if self.is.has_sensors {
            chassis["Sensors"] = of("Sensors");
        }
        chassis
    }
}

/// A part of a system.
fn part_of(path: &str, part: &[&str]) -> Option<Value> {
    let enabled = json!({ "State": "Enabled", "Health": "OK" });
    match part {
        ["Processors", "CPU1"] => Some(json!({ "ProcessorType": "CPU", "Model": "Acme C1", "TotalCores": 8,
            "TotalThreads": 16, "InstructionSet": "x86-64", "Status": enabled })),
        ["Memory", "DIMM1"] => Some(json!({ "DeviceLocator": "DIMM 1", "CapacityMiB": 16384, "Status": enabled })),
        ["Memory", "DIMM2"] => Some(json!({ "DeviceLocator": "DIMM 2", "Status": { "State": "Absent" } })),
        ["Storage", "1"] => Some(json!({ "Drives": [link(format!("{path}/Drives/Disk1"))] })),
        ["Storage", "1", "Drives", "Disk1"] => Some(json!({ "Model": "Acme D1", "CapacityBytes": 1_000_204_886_016u64,
            "BlockSizeBytes": 512, "Protocol": "SATA", "MediaType": "HDD", "SerialNumber": "D0001" })),
        ["EthernetInterfaces", "NIC1"] => Some(json!({ "MACAddress": "52:54:00:12:34:56", "LinkStatus": "LinkUp",
            "SpeedMbps": 10000, "Status": enabled })),
        _ => None,
    }
}

/// The same three values in either shape.
fn sensor(part: &[&str]) -> Option<Value> {
    let status = |health: &str| json!({ "State": "Enabled", "Health": health });
    let absent = json!({ "State": "Absent" });
    match part {
        ["Sensors", "Temp1"] => Some(json!({ "Name": "CPU1 Temp", "ReadingType": "Temperature", "ReadingUnits": "Cel",
            "Reading": 42, "Status": status("OK") })),
        ["Sensors", "Fan1"] => Some(json!({ "Name": "FAN1", "ReadingType": "Rotational", "ReadingUnits": "RPM",
            "Reading": 0, "Status": status("Critical") })),
        ["Sensors", "Fan2"] => Some(json!({ "Name": "FAN2", "ReadingType": "Rotational", "ReadingUnits": "RPM",
            "Reading": 0, "Status": absent })),
        ["Thermal"] => Some(json!({
            "Temperatures": [{ "Name": "CPU1 Temp", "ReadingCelsius": 42, "Status": status("OK") }],
            "Fans": [{ "Name": "FAN1", "Reading": 0, "ReadingUnits": "RPM", "Status": status("Critical") },
                     { "Name": "FAN2", "Reading": 0, "ReadingUnits": "RPM", "Status": absent }] })),
        ["Power"] => Some(json!({ "PowerControl": [] })),
        _ => None,
    }
}
