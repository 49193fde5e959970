//! `image2disk`.

use serde_json::{Map, Value, json};
use url::Url;

use super::super::device::Device;
use super::super::hardware::unfilled;
use super::{Made, Outcome, Settings, Step};

const SETTINGS: Settings = &[
    ("RETRY_ENABLED", Outcome::NotNeeded, "what breaks off is always gone on with"),
    ("RETRY_DURATION_MINUTES", Outcome::NotNeeded, "what breaks off is gone on with as long as the step may take"),
    ("PROGRESS_INTERVAL_SECONDS", Outcome::NotNeeded, "progress is told all the time"),
    ("TEXT_LOGGING", Outcome::NotNeeded, "the log is text"),
];

pub(super) fn image2disk(step: &mut Step<'_>) -> Vec<Made> {
    step.no_command();
    let given = step.environment.get("IMG_URL").map(|(_, path)| path.clone());
    let url = step.need("IMG_URL");
    let device = step.device("DEST_DISK");
    let mut with = Map::new();
    if let Some(url) = url {
        let path = given.unwrap_or_default();
        match location(step, &url) {
            Ok((location, None)) => {
                with.insert("url".to_owned(), json!(location));
            }
            Ok((location, Some(said))) => {
                with.insert("url".to_owned(), json!(location));
                step.said.push(super::Said { path, outcome: Outcome::Changed, said });
            }
            Err(said) => step.said.push(super::Said { path, outcome: Outcome::Refused, said }),
        }
    }
    // There, an image is unpacked only where this is set, whatever the file is called.
    if !step.is_true("COMPRESSED") {
        with.insert("compression".to_owned(), json!("none"));
    }
    digest(step, &mut with);
    match device {
        Some(Device::Disk(name)) => {
            with.insert("disk".to_owned(), json!({ "name": name }));
        }
        Some(partition) => {
            with.insert("target".to_owned(), partition.target().unwrap_or_default());
        }
        None => return Vec::new(),
    }
    step.tell_rest(SETTINGS);
    if !with.contains_key("url") {
        return Vec::new();
    }
    vec![Made { action: "image2disk", with: Value::Object(with) }]
}

fn digest(step: &mut Step<'_>, with: &mut Map<String, Value>) {
    let path = step.environment.get("CHECKSUM").map(|(_, path)| path.clone());
    let refused = match step.take("CHECKSUM") {
        Some(text) if is_digest(&text) => {
            with.insert("digest".to_owned(), json!(text));
            return;
        }
        Some(_) => Some("is not sha256: or sha512: and hex digits".to_owned()),
        None => None,
    };
    with.insert("insecureNoDigest".to_owned(), json!(true));
    if let (Some(said), Some(path)) = (refused, path) {
        step.said.push(super::Said { path, outcome: Outcome::Lost, said });
    }
    let said = "whatever comes from this URL is written (`insecureNoDigest: true`): the manifest tells no digest. Set `digest: \
                sha256:...` in the Template";
    step.say("IMG_URL", Outcome::Changed, said);
}

/// `sha256:` and 64 hex digits, `sha512:` and 128.
pub(in crate::tinkerbell) fn is_digest(text: &str) -> bool {
    let hex = |digits: &str, length| digits.len() == length && digits.bytes().all(|c| c.is_ascii_hexdigit());
    match text.split_once(':') {
        Some(("sha256", digits)) => hex(digits, 64),
        Some(("sha512", digits)) => hex(digits, 128),
        _ => false,
    }
}

/// Where the image is, after the options, and what is told of that.
fn location(step: &Step<'_>, url: &str) -> Result<(String, Option<String>), String> {
    if let Some(said) = unfilled(url) {
        return Err(said);
    }
    let (location, changed) = mapped(url, &step.options.urls);
    // A name of a value that is given later may stand in it.
    if location.contains(super::super::go::LATE_BEGINS) {
        return Ok((location, changed));
    }
    check(&location)?;
    Ok((location, changed))
}

/// The URL that is meant by these options.
pub(in crate::tinkerbell) fn mapped(url: &str, urls: &[(String, String)]) -> (String, Option<String>) {
    match urls.iter().find_map(|(from, to)| Some((to, url.strip_prefix(from.as_str())?))) {
        Some((to, rest)) => {
            let location = format!("{to}{rest}");
            let said = format!("is read as `{location}`");
            (location, Some(said))
        }
        None => (url.to_owned(), None),
    }
}

/// Whether an image can be fetched from there.
pub(in crate::tinkerbell) fn check(location: &str) -> Result<(), String> {
    if location.starts_with('/') && !location.starts_with("//") {
        return Ok(());
    }
    match Url::parse(location) {
        Ok(url) if !matches!(url.scheme(), "http" | "https") => Err(format!(
            "`{}:` cannot be fetched; put the image on a web server, or into the server's images",
            url.scheme()
        )),
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            Err("a password does not belong in an URL".to_owned())
        }
        Ok(_) => Ok(()),
        Err(error) => Err(format!("is not an URL: {error}")),
    }
}
