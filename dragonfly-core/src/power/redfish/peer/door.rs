//! Who is let in, and to what.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;

use super::http::{Ask, Reply};
use super::{Command, State, Task};

/// A machine, and what is done to it.
pub(super) type Effect = Option<(usize, Command)>;

/// How often a task is looked at until it has ended.
const LOOKS: u32 = 2;

impl State {
    pub(super) fn answer(&mut self, ask: &Ask) -> (Reply, Effect) {
        let query = if ask.query.is_empty() { String::new() } else { format!("?{}", ask.query) };
        self.seen.requests.push(format!("{} {}{query}", ask.method, ask.path));
        let path = ask.path.trim_end_matches('/');
        if matches!(path, "/redfish" | "/redfish/v1") && ask.method == "GET" {
            let root = self.resource("/redfish/v1");
            return (root.map_or(Reply::status(404), Reply::ok), None);
        }
        if path == "/redfish/v1/SessionService/Sessions" && ask.method == "POST" {
            return (self.open(ask), None);
        }
        if let Err(reply) = self.let_in(ask) {
            return (reply, None);
        }
        if let Some(id) = path.strip_prefix("/redfish/v1/SessionService/Sessions/") {
            let token = self.tokens.iter().find(|(_, number)| number.to_string() == id).map(|(token, _)| token.clone());
            return match (&*ask.method, token) {
                ("DELETE", Some(token)) => {
                    self.tokens.remove(&token);
                    self.seen.closed += 1;
                    (Reply::status(204), None)
                }
                _ => (missing(path), None),
            };
        }
        if self.is.wants_new_password {
            let words = "The password provided for this account must be changed before access is granted.";
            return (Reply::error(403, "PasswordChangeRequired", words), None);
        }
        if let Some(number) = path.strip_prefix("/redfish/v1/TaskService/TaskMonitors/") {
            return (self.task(number), None);
        }
        if ask.method == "GET" {
            return (self.get(path, &ask.query), None);
        }
        if self.is.reads_only {
            let words = "There are insufficient privileges for the account or credentials.";
            return (Reply::error(403, "InsufficientPrivilege", words), None);
        }
        let (reply, effect) = self.write(path, ask);
        match self.is.has_tasks && reply.status < 300 {
            false => (reply, effect),
            true => {
                self.tasks.push(Task { looks: 0 });
                let monitor = format!("/redfish/v1/TaskService/TaskMonitors/{}", self.tasks.len());
                let effect = effect.filter(|_| self.is.task_fails.is_none());
                (Reply::status(202).with("Location", self.location(&monitor)), effect)
            }
        }
    }

    fn open(&mut self, ask: &Ask) -> Reply {
        if !self.is.has_sessions {
            return missing(&ask.path);
        }
        let text = |name: &str| ask.body[name].as_str().unwrap_or_default();
        if (text("UserName"), text("Password")) != (&*self.is.username, &*self.is.password) {
            self.seen.refused += 1;
            return Reply::error(401, "NoValidSession", "There is no valid session established.");
        }
        if self.tokens.len() >= self.is.sessions {
            return Reply::error(503, "SessionLimitExceeded", "The limit of simultaneous sessions has been reached.");
        }
        self.next += 1;
        self.seen.opened += 1;
        let mut random = [0; 16];
        // Without randomness a test's token is always the same one, and still its number is not.
        let _ = getrandom::fill(&mut random);
        let token = format!("{}{}", hex::encode(random), self.next);
        let path = format!("/redfish/v1/SessionService/Sessions/{}", self.next);
        self.tokens.insert(token.clone(), self.next);
        let body = json!({ "@odata.id": path, "Id": self.next.to_string(), "Name": "Session" });
        let location = self.location(&path);
        Reply { status: 201, body: Some(body), ..Reply::default() }
            .with("X-Auth-Token", token)
            .with("Location", location)
    }

    fn location(&self, path: &str) -> String {
        if self.is.has_own_name { format!("https://bmc.invalid{path}") } else { path.to_owned() }
    }

    fn let_in(&mut self, ask: &Ask) -> Result<(), Reply> {
        let no = || Reply::error(401, "NoValidSession", "There is no valid session established.");
        if let Some(token) = ask.header("x-auth-token") {
            return if self.tokens.contains_key(token) { Ok(()) } else { Err(no()) };
        }
        let Some(value) = ask.header("authorization").and_then(|value| value.strip_prefix("Basic ")) else {
            return Err(no().with("WWW-Authenticate", "Basic realm=\"bmc\""));
        };
        let both = format!("{}:{}", self.is.username, self.is.password);
        match BASE64.encode(both) == value {
            true => Ok(()),
            false => {
                self.seen.refused += 1;
                Err(no())
            }
        }
    }

    fn task(&mut self, number: &str) -> Reply {
        let fails = self.is.task_fails.clone();
        let at = number.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
        let Some(task) = at.and_then(|at| self.tasks.get_mut(at)) else { return missing(number) };
        task.looks += 1;
        let running = json!({ "@odata.type": "#Task.v1_4_0.Task", "Id": number, "TaskState": "Running" });
        match fails {
            _ if task.looks < LOOKS => Reply { status: 202, body: Some(running), ..Reply::default() },
            None => Reply::ok(json!({ "Id": number, "TaskState": "Completed", "TaskStatus": "OK" })),
            Some(message) => Reply::ok(json!({ "Id": number, "TaskState": "Exception", "TaskStatus": "Critical",
                "Messages": [{ "MessageId": "Base.1.8.InternalError", "Message": message }] })),
        }
    }
}

pub(super) fn missing(path: &str) -> Reply {
    Reply::error(404, "ResourceMissingAtURI", &format!("The resource at the URI {path} was not found."))
}
